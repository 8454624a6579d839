"""The error of this package."""


class VideoError(Exception):
    """A video can't be read, or not completely. The message doesn't name the video."""
