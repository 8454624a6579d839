"""The motion vectors that a video's encoder chose, one block at a time, in a form that no codec shows through."""

from dataclasses import dataclass, replace
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

PictureType = Literal["I", "P", "B"]

# FFmpeg's names of the codecs whose decoders export motion vectors. Those of HEVC, VP8, VP9 and AV1 don't (FFmpeg 8).
EXPORTED: Final = frozenset(
    ("h264", "mpeg1video", "mpeg2video", "mpeg4", "msmpeg4v1", "msmpeg4v2", "msmpeg4v3", "h263", "flv1", "wmv1", "wmv2")
)
_PICTURES: Final[dict[int, PictureType]] = {2: "P", 3: "B"}  # by FFmpeg's numbers
# By EXIF's number: whether x and y are swapped first, and which of them is then mirrored.
_TURNS: Final = {
    2: (False, True, False),
    3: (False, True, True),
    4: (False, False, True),
    5: (True, False, False),
    6: (True, True, False),
    7: (True, True, True),
    8: (True, False, True),
}
MAX_BLOCKS: Final = 2**20  # of one frame; 8K video in blocks of 8x8 from two references has half as many


@dataclass(frozen=True, slots=True, eq=False)
class MotionVectors:
    """The block vectors of one decoded frame.

    A block that was predicted from two frames has two entries. Blocks without an entry are intra-coded: the encoder
    found nothing like them, or began anew. Which frame a vector refers to isn't known, only on which side it lies.
    """

    width: int  # of the frame, pixels
    height: int  # of the frame, pixels
    picture: PictureType  # I: only intra-coded blocks; P: predicted from frames before; B: from frames on both sides
    corners: NDArray[np.int16]  # (n, 2): x, y of each block's top left pixel
    sizes: NDArray[np.int16]  # (n, 2): width, height in pixels
    displacements: NDArray[np.float32]  # (n, 2): (dx, dy) in pixels; pixel p comes from p + (dx, dy) in its reference
    future: NDArray[np.bool_]  # (n,): whether the reference is a later frame

    def __post_init__(self) -> None:
        """Check the sizes.

        Raises:
            ValueError: If the frame has no pixels, or the arrays don't describe the same number of blocks.
        """
        if self.width < 1 or self.height < 1:
            raise ValueError(f"motion vectors belong to a frame of at least 1x1 pixels, not {self.width}x{self.height}")
        blocks = len(self.future)
        shapes = [array.shape for array in (self.corners, self.sizes, self.displacements, self.future)]
        if shapes != [(blocks, 2), (blocks, 2), (blocks, 2), (blocks,)]:
            raise ValueError(
                "corners, sizes, displacements and future must have the shapes (n, 2), (n, 2), (n, 2) and (n,) for n "
                f"blocks, got {', '.join(map(str, shapes))}"
            )

    def turned(self, orientation: int) -> "MotionVectors":
        """Return the vectors of the frame after it was turned upright.

        Args:
            orientation: How the frame was stored, as EXIF numbers it: 1 is upright, 6 needs 90 degrees clockwise.
        """
        if orientation not in _TURNS:
            return self
        swap, mirror_x, mirror_y = _TURNS[orientation]
        size = np.array([self.width, self.height])
        corners, sizes, displacements = self.corners.astype(np.int32), self.sizes, self.displacements
        if swap:
            size, corners, sizes, displacements = size[::-1], corners[:, ::-1], sizes[:, ::-1], displacements[:, ::-1]
        mirrored = np.array([mirror_x, mirror_y])
        corners = np.where(mirrored, size - sizes - corners, corners)
        displacements = np.where(mirrored, -displacements, displacements)
        return replace(
            self,
            width=int(size[0]),
            height=int(size[1]),
            corners=corners.astype(np.int16),
            sizes=np.ascontiguousarray(sizes),
            displacements=displacements.astype(np.float32),
        )

    @classmethod
    def from_ffmpeg(
        cls, blocks: NDArray[Any] | None, width: int, height: int, picture: int, codec: str
    ) -> "MotionVectors | None":
        """Convert what FFmpeg's decoders export with `flags2=+export_mvs`. Impossible entries are left out.

        Args:
            blocks: FFmpeg's array of `AVMotionVector`, or None if no block of the frame has a vector.
            width: The frame's width in pixels.
            height: The frame's height in pixels.
            picture: FFmpeg's number of the frame's picture type.
            codec: FFmpeg's name of the codec (`canonical_name`).

        Returns:
            The vectors, or None if the codec's decoder exports none.

        Raises:
            ValueError: If the frame has no pixels.
        """
        if codec not in EXPORTED:
            return None
        if blocks is None or not len(blocks):
            none = np.zeros((0, 2), np.int16)
            return cls(width, height, "I", none, none, np.zeros((0, 2), np.float32), np.zeros(0, np.bool_))
        blocks = blocks[:MAX_BLOCKS]
        centers = np.stack([blocks["dst_x"], blocks["dst_y"]], axis=1).astype(np.int32)
        sizes = np.stack([blocks["w"], blocks["h"]], axis=1).astype(np.int32)
        moved = np.stack([blocks["motion_x"], blocks["motion_y"]], axis=1).astype(np.float32)
        scale = blocks["motion_scale"].astype(np.float32)
        corners = centers - sizes // 2
        size = np.array([width, height])
        usable = (
            (scale > 0)
            & (sizes > 0).all(axis=1)
            & (corners > -sizes).all(axis=1)
            & (corners < size).all(axis=1)
            & (np.abs(moved) <= 2 * size * scale[:, np.newaxis]).all(axis=1)
        )
        future = np.asarray(blocks["source"] > 0)
        return cls(
            width=width,
            height=height,
            picture=_PICTURES.get(picture, "B" if future.any() else "P"),
            corners=corners[usable].astype(np.int16),
            sizes=sizes[usable].astype(np.int16),
            displacements=moved[usable] / scale[usable, np.newaxis],
            future=future[usable],
        )
