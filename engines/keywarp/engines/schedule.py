"""When to place a key frame (Algorithm 1, line 6; section 3, "Key Frame Scheduling")."""

from dataclasses import dataclass
from typing import Protocol


class KeySchedule(Protocol):
    """Decides for each frame that isn't a key frame for another reason (start, gap, new size)."""

    def is_key(self, index: int, key_index: int) -> bool:
        """Whether frame `index` is a key frame, the last one being `key_index` (< index)."""
        ...


@dataclass(frozen=True, slots=True)
class FixedInterval:
    """The paper's schedule: a key frame every `interval` frames. Interval 1 is per-frame evaluation."""

    interval: int  # l, frames

    def __post_init__(self) -> None:
        if self.interval < 1:
            raise ValueError(f"the key interval is at least 1 frame, got {self.interval}")

    def is_key(self, index: int, key_index: int) -> bool:
        """Whether `interval` frames have passed since the last key frame."""
        return index - key_index >= self.interval
