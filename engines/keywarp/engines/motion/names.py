"""The names of motion sources: where the flow comes from, whether it is chained, and whether features are scaled.

"Any flow function is readily applicable" (paper, section 3), and so is any flow with or without the network's scale
field: moving features and repainting them are separate parts, which can be compared separately.
"""

from dataclasses import dataclass
from typing import Literal, get_args

FlowName = Literal["none", "flow", "dis", "codec"]
MotionName = Literal[
    "network",
    "network-chained",
    "none",
    "none+scale",
    "flow",
    "flow-chained",
    "dis",
    "dis+scale",
    "dis-chained",
    "dis-chained+scale",
    "codec",
    "codec+scale",
]
CHAINED, SCALE = "-chained", "+scale"


@dataclass(frozen=True, slots=True)
class MotionSource:
    """A motion source that the engine knows by name.

    Example:
        >>> MotionSource.parse("dis-chained+scale")
        MotionSource(flow='dis', chained=True, scale=True)
    """

    flow: FlowName  # none: features stay where they are; flow: the bundle's flow network
    chained: bool = False  # whether the flow is composed frame by frame; codec vectors always are
    scale: bool = False  # whether warped features are multiplied by the bundle's scale field

    @classmethod
    def parse(cls, name: str) -> "MotionSource":
        """Return the motion source of a name. `network` is short for `flow+scale`.

        Raises:
            ValueError: If there is no motion source of this name.
        """
        if name not in get_args(MotionName):
            raise ValueError(f"there is no motion source {name!r}: use one of {', '.join(get_args(MotionName))}")
        long = f"flow{name.removeprefix('network')}{SCALE}" if name.startswith("network") else name
        base = long.removesuffix(SCALE)
        flow: FlowName = base.removesuffix(CHAINED)  # type: ignore[assignment]  # MotionName has no other
        return cls(flow, chained=base.endswith(CHAINED), scale=long.endswith(SCALE))

    def __str__(self) -> str:
        chained = CHAINED if self.chained else ""
        if self.flow == "flow" and self.scale:
            return f"network{chained}"
        return f"{self.flow}{chained}{SCALE if self.scale else ''}"

    @property
    def needs_network(self) -> bool:
        """Whether the bundle's flow network runs, for its flow or its scale field."""
        return self.flow == "flow" or self.scale

    @property
    def copies(self) -> bool:
        """Whether the key frame's result is repeated as it is."""
        return self.flow == "none" and not self.scale
