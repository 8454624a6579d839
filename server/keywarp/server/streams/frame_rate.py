"""Limit how many frames of a stream are processed in a second."""

from typing import Final

EARLY: Final = 0.1  # share of a period by which a frame may come too early, since cameras aren't exact
SOURCE_RESTARTS: Final = 1.0  # seconds by which times may jump back before they count as those of another source


class FrameRate:
    """Chooses frames so that, on average, no more than so many are taken in a second, evenly spaced."""

    def __init__(self, most: float) -> None:
        """Begin with a stream's first frame, which is taken.

        Args:
            most: The most frames per second.
        """
        self._period = 1 / most
        self._due: float | None = None  # when the next frame may be taken, in seconds

    def takes(self, at: float) -> bool:
        """Return whether a frame is taken.

        Args:
            at: When it was taken by the camera, in seconds of a clock that all frames share.
        """
        due = self._due
        if due is None or at > due + self._period or at < due - self._period - SOURCE_RESTARTS:
            due = at  # after a pause, or in another source
        if at < due - EARLY * self._period:
            return False
        self._due = due + self._period
        return True
