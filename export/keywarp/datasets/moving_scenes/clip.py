"""A video of several shots with everything known."""

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from keywarp.datasets.moving_scenes.scene import MovingScene, SceneFrame
from keywarp.datasets.samples import Truth


@dataclass(frozen=True)
class Shot:
    """A part of a clip: one scene from one time on, frame by frame."""

    scene: MovingScene
    first: int  # index in the clip of its first frame
    start: int  # the scene's time then, frames


@dataclass(frozen=True)
class SceneClip:
    """Frames that are rendered when they are asked for.

    Iterate over it for one `SceneFrame` after the other, or index it; only `images` and `truths` keep all.
    """

    name: str
    shots: tuple[Shot, ...]
    length: int  # frames

    @property
    def cuts(self) -> tuple[int, ...]:
        """The indices of the frames that start a new shot, without the first frame."""
        return tuple(shot.first for shot in self.shots[1:])

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> SceneFrame:
        scene, time = self.locate(index)
        return scene.render(time)

    def __iter__(self) -> Iterator[SceneFrame]:
        return (self[index] for index in range(self.length))

    def locate(self, index: int) -> tuple[MovingScene, int]:
        """The scene of a frame, and its time there.

        Raises:
            IndexError: The clip hasn't such a frame.
        """
        if not 0 <= index < self.length:
            raise IndexError(f"frame {index} of {self.name}, which has {self.length}")
        shot = self.shots[bisect_right(self.shots, index, key=lambda shot: shot.first) - 1]
        return shot.scene, shot.start + index - shot.first

    def images(self) -> npt.NDArray[np.uint8]:
        """All frames, (T, H, W, 3)."""
        return np.stack([scene.image(time) for scene, time in map(self.locate, range(self.length))])

    def truths(self) -> list[Truth]:
        """Labels and boxes of all frames."""
        return [scene.truth(time) for scene, time in map(self.locate, range(self.length))]
