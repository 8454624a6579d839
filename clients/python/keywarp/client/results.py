"""What comes back for a frame."""

import time
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from keywarp.client.images import decode_labels
from keywarp.protocol import Kind, Result


@dataclass(frozen=True, eq=False)
class FrameResult:
    """The server's result on one frame, beside what the client knows of it."""

    result: Result  # as it came over the wire
    image: NDArray[np.uint8] | None = None  # the frame, RGB (H, W, 3); None where it was never decoded here
    latency: float | None = None  # seconds from handing the frame over to its result; None where unknown
    received: float = field(default_factory=time.monotonic)  # when the result came; monotonic seconds

    @property
    def frame(self) -> int:
        """Position in the stream, from 0."""
        return self.result.frame

    @property
    def kind(self) -> Kind:
        """`key` or `propagated`."""
        return self.result.kind

    @property
    def key_age(self) -> int:
        """Frames since the key frame; 0 on a key frame."""
        return self.result.key_age

    @cached_property
    def labels(self) -> NDArray[np.uint8]:
        """Class ids, uint8 (h, w), at the model's resolution.

        Raises:
            ValueError: The model's task isn't segmentation.
            ProtocolError: The server's label map can't be decoded.
        """
        if self.result.segmentation is None:
            raise ValueError("this result has no segmentation")
        return decode_labels(self.result.segmentation)
