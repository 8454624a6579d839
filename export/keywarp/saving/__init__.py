"""What propagation saves, and whether that is worth it."""

from dataclasses import dataclass

INTERVALS = (5, 10)  # the key intervals that savings are stated for
WORTHWHILE = 2.0  # the least speed-up at the longer one; below it, what propagation loses outweighs what it saves
# What else propagated frames do, in operations of the network that take as long on two cores of an AMD EPYC
OPERATIONS_PER_PIXEL = 4_000  # of the image: following the motion
OPERATIONS_PER_BYTE = 250  # of the maps: moving them
WARP_OPERATIONS = 8  # per value: 4 products and 3 sums of the interpolation, 1 product with the scale field


class SavingWarning(UserWarning):
    """Propagation isn't worth it with a network, or where it is cut."""


@dataclass(frozen=True)
class FrameCosts:
    """The costs of the two kinds of frames, in one unit: seconds, or operations."""

    key: float
    propagated: float
    head: float  # the part of a propagated frame that the head takes
    warp: float  # the part that moving the maps takes

    @property
    def motion(self) -> float:
        """The part of a propagated frame that follows the motion."""
        return max(self.propagated - self.head - self.warp, 0.0)

    def speed_up(self, interval: int) -> float:
        """Return how many times cheaper frames are on average than without propagation (Eq. 7 of the paper).

        Args:
            interval: The key interval, in frames.
        """
        return interval * self.key / (self.key + (interval - 1) * self.propagated)


def predicted_speed_up(ratio: float, interval: int) -> float:
    """Return how many times cheaper frames are on average than without propagation (Eq. 7 of the paper).

    Args:
        ratio: The cost of a propagated frame as a share of a key frame's, r of Eq. 5 or 6.
        interval: The key interval, in frames.
    """
    return interval / (1 + (interval - 1) * ratio)


def estimate(operations: int, head_operations: int, map_bytes: int, pixels: int) -> FrameCosts:
    """Estimate the costs of frames from counts.

    Args:
        operations: The operations of the whole network.
        head_operations: Those of the head.
        map_bytes: The bytes of the maps that are moved, as 32-bit floats.
        pixels: The pixels of the network's image.

    Returns:
        The costs in operations.
    """
    warp, motion = OPERATIONS_PER_BYTE * map_bytes, OPERATIONS_PER_PIXEL * pixels
    return FrameCosts(operations, head_operations + warp + motion, head_operations, warp)


def doubt(costs: FrameCosts) -> str | None:
    """Say why propagation isn't worth it, in a sentence, or return None if it is.

    Args:
        costs: The costs of frames.
    """
    nearer, farther = (costs.speed_up(interval) for interval in INTERVALS)
    if farther >= WORTHWHILE:
        return None
    if costs.head >= max(costs.warp, costs.motion):
        reason = f"what this cut leaves to every frame costs {costs.head / costs.key:.0%} of a key frame"
    elif costs.warp >= costs.motion:
        reason = "this cut's maps are so large that moving them costs much"
    else:
        reason = "the network is so light that following the motion costs much in comparison"
    return (
        f"propagation pays little here: {reason}. A propagated frame costs {costs.propagated / costs.key:.0%} of a key "
        f"frame, which makes frames {nearer:.1f} times cheaper at interval {INTERVALS[0]}, and {farther:.1f} times at "
        f"{INTERVALS[1]}"
    )
