"""What is trained jointly and what isn't: the methods that the paper compares (Table 3)."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

Source = Literal["network", "none", "sift-fast", "sift-slow", "every-frame"]


class Variant(StrEnum):
    """Their names; see `METHODS`."""

    FRAME = "frame"
    SFF_SLOW = "sff_slow"
    SFF_FAST = "sff_fast"
    DFF = "dff"
    FIX_N = "fix_n"
    FIX_F = "fix_f"
    SEPARATE = "separate"
    NO_SCALE = "no_scale"
    FROM_FRAME = "from_frame"
    COPY = "copy"


@dataclass(frozen=True)
class Method:
    """How a variant comes about.

    All start from the same pre-trained networks, or from the trained recognition network of `Variant.FRAME`.
    """

    title: str  # as in Table 4
    from_frame: bool = False  # starts from the recognition network that was trained on single frames
    trains_recognition: bool = False
    trains_flow: bool = False
    trains_scale: bool = False  # else the scale field stays 1
    motion: Source = "network"  # where the features' motion comes from when it's evaluated

    @property
    def trains(self) -> bool:
        """Whether there is anything to train."""
        return self.trains_recognition or self.trains_flow

    @property
    def max_gap(self) -> int:
        """Frames between key and current frame in training, at most."""
        from keywarp.datasets.samples import MAX_GAP  # needs torch, which `keywarp --help` doesn't

        return 0 if self.motion == "every-frame" else MAX_GAP


METHODS = {
    Variant.FRAME: Method("Frame", trains_recognition=True, motion="every-frame"),
    Variant.SFF_SLOW: Method("SFF-slow", from_frame=True, motion="sift-slow"),
    Variant.SFF_FAST: Method("SFF-fast", from_frame=True, motion="sift-fast"),
    Variant.DFF: Method("DFF", trains_recognition=True, trains_flow=True, trains_scale=True),
    Variant.FIX_N: Method("DFF fix N", from_frame=True, trains_flow=True, trains_scale=True),
    Variant.FIX_F: Method("DFF fix F", trains_recognition=True),
    Variant.SEPARATE: Method("DFF separate", from_frame=True),
    Variant.NO_SCALE: Method("DFF without scale field", trains_recognition=True, trains_flow=True),
    Variant.FROM_FRAME: Method(
        "DFF from Frame", from_frame=True, trains_recognition=True, trains_flow=True, trains_scale=True
    ),
    Variant.COPY: Method("Feature copy", from_frame=True, motion="none"),
}
