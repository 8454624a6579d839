"""Videos that cost the server more than their bytes."""

import errno
import resource
from pathlib import Path

import httpx
import pytest
from av.error import FFmpegError

from keywarp.server.decode.allowed import HTTP_PROTOCOLS, LIVE_PROTOCOLS, UPLOAD_PROTOCOLS
from keywarp.videos import open_container
from tests.server.conftest import Running
from tests.server.faults.claiming import fragment_with_samples, with_samples
from tests.server.faults.neighbour import undisturbed

MANY = 25_000_000  # samples, for which FFmpeg would allocate 1.7 GB
ROOM = 300  # MB that the process may grow by


def peak() -> float:
    """Return the most memory that this process has had, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def upload(server: Running, data: bytes) -> httpx.Response:
    return server.http.post("/v1/videos", content=data, headers={"Content-Type": "video/mp4"})


@pytest.mark.parametrize(
    "data",
    [with_samples(MANY, index_first=True), with_samples(MANY, index_first=False), fragment_with_samples(MANY)],
    ids=["index first", "index last", "fragment"],
)
def test_claimed_samples_cost_no_memory_and_disturb_no_stream(server: Running, data: bytes) -> None:
    with undisturbed(server) as neighbour:
        before = peak()
        refused = upload(server, data)
        neighbour.receives(3)
    assert refused.status_code == 422
    assert f"claims {MANY} samples" in refused.json()["detail"]
    assert peak() - before < ROOM


def test_as_many_samples_as_a_long_video_has_are_read(server: Running) -> None:
    assert "claims" not in upload(server, with_samples(1_000_000, index_first=True)).text


def test_ffmpeg_allocates_no_more_than_a_frame_needs(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """What our own count misses, in this format or another, meets FFmpeg's limit."""
    monkeypatch.setattr("keywarp.videos.Claims.feed", lambda *_: None)
    with undisturbed(server) as neighbour:
        before = peak()
        assert upload(server, with_samples(MANY, index_first=True)).status_code == 422
        neighbour.receives(3)
    assert peak() - before < ROOM


@pytest.mark.parametrize("form", ["hls", "concat", "sdp"])
def test_an_upload_is_what_it_is_called_and_opens_nothing_else(server: Running, tmp_path: Path, form: str) -> None:
    secret = tmp_path / "secret.mp4"
    secret.write_bytes(with_samples(3, index_first=True))
    text = {
        "hls": f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile://{secret}\n#EXT-X-ENDLIST\n",
        "concat": f"ffconcat version 1.0\nfile file:{secret}\n",
        "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 45678 RTP/AVP 96\n",
    }[form]
    with undisturbed(server) as neighbour:
        for kind in ("video/mp4", "video/webm", "video/mp2t"):
            refused = server.http.post("/v1/videos", content=text.encode() * 200, headers={"Content-Type": kind})
            assert refused.status_code == 422
        neighbour.receives(1)


@pytest.mark.parametrize(
    "url",
    ["file:///etc/hostname", "http://127.0.0.1:9/x", "concat:/etc/hostname|/etc/hosts", "subfile,,:/etc/hostname"],
)
@pytest.mark.parametrize("protocols", [UPLOAD_PROTOCOLS, HTTP_PROTOCOLS, *LIVE_PROTOCOLS.values()])
def test_ffmpeg_opens_no_url_by_a_protocol_that_is_not_needed(url: str, protocols: str) -> None:
    with pytest.raises(FFmpegError) as refused:
        open_container(url, options={"protocol_whitelist": protocols}, timeout=5.0)
    assert refused.value.errno == errno.EINVAL, refused.value  # not that it can't be found, read or reached
