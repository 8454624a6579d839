"""Clips: videos of several generated shots."""

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from keywarp.datasets.moving_scenes.scene import MovingScene, SceneFrame
from keywarp.datasets.samples import Truth


@dataclass(frozen=True)
class Shot:
    """A part of a clip that shows one scene, starting at a given time."""

    scene: MovingScene
    first: int  # index of its first frame in the clip
    start: int  # the scene's time at that frame, in frames


@dataclass(frozen=True)
class SceneClip:
    """A video whose frames are rendered on demand.

    Iterating over it or indexing it gives a `SceneFrame` at a time. Only `images` and `truths` hold all frames at once.
    """

    name: str
    shots: tuple[Shot, ...]
    length: int  # frames

    @property
    def cuts(self) -> tuple[int, ...]:
        """Return the indices of the frames that start a new shot, without the clip's first frame."""
        return tuple(shot.first for shot in self.shots[1:])

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> SceneFrame:
        scene, time = self.locate(index)
        return scene.render(time)

    def __iter__(self) -> Iterator[SceneFrame]:
        return (self[index] for index in range(self.length))

    def locate(self, index: int) -> tuple[MovingScene, int]:
        """Return the scene of a frame and the frame's time in it.

        Raises:
            IndexError: If the clip has no such frame.
        """
        if not 0 <= index < self.length:
            raise IndexError(f"{self.name} has frames 0 to {self.length - 1}, but no frame {index}")
        shot = self.shots[bisect_right(self.shots, index, key=lambda shot: shot.first) - 1]
        return shot.scene, shot.start + index - shot.first

    def images(self) -> npt.NDArray[np.uint8]:
        """Render all frames, (T, H, W, 3) RGB."""
        return np.stack([scene.image(time) for scene, time in map(self.locate, range(self.length))])

    def truths(self) -> list[Truth]:
        """Return the labels and boxes of all frames."""
        return [scene.truth(time) for scene, time in map(self.locate, range(self.length))]
