"""Which of a container's videos is read. The addresses are those of reports in public trackers."""

import io
from types import SimpleNamespace

import pytest

from keywarp.videos import Note, SoftwareDecoder, VideoError, VideoReader, choose_video, open_container
from tests.videos.films import film, textured, two_videos, with_cover
from tests.videos.reading import LISTED, Seen


# https://github.com/UltraStar-Deluxe/USDX/pull/948, https://github.com/0x90d/videoduplicatefinder/issues/905
def test_a_cover_picture_is_no_video() -> None:
    data = with_cover(film_too=True)
    with open_container(io.BytesIO(data)) as container:
        assert len(container.streams.video) == 2
        assert container.streams.video[0].codec_context.name == "mjpeg"
    assert Seen(data).numbers == LISTED
    with pytest.raises(VideoError, match="no video in it but a cover picture"):
        Seen(with_cover(film_too=False))


# https://github.com/jellyfin/jellyfin-web/issues/1421, https://github.com/Aleksoid1978/MPC-BE/issues/638
def test_one_of_several_videos_is_chosen_and_the_others_are_named() -> None:
    data = two_videos()
    for video, numbers in ((0, range(5)), (1, range(10, 15))):
        seen = Seen(data, video)
        assert seen.numbers == list(numbers)
        assert f"this is number {video}" in seen.notes[0]
        assert "0: h264 64x48, 1: h264 128x48" in seen.notes[0]
    with pytest.raises(VideoError, match="2 videos, numbered from 0, but no video 2"):
        Seen(data, 2)


def test_a_stream_that_begins_later_is_not_left_out_silently() -> None:
    """As in `cat a.ts b.ts` of recordings with other PIDs, through a pipe."""
    pictures = [textured(n) for n in range(30)]
    first, other = (film("mpegts", pictures, muxing={"mpegts_start_pid": pid}) for pid in ("0x100", "0x200"))
    pipe = SimpleNamespace(read=io.BytesIO(first * 3 + other).read)
    with open_container(pipe, format="mpegts", options={"probesize": "20000"}) as container:
        stream = choose_video(container)
        *items, last = VideoReader(container, stream, SoftwareDecoder(stream.codec_context))
    assert len(items) == 3 * len(pictures)
    assert isinstance(last, Note)
    assert "a stream begins in it later" in last.text
