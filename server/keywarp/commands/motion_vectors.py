"""Hand the motion vectors of a source's frames to the engine."""

from keywarp.client.frames import Frame
from keywarp.engines import MotionVectors


def motion_vectors(frame: Frame) -> MotionVectors | None:
    """Convert a frame's motion vectors, if it has any."""
    if frame.vectors is None:
        return None
    height, width = frame.image.shape[:2]
    return MotionVectors.from_ffmpeg(frame.vectors.blocks, width, height, frame.vectors.picture, frame.vectors.codec)
