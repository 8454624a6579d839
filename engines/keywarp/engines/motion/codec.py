"""Codec motion: the flow to the key frame, accumulated from the motion vectors of the video itself.

A vector tells where a block comes from, but not from which frame: FFmpeg tells only whether it is an earlier or a later
one. So each block proposes the flows that follow if it refers to this or that frame, and the images decide. Encoders
choose vectors that save bits, which needn't be the motion. So a quick optical flow that starts from them proposes a
better flow, and copying is kept wherever it matches as well.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from keywarp.engines.errors import InvalidFrameError
from keywarp.engines.motion.vectors import MotionVectors

Cells = NDArray[np.float32]  # a flow to the key frame: (h, w, 2), (dx, dy) in cells

CELL: Final = 4  # side of the cells in which vectors are accumulated, pixels of the small image
SAMPLES: Final = 2  # grey samples per cell and axis in which proposals are compared
SHORTEST: Final = 8  # cells; on smaller images OpenCV's DIS fails
BLOCK: Final = 8  # side of the smallest blocks that FFmpeg tells apart, pixels of the frame

NEAREST: Final = 2  # frames right before to which a vector may refer, in the order of display
REFERRED: Final = 3  # frames before that aren't B pictures to which it may refer: as many as x264 uses by default
KEPT: Final = 16  # frames whose flow is kept: three groups of P and B pictures with up to four B pictures
LATER: Final = 2  # frames ahead to which a vector may refer
FINE_CELLS: Final = 4  # up to so many pixels a cell of the feature map, the optical flow is searched to the last pixel
COVERED: Final = 0.25  # share of a picture's blocks below which its vectors can't carry the chain on

# What a proposal must be better by, in grey levels of its matching error. Negative: by how much it may be worse.
UNLIKELY: Final = 0.5  # a reference that encoders rarely choose, or no motion since the last frame
POLISHED: Final = -1.0  # the optical flow, which sees finer motion than blocks
COPIED: Final = -1.5  # no motion since the key frame
WINDOW: Final = (3, 3)  # cells over which errors are averaged


@dataclass(frozen=True, slots=True, eq=False)
class _Past:
    flow: Cells
    referred: bool  # whether encoders like to refer to this frame


@dataclass(frozen=True, slots=True, eq=False)
class _Processed:
    grey: NDArray[np.uint8]
    flow: Cells


@dataclass(frozen=True, slots=True)
class Area:
    """The part of the small images that shows the video's frame. All lengths are pixels of the small images."""

    left: float
    top: float
    width: float
    height: float


class CodecTracker:
    """Follows one key frame through the frames after it.

    Each frame is linked to the last processed one by a coarse optical flow, too. It alone carries the chain on where
    vectors are missing, or where nearly all blocks are intra-coded.

    Attributes:
        source: The motion source of the last flow: `codec`, or `dis-chained` where vectors were missing.
    """

    def __init__(self, key_small: NDArray[np.uint8], pixels_per_cell: int = 8, area: Area | None = None) -> None:
        """Start at a key frame.

        Args:
            key_small: The key frame's small image, uint8 (H, W, 3), RGB.
            pixels_per_cell: The finest feature map's stride in pixels of the small image.
            area: The part of the small image that shows the frame, or None for all of it.
        """
        self.source = "codec"
        self._last_small = key_small
        self._fork: CodecTracker | None = None
        self._pixels_per_cell = pixels_per_cell
        self._height, self._width = key_small.shape[:2]
        self._area = area or Area(0, 0, self._width, self._height)
        self._rows, self._columns = (max(SHORTEST, -(-side // CELL)) for side in (self._height, self._width))
        self._positions = _positions(self._rows, self._columns)
        self._samples = _positions(self._rows * SAMPLES, self._columns * SAMPLES)
        self._key = self._grey(key_small)
        self._key_samples = self._shrink(self._key)
        self._still: Cells = np.zeros((self._rows, self._columns, 2), np.float32)
        self._past = deque([_Past(self._still, referred=True)], maxlen=KEPT)
        self._last = _Processed(self._key, self._still)
        finest = 0 if pixels_per_cell <= FINE_CELLS else 1
        self._polishing, self._linking = _open_dis(finest), _open_dis(finest + 1)

    def advance(
        self, current_small: NDArray[np.uint8], vectors: Sequence[MotionVectors | None] = ()
    ) -> NDArray[np.float32]:
        """Find the flow from a frame to the key frame.

        Args:
            current_small: The frame's small image, of the key frame's size.
            vectors: One entry for each frame that was decoded since the last call, those that were dropped included,
                the last of this frame: its vectors, or None if the decoder gave none.

        Returns:
            The flow, (H, W, 2), (dx, dy) in pixels of the small image.

        Raises:
            InvalidFrameError: If the image's size isn't the key frame's.
        """
        if current_small.shape[:2] != (self._height, self._width):
            raise InvalidFrameError(
                f"the key frame's small image is {self._height}x{self._width}, this one "
                f"{current_small.shape[0]}x{current_small.shape[1]}: start a new key frame"
            )
        self._last_small = current_small
        if self._fork:
            self._fork.advance(current_small, vectors)
        grey = self._grey(current_small)
        linked = bool(vectors) and all(frame is not None and _covered(frame) >= COVERED for frame in vectors)
        self.source = "codec" if linked else "dis-chained"
        for frame in vectors[:-1]:
            self._past.append(_Past(self._likely(frame), referred=frame is None or frame.picture != "B"))
        current = vectors[-1] if vectors else None
        flow = self._follow(grey, current, skipped=len(vectors) > 1)
        self._past.append(_Past(flow, referred=current is None or current.picture != "B"))
        self._last = _Processed(grey, flow)
        full = cv2.resize(flow * CELL, (self._columns * CELL, self._rows * CELL), interpolation=cv2.INTER_LINEAR)
        return np.ascontiguousarray(full[: self._height, : self._width], dtype=np.float32)

    def fork(self) -> "CodecTracker":
        """See `MotionTracker.fork`."""
        self._fork = CodecTracker(self._last_small, self._pixels_per_cell, self._area)
        return self._fork

    def _follow(self, grey: NDArray[np.uint8], vectors: MotionVectors | None, *, skipped: bool) -> Cells:
        """Choose each cell's flow among all proposals."""
        best = _Best(self._key_samples, self._shrink(grey), self._samples)
        best.offer(self._last.flow, UNLIKELY)
        if skipped:
            best.offer(self._past[-1].flow, UNLIKELY)
        best.offer(_chain(self._link(grey), self._last.flow, self._positions))
        if vectors is not None:
            for proposal, inside, penalty in self._proposals(vectors):
                best.offer(proposal, penalty, inside)
        best.offer(self._polish(grey, best.flow), POLISHED)
        best.offer(self._still, COPIED)
        return best.flow

    def _proposals(self, vectors: MotionVectors) -> Iterator[tuple[Cells, NDArray[np.bool_], float]]:
        """Yield the flows that follow from each frame that the blocks may refer to, where they hold, and a penalty."""
        earlier, later = self._spread(vectors)
        if earlier:
            step, inside = earlier
            for frame in self._references():
                yield _chain(step, frame.flow, self._positions), inside, 0.0 if frame.referred else UNLIKELY
        if later:
            step, inside = later
            for ahead in range(1, LATER + 1):  # at a constant speed, it comes from the opposite side
                yield _chain(-step / np.float32(ahead), self._past[-1].flow, self._positions), inside, UNLIKELY

    def _references(self) -> Iterator[_Past]:
        """Yield the frames that earlier vectors may refer to: the nearest, and the nearest that aren't B pictures."""
        nearest, referred = NEAREST, REFERRED
        for frame in reversed(self._past):
            if nearest > 0 or (frame.referred and referred > 0):
                yield frame
            nearest -= 1
            referred -= frame.referred

    def _likely(self, vectors: MotionVectors | None) -> Cells:
        """Return the flow of a frame without an image: its blocks refer to the last frame that isn't a B picture."""
        flow = self._past[-1].flow
        if vectors is None:
            return flow
        earlier, later = self._spread(vectors)
        if later:
            step, inside = later
            flow = np.where(inside[..., np.newaxis], _chain(-step, flow, self._positions), flow)
        if earlier:
            step, inside = earlier
            reference = next((frame for frame in reversed(self._past) if frame.referred), self._past[-1]).flow
            flow = np.where(inside[..., np.newaxis], _chain(step, reference, self._positions), flow)
        return flow

    def _spread(self, vectors: MotionVectors) -> list[tuple[Cells, NDArray[np.bool_]] | None]:
        """Return the vectors in the cells, and which cells have one: to earlier frames, and to later ones."""
        area = self._area
        scale = np.array([area.width / vectors.width, area.height / vectors.height], np.float32)
        rows, columns = -(-vectors.height // BLOCK), -(-vectors.width // BLOCK)
        y, x = ((np.arange(cells) + 0.5) * CELL for cells in (self._rows, self._columns))
        ys = np.clip(((y - area.top) / scale[1] / BLOCK).astype(np.intp), 0, rows - 1)
        xs = np.clip(((x - area.left) / scale[0] / BLOCK).astype(np.intp), 0, columns - 1)
        found: list[tuple[Cells, NDArray[np.bool_]] | None] = []
        for later in (False, True):
            blocks, drawn = _draw(vectors, later, rows, columns)
            if not drawn.any():
                found.append(None)
                continue
            found.append((blocks[ys[:, np.newaxis], xs] * (scale / np.float32(CELL)), drawn[ys[:, np.newaxis], xs]))
        return found

    def _link(self, grey: NDArray[np.uint8]) -> Cells:
        """Return the optical flow to the last processed frame."""
        return self._to_cells(self._linking.calc(grey, self._last.grey, None))  # type: ignore[call-overload]

    def _polish(self, grey: NDArray[np.uint8], flow: Cells) -> Cells:
        """Return the optical flow to the key frame, searched for around a flow."""
        size = (self._columns * CELL, self._rows * CELL)
        return self._to_cells(
            self._polishing.calc(grey, self._key, cv2.resize(flow * CELL, size, interpolation=cv2.INTER_LINEAR))
        )

    def _to_cells(self, flow: NDArray[np.generic] | cv2.typing.MatLike) -> Cells:
        shrunk = cv2.resize(np.asarray(flow), (self._columns, self._rows), interpolation=cv2.INTER_AREA) / CELL
        cells = np.asarray(shrunk, dtype=np.float32)
        return cells if np.isfinite(cells).all() else self._still

    def _grey(self, small: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the grey image, its border repeated up to whole cells."""
        below, right = self._rows * CELL - self._height, self._columns * CELL - self._width
        grey = cv2.copyMakeBorder(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY), 0, below, 0, right, cv2.BORDER_REPLICATE)
        return np.asarray(grey, dtype=np.uint8)

    def _shrink(self, grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
        size = (self._columns * SAMPLES, self._rows * SAMPLES)
        return np.asarray(cv2.resize(grey, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


class _Best:
    """Keeps, in each cell, the proposal under which the frame matches the key frame best."""

    def __init__(self, key: NDArray[np.uint8], current: NDArray[np.uint8], positions: NDArray[np.float32]) -> None:
        self._key, self._current, self._positions = key, current, positions
        height, width = current.shape
        self._rows, self._columns = height // SAMPLES, width // SAMPLES
        self._everywhere = np.ones((self._rows, self._columns), np.bool_)
        self._error = np.full((self._rows, self._columns), np.inf, np.float32)
        self.flow: Cells = np.zeros((self._rows, self._columns, 2), np.float32)

    def offer(self, flow: Cells, penalty: float = 0.0, inside: NDArray[np.bool_] | None = None) -> None:
        """Take over a flow where its matching error, plus a penalty, is smaller, and `inside` holds."""
        size = self._current.shape[::-1]
        source = self._positions + cv2.resize(flow * SAMPLES, size, interpolation=cv2.INTER_NEAREST)
        moved = cv2.remap(self._key, source, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)  # type: ignore[call-overload]
        difference = cv2.resize(
            cv2.absdiff(self._current, moved), (self._columns, self._rows), interpolation=cv2.INTER_AREA
        )
        error = cv2.blur(difference.astype(np.float32), WINDOW) + np.float32(penalty)
        from keywarp.engines.motion.loops import take_better  # imports numba, if that is installed

        take_better(flow, error, self._everywhere if inside is None else inside, self.flow, self._error)


def _chain(step: Cells, flow: Cells, positions: NDArray[np.float32]) -> Cells:
    """Compose a step to a frame with that frame's flow."""
    onward = cv2.remap(flow, positions + step, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)  # type: ignore[call-overload]
    return np.asarray(step + onward, dtype=np.float32)


def _open_dis(finest: int) -> cv2.DISOpticalFlow:
    """Open DIS without smoothing, down to a level of the pyramid. It holds buffers, so each tracker has its own."""
    search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
    search.setFinestScale(finest)
    return search


def _draw(
    vectors: MotionVectors, later: bool, rows: int, columns: int
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Draw the vectors to later or to earlier frames into the smallest blocks.

    Returns:
        The vectors, (rows, columns, 2) in pixels, and where there is one.
    """
    from keywarp.engines.motion.loops import fill_blocks  # imports numba, if that is installed

    blocks, drawn = np.zeros((rows, columns, 2), np.float32), np.zeros((rows, columns), np.bool_)
    fill_blocks(vectors.corners, vectors.sizes, vectors.displacements, vectors.future == later, BLOCK, blocks, drawn)
    return blocks, drawn


def _covered(vectors: MotionVectors) -> float:
    """Return the share of a picture that its blocks cover; a block with two references counts twice."""
    return float(vectors.sizes.astype(np.int64).prod(axis=1).sum()) / (vectors.width * vectors.height)


@cache
def _positions(rows: int, columns: int) -> NDArray[np.float32]:
    """Return the x and y of each position, (rows, columns, 2)."""
    ys, xs = np.mgrid[:rows, :columns]
    return np.stack([xs, ys], axis=-1).astype(np.float32)
