"""Scenes: objects that move in front of a background under a camera, with exact labels, boxes and flow at any time."""

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

Surfaces = npt.NDArray[np.uint8]  # (H, W): 0 for the background, else 1 + the index of the object in front


@dataclass(frozen=True)
class SceneFrame:
    """The image of a scene at a time, with labels and boxes."""

    image: Image
    truth: Truth  # labels and boxes


@dataclass(frozen=True)
class MovingScene:
    """A scene, whose images depend only on the time. Times are in frames and may be negative or fractional."""

    options: SceneOptions
    background: Image  # a photograph larger than the image
    camera: Camera
    objects: tuple[SceneObject, ...]  # from back to front
    exposure: Exposure

    def render(self, time: float) -> SceneFrame:
        """Render the image at a time, with labels and boxes."""
        image, surfaces = self._project(time)
        return SceneFrame(self._expose(image, time), self._truth(surfaces, time))

    def image(self, time: float) -> Image:
        """Render the image at a time, (H, W, 3) RGB, with light, blur and noise."""
        return self._expose(self.unlit_image(time), time)

    def truth(self, time: float) -> Truth:
        """Return the labels (H, W) at a time, and the boxes of the objects that are sufficiently visible."""
        return self._truth(self.surfaces(time), time)

    def unlit_image(self, time: float) -> Image:
        """Render the scene at a time in even light, sharp and without noise, (H, W, 3)."""
        return self._project(time)[0]

    def surfaces(self, time: float) -> Surfaces:
        """Return the surface of each pixel at a time, (H, W): 0 for the background, else 1 + an object's index."""
        return self._project(time)[1]

    def flow(self, current: float, key: float) -> Flow:
        """Return the flow between two times, which shows where each pixel's surface point is at the other time.

        Args:
            current: The time that the flow starts from, in frames.
            key: The time that the flow points to, in frames.

        Returns:
            The flow (H, W, 2), (dx, dy) in pixels, also for points that are hidden or outside the image at `key`.
        """
        surfaces = self.surfaces(current)
        rows, columns = np.indices(self._size, np.float64)
        matrix = np.linalg.inv(self.camera.matrix(key)) @ self.camera.matrix(current) - np.eye(3)
        shift = [line[0] * columns + line[1] * rows + line[2] for line in matrix[:2]]  # of the background
        flow = np.stack(shift, axis=-1).astype(np.float32)
        for number, object_ in enumerate(self.objects, 1):
            y, x = np.nonzero(surfaces == number)
            to_x, to_y = object_.to_image(*object_.to_surface(x.astype(np.float64), y.astype(np.float64), current), key)
            flow[y, x, 0], flow[y, x, 1] = to_x - x, to_y - y
        return flow

    def _project(self, time: float) -> tuple[Image, Surfaces]:
        """Draw the background and the objects from back to front, and return the image and its surfaces."""
        size = (self.options.width, self.options.height)
        flags, matrix = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, self.camera.matrix(time)[:2]
        image = np.asarray(
            cv2.warpAffine(self.background, matrix, size, flags=flags, borderMode=cv2.BORDER_REFLECT_101), np.uint8
        )
        surfaces = np.zeros(self._size, np.uint8)
        for number, object_ in enumerate(self.objects, 1):
            extent = object_.extent(time, *self._size)
            behind = image[extent]
            if behind.size:
                colors, cover = object_.render(extent, time)
                weight = np.multiply(cover, np.float32(1 / 255), dtype=np.float32)
                image[extent] = cv2.blendLinear(colors, behind, weight, 1 - weight)
                surfaces[extent][cover >= EDGE] = number
        return image, surfaces

    def _expose(self, image: Image, time: float) -> Image:
        return self.exposure.apply(image, self.unlit_image, time)

    def _truth(self, surfaces: Surfaces, time: float) -> Truth:
        return Truth(self._labels(surfaces), self._boxes(surfaces, time))

    def _labels(self, surfaces: Surfaces) -> Labels:
        categories = np.zeros(256, np.uint8)
        categories[1 : len(self.objects) + 1] = [object_.category for object_ in self.objects]
        return np.asarray(cv2.LUT(surfaces, categories), np.uint8)

    def _boxes(self, surfaces: Surfaces, time: float) -> Boxes:
        corners, classes = [], []
        for number, object_ in enumerate(self.objects, 1):
            rows, columns = object_.extent(time, *self._size)
            seen = surfaces[rows, columns] == number
            area = np.count_nonzero(seen)
            if object_.category and area >= max(self.options.min_area, self.options.min_visible * object_.area(time)):
                y, x = np.flatnonzero(seen.any(axis=1)) + rows.start, np.flatnonzero(seen.any(axis=0)) + columns.start
                corners.append((x[0], y[0], x[-1] + 1, y[-1] + 1))
                classes.append(object_.category)
        return Boxes(np.array(corners, np.float32).reshape(-1, 4), np.array(classes, np.int64))

    @property
    def _size(self) -> tuple[int, int]:
        return self.options.height, self.options.width


def draw_scene(photographs: Sequence[Image], options: SceneOptions, random: np.random.Generator) -> MovingScene:
    """Draw a scene.

    Args:
        photographs: Photographs, each (h, w, 3) and at least `camera.COVER` times as large as an image.
        options: The distribution to draw from.
        random: The random generator.
    """
    background = photographs[int(random.integers(len(photographs)))]
    camera = draw_camera(options, random, *background.shape[:2])
    objects, clutter = (int(random.integers(*count, endpoint=True)) for count in (options.objects, options.clutter))
    drawn = [draw_object(camera, photographs, options, random) for _ in range(objects)]
    drawn += [draw_clutter(camera, photographs, options, random) for _ in range(clutter)]
    return MovingScene(
        options=options,
        background=background,
        camera=camera,
        objects=tuple(drawn[n] for n in random.permutation(len(drawn))),
        exposure=draw_exposure(options, random),
    )
