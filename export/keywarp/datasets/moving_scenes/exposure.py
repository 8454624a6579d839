"""The exposure of images: lighting, motion blur, defocus and the sensor's noise."""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from keywarp.datasets.moving_scenes.options import SceneOptions
from keywarp.datasets.moving_scenes.waves import Wave, draw_wave
from keywarp.datasets.types import Image

Field = npt.NDArray[np.float32]

_CELL = 8  # spacing in pixels of the grid on which light is computed before interpolation
_TICKS = 64  # ticks per frame; times within the same tick have the same noise
_SPARE = 1 << 16  # number of positions at which an image's noise can start in the shared random numbers


@dataclass(frozen=True)
class Shadow:
    """A soft edge between light and shade that moves over the image."""

    depth: float  # 0..1, the fraction of light that the shade takes away
    direction: float  # radians
    start: float  # position of the edge's middle at time 0, in image heights from the image's centre
    speed: float  # image heights per frame
    softness: float  # width of the edge, image heights

    def at(self, rows: Field, columns: Field, time: float) -> Field:
        """Return the factor on the light at positions in image heights from the centre."""
        along = math.cos(self.direction) * columns[None] + math.sin(self.direction) * rows[:, None]
        edge = self.start + self.speed * time
        shade = 0.5 + 0.5 * np.tanh((along - np.float32(edge)) / np.float32(self.softness))
        return 1 - np.float32(self.depth) * shade  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Exposure:
    """The lighting and the camera's exposure of a scene. Brightness and colours vary slightly from frame to frame."""

    level: float  # brightness factor on all channels
    gain: Wave  # change of the level's logarithm
    colors: tuple[float, float, float]  # factors on R, G, B
    tints: tuple[Wave, Wave, Wave]  # changes of these factors' logarithms
    shadow: Shadow | None
    shutter: float  # time for which the shutter is open, in frames; 0 for no motion blur
    defocus: float  # standard deviation of the blur in pixels; 0 for none
    noise: float  # standard deviation of the noise in grey levels
    seed: int  # seed of the noise

    def apply(self, image: Image, render: Callable[[float], Image], time: float) -> Image:
        """Expose the image of a scene at a time.

        Args:
            image: The scene at that time in even light, (H, W, 3).
            render: A function that returns such an image for another time, since the shutter is open for a while.
            time: The time in frames.

        Returns:
            The exposed image, (H, W, 3).
        """
        if self.shutter:
            opening, closing = render(time - self.shutter / 2), render(time + self.shutter / 2)
            sides = cv2.addWeighted(opening, 0.5, closing, 0.5, 0)
            image = np.asarray(cv2.addWeighted(image, 1 / 3, sides, 2 / 3, 0), np.uint8)
        if self.defocus:
            image = np.asarray(cv2.GaussianBlur(image, (0, 0), self.defocus), np.uint8)
        height, width = image.shape[:2]
        lit = cv2.multiply(image, self._light(height, width, time), dtype=cv2.CV_32F)
        numbers = _noise(height * width * 3)
        start = np.random.default_rng((self.seed, round(time * _TICKS) % 2**32)).integers(_SPARE)
        grain = numbers[start : start + image.size].reshape(image.shape)
        return np.asarray(cv2.addWeighted(lit, 1, grain, self.noise, 0, dtype=cv2.CV_8U), np.uint8)

    def _light(self, height: int, width: int, time: float) -> Field:
        """Return the factor on the light, (H, W, 3)."""
        level = self.level * math.exp(self.gain.at(time))
        factors = [level * color * math.exp(w.at(time)) for color, w in zip(self.colors, self.tints, strict=True)]
        ends = ((n / height / 2, n // _CELL + 2) for n in (height, width))
        rows, columns = (np.linspace(-end, end, count, dtype=np.float32) for end, count in ends)
        shade = self.shadow.at(rows, columns, time) if self.shadow else np.ones((len(rows), len(columns)), np.float32)
        return np.asarray(cv2.resize(shade[..., None] * np.array(factors, np.float32), (width, height)), np.float32)


def draw_exposure(options: SceneOptions, random: np.random.Generator) -> Exposure:
    """Draw an exposure."""
    shadow = Shadow(
        depth=random.uniform(0.2, 0.55),
        direction=random.uniform(0, 2 * math.pi),
        start=random.uniform(-0.5, 0.5),
        speed=random.uniform(-0.03, 0.03),
        softness=random.uniform(0.08, 0.4),
    )
    colors, tints = random.uniform(0.92, 1.08, 3), [draw_wave(random, 0.05, (30, 120)) for _ in range(3)]
    return Exposure(
        level=random.uniform(0.75, 1.15),
        gain=draw_wave(random, 0.15, (20, 90)),
        colors=(float(colors[0]), float(colors[1]), float(colors[2])),
        tints=(tints[0], tints[1], tints[2]),
        shadow=shadow if random.random() < options.shadow else None,
        shutter=random.uniform(0.5, 1) * (random.random() < options.motion_blur),
        defocus=random.uniform(0.5, 1.3) * (random.random() < options.defocus),
        noise=random.uniform(*options.noise),
        seed=int(random.integers(2**32)),
    )


@functools.cache
def _noise(count: int) -> Field:
    """Return random numbers of a normal distribution. An image's noise starts at one of the first `_SPARE`."""
    return np.random.default_rng(0).standard_normal(count + _SPARE, np.float32)
