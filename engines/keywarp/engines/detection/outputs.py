"""Check the outputs of a head's graph."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from keywarp.engines.errors import BundleError


class Typed(Protocol):
    """An array, or what is known of one."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The array's shape."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of its values."""
        ...


def check_outputs(outputs: Mapping[str, Typed], shapes: Mapping[str, Sequence[int | str]]) -> None:
    """Check that outputs are float32 and have the expected shapes.

    Args:
        outputs: The outputs by name.
        shapes: The expected shapes by name. A dimension given as a word may have any size, which must be the same
            wherever the word appears.

    Raises:
        BundleError: If an output is missing, isn't float32 or has another shape.
    """
    sizes: dict[str, int] = {}  # sizes of the dimensions given as words
    for name, shape in shapes.items():
        expected = f"float32 ({', '.join(map(str, shape))})"
        if name not in outputs:
            raise BundleError(
                f"head.onnx should give {name}, {expected}, but it gives {', '.join(outputs) or 'nothing'}"
            )
        found = outputs[name]
        fits = len(found.shape) == len(shape) and all(
            got == (sizes.setdefault(want, got) if isinstance(want, str) else want)
            for want, got in zip(shape, found.shape, strict=True)
        )
        if not fits or found.dtype != np.float32:
            raise BundleError(f"head.onnx should give {name}, {expected}, but it is {found.dtype} {found.shape}")
