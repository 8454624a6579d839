"""The variants that the paper compares (Table 3). They differ in the parts trained jointly and in the motion source."""

from dataclasses import dataclass
from typing import Literal

from keywarp.choices import PaperMotion, Variant
from keywarp.datasets.samples import MAX_GAP


@dataclass(frozen=True)
class Method:
    """How a variant is trained and evaluated.

    Every variant starts from the same pre-trained networks, or from the trained recognition network of "frame".
    """

    title: str  # name in Table 4
    from_frame: bool = False  # whether it starts from the trained recognition network of "frame"
    trains_recognition: bool = False
    trains_flow: bool = False
    trains_scale: bool = False  # if False, the scale field stays 1
    motion: PaperMotion | Literal["every-frame"] = "network"  # motion source in evaluation

    @property
    def trains(self) -> bool:
        """Whether any part is trained jointly."""
        return self.trains_recognition or self.trains_flow

    @property
    def max_gap(self) -> int:
        """The largest number of frames between key frame and current frame in training."""
        return 0 if self.motion == "every-frame" else MAX_GAP


METHODS: dict[Variant, Method] = {
    "frame": Method("Frame", trains_recognition=True, motion="every-frame"),
    "sff_slow": Method("SFF-slow", from_frame=True, motion="sift-slow"),
    "sff_fast": Method("SFF-fast", from_frame=True, motion="sift-fast"),
    "dff": Method("DFF", trains_recognition=True, trains_flow=True, trains_scale=True),
    "fix_n": Method("DFF fix N", from_frame=True, trains_flow=True, trains_scale=True),
    "fix_f": Method("DFF fix F", trains_recognition=True),
    "separate": Method("DFF separate", from_frame=True),
    "no_scale": Method("DFF without scale field", trains_recognition=True, trains_flow=True),
    "from_frame": Method(
        "DFF from Frame", from_frame=True, trains_recognition=True, trains_flow=True, trains_scale=True
    ),
    "copy": Method("Feature copy", from_frame=True, motion="none"),
}
