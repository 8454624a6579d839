"""Where the camera looks: on the background photograph, and with it on all that is before it."""

import cmath
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from keywarp.datasets.moving_scenes.options import SceneOptions
from keywarp.datasets.moving_scenes.waves import Wave, draw_log_uniform, draw_wave

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
        lens = self._lens(time)
        shift = self._target(time) - lens * complex(*self.image_centre)
        return np.array([[lens.real, -lens.imag, shift.real], [lens.imag, lens.real, shift.imag], [0, 0, 1]])

    def project(self, x: float, y: float, time: float) -> tuple[float, float]:
        """Where what is at a place at time 0, and rests, is seen at another time, in pixels."""
        middle = complex(*self.image_centre)
        place = self._target(0) + self._lens(0) * (complex(x, y) - middle)
        seen = middle + (place - self._target(time)) / self._lens(time)
        return seen.real, seen.imag

    def magnification(self, time: float) -> float:
        """How much larger things are seen than at time 0."""
        return abs(self._lens(0) / self._lens(time))

    def rotation(self, time: float) -> float:
        """How far things are seen turned since time 0, in radians."""
        return cmath.phase(self._lens(0) / self._lens(time))

    def _lens(self, time: float) -> complex:
        """What turns and scales pixels to the photograph's, x + iy."""
        return cmath.rect(self.zoom * math.exp(self.zooming.at(time)), self.angle + self.turn.at(time))

    def _target(self, time: float) -> complex:
        """The point of the photograph before the camera, x + iy."""
        return complex(*(middle + wave.at(time) for middle, wave in zip(self.centre, self.pan, strict=True)))


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
        zoom=draw_log_uniform(random, 0.7, 1.15),
        zooming=draw_wave(random, options.camera_zoom * moves, (60, 160)),
    )
