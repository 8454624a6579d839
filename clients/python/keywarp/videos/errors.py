"""The errors of this package."""


class VideoError(Exception):
    """A video can't be read, or not completely. The message doesn't name the video."""


class NoKeyFrameError(VideoError):
    """A video has no key frame, so that decoding can't start."""


class WritingError(Exception):
    """A video can't be written."""
