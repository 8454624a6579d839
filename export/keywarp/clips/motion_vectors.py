"""Hand the motion vectors of a source's frames to the engine."""

from keywarp.client.frames import Frame
from keywarp.engines import MotionVectors


def motion_vectors(frame: Frame) -> MotionVectors | None:
    """Convert a frame's motion vectors, if it has any."""
    if frame.vectors is None:
        return None
    stored = frame.vectors
    vectors = MotionVectors.from_ffmpeg(stored.blocks, stored.width, stored.height, stored.picture, stored.codec)
    return vectors and vectors.turned(stored.orientation)
