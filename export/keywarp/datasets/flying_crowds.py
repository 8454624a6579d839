"""Flying crowds: generated pairs that are harder than flying pieces, as real streets are.

A sample has a background photograph, a camera that pans, shakes, turns or zooms, and up to `OBJECTS` objects in front:
pieces, walkers with swinging legs, and thin poles. Many are small, and many move further than their own size. Every
object moves along with the camera besides its own motion. The images are then spoiled as cameras spoil them: light,
shadows, blur, noise and compression, each differently in the two images. The flow is known exactly, also where a point
of the current image is hidden in the key image.

All sizes are in pixels of the images, which are half-size images when they train a flow network.
"""

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from keywarp.datasets.errors import DataError
from keywarp.datasets.motion import Flow
from keywarp.datasets.samples import FlowPair
from keywarp.datasets.types import Image

Matrix = npt.NDArray[np.float64]  # (2, 3), affine, applied to (x, y, 1)
Points = npt.NDArray[np.float64]  # (n, 2): x, y

OBJECTS = 14  # maximum number of objects
RADIUS = (2.5, 45.0)  # pixels: smallest and largest radius of a piece
WALKER = (9.0, 70.0)  # pixels: smallest and largest height of a walker
SPEED = (0.3, 36.0)  # pixels: smallest and largest displacement of an object against the background
PAN = 14.0  # pixels: standard deviation of a pan
_FRACTION = 4  # fractional bits of the corners' coordinates for OpenCV


class FlyingCrowds:
    """Any number of image pairs with exactly known motion."""

    def __init__(self, photographs: Sequence[Image], height: int, width: int) -> None:
        """Set up the drawing of pairs.

        Args:
            photographs: Photographs of any size.
            height: The images' height in pixels.
            width: The images' width in pixels.

        Raises:
            DataError: If there are no photographs.
        """
        if not photographs:
            raise DataError("flying crowds are cut from photographs; give at least one")
        self._photographs = photographs
        self._size = (height, width)

    def flow_pair(self, random: np.random.Generator) -> FlowPair:
        """Draw two images and the motion between them."""
        current, key, flow = self._background(random)
        count = int(random.integers(0, OBJECTS + 1) * random.uniform(0.3, 1))
        crowd = random.random() < 0.4  # of walkers, most of which walk sideways
        for _ in range(count):
            chance = random.random()
            if chance < (0.85 if crowd else 0.3):
                self._draw_walker(current, key, flow, random)
            elif chance < (0.92 if crowd else 0.45):
                self._draw_pole(current, key, flow, random)
            else:
                self._draw_piece(current, key, flow, random)
        return FlowPair(*_spoil(current, key, random), flow)

    def _background(self, random: np.random.Generator) -> tuple[Image, Image, Flow]:
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
        return np.asarray(current, np.uint8), np.asarray(key, np.uint8), flow

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

    def _draw_piece(self, current: Image, key: Image, flow: Flow, random: np.random.Generator) -> None:
        """Draw a piece of any form."""
        centre = random.uniform(-0.05, 1.05, 2) * self._size[::-1]
        radius = np.exp(random.uniform(*np.log(RADIUS)))
        corners = int(random.integers(3, 12))
        angles = (np.arange(corners) + random.uniform(-0.35, 0.35, corners)) * 2 * np.pi / corners
        shape = np.stack([np.cos(angles), np.sin(angles)], axis=1) * random.uniform(0.45, 1, corners)[:, None]
        shape[:, 1] *= random.uniform(0.3, 1)
        turned = shape @ _rotation(random.uniform(-np.pi, np.pi)).T
        motion = self._motion(flow, centre, _velocity(random), random, turn=0.1, zoom=0.07)
        self._draw(current, key, flow, centre + radius * turned, motion, random)

    def _draw_pole(self, current: Image, key: Image, flow: Flow, random: np.random.Generator) -> None:
        """Draw something long and thin, which stands still against the background half of the time."""
        centre = random.uniform(0, 1, 2) * self._size[::-1]
        length, thickness = random.uniform(10, 90), random.uniform(0.6, 3.0)
        angle = random.normal(np.pi / 2, 0.15) if random.random() < 0.6 else random.uniform(0, np.pi)
        along = np.array([np.cos(angles := angle), np.sin(angles)]) * length / 2
        across = np.array([-along[1], along[0]]) / length * thickness
        corners = centre + np.array([along + across, along - across, -along - across, -along + across])
        still = random.random() < 0.5
        motion = self._motion(flow, centre, np.zeros(2) if still else _velocity(random), random, turn=0.05, zoom=0.02)
        self._draw(current, key, flow, corners, motion, random)

    def _draw_walker(self, current: Image, key: Image, flow: Flow, random: np.random.Generator) -> None:
        """Draw a walker: two legs that swing, a torso, a head, and perhaps a bag."""
        height = np.exp(random.uniform(*np.log(WALKER)))
        feet = random.uniform((0, 0.1), (1, 1.15)) * self._size[::-1]
        velocity = _velocity(random) * (1.0, random.uniform(0, 0.6))
        motion = self._motion(flow, feet, velocity, random, turn=0.02, zoom=0.05)
        hip = feet - (0, 0.47 * height)
        broad = random.uniform(0.2, 0.3) * height
        trousers, shirt = (self._texture(random, plain=0.5) for _ in range(2))
        for side in (-1, 1):
            first, second = random.normal(0, 0.3, 2)
            leg = np.array([(-0.5, 0), (0.5, 0), (0.3, 1), (-0.3, 1)]) * (0.45 * broad, 0.48 * height)
            leg = hip + (side * 0.2 * broad, 0) + leg @ _rotation(first).T
            swing = _about(hip, _rotation(second - first))
            self._draw(current, key, flow, leg, _compose(motion, swing), random, trousers)
        torso = np.array([(-0.45, 0), (-0.5, -0.4), (-0.3, -0.85), (0.3, -0.85), (0.5, -0.4), (0.45, 0)])
        self._draw(current, key, flow, hip + torso * (broad, 0.45 * height), motion, random, shirt)
        turn = np.linspace(0, 2 * np.pi, 9)[:-1]
        head = np.stack([np.cos(turn), np.sin(turn)], axis=1) * (0.06 * height, 0.075 * height)
        self._draw(current, key, flow, hip - (0, 0.45 * height) + head, motion, random)
        if random.random() < 0.3:
            bag = np.array([(-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5)]) * random.uniform(0.1, 0.25) * height
            offset = random.uniform(-0.6, 0.6) * broad, random.uniform(-0.25, 0.15) * height
            self._draw(current, key, flow, hip + offset + bag, motion, random)

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
        place = self._place(photograph, *(random.uniform(0, side) for side in self._size[::-1]), random)
        if random.random() < plain:
            place[:, :2] *= 0.05
        return photograph, place

    def _draw(
        self,
        current: Image,
        key: Image,
        flow: Flow,
        corners: Points,
        motion: Matrix,
        random: np.random.Generator,
        texture: tuple[Image, Matrix] | None = None,
    ) -> None:
        """Draw a polygon, given in the current image, into both images, and its flow."""
        photograph, place = texture or self._texture(random)
        gain = np.exp(random.normal(0, 0.25))
        alpha, part = _draw_polygon(current, corners, photograph, place, gain)
        moved = corners @ motion[:, :2].T + motion[:, 2]
        _draw_polygon(key, moved, photograph, _compose(place, _inverse(motion)), gain)
        if alpha is not None:
            rows, columns = part
            own = _affine_flow(
                rows.stop - rows.start, columns.stop - columns.start, motion, (columns.start, rows.start)
            )
            cv2.copyTo(own, np.asarray(alpha > 127, np.uint8), flow[part])


_SAMPLING = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP


def _draw_polygon(
    image: Image, corners: Points, photograph: Image, place: Matrix, gain: float
) -> tuple[Image | None, tuple[slice, slice]]:
    """Draw a polygon with soft edges; return its coverage in the part of the image that it touches, and that part."""
    height, width = image.shape[:2]
    left, top = np.maximum(np.floor(corners.min(axis=0)).astype(int) - 1, 0)
    right, bottom = np.minimum(np.ceil(corners.max(axis=0)).astype(int) + 2, (width, height))
    part = (slice(int(top), int(bottom)), slice(int(left), int(right)))
    if left >= right or top >= bottom:
        return None, part
    alpha = np.zeros((bottom - top, right - left), np.uint8)
    points = np.rint((corners - (left, top)) * (1 << _FRACTION)).astype(np.int32)
    cv2.fillPoly(alpha, [points], [255], cv2.LINE_AA, _FRACTION)
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


def _velocity(random: np.random.Generator) -> Points:
    """Draw an object's displacement: small ones are common, large ones occur, and most are level."""
    size = np.exp(random.uniform(*np.log(SPEED)))
    angle = random.choice((0.0, np.pi)) + random.normal(0, 0.5)
    return np.array([np.cos(angle), np.sin(angle)]) * size


def _spoil(current: Image, key: Image, random: np.random.Generator) -> tuple[Image, Image]:
    """Spoil both images as a camera does: each differently, but neither beyond recognition."""
    change = np.exp((random.normal(0, 0.1) + random.normal(0, 0.03, 3)) / 2).astype(np.float32)
    dark = random.uniform(0.15, 0.6) if random.random() < 0.2 else 1.0
    noise = random.uniform(0, 7) * (random.random() < 0.7)
    blur = random.uniform(0.4, 1.3) if random.random() < 0.3 else 0.0
    quality = int(random.integers(20, 90)) if random.random() < 0.5 else 0
    grey = random.random() < 0.1
    spoilt = []
    for picture, light in ((current, change), (key, 1 / change)):
        x = picture.astype(np.float32) * (light * np.float32(dark))
        if grey:
            x = np.repeat(x.mean(axis=-1, keepdims=True), 3, axis=-1)
        if random.random() < 0.15:  # a cloud, a shadow
            rough = 1 + random.normal(0, 0.12, (3, 4)).astype(np.float32)
            x *= cv2.resize(rough, (x.shape[1], x.shape[0]), interpolation=cv2.INTER_CUBIC)[..., None]
        own = blur * random.uniform(0.6, 1.2)
        if own > 0.3:
            x = cv2.GaussianBlur(x, (0, 0), own)
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
