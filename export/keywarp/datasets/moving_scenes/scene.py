"""A scene: a camera's background, bodies in front of it, and what is known of every moment of it."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from keywarp.datasets.motion import Flow
from keywarp.datasets.moving_scenes.camera import Camera, draw_camera
from keywarp.datasets.moving_scenes.exposure import Exposure, draw_exposure
from keywarp.datasets.moving_scenes.objects import EDGE, SceneObject, draw_clutter, draw_object
from keywarp.datasets.moving_scenes.options import SceneOptions
from keywarp.datasets.samples import Boxes, Truth
from keywarp.datasets.types import Image, Labels

Surfaces = npt.NDArray[np.uint8]  # (H, W): 0 where the background is seen, else 1 + the number of the body in front


@dataclass(frozen=True)
class SceneFrame:
    """A moment of a scene."""

    image: Image
    truth: Truth  # labels and boxes


@dataclass(frozen=True)
class MovingScene:
    """A shot. Every moment of it follows from the time alone, in frames, of either sign and in between."""

    options: SceneOptions
    background: Image  # a photograph larger than the image
    camera: Camera
    objects: tuple[SceneObject, ...]  # from the back to the front
    exposure: Exposure

    def render(self, time: float) -> SceneFrame:
        """The image at a time, with labels and boxes."""
        picture, surfaces = self._project(time)
        return SceneFrame(self._expose(picture, time), self._truth(surfaces, time))

    def image(self, time: float) -> Image:
        """(H, W, 3) RGB at a time: lit, blurred and noisy."""
        return self._expose(self.unlit_image(time), time)

    def truth(self, time: float) -> Truth:
        """Labels (H, W) of what is in front, and boxes of the objects that are visible well enough."""
        return self._truth(self.surfaces(time), time)

    def unlit_image(self, time: float) -> Image:
        """(H, W, 3): the surfaces at a time in even light, sharp and without noise."""
        return self._project(time)[0]

    def surfaces(self, time: float) -> Surfaces:
        """(H, W): 0 where the background is seen at a time, else 1 + the index of the body in front."""
        return self._project(time)[1]

    def flow(self, current: float, key: float) -> Flow:
        """Where each pixel's surface point at one time was, or will be, at another one.

        Args:
            current: The time of the pixels, in frames.
            key: The time that they come from.

        Returns:
            (H, W, 2): (dx, dy) in pixels; also of points that are hidden or outside of the image at `key`.
        """
        surfaces = self.surfaces(current)
        rows, columns = np.indices(self._size, np.float64)
        matrix = np.linalg.inv(self.camera.matrix(key)) @ self.camera.matrix(current) - np.eye(3)
        shift = [line[0] * columns + line[1] * rows + line[2] for line in matrix[:2]]
        flow = np.stack(shift, axis=-1).astype(np.float32)
        for number, body in enumerate(self.objects, 1):
            y, x = np.nonzero(surfaces == number)
            to_x, to_y = body.to_image(*body.to_surface(x.astype(np.float64), y.astype(np.float64), current), key)
            flow[y, x, 0], flow[y, x, 1] = to_x - x, to_y - y
        return flow

    def _project(self, time: float) -> tuple[Image, Surfaces]:
        """What the pixels show, from the back to the front."""
        size = (self.options.width, self.options.height)
        flags, matrix = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, self.camera.matrix(time)[:2]
        picture = np.asarray(
            cv2.warpAffine(self.background, matrix, size, flags=flags, borderMode=cv2.BORDER_REFLECT_101), np.uint8
        )
        surfaces = np.zeros(self._size, np.uint8)
        for number, body in enumerate(self.objects, 1):
            span = body.extent(time, *self._size)
            part = picture[span]
            if part.size:
                colors, cover = body.render(span, time)
                weight = np.multiply(cover, np.float32(1 / 255), dtype=np.float32)
                picture[span] = cv2.blendLinear(colors, part, weight, 1 - weight)
                surfaces[span][cover >= EDGE] = number
        return picture, surfaces

    def _expose(self, picture: Image, time: float) -> Image:
        return self.exposure.apply(picture, self.unlit_image, time)

    def _truth(self, surfaces: Surfaces, time: float) -> Truth:
        return Truth(self._labels(surfaces), self._boxes(surfaces, time))

    def _labels(self, surfaces: Surfaces) -> Labels:
        categories = np.zeros(256, np.uint8)
        categories[1 : len(self.objects) + 1] = [body.category for body in self.objects]
        return np.asarray(cv2.LUT(surfaces, categories), np.uint8)

    def _boxes(self, surfaces: Surfaces, time: float) -> Boxes:
        corners, classes = [], []
        for number, body in enumerate(self.objects, 1):
            rows, columns = body.extent(time, *self._size)
            seen = surfaces[rows, columns] == number
            area = np.count_nonzero(seen)
            if body.category and area >= max(self.options.min_area, self.options.min_visible * body.area(time)):
                y, x = np.flatnonzero(seen.any(axis=1)) + rows.start, np.flatnonzero(seen.any(axis=0)) + columns.start
                corners.append((x[0], y[0], x[-1] + 1, y[-1] + 1))
                classes.append(body.category)
        return Boxes(np.array(corners, np.float32).reshape(-1, 4), np.array(classes, np.int64))

    @property
    def _size(self) -> tuple[int, int]:
        return self.options.height, self.options.width


def draw_scene(photographs: Sequence[Image], options: SceneOptions, random: np.random.Generator) -> MovingScene:
    """Draw a scene.

    Args:
        photographs: Each (h, w, 3) and at least `camera.COVER` times as large as an image.
        options: What to draw from.
        random: The source of chance.
    """
    background = photographs[int(random.integers(len(photographs)))]
    camera = draw_camera(options, random, *background.shape[:2])
    objects, pieces = (int(random.integers(*count, endpoint=True)) for count in (options.objects, options.clutter))
    bodies = [draw_object(camera, photographs, options, random) for _ in range(objects)]
    bodies += [draw_clutter(camera, photographs, options, random) for _ in range(pieces)]
    return MovingScene(
        options=options,
        background=background,
        camera=camera,
        objects=tuple(bodies[n] for n in random.permutation(len(bodies))),
        exposure=draw_exposure(options, random),
    )
