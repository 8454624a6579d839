"""Motion between images: measured on real frames, or synthesised and thus known exactly.

A flow is a *backward* flow, as everywhere in Keywarp: for each pixel of the current image, it points to the place in
the key image that the pixel comes from, as (dx, dy) in pixels.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from keywarp.datasets.types import Image

Flow = npt.NDArray[np.float32]  # (H, W, 2)


def dense_flow(current: Image, key: Image) -> Flow:
    """Estimate a flow by OpenCV's Dense Inverse Search.

    Args:
        current: The current image, (H, W, 3) RGB.
        key: The key image, of the same size.

    Returns:
        The flow from `current` to `key`, (H, W, 2).
    """
    search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    grey = [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in (current, key)]
    return np.asarray(search.calc(grey[0], grey[1], np.zeros((*current.shape[:2], 2), np.float32)), np.float32)


def warp_image(image: npt.NDArray[np.float32], flow: Flow) -> npt.NDArray[np.float32]:
    """Sample an image (H, W, C) bilinearly where the flow points, with zeros outside."""
    rows, columns = np.indices(flow.shape[:2], np.float32)
    points = (columns + flow[..., 0], rows + flow[..., 1])
    warped = cv2.remap(image, *points, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    return np.asarray(warped, np.float32).reshape(*flow.shape[:2], -1)  # OpenCV drops a single channel's axis


@dataclass(frozen=True)
class SyntheticMotion:
    """The size of synthetic motion. At half size, the defaults match real frames up to nine apart."""

    shift: float = 14.0  # pixels: standard deviation of a layer's translation
    turn: float = 0.06  # radians: standard deviation of a layer's rotation
    zoom: float = 0.06  # standard deviation of the logarithm of a layer's scale
    layers: int = 4  # maximum number of objects in front of the background
    still: float = 0.2  # fraction of samples whose background doesn't move


def synthetic_pair(
    background: Image, objects: list[Image], motion: SyntheticMotion, random: np.random.Generator
) -> tuple[Image, Image, Flow]:
    """Draw a pair of images with exactly known motion: pieces of images move over an image, as in Flying Chairs.

    Args:
        background: The background, (H, W, 3) RGB.
        objects: Images of any size that pieces are cut from.
        motion: The size of the motion.
        random: The random generator.

    Returns:
        (current, key, flow from current to key).
    """
    height, width = background.shape[:2]
    still = random.random() < motion.still
    matrix = np.eye(2, 3) if still else _random_affine(height, width, motion, random)
    key = background.copy()
    current = _sample(background, matrix, cv2.BORDER_REFLECT_101)
    flow = _affine_flow(height, width, matrix)
    for _ in range(int(random.integers(0, motion.layers + 1))):
        texture = objects[int(random.integers(len(objects)))]
        texture = np.asarray(cv2.resize(texture, (width, height)), np.uint8)
        if random.random() < 0.5:
            texture = texture[:, ::-1].copy()
        shape = _random_piece(height, width, random)
        own = _random_affine(height, width, motion, random)
        moved = _sample(shape, own, cv2.BORDER_CONSTANT)
        cv2.copyTo(texture, shape, key)
        cv2.copyTo(_sample(texture, own, cv2.BORDER_REFLECT_101), moved, current)
        cv2.copyTo(_affine_flow(height, width, own), moved, flow)
    return current, key, flow


def _random_affine(
    height: int, width: int, motion: SyntheticMotion, random: np.random.Generator
) -> npt.NDArray[np.float64]:
    """Draw a transformation (2, 3) from current to key pixels, about the image's centre."""
    angle, scale = random.normal(0, motion.turn), float(np.exp(random.normal(0, motion.zoom)))
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    centre = np.array([(width - 1) / 2, (height - 1) / 2])
    # a Laplace-like mixture, in which small motions are common and large ones occur
    shift = random.normal(0, motion.shift, 2) * random.random()
    return np.column_stack([turn, centre - turn @ centre + shift])


def _affine_flow(height: int, width: int, matrix: npt.NDArray[np.float64]) -> Flow:
    (a, b, dx), (c, d, dy) = matrix
    rows, columns = np.arange(height)[:, None], np.arange(width)
    flow = np.empty((height, width, 2), np.float32)
    flow[..., 0] = (a - 1) * columns + (b * rows + dx)
    flow[..., 1] = c * columns + ((d - 1) * rows + dy)
    return flow


def _sample(image: Image, matrix: npt.NDArray[np.float64], border: int) -> Image:
    size = (image.shape[1], image.shape[0])
    nearest = image.ndim == 2
    flags = (cv2.INTER_NEAREST if nearest else cv2.INTER_LINEAR) | cv2.WARP_INVERSE_MAP
    return np.asarray(cv2.warpAffine(image, matrix, size, flags=flags, borderMode=border), np.uint8)


def _random_piece(height: int, width: int, random: np.random.Generator) -> Image:
    """Return a mask (H, W), 255 inside a random polygon."""
    corners = int(random.integers(3, 9))
    angles = np.sort(random.uniform(0, 2 * np.pi, corners))
    radius = random.uniform(0.08, 0.35) * min(height, width) * random.uniform(0.5, 1.3, corners)
    centre = random.uniform(0, 1, 2) * (width, height)
    points = centre + np.stack([np.cos(angles), np.sin(angles)], axis=1) * radius[:, None]
    mask = np.zeros((height, width), np.uint8)
    cv2.fillPoly(mask, [np.rint(points).astype(np.int32)], [255])
    return mask
