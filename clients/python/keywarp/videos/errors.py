"""The errors of this package."""


class VideoError(Exception):
    """A video can't be read, or not completely. The message doesn't name the video."""


class NoKeyFrameError(VideoError):
    """A video has no key frame, so that decoding can't start."""


class WritingError(Exception):
    """A video can't be written."""


class NoEncoderError(WritingError):
    """FFmpeg, as it is installed here, can't encode video."""

    def __init__(self, encoder: str) -> None:
        super().__init__(
            f"no video can be written: the FFmpeg that PyAV uses here has no {encoder}. PyAV's wheels from PyPI have it"
        )
