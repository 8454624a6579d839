"""Which of a container's videos is read. The addresses are those of reports in public trackers."""

import io

import av
import numpy as np
import pytest

from keywarp.videos import VideoError, open_container
from tests.videos.films import with_cover
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
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as container:
        streams = [container.add_stream("libx264", rate=25, options={"bf": "0"}) for _ in range(2)]
        for stream, width in zip(streams, (64, 128), strict=True):
            stream.width, stream.height, stream.pix_fmt = width, 48, "yuv420p"
        for stream, width, first in zip(streams, (64, 128), (0, 10), strict=True):
            for number in range(first, first + 5):
                pixels = np.full((48, width, 3), 16 + 9 * number, np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels)))
            container.mux(stream.encode())
    for video, numbers in ((0, range(5)), (1, range(10, 15))):
        seen = Seen(file.getvalue(), video)
        assert seen.numbers == list(numbers)
        assert f"this is number {video}" in seen.notes[0]
        assert "0: h264 64x48, 1: h264 128x48" in seen.notes[0]
    with pytest.raises(VideoError, match="2 videos, numbered from 0, but no video 2"):
        Seen(file.getvalue(), 2)
