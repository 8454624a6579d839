"""The distribution of Moving Scenes' looks and motion."""

from dataclasses import dataclass

from keywarp.datasets.errors import DataError
from keywarp.datasets.samples import MAX_GAP

Range = tuple[float, float]  # lowest, highest


@dataclass(frozen=True)
class SceneOptions:
    """The distribution that scenes are drawn from. Time is in frames."""

    height: int = 192  # the images', pixels
    width: int = 256  # the images', pixels

    objects: tuple[int, int] = (2, 6)  # number of objects in a scene
    clutter: tuple[int, int] = (0, 2)  # number of further pieces without a class (labelled 0, without a box)
    diameter: Range = (36, 110)  # an object's, pixels, uniform in the logarithm
    contrast: Range = (0.3, 0.8)  # a class's pattern over the object's photograph; 1 is from black to white
    paint: Range = (0.2, 0.5)  # opacity of an object's paint, which has a colour close to its class's
    doubt: float = 0.6  # maximum fraction of a random colour in the paint

    still: float = 0.12  # fraction of objects without translation of their own
    speed: Range = (0.6, 4.0)  # the others', pixels per frame without the camera's, uniform in the logarithm
    acceleration: float = 0.06  # pixels per frame^2, standard deviation per axis
    turn: float = 0.03  # radians per frame, standard deviation
    growth: float = 0.2  # maximum amplitude of the logarithm of an object's size
    bend: float = 0.16  # maximum amplitude of the non-rigid deformation, in radii of the object

    camera_still: float = 0.25  # fraction of scenes with a fixed camera
    camera_speed: Range = (0.2, 2.0)  # speed of the others' pan, pixels per frame
    camera_turn: float = 0.06  # radians, maximum amplitude
    camera_zoom: float = 0.12  # maximum amplitude of the logarithm of the focal length

    shadow: float = 0.5  # fraction of scenes with a soft shadow that passes
    motion_blur: float = 0.15  # fraction of scenes whose shutter is open for half to all of the frame time
    defocus: float = 0.15  # fraction of scenes that are out of focus
    noise: Range = (1.0, 6.0)  # the sensor's, grey levels, standard deviation

    min_visible: float = 0.25  # fraction of an object's area that must be visible for it to have a box
    min_area: int = 64  # pixels of an object that must be visible for it to have a box

    flow_gap: int = MAX_GAP  # maximum gap of a pair with flow, frames
    shot: tuple[int, int] = (24, 72)  # length of a clip's shots, frames

    def __post_init__(self) -> None:
        for name in ("objects", "clutter", "diameter", "contrast", "paint", "speed", "camera_speed", "noise", "shot"):
            low, high = getattr(self, name)
            if not 0 <= low <= high:
                raise DataError(f"{name} must be a range (low, high) with 0 <= low <= high, not {low} to {high}")
        for name in ("height", "width", "flow_gap"):
            if getattr(self, name) < 1:
                raise DataError(f"{name} must be at least 1, not {getattr(self, name)}")
        for name in ("diameter", "speed", "camera_speed", "shot"):
            if getattr(self, name)[0] <= 0:
                raise DataError(f"{name} must start above 0, not at {getattr(self, name)[0]}")
        if self.objects[1] + self.clutter[1] > 254:
            raise DataError(
                f"objects and clutter must be at most 254 together, not {self.objects[1]} and {self.clutter[1]}"
            )
