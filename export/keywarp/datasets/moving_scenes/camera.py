"""Where the camera looks on the background photograph."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from keywarp.datasets.moving_scenes.options import SceneOptions
from keywarp.datasets.moving_scenes.waves import Wave, draw_logarithmic, draw_wave

Matrix = npt.NDArray[np.float64]  # (3, 3), affine
COVER = 1.5  # how many times an image's size the background photograph is


@dataclass(frozen=True)
class Camera:
    """Pans, turns and zooms over a plane."""

    image_centre: tuple[float, float]  # x, y in pixels
    centre: tuple[float, float]  # the point of the photograph before it, without the pan, in the photograph's pixels
    pan: tuple[Wave, Wave]  # x, y in the photograph's pixels
    angle: float  # radians
    turn: Wave
    zoom: float  # the photograph's pixels per pixel
    zooming: Wave  # of its logarithm

    def matrix(self, time: float) -> Matrix:
        """From pixels at a time (frames) to pixels of the photograph."""
        angle, zoom = self.angle + self.turn.at(time), self.zoom * math.exp(self.zooming.at(time))
        cos, sin = zoom * math.cos(angle), zoom * math.sin(angle)
        x, y = self.image_centre
        to_x, to_y = (middle + wave.at(time) for middle, wave in zip(self.centre, self.pan, strict=True))
        return np.array([[cos, -sin, to_x - cos * x + sin * y], [sin, cos, to_y - sin * x - cos * y], [0, 0, 1]])


def draw_camera(options: SceneOptions, random: np.random.Generator, height: int, width: int) -> Camera:
    """A camera before a photograph of that size, in pixels."""
    moves = random.random() >= options.camera_still
    direction, speed = random.uniform(0, 2 * math.pi), random.uniform(*options.camera_speed) * moves
    # the pan stays within the part of the photograph that the image doesn't cover at first
    reach = 0.6 * (COVER - 1) * options.height
    rate = max(2 * math.pi / random.uniform(60, 160), speed / reach)
    pan = [Wave(speed / rate * f(direction), rate, random.uniform(0, 2 * math.pi)) for f in (math.cos, math.sin)]
    return Camera(
        image_centre=((options.width - 1) / 2, (options.height - 1) / 2),
        centre=(width * random.uniform(0.4, 0.6), height * random.uniform(0.4, 0.6)),
        pan=(pan[0], pan[1]),
        angle=random.normal(0, 0.06),
        turn=draw_wave(random, options.camera_turn * moves, (60, 160)),
        zoom=draw_logarithmic(random, 0.7, 1.15),
        zooming=draw_wave(random, options.camera_zoom * moves, (60, 160)),
    )
