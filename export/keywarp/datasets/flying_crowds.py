"""Flying crowds: generated pairs that are harder than flying pieces, as real streets are.

A sample has a background photograph, a camera that pans, shakes, turns or zooms, and up to `OBJECTS` objects in front:
pieces, walkers with swinging legs, and thin poles. Many are small, and many move further than their own size. Every
object moves along with the camera besides its own motion. The images are then spoiled as cameras spoil them: light,
shadows, blur, noise and compression, each differently in the two images. The flow is known exactly. Where a point of
the current image is hidden in the key image, it is that of what hides it; see `_Scene.explaining_flow`.

All sizes are in pixels of the images, which are half-size images when they train a flow network.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
import numpy.typing as npt

from keywarp.datasets.cutouts import Cutout
from keywarp.datasets.errors import DataError
from keywarp.datasets.motion import Flow
from keywarp.datasets.samples import FlowPair
from keywarp.datasets.types import Image

Matrix = npt.NDArray[np.float64]  # (2, 3), affine, applied to (x, y, 1)
Points = npt.NDArray[np.float64]  # (n, 2): x, y

Owners = npt.NDArray[np.uint8]  # (H, W): numbers of objects
Coverage = tuple[npt.NDArray[np.uint8], tuple[slice, slice]]  # how much is covered of which part of an image

OBJECTS = 14  # maximum number of objects
RADIUS = (4.0, 45.0)  # pixels: smallest and largest radius of a piece
WALKER = (14.0, 80.0)  # pixels: smallest and largest height of a walker
SPEED = (0.3, 36.0)  # pixels: smallest and largest displacement of an object against the background
STRIDE = 2.0  # largest displacement of an object against the background, in its own sizes
CUT_OUT = 0.6  # share of the walkers that are cut-outs, if there are any
PAN = 14.0  # pixels: standard deviation of a pan
SOLID = 127  # coverage from which a pixel belongs to an object
SHARP = 0.3  # pixels: standard deviation of an edge's softness up to which it isn't softened
_FRACTION = 4  # fractional bits of the corners' coordinates for OpenCV


@dataclass(eq=False)
class _Scene:
    """A pair under construction, with what covers each pixel."""

    current: Image
    key: Image
    flow: Flow  # the true motion, also of points that are hidden in the key image
    motions: list[Matrix] = field(default_factory=list)  # of the objects, in the order of their numbers from 1
    seen: Owners = field(init=False)  # the number of the object at each pixel of the current image, 0 the background
    hiding: Owners = field(init=False)  # the same for the key image

    def __post_init__(self) -> None:
        self.seen, self.hiding = (np.zeros(self.flow.shape[:2], np.uint8) for _ in range(2))

    def add(self, motion: Matrix, covered: Coverage, hidden: Coverage) -> None:
        """Add an object that was drawn: its motion, and what it covers in the current and in the key image."""
        self.motions.append(motion)
        alpha, (rows, columns) = covered
        solid = alpha > SOLID
        height, width = alpha.shape
        own = _affine_flow(height, width, motion, (columns.start, rows.start))
        self.flow[rows, columns][solid] = own[solid]
        self.seen[rows, columns][solid] = len(self.motions)
        alpha, part = hidden
        self.hiding[part][alpha > SOLID] = len(self.motions)

    def explaining_flow(self) -> Flow:
        """Return the flow, with that of what hides them in the key image for points that are hidden there.

        It leads from the ground that an object has uncovered to ground behind that object. So it explains the current
        image better than the true motion, which leads to the object itself and would leave its ghost where it was.
        """
        height, width = self.seen.shape
        rows, columns = np.indices((height, width), np.float32)
        x = np.rint(columns + self.flow[..., 0]).astype(int).clip(0, width - 1)
        y = np.rint(rows + self.flow[..., 1]).astype(int).clip(0, height - 1)
        hiding = self.hiding[y, x]
        hidden = (hiding != self.seen) & (hiding > 0)
        explaining = self.flow.copy()
        for number in np.unique(hiding[hidden]):
            places = hidden & (hiding == number)
            explaining[places] = _affine_flow(height, width, self.motions[number - 1])[places]
        return explaining


class FlyingCrowds:
    """Any number of image pairs with exactly known motion."""

    def __init__(self, photographs: Sequence[Image], height: int, width: int, cutouts: Sequence[Cutout] = ()) -> None:
        """Set up the drawing of pairs.

        Args:
            photographs: Photographs of any size.
            height: The images' height in pixels.
            width: The images' width in pixels.
            cutouts: Pictures of things with their coverage, some of which take the place of drawn walkers.

        Raises:
            DataError: If there are no photographs.
        """
        if not photographs:
            raise DataError("flying crowds are cut from photographs; give at least one")
        self._photographs = photographs
        self._size = (height, width)
        self._cutouts = cutouts

    def flow_pair(self, random: np.random.Generator) -> FlowPair:
        """Draw two images and the motion between them."""
        scene = self._background(random)
        count = int(random.integers(0, OBJECTS + 1) * random.uniform(0.4, 1))
        crowd = random.random() < 0.5  # of walkers, most of which walk sideways
        for _ in range(count):
            chance = random.random()
            if chance < (0.85 if crowd else 0.3):
                self._draw_walker(scene, random)
            elif chance < (0.92 if crowd else 0.45):
                self._draw_pole(scene, random)
            else:
                self._draw_piece(scene, random)
        return FlowPair(*_spoil(scene.current, scene.key, random), scene.explaining_flow())

    def _background(self, random: np.random.Generator) -> _Scene:
        """Draw the background and the camera's motion."""
        height, width = self._size
        photograph = self._photographs[int(random.integers(len(self._photographs)))]
        flow = _affine_flow(height, width, _camera(height, width, random))
        if random.random() < 0.3:  # depth, water, leaves
            rough = random.normal(
                0, random.uniform(0.2, 2.0), (int(random.integers(2, 6)), int(random.integers(2, 8)), 2)
            )
            flow += cv2.resize(rough.astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
        place = self._place(photograph, (width - 1) / 2, (height - 1) / 2, random, fit=True)
        key = cv2.warpAffine(photograph, place, (width, height), flags=_SAMPLING, borderMode=cv2.BORDER_REFLECT_101)
        rows, columns = np.indices((height, width), np.float32)
        x, y = columns + flow[..., 0], rows + flow[..., 1]
        (a, b, c), (d, e, f) = place.astype(np.float32)
        current = cv2.remap(
            photograph, a * x + b * y + c, d * x + e * y + f, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101
        )
        return _Scene(np.asarray(current, np.uint8), np.asarray(key, np.uint8), flow)

    def _place(
        self, photograph: Image, x: float, y: float, random: np.random.Generator, *, fit: bool = False
    ) -> Matrix:
        """Draw a transformation from image pixels to a photograph's; `fit` keeps the image inside the photograph."""
        height, width = self._size
        rows, columns = photograph.shape[:2]
        most = min(rows / height, columns / width)
        zoom = most * random.uniform(0.4, 1) if fit else np.exp(random.uniform(np.log(0.4), np.log(3.0)))
        turn = 0.0 if fit else random.uniform(-np.pi, np.pi)
        half = (zoom * width / 2, zoom * height / 2) if fit else (0.0, 0.0)
        target = (
            random.uniform(half[0], max(half[0], columns - half[0])),
            random.uniform(half[1], max(half[1], rows - half[1])),
        )
        return _similarity((x, y), target, turn, zoom)

    def _draw_piece(self, scene: _Scene, random: np.random.Generator) -> None:
        """Draw a piece of any form."""
        centre = random.uniform(-0.05, 1.05, 2) * self._size[::-1]
        radius = np.exp(random.uniform(*np.log(RADIUS)))
        corners = int(random.integers(3, 12))
        angles = (np.arange(corners) + random.uniform(-0.35, 0.35, corners)) * 2 * np.pi / corners
        shape = np.stack([np.cos(angles), np.sin(angles)], axis=1) * random.uniform(0.45, 1, corners)[:, None]
        shape[:, 1] *= random.uniform(0.3, 1)
        turned = shape @ _rotation(random.uniform(-np.pi, np.pi)).T
        velocity = self._velocity(centre, 2 * radius, random)
        motion = self._motion(scene.flow, centre, velocity, random, turn=0.1, zoom=0.07)
        self._draw(scene, centre + radius * turned, motion, random)

    def _draw_pole(self, scene: _Scene, random: np.random.Generator) -> None:
        """Draw something long and thin, which stands still against the background half of the time."""
        centre = random.uniform(0, 1, 2) * self._size[::-1]
        length, thickness = random.uniform(10, 90), random.uniform(0.6, 3.0)
        angle = random.normal(np.pi / 2, 0.15) if random.random() < 0.6 else random.uniform(0, np.pi)
        along = np.array([np.cos(angles := angle), np.sin(angles)]) * length / 2
        across = np.array([-along[1], along[0]]) / length * thickness
        corners = centre + np.array([along + across, along - across, -along - across, -along + across])
        velocity = np.zeros(2) if random.random() < 0.5 else self._velocity(centre, length / 2, random)
        motion = self._motion(scene.flow, centre, velocity, random, turn=0.05, zoom=0.02)
        self._draw(scene, corners, motion, random)

    def _draw_walker(self, scene: _Scene, random: np.random.Generator) -> None:
        """Draw a walker: two legs that swing, a torso, a head, and perhaps a bag; or a cut-out."""
        if self._cutouts and random.random() < CUT_OUT:
            self._draw_cutout(scene, random)
            return
        height = np.exp(random.uniform(*np.log(WALKER)))
        feet = random.uniform((0, 0.1), (1, 1.15)) * self._size[::-1]
        velocity = self._velocity(feet - (0, height / 2), 0.6 * height, random) * (1.0, random.uniform(0, 0.6))
        motion = self._motion(scene.flow, feet, velocity, random, turn=0.02, zoom=0.05)
        hip = feet - (0, 0.47 * height)
        broad = random.uniform(0.2, 0.3) * height
        trousers, shirt = (self._texture(random, plain=0.5) for _ in range(2))
        for side in (-1, 1):
            first, second = random.normal(0, 0.3, 2)
            leg = np.array([(-0.5, 0), (0.5, 0), (0.3, 1), (-0.3, 1)]) * (0.45 * broad, 0.48 * height)
            leg = hip + (side * 0.2 * broad, 0) + leg @ _rotation(first).T
            swing = _about(hip, _rotation(second - first))
            self._draw(scene, leg, _compose(motion, swing), random, trousers)
        torso = np.array([(-0.45, 0), (-0.5, -0.4), (-0.3, -0.85), (0.3, -0.85), (0.5, -0.4), (0.45, 0)])
        self._draw(scene, hip + torso * (broad, 0.45 * height), motion, random, shirt)
        turn = np.linspace(0, 2 * np.pi, 9)[:-1]
        head = np.stack([np.cos(turn), np.sin(turn)], axis=1) * (0.06 * height, 0.075 * height)
        self._draw(scene, hip - (0, 0.45 * height) + head, motion, random)
        if random.random() < 0.3:
            bag = np.array([(-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5)]) * random.uniform(0.1, 0.25) * height
            offset = random.uniform(-0.6, 0.6) * broad, random.uniform(-0.25, 0.15) * height
            self._draw(scene, hip + offset + bag, motion, random)

    def _draw_cutout(self, scene: _Scene, random: np.random.Generator) -> None:
        """Draw a cut-out, perhaps mirrored, in another size and light."""
        picture = self._cutouts[int(random.integers(len(self._cutouts)))]
        if random.random() < 0.5:
            picture = np.ascontiguousarray(picture[:, ::-1])
        height, width = picture.shape[:2]
        zoom = np.exp(random.uniform(np.log(0.6), np.log(2.0)))
        place = random.uniform((0, 0.1), (1, 1)) * self._size[::-1]
        velocity = self._velocity(place, 0.6 * height * zoom, random) * (1.0, random.uniform(0, 0.6))
        motion = self._motion(scene.flow, place, velocity, random, turn=0.03, zoom=0.05)
        first = _similarity((place[0], place[1]), ((width - 1) / 2, (height - 1) / 2), random.normal(0, 0.03), 1 / zoom)
        gain = np.exp(random.normal(0, 0.2))
        whole = (slice(0, self._size[0]), slice(0, self._size[1]))
        alpha = _draw_picture(scene.current, picture, first, gain)
        hidden = _draw_picture(scene.key, picture, _compose(first, _inverse(motion)), gain)
        scene.add(motion, (alpha, whole), (hidden, whole))

    def _velocity(self, place: Points, extent: float, random: np.random.Generator) -> Points:
        """Draw the displacement of an object of some size: most are level, and few leave the image."""
        least, most = SPEED[0], min(SPEED[1], STRIDE * extent)
        size = np.exp(random.uniform(*np.log((least, most)))) if random.random() < 0.5 else random.uniform(least, most)
        velocity = np.zeros(2)
        for _ in range(3):
            angle = random.choice((0.0, np.pi)) + random.normal(0, 0.5)
            velocity = np.array([np.cos(angle), np.sin(angle)]) * size
            if ((place + velocity >= 0) & (place + velocity <= self._size[::-1])).all():
                break
        return velocity

    def _motion(
        self, flow: Flow, centre: Points, velocity: Points, random: np.random.Generator, *, turn: float, zoom: float
    ) -> Matrix:
        """Return a transformation from current to key pixels: the background's flow at a point, and an own one."""
        height, width = self._size
        column, row = np.clip(centre, 0, (width - 1, height - 1)).astype(int)
        angle, scale = random.normal(0, turn), np.exp(random.normal(0, zoom))
        return _similarity((centre[0], centre[1]), tuple(centre + flow[row, column] + velocity), angle, scale)

    def _texture(self, random: np.random.Generator, plain: float = 0.25) -> tuple[Image, Matrix]:
        """Draw a part of a photograph; it is nearly of one colour with the probability `plain`."""
        photograph = self._photographs[int(random.integers(len(self._photographs)))]
        place = self._place(photograph, random.uniform(0, self._size[1]), random.uniform(0, self._size[0]), random)
        if random.random() < plain:
            place[:, :2] *= 0.05
        return photograph, place

    def _draw(
        self,
        scene: _Scene,
        corners: Points,
        motion: Matrix,
        random: np.random.Generator,
        texture: tuple[Image, Matrix] | None = None,
    ) -> None:
        """Draw a polygon, given in the current image, into both images, and its flow."""
        photograph, place = texture or self._texture(random)
        gain, soft = np.exp(random.normal(0, 0.25)), random.uniform(0, 1.2)
        covered = _draw_polygon(scene.current, corners, photograph, place, gain, soft)
        moved = corners @ motion[:, :2].T + motion[:, 2]
        hidden = _draw_polygon(scene.key, moved, photograph, _compose(place, _inverse(motion)), gain, soft)
        scene.add(motion, covered, hidden)


_SAMPLING = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP


def _draw_polygon(
    image: Image, corners: Points, photograph: Image, place: Matrix, gain: float, soft: float
) -> Coverage:
    """Draw a polygon with soft edges; return its coverage in the part of the image that it touches, and that part."""
    height, width = image.shape[:2]
    left, top = np.maximum(np.floor(corners.min(axis=0)).astype(int) - 3, 0)
    right, bottom = np.minimum(np.ceil(corners.max(axis=0)).astype(int) + 4, (width, height))
    part = (slice(int(top), int(bottom)), slice(int(left), int(right)))
    if left >= right or top >= bottom:
        return np.zeros((0, 0), np.uint8), (slice(0, 0), slice(0, 0))
    alpha = np.zeros((bottom - top, right - left), np.uint8)
    points = np.rint((corners - (left, top)) * (1 << _FRACTION)).astype(np.int32)
    cv2.fillPoly(alpha, [points], [255], cv2.LINE_AA, _FRACTION)
    if soft > SHARP:
        alpha = np.asarray(cv2.GaussianBlur(alpha, (0, 0), soft), np.uint8)
    local = place.copy()
    local[:, 2] += place[:, :2] @ (left, top)
    texture = cv2.warpAffine(
        photograph, local, (int(right - left), int(bottom - top)), flags=_SAMPLING, borderMode=cv2.BORDER_REFLECT_101
    )
    if gain != 1:
        texture = cv2.convertScaleAbs(texture, alpha=gain)
    share = alpha[..., None].astype(np.float32) * np.float32(1 / 255)
    image[part] = image[part] + (texture.astype(np.float32) - image[part]) * share
    return alpha, part


def _draw_picture(image: Image, picture: Cutout, place: Matrix, gain: float) -> Image:
    """Draw a picture with its coverage; `place` leads from the image's pixels to the picture's. Return the coverage."""
    size = (image.shape[1], image.shape[0])
    drawn = cv2.warpAffine(picture, place, size, flags=_SAMPLING, borderMode=cv2.BORDER_CONSTANT)
    color = cv2.convertScaleAbs(drawn[..., :3], alpha=gain)
    rows, columns = np.flatnonzero(drawn[..., 3].any(axis=1)), np.flatnonzero(drawn[..., 3].any(axis=0))
    if len(rows) and len(columns):
        part = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
        share = drawn[part][..., 3:].astype(np.float32) * np.float32(1 / 255)
        image[part] = image[part] + (color[part].astype(np.float32) - image[part]) * share
    return np.asarray(drawn[..., 3], np.uint8)


def _camera(height: int, width: int, random: np.random.Generator) -> Matrix:
    """Draw the camera's motion, from current to key pixels."""
    chance = random.random()
    if chance < 0.3:
        return np.eye(2, 3)
    shake, pan, turn, zoom = 2.0, 0.0, 0.003, 0.003
    if chance > 0.5:
        pan = PAN * random.random()
    if chance > 0.75:
        turn, zoom = 0.04, 0.06
    centre = ((width - 1) / 2, (height - 1) / 2)
    target = np.array(centre) + random.normal(0, shake, 2) * random.random() + random.normal(0, 1, 2) * (pan, 0.6 * pan)
    return _similarity(centre, tuple(target), random.normal(0, turn), np.exp(random.normal(0, zoom)))


def _spoil(current: Image, key: Image, random: np.random.Generator) -> tuple[Image, Image]:
    """Spoil both images as a camera does: each differently, but neither beyond recognition."""
    change = np.exp((random.normal(0, 0.1) + random.normal(0, 0.03, 3)) / 2).astype(np.float32)
    dark = random.uniform(0.2, 0.6) if random.random() < 0.12 else 1.0
    noise = random.uniform(0, 6) * (random.random() < 0.6)
    blur = random.uniform(0.4, 1.3) if random.random() < 0.3 else 0.0
    quality = int(random.integers(20, 90)) if random.random() < 0.5 else 0
    grey = random.random() < 0.1
    spoilt = []
    for picture, light in ((current, change), (key, 1 / change)):
        x = np.asarray(picture * (light * np.float32(dark)), np.float32)
        if grey:
            x = np.repeat(x.mean(axis=-1, keepdims=True, dtype=np.float32), 3, axis=-1)
        if random.random() < 0.15:  # a cloud, a shadow
            rough = 1 + random.normal(0, 0.12, (3, 4)).astype(np.float32)
            x *= cv2.resize(rough, (x.shape[1], x.shape[0]), interpolation=cv2.INTER_CUBIC)[..., None]
        own = blur * random.uniform(0.6, 1.2)
        if own > 0.3:
            x = np.asarray(cv2.GaussianBlur(x, (0, 0), own), np.float32)
        if noise:
            x += random.standard_normal(x.shape, np.float32) * np.float32(noise * random.uniform(0.8, 1.2))
        byte = np.clip(x, 0, 255).astype(np.uint8)
        if quality:
            _, packed = cv2.imencode(".jpg", byte, [cv2.IMWRITE_JPEG_QUALITY, quality])
            byte = np.asarray(cv2.imdecode(packed, cv2.IMREAD_COLOR), np.uint8)
        spoilt.append(byte)
    return spoilt[0], spoilt[1]


def _affine_flow(height: int, width: int, matrix: Matrix, corner: tuple[int, int] = (0, 0)) -> Flow:
    """Return a transformation as a flow over a rectangle with its first pixel at `corner` (x, y)."""
    (a, b, dx), (c, d, dy) = matrix
    columns, rows = np.arange(corner[0], corner[0] + width), np.arange(corner[1], corner[1] + height)[:, None]
    flow = np.empty((height, width, 2), np.float32)
    flow[..., 0] = (a - 1) * columns + (b * rows + dx)
    flow[..., 1] = c * columns + ((d - 1) * rows + dy)
    return flow


def _similarity(centre: tuple[float, float], target: tuple[float, ...], turn: float, zoom: float) -> Matrix:
    """Return the transformation that turns and zooms about a point, and moves it to the target."""
    linear = zoom * _rotation(turn)
    return np.column_stack([linear, np.array(target) - linear @ np.array(centre)])


def _about(centre: Points, linear: Matrix) -> Matrix:
    return np.column_stack([linear, centre - linear @ centre])


def _rotation(angle: float) -> npt.NDArray[np.float64]:
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def _compose(second: Matrix, first: Matrix) -> Matrix:
    """Return the transformation that applies `first`, then `second`."""
    return np.column_stack([second[:, :2] @ first[:, :2], second[:, :2] @ first[:, 2] + second[:, 2]])


def _inverse(matrix: Matrix) -> Matrix:
    linear = np.linalg.inv(matrix[:, :2])
    return np.column_stack([linear, -linear @ matrix[:, 2]])
