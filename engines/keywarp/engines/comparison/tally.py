"""What a comparison has counted so far, which can be saved and loaded."""

import json
import os
from array import array
from collections.abc import Iterable
from dataclasses import astuple, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from keywarp.engines.comparison.agreement import Counts
from keywarp.engines.comparison.features import Channels


class Group(NamedTuple):
    """Propagated results whose counts are added up."""

    clip: int
    source: int
    age: int  # frames
    hundredths: int  # of a second since the key frame
    cut: bool  # whether there is a cut between the key frame and the frame


class ErrorGroup(NamedTuple):
    """Propagated features whose errors are added up."""

    source: int  # COPIED for copied features
    age: int  # frames
    cut: bool


COPIED = -1
REFERENCE = -1  # among the costs: the engine of the per-frame results, if it is another one


class Pair(NamedTuple):
    """One propagated result, by itself."""

    clip: int
    source: int
    key: int  # the key frame's position in its video
    frame: int  # the frame's position in its video
    age: int  # frames
    time: float  # seconds since the video's start
    seconds: float  # since the key frame
    agreement: float
    mistakes: int  # pixels or boxes that don't agree
    cut: bool  # whether there is a cut between the key frame and the frame
    reliability: float  # as the engine rated the result; NaN if it did not
    replaced: bool  # whether another motion source had to be used


class Pairs:
    """Pairs in little memory: long videos have millions."""

    def __init__(self, values: Iterable[float] = ()) -> None:
        self._values = array("d", values)

    def append(self, pair: Pair) -> None:
        """Add a pair."""
        self._values.extend(pair)

    def table(self) -> NDArray[np.float64]:
        """Return the pairs as rows, with the columns of `Pair`."""
        return np.array(self._values, np.float64).reshape(-1, len(Pair._fields))

    @staticmethod
    def pair(row: NDArray[np.float64]) -> Pair:
        """Return the pair in a row of the table."""
        v = row.tolist()
        whole = [int(x) for x in v[:5]]
        return Pair(
            whole[0],
            whole[1],
            whole[2],
            whole[3],
            whole[4],
            time=v[5],
            seconds=v[6],
            agreement=v[7],
            mistakes=int(v[8]),
            cut=bool(v[9]),
            reliability=v[10],
            replaced=bool(v[11]),
        )


@dataclass(slots=True)
class ClipTally:
    """What was done of one clip."""

    starts: int = 0  # key frames whose propagated frames were all compared
    next: int = 0  # number of the key start that comes after them
    end: int = 0  # position after the last frame that was compared
    decoded: int = 0  # frames
    evaluated: int = 0  # frames on which the whole network ran
    seconds: float = 0.0  # from the first frame to the last
    width: int = 0  # pixels
    height: int = 0  # pixels
    cuts: list[float] = field(default_factory=list)  # seconds since the video's start
    complete: bool = False


@dataclass(slots=True)
class SessionTally:
    """One stream with a schedule, from a clip's first frame to its last."""

    counts: Counts
    frames: int  # processed
    compared: int  # of these, with a per-frame result
    keys: int
    overhead: float  # seconds a frame for the schedule's decision


@dataclass(frozen=True, slots=True)
class Cost:
    """What frames cost, seconds."""

    key: float
    propagated: float
    key_processor: float  # of all threads
    propagated_processor: float  # of all threads


class Tally:
    """The sums of a comparison."""

    def __init__(self, clips: int) -> None:
        self.clips = [ClipTally() for _ in range(clips)]
        self.counts: dict[Group, Counts] = {}
        self.same: dict[int, Counts] = {}  # by clip: per-frame results of the key frames, compared with themselves
        self.itself: dict[int, Counts] = {}  # by clip: the same, compared with those of the frames moved by a pixel
        self.errors: dict[ErrorGroup, Channels] = {}
        self.moments: NDArray[np.float64] = np.zeros((2, 0))  # of the key frames' features, see `features.moments`
        self.moment_frames = 0
        self.pairs = Pairs()
        self.sessions: dict[tuple[int, str, int], SessionTally] = {}  # by source, schedule and clip
        self.costs: dict[int, Cost] = {}  # by source

    def add_counts(self, group: Group, counts: Counts) -> None:
        """Add the counts of a propagated result."""
        self.counts[group] = self.counts[group] + counts if group in self.counts else counts

    def add_same(self, clip: int, counts: Counts, itself: Counts) -> None:
        """Add the counts of a key frame's result."""
        self.same[clip] = self.same[clip] + counts if clip in self.same else counts
        self.itself[clip] = self.itself[clip] + itself if clip in self.itself else itself

    def add_error(self, group: ErrorGroup, error: Channels) -> None:
        """Add the squared errors of features."""
        self.errors[group] = self.errors[group] + error if group in self.errors else error

    def add_moments(self, moments: NDArray[np.float64]) -> None:
        """Add the moments of a key frame's features."""
        self.moments = self.moments + moments if self.moment_frames else moments
        self.moment_frames += 1

    def save(self, path: Path) -> None:
        """Write everything to a file, which is either the old or the new one if the process dies.

        Raises:
            OSError: If the file can't be written.
        """
        plain: dict[str, Any] = {
            "clips": [{name: getattr(clip, name) for name in ClipTally.__dataclass_fields__} for clip in self.clips],
            "moment_frames": self.moment_frames,
            "sessions": [
                [*key, s.counts.tolist(), s.frames, s.compared, s.keys, s.overhead] for key, s in self.sessions.items()
            ],
            "costs": [[source, *astuple(cost)] for source, cost in self.costs.items()],
        }
        part = path.with_name(path.name + ".part")
        with part.open("wb") as file:
            np.savez(
                file,
                plain=np.array(json.dumps(plain)),
                groups=np.array(list(self.counts), np.int64),
                counts=np.array(list(self.counts.values())),
                same=np.array(list(self.same)),
                same_counts=np.array(list(self.same.values())),
                itself_counts=np.array(list(self.itself.values())),
                error_groups=np.array(list(self.errors), np.int64),
                errors=np.array(list(self.errors.values())),
                moments=self.moments,
                pairs=self.pairs.table(),
            )
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)

    @classmethod
    def load(cls, path: Path) -> "Tally":
        """Read what `save` wrote.

        Raises:
            OSError: If the file can't be read.
            ValueError: If it isn't such a file.
        """
        with path.open("rb") as opened, np.load(opened) as file:
            plain = json.loads(str(file["plain"]))
            tally = cls(0)
            tally.clips = [ClipTally(**clip) for clip in plain["clips"]]
            for row, counts in zip(file["groups"].tolist(), file["counts"], strict=True):
                clip, source, age, hundredths, cut = row
                tally.counts[Group(clip, source, age, hundredths, bool(cut))] = counts
            tally.same = dict(zip(file["same"].tolist(), file["same_counts"], strict=True))
            tally.itself = dict(zip(file["same"].tolist(), file["itself_counts"], strict=True))
            for row, error in zip(file["error_groups"].tolist(), file["errors"], strict=True):
                source, age, cut = row
                tally.errors[ErrorGroup(source, age, bool(cut))] = error
            tally.moments, tally.moment_frames = file["moments"], plain["moment_frames"]
            tally.pairs = Pairs(file["pairs"].ravel())
        for source, schedule, clip, session_counts, *rest in plain["sessions"]:
            tally.sessions[source, schedule, clip] = SessionTally(np.array(session_counts, np.int64), *rest)
        tally.costs = {source: Cost(*seconds) for source, *seconds in plain["costs"]}
        return tally
