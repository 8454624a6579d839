"""Pictures that are damaged or missing. The addresses are those of reports in public trackers."""

import io

import pytest

from keywarp.videos import open_container
from tests.videos.films import film, spoiled, textured, video_packets, without
from tests.videos.reading import LISTED, Seen


# https://github.com/PyAV-Org/PyAV/issues/185, https://github.com/meta-pytorch/torchcodec/issues/505
def test_a_packet_that_cannot_be_decoded_is_a_lost_picture() -> None:
    seen = Seen(spoiled(film(), 5))
    assert seen.times == pytest.approx([n / 25 for n in LISTED if n != 5])
    assert seen.places == [5]
    assert seen.numbers[7:] == LISTED[8:]  # from the next key frame on


@pytest.mark.parametrize("threads", [1, None])
def test_a_picture_that_the_decoder_patches_up_is_a_lost_picture(threads: int | None) -> None:
    data = film(frames=[textured(n) for n in range(6)], gop=3)
    seen = Seen(spoiled(data, 3, keep=1500), threads=threads)  # the slice's header and beginning stay
    assert (len(seen.pictures), seen.places) == (5, [3])


# https://github.com/jacksonliam/mjpg-streamer/issues/47, https://github.com/pikvm/ustreamer/pull/289
def test_half_a_jpeg_is_a_lost_picture() -> None:
    data = film("avi", [textured(n) for n in range(5)], codec="mjpeg")
    with open_container(io.BytesIO(data)) as container:
        place, size = [(p.pos, p.size) for p in container.demux(video=0)][2]
    assert place is not None
    half = data[: place + size // 2] + bytes(size - size // 2) + data[place + size :]
    seen = Seen(half)
    assert (len(seen.pictures), seen.places) == (4, [2])


# https://github.com/PyAV-Org/PyAV/issues/1597: the packet after the lost one is marked as corrupt
@pytest.mark.parametrize("count", [1, 3, 12])
@pytest.mark.parametrize("codec", ["libx264", "mpeg2video"])
def test_missing_packets_of_a_transport_stream_are_a_loss(count: int, codec: str) -> None:
    data = film("mpegts", [textured(n) for n in range(16)], codec=codec)
    places = video_packets(data)
    for first in (places[100], places[160], places[221]):
        seen = Seen(without(data, first, count))
        assert seen.places, (first, count)
        assert len(seen.pictures) < 16
