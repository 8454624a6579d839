"""The frames of videos to calibrate on, and those held out to judge on.

A video is divided into ranges of time. Those for calibration and those for judging take turns, so that both see all of
it, and no frame to judge on is near to one that was calibrated on.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from keywarp.engines.comparison import Clip, ClipFrame
from keywarp.quantization.errors import QuantizationError

PASSAGES = 16  # of each kind, over all clips


@dataclass(frozen=True, slots=True, eq=False)
class Passage:
    """Consecutive frames of one size: a key frame, and those that are propagated from it."""

    frames: tuple[ClipFrame, ...]
    held_out: bool  # whether to judge on it


def read_passages(clips: Sequence[Clip], length: int) -> Iterator[Passage]:
    """Read passages from clips.

    Args:
        clips: The clips.
        length: The number of frames of a passage.

    Yields:
        Passages in the order of time, of each clip one to calibrate on and one to judge on in turn.

    Raises:
        QuantizationError: If a clip is too short for one of each.
    """
    for clip in clips:
        count = sum(1 for _ in clip.frames()) if clip.count is None else clip.count
        ranges = 2 * min(max(PASSAGES // len(clips), 1), count // (2 * length))
        if not ranges:
            raise QuantizationError(
                f"{clip.name} has {count} frames, but {2 * length} are needed to calibrate and to judge with a key "
                f"interval of {length}: use a longer video"
            )
        starts = [number * count // ranges for number in range(ranges)]
        yield from _cut(clip, starts, length)


def _cut(clip: Clip, starts: Sequence[int], length: int) -> Iterator[Passage]:
    number = 0
    frames: list[ClipFrame] = []
    for position, frame in enumerate(clip.frames()):
        if number == len(starts):
            return
        if position < starts[number]:
            continue
        if frames and frame.image.shape != frames[0].image.shape:
            frames.clear()
            number += 1
            continue
        frames.append(frame)
        if len(frames) == length:
            yield Passage(tuple(frames), held_out=number % 2 == 1)
            frames.clear()
            number += 1
