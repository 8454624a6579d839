"""When pictures are shown. The addresses are those of reports in public trackers."""

from typing import Any

import numpy as np
import pytest

from tests.videos.films import B_FRAMES, FRAMES, film, grey
from tests.videos.reading import Seen


# AVI has no times at which pictures are shown: https://github.com/meta-pytorch/torchcodec/issues/1363,
# https://github.com/xbmc/xbmc/pull/2057
@pytest.mark.parametrize("form", ["avi", "mp4", "matroska", "mpegts", "flv"])
def test_times_rise_with_the_pictures(form: str) -> None:
    times: list[Any] = Seen(film(form, options=B_FRAMES)).times
    assert np.diff(times) == pytest.approx([0.04] * (FRAMES - 1), abs=0.002)


def test_times_that_are_unknown_or_do_not_rise_are_none() -> None:
    assert Seen(film("h264", options=B_FRAMES)).times == [None] * FRAMES
    first, second = film("mpegts", [grey(n) for n in range(6)]), film("mpegts", [grey(n) for n in range(6, 12)])
    times = Seen(first + second).times  # they begin again where the two were joined
    known = [time for time in times if time is not None]
    assert known == sorted(set(known))


def test_variable_times_and_gaps_are_kept() -> None:
    times = [*range(0, 48, 4), *range(48, 48 + 480, 40)]
    assert Seen(film(times=times)).times == pytest.approx([time / 100 for time in times])
