"""Read live sources, whose frames arrive whether or not they are read."""

from collections.abc import Iterator
from dataclasses import replace
from threading import Condition, Thread

from keywarp.client.frames import Frame, Source


class NewestFrames(Source):
    """A source that always returns the newest frame of a live source.

    A thread reads all frames when they arrive, so that none waits in the driver's buffer. A frame that isn't taken in
    time is replaced by the next. The owner of the live source closes it, after this one.

    Attributes:
        unsent: The number of frames so far that were replaced.
    """

    def __init__(self, source: Source) -> None:
        """Start to read the source."""
        self.fps, self.count, self.width, self.height = source.fps, source.count, source.width, source.height
        self.live = True
        self.unsent = 0
        self._newest: Frame | None = None
        self._error: Exception | None = None
        self._ended = False  # whether the live source has ended
        self._closed = False  # whether this source was closed
        self._changed = Condition()
        self._thread = Thread(target=self._read, args=(source,), name="keywarp-capture", daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[Frame]:
        """Wait for a new frame each time, and yield the newest."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._newest or self._ended)
                frame, self._newest = self._newest, None
            if frame is not None:
                yield frame
            elif self._error is not None:
                raise self._error
            else:
                return

    def close(self) -> None:
        """Stop reading, and wait for the frame that is being read."""
        self._closed = True
        self._thread.join()

    def _read(self, source: Source) -> None:
        try:
            for frame in source:
                with self._changed:
                    self.unsent += self._newest is not None
                    # Frames that are left out on purpose are no gap, but those that were missing before them are.
                    missing = self._newest is not None and self._newest.gap
                    self._newest = replace(frame, gap=True) if missing else frame
                    self._changed.notify()
                if self._closed:
                    break
        except Exception as error:  # noqa: BLE001 (raised to the reader of the frames)
            self._error = error
        with self._changed:
            self._ended = True
            self._changed.notify()
