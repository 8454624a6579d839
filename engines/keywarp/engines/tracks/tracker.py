"""Follow the objects of one stream from frame to frame."""

import time
from dataclasses import replace
from typing import Final

import lap
import numpy as np
from numpy.typing import NDArray

from keywarp.engines.result import NO_TRACK, Detections, FrameResult, KeyReason
from keywarp.engines.tracks.filter import BoxFilter
from keywarp.engines.tracks.motion import Flow, displacements

# ByteTrack's least confidences are 0.6 and 0.7, for a detector that reports nearly everything. These are shares of the
# range from a detector's threshold to 1, which give the same for `street-detect`.
CERTAIN: Final = 0.27  # least confidence of detections that are matched first
BEGIN: Final = 0.45  # least confidence of detections with which a track begins
LEAST_IOU: Final = 0.1  # of a detection with a track's predicted box, to be matched to it
PATIENCE: Final = 30  # frames
LONGEST_GAP: Final = 1.0  # seconds that may be missing from a stream without its tracks ending


class Tracker:
    """Gives each detected object of a stream an id that it keeps. The same results always get the same ids.

    Ids count from 1 and are never given twice, even after a cut. A new object gets one on the second frame on which it
    is seen in a row, so that a single false detection doesn't.

    Example:
        >>> tracker = Tracker(engine.bundle.manifest.detection.threshold)
        >>> tracker.update(session.process(frame)).detections.track_id
        array([1, 2])
    """

    def __init__(self, threshold: float, patience: int = PATIENCE, *, flow: bool = True) -> None:
        """Begin without tracks.

        Args:
            threshold: The least confidence that the detector reports.
            patience: The number of frames after which an object that isn't seen is forgotten.
            flow: Whether boxes move along the flow of propagated frames, or only by their velocity.
        """
        self._certain, self._least = (threshold + share * (1 - threshold) for share in (CERTAIN, BEGIN))
        self._patience = patience
        self._use_flow = flow
        self._next = 1
        self._forget()

    def _forget(self) -> None:
        self._filter = BoxFilter()
        self._ids = np.empty(0, np.int64)  # NO_TRACK: seen only once
        self._classes = np.empty(0, np.intp)
        self._unseen = np.empty(0, np.int64)  # frames since each was seen
        self._last: FrameResult | None = None
        self._camera = np.zeros(2)  # how far the whole picture moved on the last frame, x and y in pixels
        self._timestamp: float | None = None

    def update(self, found: FrameResult, timestamp: float | None = None) -> FrameResult:
        """Return the next frame's result with `track_id` in its detections. Other results are returned as they are.

        Args:
            found: The result.
            timestamp: When the frame was taken, in seconds of any clock, or None if that isn't known.
        """
        if not isinstance(found.output, Detections):
            return found
        started = time.perf_counter()
        if self._is_new_scene(found, timestamp):
            self._forget()
        self._predict(found)
        ids = self._associate(found.output, found.key_age)
        self._last, self._timestamp = found, timestamp
        output = replace(found.output, track_id=ids)
        return replace(found, output=output, postprocess=found.postprocess + time.perf_counter() - started)

    def _is_new_scene(self, found: FrameResult, timestamp: float | None) -> bool:
        """Return whether nothing on a frame is where it was on the last one."""
        if found.reason in (KeyReason.START, KeyReason.SIZE, KeyReason.CUT):
            return True
        if found.reason is not KeyReason.GAP:
            return False
        known = timestamp is not None and self._timestamp is not None
        return not (known and 0 <= timestamp - self._timestamp <= LONGEST_GAP)  # type: ignore[operator]

    def _predict(self, found: FrameResult) -> None:
        """Move all tracks to where they should be on this frame."""
        last = self._last
        if last is None:
            return
        frames = max(1, found.index - last.index)
        if self._use_flow and found.flow is not None:
            before: Flow | None = last.flow if last.key_age else None
            picture = np.array([[0.0, 0.0, found.width, found.height]])
            boxes = np.concatenate([picture, self._filter.boxes])
            moved, spread = displacements(boxes, before, found.flow, found.height, found.width)
            self._camera = moved[0] / frames
            seen = np.flatnonzero(self._unseen == 0)  # where the others were, the flow is that of what hides them
            self._filter.predict(frames, self._camera)
            self._filter.shift(seen, moved[1:][seen], spread[1:][seen], found.key_age)
        else:
            self._filter.predict(frames, self._camera)
        self._unseen += frames

    def _associate(self, found: Detections, key_age: int) -> NDArray[np.int64]:
        """Match the detections to the tracks, begin and end tracks, and return the detections' track ids."""
        boxes = found.xyxy.astype(np.float64)
        matched = np.full(len(found), NO_TRACK, np.int64)  # the number of each detection's track
        certain = found.confidence >= self._certain
        free = np.arange(len(self._ids))
        predicted = self._filter.boxes
        for which in map(np.flatnonzero, (certain, ~certain)):
            similar = iou(predicted[free], boxes[which])
            similar[self._classes[free, np.newaxis] != found.class_id[which]] = 0
            rows, columns = _assign(similar, LEAST_IOU)
            matched[which[columns]] = free[rows]
            free = np.delete(free, rows)
        hits = np.flatnonzero(matched != NO_TRACK)
        tracks = matched[hits]
        self._filter.update(tracks, boxes[hits], key_age)
        self._unseen[tracks] = 0
        for track in tracks.tolist():  # in the order of the detections
            if self._ids[track] == NO_TRACK:
                self._ids[track] = self._next
                self._next += 1
        ids = np.full(len(found), NO_TRACK, np.int64)
        ids[hits] = self._ids[tracks]
        self._end()
        self._begin(found, boxes, np.flatnonzero((matched == NO_TRACK) & (found.confidence >= self._least)))
        return ids

    def _begin(self, found: Detections, boxes: NDArray[np.float64], new: NDArray[np.intp]) -> None:
        self._filter.add(boxes[new])
        self._ids = np.concatenate([self._ids, np.full(len(new), NO_TRACK)])
        self._classes = np.concatenate([self._classes, found.class_id[new]])
        self._unseen = np.concatenate([self._unseen, np.zeros(len(new), np.int64)])

    def _end(self) -> None:
        """Forget tracks that haven't been seen for long, and those that were seen only once."""
        kept = (self._unseen == 0) | ((self._ids != NO_TRACK) & (self._unseen <= self._patience))
        self._filter.keep(kept)
        self._ids, self._classes, self._unseen = self._ids[kept], self._classes[kept], self._unseen[kept]


def iou(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the IoU of each box with each, (n, m)."""
    left_top = np.maximum(first[:, np.newaxis, :2], second[:, :2])
    right_bottom = np.minimum(first[:, np.newaxis, 2:], second[:, 2:])
    shared = np.clip(right_bottom - left_top, 0, None).prod(axis=2)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(axis=1) for boxes in (first, second)]
    return np.asarray(shared / np.maximum(areas[0][:, np.newaxis] + areas[1] - shared, 1e-9))


def _assign(similar: NDArray[np.float64], least: float) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the rows and columns of the pairs whose similarities are largest in all, each at least `least`."""
    if 0 in similar.shape:
        return np.empty(0, np.intp), np.empty(0, np.intp)
    columns, _ = lap.lapjv(1 - similar, extend_cost=True, return_cost=False)
    rows = np.flatnonzero(columns >= 0)
    paired = columns[rows].astype(np.intp)
    enough = similar[rows, paired] >= least
    return rows[enough], paired[enough]
