"""How Moving Scenes look and move."""

from dataclasses import dataclass

from keywarp.datasets.errors import DataError

Range = tuple[float, float]  # lowest, highest


@dataclass(frozen=True)
class SceneOptions:
    """The distribution that scenes are drawn from. Time is counted in frames."""

    height: int = 192  # of an image, pixels
    width: int = 256

    objects: tuple[int, int] = (2, 6)  # how many in a scene
    clutter: tuple[int, int] = (0, 2)  # how many further pieces that are of no class (labelled 0, without a box)
    diameter: Range = (36, 110)  # of an object, pixels, uniform in the logarithm
    contrast: Range = (0.3, 0.8)  # of a class's pattern over the object's photograph; 1: from black to white
    paint: Range = (0.2, 0.5)  # how much an object is painted over, in a colour near its class's
    doubt: float = 0.6  # highest share of any other colour in that

    still: float = 0.12  # share of the objects that don't travel of themselves
    speed: Range = (0.6, 4.0)  # of the others, pixels per frame besides the camera's, uniform in the logarithm
    acceleration: float = 0.06  # pixels per frame^2, standard deviation per axis
    turn: float = 0.03  # radians per frame, standard deviation
    growth: float = 0.2  # highest amplitude of the logarithm of an object's size
    bend: float = 0.16  # highest amplitude of the non-rigid deformation, in radii of the object

    camera_still: float = 0.25  # share of the scenes whose camera stands still
    camera_speed: Range = (0.2, 2.0)  # of the others' pan, pixels per frame
    camera_turn: float = 0.06  # radians, highest amplitude
    camera_zoom: float = 0.12  # highest amplitude of the logarithm of the focal length

    shadow: float = 0.5  # share of the scenes with a soft shadow passing
    motion_blur: float = 0.15  # share of the scenes with a shutter open for half to all of the frame time
    defocus: float = 0.15  # share of the scenes that are out of focus
    noise: Range = (1.0, 6.0)  # of the sensor, grey levels, standard deviation

    min_visible: float = 0.25  # an object has a box if at least this share of its area is visible ...
    min_area: int = 64  # ... and at least so many pixels

    flow_gap: int = 9  # highest gap of a pair for flow, frames
    shot: tuple[int, int] = (24, 72)  # length of a clip's shots, frames

    def __post_init__(self) -> None:
        for name in ("objects", "clutter", "diameter", "contrast", "paint", "speed", "camera_speed", "noise", "shot"):
            low, high = getattr(self, name)
            if not 0 <= low <= high:
                raise DataError(f"{name} must be a range that starts at 0 or above, not {low} to {high}")
        for name in ("height", "width", "flow_gap"):
            if getattr(self, name) < 1:
                raise DataError(f"{name} must be at least 1, not {getattr(self, name)}")
        for name in ("diameter", "speed", "camera_speed", "shot"):
            if getattr(self, name)[0] <= 0:
                raise DataError(f"{name} must start above 0, not at {getattr(self, name)[0]}")
        if self.objects[1] + self.clutter[1] > 254:
            raise DataError(f"a scene can have 254 objects and pieces, not {self.objects[1]} and {self.clutter[1]}")
