"""The data set Moving Scenes, with pairs to train on, snippets and clips to evaluate on, and exact flow."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np

from keywarp.datasets.errors import DataError
from keywarp.datasets.images import scale_image
from keywarp.datasets.moving_scenes.camera import COVER
from keywarp.datasets.moving_scenes.clip import SceneClip, Shot
from keywarp.datasets.moving_scenes.options import SceneOptions
from keywarp.datasets.moving_scenes.scene import MovingScene, draw_scene
from keywarp.datasets.samples import MAX_GAP, FlowPair, FramePair, Snippet
from keywarp.datasets.types import Image

_SNIPPETS, _CLIPS = 0, 1  # parts of the seeds, so that snippets and clips are drawn independently


@dataclass(frozen=True)
class SceneImages(Sequence[Image]):
    """The images of a scene up to time 0, oldest first. Each is rendered whenever it is indexed."""

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

    It implements `PairSource`, `SnippetSource` and `FlowSource`. A labelled frame shows a scene at time 0. Its key
    frames and the frames before it show the same scene at earlier times.

    Args:
        photographs: The photographs that scenes are made of, each (h, w, 3) RGB of any size.
        options: The distribution that scenes are drawn from.
        seed: The random seed of snippets and clips.
        size: The number of snippets.

    Raises:
        DataError: If there are no photographs.
    """

    def __init__(
        self, photographs: Sequence[Image], options: SceneOptions | None = None, seed: int = 0, size: int = 200
    ) -> None:
        if not photographs:
            raise DataError("Moving Scenes are made of photographs; give at least one")
        self.options = options or SceneOptions()
        self.seed = seed
        self.size = size
        self._photographs = [_scale_to_cover(image, self.options) for image in photographs]

    def draw(self, random: np.random.Generator) -> MovingScene:
        """Draw a scene."""
        return draw_scene(self._photographs, self.options, random)

    def scene(self, number: int) -> MovingScene:
        """Draw the scene of a snippet."""
        return self.draw(np.random.default_rng((self.seed, _SNIPPETS, number)))

    def name(self, number: int) -> str:
        """Return the name of a snippet."""
        return f"scene {self.seed}-{number}"

    def pair(self, random: np.random.Generator, max_gap: int = MAX_GAP) -> FramePair:
        """Draw a labelled frame and its key frame, 0 to `max_gap` frames before it."""
        gap = int(random.integers(max_gap + 1))
        scene = self.draw(random)
        frame = scene.render(0)
        return FramePair(frame.image, scene.image(-gap) if gap else frame.image, gap, frame.truth)

    def flow_pair(self, random: np.random.Generator) -> FlowPair:
        """Draw two frames, the key frame 1 to `options.flow_gap` frames earlier, and the motion between them."""
        gap = int(random.integers(1, self.options.flow_gap + 1))
        scene = self.draw(random)
        return FlowPair(scene.image(0), scene.image(-gap), scene.flow(0, -gap))

    def __len__(self) -> int:
        return self.size

    def snippets(self, length: int) -> Iterator[Snippet]:
        """Yield every labelled frame with the `length` - 1 frames before it. Images are rendered when indexed."""
        for number in range(self.size):
            scene = self.scene(number)
            yield Snippet(self.name(number), SceneImages(scene, length), scene.truth(0))

    def clip(self, number: int, frames: int) -> SceneClip:
        """Return a video of several shots with hard cuts between them.

        Args:
            number: The clip's number. Every number from 0 on gives a different clip.
            frames: The clip's length in frames.
        """
        shots: list[Shot] = []
        first = 0
        while first < frames:
            random = np.random.default_rng((self.seed, _CLIPS, number, len(shots)))
            length = int(random.integers(*self.options.shot, endpoint=True))
            shots.append(Shot(self.draw(random), first, -(length // 2)))  # time 0 is in the shot's middle
            first += length
        return SceneClip(f"clip {self.seed}-{number}", tuple(shots), frames)


def _scale_to_cover(photograph: Image, options: SceneOptions) -> Image:
    """Scale a photograph to the size that the camera expects for an image's size."""
    height, width = photograph.shape[:2]
    factor = COVER * max(options.height / height, options.width / width)
    return scale_image(photograph, factor)
