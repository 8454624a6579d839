"""Moving objects: pieces cut out of photographs, with their position and deformation at any time.

A point of an object's surface is (u, v), in radii of the object; the outline is inside the unit circle. The mapping
from the surface to the image bends one axis, then the other, scales, rotates and translates. Its inverse has a closed
form, because a bend shifts one coordinate by a function of the other one, and subtracting the same shift undoes it. Two
bends make a smooth, non-rigid deformation that preserves areas.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from keywarp.datasets.moving_scenes.camera import Camera
from keywarp.datasets.moving_scenes.object_classes import CLUTTER, OBJECT_CLASSES, ObjectClass
from keywarp.datasets.moving_scenes.options import SceneOptions
from keywarp.datasets.moving_scenes.outlines import Coverage, draw_outline, rasterise
from keywarp.datasets.moving_scenes.patterns import MIDDLE, draw_pattern
from keywarp.datasets.moving_scenes.waves import Wave, draw_log_uniform, draw_wave
from keywarp.datasets.types import Image

Array = npt.NDArray[np.floating]  # coordinates, of any shape
Extent = tuple[slice, slice]  # rows, columns

MARGIN = 1.1  # half of a sprite's side in radii
EDGE = 128  # lowest coverage at which a pixel belongs to the object
_MIRRORED = 0.5  # fraction of sprites whose photograph is mirrored


@dataclass(frozen=True)
class Bend:
    """A travelling wave that shifts one coordinate as a function of the other one."""

    amplitude: float  # radii
    number: float  # wave number, radians per radius
    rate: float  # radians per frame
    phase: float

    def at(self, position: Array, time: float) -> Array:
        """Return the shift in radii at positions in radii."""
        angle = self.number * position + (self.rate * time + self.phase)
        return np.sin(angle) * self.amplitude  # type: ignore[no-any-return]


@dataclass(frozen=True)
class SceneObject:
    """A moving object. Its own motion is added to the camera's."""

    camera: Camera
    category: int  # class id; 0 for clutter
    sprite: Image  # (n, n, 4): RGB and coverage
    radius: float  # pixels, without growth and the camera's magnification
    position: tuple[float, float]  # x, y in pixels at time 0
    velocity: tuple[float, float]  # pixels per frame, at time 0
    acceleration: tuple[float, float]  # pixels per frame^2
    angle: float  # radians at time 0
    turn: float  # radians per frame
    growth: Wave  # change of the size's logarithm
    bends: tuple[Bend, Bend]  # in `to_surface`, shifts u by a function of v, then v by a function of the shifted u

    def scale(self, time: float) -> float:
        """Return the radius at a time, in pixels."""
        return self.radius * math.exp(self.growth.at(time)) * self.camera.magnification(time)

    def centre(self, time: float) -> tuple[float, float]:
        """Return the centre (x, y) at a time, in pixels."""
        x, y = (
            start + time * (speed + time * acceleration / 2)
            for start, speed, acceleration in zip(self.position, self.velocity, self.acceleration, strict=True)
        )
        return self.camera.project(x, y, time)

    def area(self, time: float) -> float:
        """Return the area inside the outline in pixels, hidden parts included. Bending doesn't change it."""
        cell = 2 * MARGIN * self.scale(time) / (len(self.sprite) - 1)
        return float(np.count_nonzero(self.sprite[..., 3] >= EDGE) * cell**2)

    def to_surface(self, x: Array, y: Array, time: float) -> tuple[Array, Array]:
        """Map positions (x, y) in the image at a time to points (u, v) of the surface."""
        cos, sin = self._rotation(time, 1 / self.scale(time))
        (centre_x, centre_y), (bend_u, bend_v) = self.centre(time), self.bends
        x, y = x - centre_x, y - centre_y
        u, v = cos * x + sin * y, cos * y - sin * x
        u = u + bend_u.at(v, time)
        v = v + bend_v.at(u, time)
        return u, v

    def to_image(self, u: Array, v: Array, time: float) -> tuple[Array, Array]:
        """Map points (u, v) of the surface to their positions (x, y) in the image at a time."""
        cos, sin = self._rotation(time, self.scale(time))
        (centre_x, centre_y), (bend_u, bend_v) = self.centre(time), self.bends
        v = v - bend_v.at(u, time)
        u = u - bend_u.at(v, time)
        return centre_x + cos * u - sin * v, centre_y + sin * u + cos * v

    def extent(self, time: float, height: int, width: int) -> Extent:
        """Return the rows and columns that contain the object in an image of the given size in pixels."""
        reach = self.scale(time) * (1.05 + math.hypot(*(bend.amplitude for bend in self.bends))) + 1
        x, y = self.centre(time)
        rows, columns = (
            slice(min(max(math.floor(centre - reach), 0), size), min(max(math.ceil(centre + reach) + 1, 0), size))
            for centre, size in ((y, height), (x, width))
        )
        return rows, columns

    def render(self, extent: Extent, time: float) -> tuple[Image, Coverage]:
        """Return the object's colours (h, w, 3) and coverage (h, w), 255 inside, on a part of the image."""
        rows, columns = (np.arange(part.start, part.stop, dtype=np.float32) for part in extent)
        u, v = self.to_surface(columns[None], rows[:, None], time)
        middle = (len(self.sprite) - 1) / 2
        factor = middle / MARGIN
        # remap fills with 0, so coverage is 0 outside the sprite
        pixels = cv2.remap(self.sprite, u * factor + middle, v * factor + middle, cv2.INTER_LINEAR)
        colors, cover = cv2.cvtColor(pixels, cv2.COLOR_RGBA2RGB), cv2.extractChannel(pixels, 3)
        return np.asarray(colors, np.uint8), np.asarray(cover, np.uint8)

    def _rotation(self, time: float, scale: float) -> tuple[float, float]:
        angle = self.angle + self.turn * time + self.camera.rotation(time)
        return scale * math.cos(angle), scale * math.sin(angle)


def draw_object(
    camera: Camera, photographs: Sequence[Image], options: SceneOptions, random: np.random.Generator
) -> SceneObject:
    """Draw an object of one of the classes."""
    number = int(random.integers(len(OBJECT_CLASSES)))
    return _draw_object(number + 1, OBJECT_CLASSES[number], camera, photographs, options, random)


def draw_clutter(
    camera: Camera, photographs: Sequence[Image], options: SceneOptions, random: np.random.Generator
) -> SceneObject:
    """Draw an object without a class."""
    return _draw_object(0, CLUTTER, camera, photographs, options, random)


def _draw_object(
    category: int,
    class_: ObjectClass,
    camera: Camera,
    photographs: Sequence[Image],
    options: SceneOptions,
    random: np.random.Generator,
) -> SceneObject:
    radius = draw_log_uniform(random, *options.diameter) / 2
    direction, is_moving = random.uniform(0, 2 * math.pi), random.random() >= options.still
    speed = draw_log_uniform(random, *options.speed) * is_moving
    acceleration = random.normal(0, options.acceleration, 2) * is_moving
    return SceneObject(
        camera=camera,
        category=category,
        sprite=_draw_sprite(class_, radius, photographs, options, random),
        radius=radius,
        position=(options.width * random.uniform(0.04, 0.96), options.height * random.uniform(0.04, 0.96)),
        velocity=(speed * math.cos(direction), speed * math.sin(direction)),
        acceleration=(float(acceleration[0]), float(acceleration[1])),
        angle=random.uniform(0, 2 * math.pi),
        turn=random.normal(0, options.turn),
        growth=draw_wave(random, options.growth, (30, 90)),
        bends=(_draw_bend(options.bend, random), _draw_bend(options.bend, random)),
    )


def _draw_bend(amplitude: float, random: np.random.Generator) -> Bend:
    wave = draw_wave(random, amplitude, (14, 50))
    return Bend(wave.amplitude, random.uniform(1.5, 3), wave.rate * (1 if random.random() < 0.5 else -1), wave.phase)


def _draw_sprite(
    class_: ObjectClass, radius: float, photographs: Sequence[Image], options: SceneOptions, random: np.random.Generator
) -> Image:
    """Draw a sprite (n, n, 4) at about the resolution at which it appears in images."""
    size = max(math.ceil(2 * MARGIN * radius), 2)
    layers = np.empty((size, size, 4), np.uint8)  # the photograph's three channels and the pattern
    layers[..., :3] = _draw_piece(photographs[int(random.integers(len(photographs)))], size, random)
    layers[..., 3] = draw_pattern(class_.pattern, size, radius * random.uniform(0.35, 0.6), random)
    tint = random.uniform(0.7, 1.25) * random.uniform(0.85, 1.15, 3)
    strength = random.uniform(*options.contrast) * random.uniform(0.7, 1.3, 3)
    paint, doubt = random.uniform(*options.paint), random.uniform(0, options.doubt)
    random_color = random.uniform(0, 255, 3)
    color = random_color if class_ is CLUTTER else (1 - doubt) * np.array(class_.color) + doubt * random_color
    # one matrix applies the tint, the pattern and a translucent coat of paint to every pixel
    mixing = (1 - paint) * np.column_stack([np.diag(tint), strength, -MIDDLE * strength])
    mixing[:, -1] += paint * color
    sprite = np.empty_like(layers)
    sprite[..., :3] = cv2.transform(layers, mixing)
    sprite[..., 3] = rasterise(draw_outline(class_.outline, random), size, MARGIN)
    return sprite


def _draw_piece(photograph: Image, size: int, random: np.random.Generator) -> Image:
    """Cut a piece (size, size, 3) out of a photograph at a random position."""
    part = min(size, *photograph.shape[:2])
    top, left = (int(random.integers(length - part + 1)) for length in photograph.shape[:2])
    piece = photograph[top : top + part, left : left + part, :]
    if random.random() < _MIRRORED:
        piece = piece[:, ::-1]
    return piece if part == size else np.asarray(cv2.resize(piece, (size, size)), np.uint8)
