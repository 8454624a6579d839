"""What people send and pull instead of videos, through a real server."""

import pytest

from tests.server.conftest import Running, Starter, eventually
from tests.server.source_server import SourceServer, file
from tests.videos.films import film
from tests.videos.others import OTHERS


@pytest.fixture(scope="module")
def server(start_for_all: Starter) -> Running:
    return start_for_all(allow_pull=("127.0.0.1",))


def problem_of_pull(server: Running, address: str) -> str:
    stream = server.http.post("/v1/streams", json={"source": address}).json()["id"]
    found: list[str] = []

    def has_failed() -> bool:
        problem = server.http.get(f"/v1/streams/{stream}").json().get("problem")
        found.append(problem)
        return bool(problem)

    eventually(has_failed)
    server.http.delete(f"/v1/streams/{stream}")
    return found[-1]


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_no_video_is_said_to_be_what_it_is(server: Running, web: SourceServer, name: str) -> None:
    data, said = OTHERS[name]
    web.responders[f"/{name}"] = file(data)
    assert f"the source {said}" in problem_of_pull(server, f"{web.address}/{name}")
    for kind in ("mp4", "webm", "mp2t"):
        response = server.http.post("/v1/videos", content=data, headers={"content-type": f"video/{kind}"})
        assert response.status_code == 422
        assert f": it {said}" in response.json()["detail"]


def test_an_upload_of_another_container_says_which(server: Running) -> None:
    for form, said in (("matroska", "it is a Matroska or WebM file"), ("avi", "it is an AVI file")):
        response = server.http.post("/v1/videos", content=film(form), headers={"content-type": "video/mp4"})
        assert response.status_code == 422
        assert said in response.json()["detail"]


def test_a_pull_says_that_a_part_of_a_playlist_is_missing_or_a_file_empty(server: Running, web: SourceServer) -> None:
    lines = "#EXTM3U", "#EXT-X-TARGETDURATION:2", "#EXTINF:1.6,", "gone.ts", "#EXT-X-ENDLIST"
    web.responders["/list.m3u8"] = file("\n".join(lines).encode())
    web.responders["/empty"] = web.responders["/empty.mp4"] = file(b"")
    whole = film()
    web.responders["/cut.mp4"] = file(whole[: len(whole) // 2])
    said = problem_of_pull(server, f"{web.address}/list.m3u8")
    assert said == "a part of the source's playlist can't be read: the source responded with status 404 (Not Found)"
    for name in ("empty", "empty.mp4"):
        assert problem_of_pull(server, f"{web.address}/{name}") == "the source is empty"
    assert "its index (moov) is missing" in problem_of_pull(server, f"{web.address}/cut.mp4")
