"""The camera, which moves over the background photograph and carries everything in front of it along."""

import cmath
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from keywarp.datasets.moving_scenes.options import SceneOptions
from keywarp.datasets.moving_scenes.waves import Wave, draw_log_uniform, draw_wave

Matrix = npt.NDArray[np.float64]  # (3, 3), affine
COVER = 1.5  # lowest ratio of the background photograph's size to the image's


@dataclass(frozen=True)
class Camera:
    """A camera that pans, turns and zooms over a plane."""

    image_centre: tuple[float, float]  # x, y in pixels
    centre: tuple[float, float]  # the point at the image's centre without the pan, x, y in the photograph's pixels
    pan: tuple[Wave, Wave]  # shift of that point, x, y in the photograph's pixels
    angle: float  # radians
    turn: Wave  # change of the angle, radians
    zoom: float  # pixels of the photograph per pixel of the image
    zooming: Wave  # change of the zoom's logarithm

    def matrix(self, time: float) -> Matrix:
        """Return the transformation from image pixels to photograph pixels at a time in frames."""
        scale = self._scale(time)
        shift = self._target(time) - scale * complex(*self.image_centre)
        return np.array([[scale.real, -scale.imag, shift.real], [scale.imag, scale.real, shift.imag], [0, 0, 1]])

    def project(self, x: float, y: float, time: float) -> tuple[float, float]:
        """Return where a resting point is seen at a time, given its position in the image at time 0, in pixels."""
        image_centre = complex(*self.image_centre)
        point = self._target(0) + self._scale(0) * (complex(x, y) - image_centre)
        seen = image_centre + (point - self._target(time)) / self._scale(time)
        return seen.real, seen.imag

    def magnification(self, time: float) -> float:
        """Return how much larger things look than at time 0, as a factor."""
        return abs(self._scale(0) / self._scale(time))

    def rotation(self, time: float) -> float:
        """Return how far things look turned since time 0, in radians."""
        return cmath.phase(self._scale(0) / self._scale(time))

    def _scale(self, time: float) -> complex:
        """Return the rotation and scaling from image pixels to photograph pixels, as a complex factor on x + iy."""
        return cmath.rect(self.zoom * math.exp(self.zooming.at(time)), self.angle + self.turn.at(time))

    def _target(self, time: float) -> complex:
        """Return the point of the photograph at the image's centre, as x + iy."""
        return complex(*(start + wave.at(time) for start, wave in zip(self.centre, self.pan, strict=True)))


def draw_camera(options: SceneOptions, random: np.random.Generator, height: int, width: int) -> Camera:
    """Draw a camera for a photograph of a given size in pixels."""
    is_moving = random.random() >= options.camera_still
    direction, speed = random.uniform(0, 2 * math.pi), random.uniform(*options.camera_speed) * is_moving
    # this keeps the pan within the photograph's margin around the image at time 0
    reach = 0.6 * (COVER - 1) * options.height
    rate = max(2 * math.pi / random.uniform(60, 160), speed / reach)
    pan = [Wave(speed / rate * f(direction), rate, random.uniform(0, 2 * math.pi)) for f in (math.cos, math.sin)]
    return Camera(
        image_centre=((options.width - 1) / 2, (options.height - 1) / 2),
        centre=(width * random.uniform(0.4, 0.6), height * random.uniform(0.4, 0.6)),
        pan=(pan[0], pan[1]),
        angle=random.normal(0, 0.06),
        turn=draw_wave(random, options.camera_turn * is_moving, (60, 160)),
        zoom=draw_log_uniform(random, 0.7, 1.15),
        zooming=draw_wave(random, options.camera_zoom * is_moving, (60, 160)),
    )
