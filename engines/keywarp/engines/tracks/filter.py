"""A Kalman filter for the boxes of many tracks at once.

The state of a box is its centre, width and height, and the velocities of these four numbers. They are independent of
each other, so each has a 2x2 covariance of its own instead of one of 8x8 for all. Velocities are relative to the
picture as a whole, which moves with the camera.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]

# Deviations as shares of the box's height, as in SORT, DeepSORT and ByteTrack.
POSITION: Final = 1 / 20
VELOCITY: Final = 1 / 160  # for each frame
SPREAD: Final = 3.0  # deviations of a box's motion in each pixel by which its points disagree about it
AGE_DOUBLING: Final = 10.0  # frames of key age at which a propagated box deviates twice as much as a key frame's


class BoxFilter:
    """The states of n tracks. Time is in frames."""

    def __init__(self) -> None:
        """Begin without tracks."""
        self._place = np.empty((0, 4))  # centre x, y, width, height
        self._velocity = np.empty((0, 4))
        self._pp = np.empty((0, 4))  # variance of the place
        self._pv = np.empty((0, 4))  # covariance of place and velocity
        self._vv = np.empty((0, 4))  # variance of the velocity
        self._step = np.empty((0, 2))  # how far the last `predict` moved the centres

    @property
    def boxes(self) -> Numbers:
        """The boxes, (n, 4): x1, y1, x2, y2."""
        half = np.maximum(self._place[:, 2:], 1.0) / 2
        return np.concatenate([self._place[:, :2] - half, self._place[:, :2] + half], axis=1)

    def add(self, boxes: Numbers) -> None:
        """Begin tracks at boxes, (n, 4)."""
        place = _centered(boxes)
        size = place[:, 3:]
        self._place = np.concatenate([self._place, place])
        self._velocity = np.concatenate([self._velocity, np.zeros_like(place)])
        self._pp = np.concatenate([self._pp, np.broadcast_to((2 * POSITION * size) ** 2, place.shape)])
        self._pv = np.concatenate([self._pv, np.zeros_like(place)])
        self._vv = np.concatenate([self._vv, np.broadcast_to((10 * VELOCITY * size) ** 2, place.shape)])

    def keep(self, chosen: NDArray[np.bool_]) -> None:
        """Forget all tracks but the chosen ones."""
        for name in ("_place", "_velocity", "_pp", "_pv", "_vv"):
            setattr(self, name, getattr(self, name)[chosen])

    def predict(self, frames: int, camera: Numbers) -> None:
        """Move all tracks by their velocities.

        Args:
            frames: The number of frames.
            camera: How far the whole picture moves on each of them, (2,): dx, dy in pixels.
        """
        size = np.maximum(self._place[:, 3:], 1.0)
        self._step = frames * (self._velocity[:, :2] + camera)
        self._place[:, :2] += self._step
        self._place[:, 2:] += frames * self._velocity[:, 2:]
        self._pp += 2 * frames * self._pv + frames**2 * self._vv + frames * (POSITION * size) ** 2
        self._pv += frames * self._vv
        self._vv += frames * (VELOCITY * size) ** 2

    def shift(self, tracks: NDArray[np.intp], by: Numbers, spread: Numbers, key_age: int) -> None:
        """Correct the last step of some tracks by how the picture moved there.

        The motion in the picture and the predicted step are weighted by their variances. The velocities stay as they
        are: what passes in front of an object moves the picture there, but not the object.

        Args:
            tracks: The tracks' numbers, (m,).
            by: How far their boxes moved in the picture, (m, 2) in pixels.
            spread: How far the points of each box disagree about that, (m, 1) in pixels.
            key_age: The key age of the frame that they moved to.
        """
        noise = (_growth(key_age) * VELOCITY * self._place[tracks, 3:]) ** 2 + (SPREAD * spread) ** 2
        variance = self._vv[tracks, :2]
        self._place[tracks, :2] += variance / (variance + noise) * (by - self._step[tracks])

    def update(self, tracks: NDArray[np.intp], boxes: Numbers, key_age: int) -> None:
        """Measure boxes.

        Args:
            tracks: The tracks' numbers, (m,).
            boxes: Their detections, (m, 4).
            key_age: The key age of their frame. The greater it is, the less they count.
        """
        place = _centered(boxes)
        noise = (_growth(key_age) * POSITION * place[:, 3:]) ** 2
        pp, pv, vv = self._pp[tracks], self._pv[tracks], self._vv[tracks]
        total = pp + noise
        surprise = place - self._place[tracks]
        self._place[tracks] += pp / total * surprise
        self._velocity[tracks] += pv / total * surprise
        self._pp[tracks] = pp - pp * pp / total
        self._pv[tracks] = pv - pp * pv / total
        self._vv[tracks] = vv - pv * pv / total


def _growth(key_age: int) -> float:
    return 1 + key_age / AGE_DOUBLING


def _centered(boxes: Numbers) -> Numbers:
    size = boxes[:, 2:] - boxes[:, :2]
    return np.concatenate([boxes[:, :2] + size / 2, size], axis=1)
