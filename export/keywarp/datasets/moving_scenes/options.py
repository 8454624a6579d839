"""The distribution that the appearance and motion of Moving Scenes are drawn from."""

from dataclasses import dataclass

from keywarp.datasets.errors import DataError
from keywarp.datasets.samples import MAX_GAP

Range = tuple[float, float]  # lowest, highest


@dataclass(frozen=True)
class SceneOptions:
    """The distribution that scenes are drawn from. Time is in frames."""

    height: int = 192  # height of the images in pixels
    width: int = 256  # width of the images in pixels

    objects: tuple[int, int] = (2, 6)  # number of objects in a scene
    clutter: tuple[int, int] = (0, 2)  # number of clutter objects, which have no class (labelled 0, no box)
    diameter: Range = (36, 110)  # diameter of an object in pixels, uniform in the logarithm
    contrast: Range = (0.3, 0.8)  # contrast of a class's pattern over the photograph; 1 is from black to white
    paint: Range = (0.2, 0.5)  # opacity of an object's paint, whose colour resembles its class's
    doubt: float = 0.6  # maximum fraction of a random colour in an object's paint

    still: float = 0.12  # fraction of objects that don't travel relative to the background
    speed: Range = (0.6, 4.0)  # speed of the others in pixels per frame, uniform in the logarithm
    acceleration: float = 0.06  # standard deviation per axis in pixels per frame^2
    turn: float = 0.03  # standard deviation in radians per frame
    growth: float = 0.2  # maximum amplitude of the logarithm of an object's size
    bend: float = 0.16  # maximum amplitude of the non-rigid deformation, in radii of the object

    camera_still: float = 0.25  # fraction of scenes with a fixed camera
    camera_speed: Range = (0.2, 2.0)  # speed of the other cameras' pan in pixels per frame
    camera_turn: float = 0.06  # maximum amplitude in radians
    camera_zoom: float = 0.12  # maximum amplitude of the logarithm of the focal length

    shadow: float = 0.5  # fraction of scenes over which a soft shadow passes
    motion_blur: float = 0.15  # fraction of scenes whose shutter is open for half a frame or longer
    defocus: float = 0.15  # fraction of scenes that are out of focus
    noise: Range = (1.0, 6.0)  # standard deviation of the sensor's noise in grey levels

    min_visible: float = 0.25  # fraction of an object's area that must be visible for it to have a box
    min_area: int = 64  # number of an object's pixels that must be visible for it to have a box

    flow_gap: int = MAX_GAP  # maximum gap of a pair with flow in frames
    shot: tuple[int, int] = (24, 72)  # length of a clip's shots in frames

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
