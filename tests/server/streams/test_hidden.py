"""Regions of frames that are hidden before anything sees them."""

import json

import numpy as np
import pytest

from keywarp.client import Client
from keywarp.protocol import Hello, Result
from keywarp.server.streams.hiding import Hidden
from tests.server.conftest import Running
from tests.server.media import NO_DELAY, RED, encode, jpeg, plain

LEFT = ((0.0, 0.0), (0.5, 0.0), (0.5, 1.0), (0.0, 1.0))


def test_a_region_is_black_and_the_rest_as_it_was() -> None:
    pixels = np.full((40, 60, 3), 200, np.uint8)
    pixels.flags.writeable = False
    covered = np.asarray(Hidden([LEFT]).cover(pixels))
    assert (pixels == 200).all()
    assert (covered[:, :30] == 0).all()
    assert (covered[:, 31:] == 200).all()
    assert Hidden([]).cover(pixels) is pixels


def test_the_networks_do_not_see_a_hidden_region(server: Running) -> None:
    with Client(server.url) as client:
        client.create_stream("half", hidden=[LEFT], interval=1)

        def red() -> float:
            found = client.infer("half", jpeg(RED)).result.segmentation
            assert found is not None
            return sum(region.area for region in found.regions if region.name == "red")

        assert red() == pytest.approx(0.5, abs=0.1)
        client.change_stream("half", hidden=None)
        assert red() > 0.95
        client.delete_stream("half")


def test_a_stream_that_goes_on_after_its_servers_death_hides_the_same_regions(server: Running) -> None:
    server.http.put("/v1/streams/gate", json={"hidden": [LEFT]}).raise_for_status()
    with server.connect("gate", Hello()) as talk:
        options = talk.ready.options
    assert options is not None
    assert options.hidden == (LEFT,)
    server.http.delete("/v1/streams/gate").raise_for_status()
    with server.connect("gate", Hello(interval=1, hidden=options.hidden)) as talk:
        talk.frame(jpeg(RED), 0)
        found = talk.result().segmentation
    assert found is not None
    assert sum(region.area for region in found.regions if region.name == "red") == pytest.approx(0.5, abs=0.1)


def test_regions_of_a_stream_that_a_connection_created_can_be_hidden_while_it_runs(server: Running) -> None:
    with server.connect("seen", Hello(interval=1)) as talk:
        server.http.patch("/v1/streams/seen", json={"hidden": [LEFT]}).raise_for_status()
        talk.frame(jpeg(RED), 0)
        found = talk.result().segmentation
    assert found is not None
    assert sum(region.area for region in found.regions if region.name == "red") == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("region", [[[0, 0], [1, 1]], [[0, 0], [1, 0], [1, 2]]])
def test_a_region_that_is_none_is_refused(server: Running, region: list[list[float]]) -> None:
    assert server.http.post("/v1/streams", json={"hidden": [region]}).status_code == 422


def test_regions_of_an_uploaded_video_are_hidden_in_its_query(server: Running) -> None:
    def red(**query: str) -> float:
        video, _ = encode([plain(RED)] * 3, "h264", NO_DELAY)
        posted = server.http.post("/v1/videos", params={"codec": "h264", "interval": "1", **query}, content=video)
        first = Result.model_validate_json(posted.text.splitlines()[0])
        assert first.segmentation is not None
        return sum(region.area for region in first.segmentation.regions if region.name == "red")

    assert red(hidden=json.dumps([LEFT])) == pytest.approx(red() / 2, abs=0.1)
    refused = server.http.post("/v1/videos", params={"hidden": "[[[0, 0], [1, 1]]]"}, content=b"")
    assert refused.status_code == 422
    assert "hidden" in refused.text


def test_regions_and_the_rate_of_a_stream_of_the_client_are_sent(server: Running) -> None:
    frames = [plain(RED)] * 10
    with Client(server.url) as client, client.stream(frames, hidden=[LEFT], max_fps=1, interval=1) as results:
        found = [result.result.segmentation for result in results]
        assert found[0] is not None
        assert sum(region.area for region in found[0].regions if region.name == "red") == pytest.approx(0.5, abs=0.1)
        assert len(found) + results.dropped == len(frames)
        assert results.dropped > 0
