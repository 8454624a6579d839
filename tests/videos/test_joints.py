"""Joined recordings, and losses that look like them. The addresses are those of reports in public trackers."""

import pytest

from tests.videos.films import B_FRAMES, FRAMES, copied, film
from tests.videos.reading import LISTED, Seen


# https://github.com/ossrs/oryx/issues/222: each segment's counters begin at 0
@pytest.mark.parametrize("codec", ["libx264", "mpeg2video", "libx265"])
@pytest.mark.parametrize("later", [0, FRAMES])
def test_joined_recordings_are_complete(codec: str, later: int) -> None:
    one = film("mpegts", codec=codec, options=B_FRAMES)
    seen = Seen(one + copied(one, "mpegts", -later))
    assert (seen.numbers, seen.places, seen.error) == ([*LISTED, *LISTED], [], None)
    known = [time for time in seen.times if time is not None]
    assert known == sorted(set(known))
