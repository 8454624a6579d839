"""The classes of Moving Scenes. Each has an outline and a pattern; some classes share one or the other."""

from dataclasses import dataclass

from keywarp.datasets.classes import Classes, Color
from keywarp.datasets.moving_scenes.outlines import Outline
from keywarp.datasets.moving_scenes.patterns import Pattern


@dataclass(frozen=True)
class ObjectClass:
    """The typical appearance of a class."""

    name: str
    color: Color  # RGB, 0..255: the colour of its labels and, approximately, of its objects' paint
    outline: Outline
    pattern: Pattern


OBJECT_CLASSES = (  # class ids 1 to 8
    ObjectClass("ball", (230, 60, 60), "disc", "dots"),
    ObjectClass("drum", (240, 150, 40), "disc", "stripes"),
    ObjectClass("crate", (240, 220, 60), "square", "stripes"),
    ObjectClass("tile", (90, 190, 70), "square", "checks"),
    ObjectClass("sail", (60, 190, 200), "triangle", "plain"),
    ObjectClass("star", (60, 110, 230), "star", "dots"),
    ObjectClass("ring", (150, 80, 210), "ring", "checks"),
    ObjectClass("arrow", (230, 90, 180), "arrow", "plain"),
)
CLUTTER = ObjectClass("background", (0, 0, 0), "piece", "plain")  # objects of class id 0

CLASSES: Classes = tuple((class_.name, class_.color) for class_ in (CLUTTER, *OBJECT_CLASSES))
