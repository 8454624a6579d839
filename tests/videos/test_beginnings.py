"""Videos that begin in the middle. The addresses are those of reports in public trackers."""

import io

import pytest

from keywarp.videos import DecodedUnit, Origin, open_container
from keywarp.videos.ledger import UnitLedger
from tests.videos.films import FRAMES, OPEN_GROUPS, cut, film, textured, without
from tests.videos.reading import LISTED, Seen


# A key frame of an open group is followed by pictures that need those before it, and that are shown before it.
def test_pictures_that_lead_the_first_key_frame_are_left_out_and_counted() -> None:
    whole = film(options=OPEN_GROUPS)
    with open_container(io.BytesIO(whole)) as container:
        keys = [n for n, packet in enumerate(container.demux(video=0)) if packet.is_keyframe]
    seen = Seen(cut(whole, "matroska", keys[1], 10))
    assert (seen.places, seen.error) == ([], None)
    assert seen.numbers == LISTED[-len(seen.numbers) :]
    assert len(seen.numbers) + len(LISTED[: keys[1]]) in (FRAMES - 1, FRAMES - 2)
    [note] = seen.notes
    assert "begins in the middle" in note


@pytest.mark.parametrize("times", [(0, None, 2, 1), (5, 3, 7, 6)])
def test_units_that_lead_the_first_picture_have_earlier_times_or_none(times: tuple[int | None, ...]) -> None:
    ledger = UnitLedger("h264")
    for number, time in enumerate(times):
        ledger.add(number, Origin(time))
    assert ledger.decoded(DecodedUnit(None, 0))[2] == []
    assert ledger.decoded(DecodedUnit(None, 3))[2] == []
    assert ledger.decoded(DecodedUnit(None, 2))[2] == []
    assert ledger.end() == []
    assert ledger.leading + ledger.left_out == 1


# https://github.com/mpromonet/webrtc-streamer/issues/61, https://github.com/jellyfin/jellyfin/issues/8343
def test_packets_before_the_first_key_frame_are_left_out_and_counted() -> None:
    data = film("mpegts", [textured(n) for n in range(20)], gop=10)
    seen = Seen(without(data, 0, len(data) // 188 // 4))
    assert seen.error is None
    assert len(seen.pictures) == 10
    [note] = seen.notes
    assert "packets before the first key frame were left out" in note
    assert seen.places == []


def test_a_video_without_a_key_frame_gets_a_sentence() -> None:
    data = film("mpegts", [textured(n) for n in range(12)], gop=100)
    tables = data[: 3 * 188]
    seen = Seen(tables + data[len(data) // 188 // 3 * 188 :])
    assert seen.pictures == []
    assert seen.error
    assert "no key frame that decoding can start with" in seen.error
