"""Moving Scenes, the data set: pairs to train on, snippets and clips to evaluate on, exact flow."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import overload

import cv2
import numpy as np

from keywarp.datasets.errors import DataError
from keywarp.datasets.moving_scenes.camera import COVER
from keywarp.datasets.moving_scenes.clip import SceneClip, Shot
from keywarp.datasets.moving_scenes.options import SceneOptions
from keywarp.datasets.moving_scenes.scene import MovingScene, draw_scene
from keywarp.datasets.samples import MAX_GAP, FlowPair, FramePair, Snippet
from keywarp.datasets.types import Image

_SNIPPETS, _CLIPS = 0, 1  # what a seed is for


@dataclass(frozen=True)
class SceneImages(Sequence[Image]):
    """The frames of a scene up to time 0, oldest first. They are rendered whenever they are indexed."""

    scene: MovingScene
    length: int  # frames

    def __len__(self) -> int:
        return self.length

    @overload
    def __getitem__(self, index: int) -> Image: ...

    @overload
    def __getitem__(self, index: slice) -> list[Image]: ...

    def __getitem__(self, index: int | slice) -> Image | list[Image]:
        times = range(1 - self.length, 1)[index]
        return self.scene.image(times) if isinstance(times, int) else [self.scene.image(time) for time in times]


class MovingScenes:
    """Generated video: photographs and patterns in the outlines of eight classes move over photographs.

    It implements `PairSource`, `SnippetSource` and `FlowSource`. A labelled frame is a scene's moment 0, its key frames
    and the frames before it are earlier moments.

    Args:
        photographs: What scenes are made of, each (h, w, 3) RGB of any size.
        options: What scenes are like.
        seed: Other seeds have other snippets and clips.
        size: How many snippets there are.

    Raises:
        DataError: There are no photographs.
    """

    def __init__(
        self, photographs: Sequence[Image], options: SceneOptions | None = None, seed: int = 0, size: int = 200
    ) -> None:
        if not photographs:
            raise DataError("Moving Scenes are made of photographs: give at least one")
        self.options = options or SceneOptions()
        self.seed = seed
        self.size = size
        self._photographs = [_cover(image, self.options) for image in photographs]

    def draw(self, random: np.random.Generator) -> MovingScene:
        """Draw a scene."""
        return draw_scene(self._photographs, self.options, random)

    def scene(self, number: int) -> MovingScene:
        """The scene of a snippet."""
        return self.draw(np.random.default_rng((self.seed, _SNIPPETS, number)))

    def name(self, number: int) -> str:
        """A snippet's."""
        return f"scene {self.seed}-{number}"

    def pair(self, random: np.random.Generator, max_gap: int = MAX_GAP) -> FramePair:
        """Draw a labelled frame and its key frame, 0 to `max_gap` frames before it."""
        gap = int(random.integers(max_gap + 1))
        scene = self.draw(random)
        frame = scene.render(0)
        return FramePair(frame.image, scene.image(-gap) if gap else frame.image, gap, frame.truth)

    def flow_pair(self, random: np.random.Generator) -> FlowPair:
        """Draw two frames, the key 1 to `options.flow_gap` frames earlier, and the motion between them."""
        gap = int(random.integers(1, self.options.flow_gap + 1))
        scene = self.draw(random)
        return FlowPair(scene.image(0), scene.image(-gap), scene.flow(0, -gap))

    def __len__(self) -> int:
        return self.size

    def snippets(self, length: int) -> Iterator[Snippet]:
        """Every labelled frame with the `length` - 1 frames before it, rendered when they are indexed."""
        for number in range(self.size):
            scene = self.scene(number)
            yield Snippet(self.name(number), SceneImages(scene, length), scene.truth(0))

    def clip(self, number: int, frames: int) -> SceneClip:
        """A video of several shots, hard cuts between them.

        Args:
            number: Which: there is no end of them.
            frames: How long it is.
        """
        shots: list[Shot] = []
        first = 0
        while first < frames:
            random = np.random.default_rng((self.seed, _CLIPS, number, len(shots)))
            length = int(random.integers(*self.options.shot, endpoint=True))
            shots.append(Shot(self.draw(random), first, -(length // 2)))  # moment 0 is in its middle
            first += length
        return SceneClip(f"clip {self.seed}-{number}", tuple(shots), frames)


def _cover(photograph: Image, options: SceneOptions) -> Image:
    """A photograph in the size that the camera takes for an image's."""
    height, width = photograph.shape[:2]
    factor = COVER * max(options.height / height, options.width / width)
    size = (round(width * factor), round(height * factor))
    return np.asarray(
        cv2.resize(photograph, size, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR), np.uint8
    )
