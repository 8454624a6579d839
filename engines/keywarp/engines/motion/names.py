"""The names of motion sources: where the flow comes from, what becomes of it, and whether features are scaled.

"Any flow function is readily applicable" (paper, section 3), and so is any flow with or without the network's scale
field: moving features and repainting them are separate parts, which can be compared separately.
"""

from dataclasses import dataclass
from typing import Literal, get_args

FlowName = Literal["none", "flow", "dis", "codec"]
MotionName = Literal[
    "network",
    "network-repaired",
    "network-chained",
    "network-chained-repaired",
    "none",
    "none-repaired",
    "none+scale",
    "flow",
    "flow-repaired",
    "flow-chained",
    "flow-chained-repaired",
    "dis",
    "dis-repaired",
    "dis-chained",
    "dis-chained-repaired",
    "dis+scale",
    "dis-repaired+scale",
    "dis-chained+scale",
    "dis-chained-repaired+scale",
    "codec",
    "codec-repaired",
    "codec+scale",
    "codec-repaired+scale",
]
CHAINED, REPAIRED, SCALE = "-chained", "-repaired", "+scale"


@dataclass(frozen=True, slots=True)
class MotionSource:
    """A motion source that the engine knows by name.

    Example:
        >>> MotionSource.parse("dis-chained+scale")
        MotionSource(flow='dis', chained=True, repaired=False, scale=True)
    """

    flow: FlowName  # none: features stay where they are; flow: the bundle's flow network
    chained: bool = False  # whether the flow is composed frame by frame; codec vectors always are
    # Whether the flow is repaired where the images show that it fails. With a scale field, it only yields to copying.
    repaired: bool = False
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
        flow: FlowName = long.partition("+")[0].partition("-")[0]  # type: ignore[assignment]  # MotionName has no other
        return cls(flow, chained=CHAINED in long, repaired=REPAIRED in long, scale=SCALE in long)

    def __str__(self) -> str:
        suffixes = (CHAINED if self.chained else "") + (REPAIRED if self.repaired else "")
        if self.flow == "flow" and self.scale:
            return f"network{suffixes}"
        return f"{self.flow}{suffixes}{SCALE if self.scale else ''}"

    @property
    def runs_alone(self) -> bool:
        """Whether the flow network's flow is needed on the host, and so comes from a graph of its own."""
        return self.flow == "flow" and (self.chained or self.repaired)

    @property
    def needs_network(self) -> bool:
        """Whether the bundle's flow network is needed, for its flow or for its scale field."""
        return self.flow == "flow" or self.scale

    @property
    def copies(self) -> bool:
        """Whether the key frame's result is repeated as it is."""
        return self == MotionSource("none")
