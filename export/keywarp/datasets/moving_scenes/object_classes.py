"""The classes of Moving Scenes: an outline and a pattern each. Some share the one, some the other."""

from dataclasses import dataclass

from keywarp.datasets.moving_scenes.outlines import Outline
from keywarp.datasets.moving_scenes.patterns import Pattern


@dataclass(frozen=True)
class ObjectClass:
    """What is typical of a class."""

    name: str
    color: tuple[int, int, int]  # RGB: of its labels, and what its objects are more or less painted with
    outline: Outline
    pattern: Pattern


OBJECT_CLASSES = (
    ObjectClass("ball", (230, 60, 60), "disc", "dots"),
    ObjectClass("drum", (240, 150, 40), "disc", "stripes"),
    ObjectClass("crate", (240, 220, 60), "square", "stripes"),
    ObjectClass("tile", (90, 190, 70), "square", "checks"),
    ObjectClass("sail", (60, 190, 200), "triangle", "plain"),
    ObjectClass("star", (60, 110, 230), "star", "dots"),
    ObjectClass("ring", (150, 80, 210), "ring", "checks"),
    ObjectClass("arrow", (230, 90, 180), "arrow", "plain"),
)  # class 1 and on
CLUTTER = ObjectClass("background", (0, 0, 0), "piece", "plain")  # class 0 in front of the background

CLASSES: tuple[tuple[str, tuple[int, int, int]], ...] = tuple(
    (kind.name, kind.color) for kind in (CLUTTER, *OBJECT_CLASSES)
)
