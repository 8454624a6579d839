"""What propagation saves, and whether that is worth it."""

from dataclasses import dataclass

INTERVALS = (5, 10)  # the key intervals that savings are stated for
WORTHWHILE = 2.0  # the least speed-up at the longer one; below it, what propagation loses outweighs what it saves
HEAVY_HEAD = 0.25  # share of the network's work in the head from which the cut is to blame
HEAVY_WARP = 0.5  # share of a propagated frame in moving the maps from which their size is
# What else propagated frames do, in operations of the network that take as long on two cores of an AMD EPYC
OPERATIONS_PER_PIXEL = 4_000  # of the image: following the motion
OPERATIONS_PER_BYTE = 250  # of the maps: moving them


class SavingWarning(UserWarning):
    """Propagation isn't worth it with a network, or where it is cut."""


@dataclass(frozen=True)
class FrameCosts:
    """The costs of the two kinds of frames, in one unit: seconds, or operations."""

    key: float
    propagated: float
    warp: float = 0.0  # the part of a propagated frame that moves the maps

    def speed_up(self, interval: int) -> float:
        """Return how many times cheaper frames are on average than without propagation (Eq. 7 of the paper).

        Args:
            interval: The key interval, in frames.
        """
        return interval * self.key / (self.key + (interval - 1) * self.propagated)


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
    warp = OPERATIONS_PER_BYTE * map_bytes
    return FrameCosts(operations, head_operations + warp + OPERATIONS_PER_PIXEL * pixels, warp)


def doubt(costs: FrameCosts, head_share: float) -> str | None:
    """Say why propagation isn't worth it, in a sentence, or return None if it is.

    Args:
        costs: The costs of frames.
        head_share: The part of the network's work that is left to every frame, 0 to 1.
    """
    nearer, farther = (costs.speed_up(interval) for interval in INTERVALS)
    if farther >= WORTHWHILE:
        return None
    ratio = costs.propagated / costs.key
    if head_share >= HEAVY_HEAD:
        reason = f"this cut leaves {head_share:.0%} of the network's work to every frame"
    elif costs.warp >= HEAVY_WARP * costs.propagated:
        reason = "this cut's maps are so large that moving them costs much"
    else:
        reason = "the network is so light that following the motion costs much in comparison"
    return (
        f"propagation pays little here: {reason}. A propagated frame costs {ratio:.0%} of a key frame, which makes "
        f"frames {nearer:.1f} times cheaper at interval {INTERVALS[0]}, and {farther:.1f} times at {INTERVALS[1]}"
    )
