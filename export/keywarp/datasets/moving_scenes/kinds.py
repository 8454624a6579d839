"""The classes of Moving Scenes: an outline and a pattern each. Some share the one, some the other."""

from dataclasses import dataclass

from keywarp.datasets.moving_scenes.patterns import Pattern
from keywarp.datasets.moving_scenes.silhouettes import Silhouette


@dataclass(frozen=True)
class Kind:
    """What is typical of a class."""

    name: str
    color: tuple[int, int, int]  # RGB: of its labels, and what its objects are more or less painted with
    silhouette: Silhouette
    pattern: Pattern


KINDS = (
    Kind("ball", (230, 60, 60), "disc", "dots"),
    Kind("drum", (240, 150, 40), "disc", "stripes"),
    Kind("crate", (240, 220, 60), "square", "stripes"),
    Kind("tile", (90, 190, 70), "square", "checks"),
    Kind("sail", (60, 190, 200), "triangle", "plain"),
    Kind("star", (60, 110, 230), "star", "dots"),
    Kind("ring", (150, 80, 210), "ring", "checks"),
    Kind("arrow", (230, 90, 180), "arrow", "plain"),
)  # class 1 and on
CLUTTER = Kind("background", (0, 0, 0), "piece", "plain")  # class 0 in front of the background

CLASSES: tuple[tuple[str, tuple[int, int, int]], ...] = tuple((kind.name, kind.color) for kind in (CLUTTER, *KINDS))
