"""Videos that cost the server more than their bytes."""

import resource

import httpx
import pytest

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
