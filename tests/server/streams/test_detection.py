"""A detection model over HTTP and WebSocket, beside a segmentation model."""

from pathlib import Path

import pytest

from keywarp.protocol import Detection, Hello, Result
from tests.server.conftest import Starter
from tests.server.media import GREEN, RED, jpeg
from tests.tiny_bundle import tiny_bundle

RED_CLASS, GREEN_CLASS = 1, 2


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models")
    tiny_bundle(path / "detector", name="detector", detection=True)
    tiny_bundle(path / "instances", name="instances", instances=True)
    tiny_bundle(path / "tiny")
    return path


def check(detections: tuple[Detection, ...] | None, class_id: int) -> None:
    """Check that all 4 x 8 cells of a plain frame of 64x128 pixels are found."""
    assert detections is not None
    assert len(detections) == 32
    assert {d.class_id for d in detections} == {class_id}
    assert {d.name for d in detections} == {("background", "red", "green")[class_id]}
    assert (0.0, 0.0, 17.0, 17.0) in [d.xyxy for d in detections]
    assert all(0.6 < d.confidence <= 1 for d in detections)


def test_single_frames_give_detections(start: Starter) -> None:
    server = start()
    [model] = [m for m in server.http.get("/v1/models").json() if m["name"] == "detector"]
    assert model["task"] == "detection"
    assert server.http.post("/v1/streams", json={"id": "d", "model": "detector"}).status_code == 201
    result = Result.model_validate_json(server.frame("d", jpeg(RED)).text)
    check(result.detections, RED_CLASS)
    assert result.segmentation is None


def test_streams_of_both_tasks_run_side_by_side(start: Starter) -> None:
    server = start()
    with (
        server.connect("d", Hello(model="detector", interval=10)) as detector,
        server.connect("s", Hello(model="tiny", interval=10)) as segmenter,
    ):
        for _ in range(3):
            detector.frame(jpeg(GREEN))
            segmenter.frame(jpeg(GREEN))
        for expected in ("key", "propagated", "propagated"):
            found, labelled = detector.result(), segmenter.result()
            assert found.kind == labelled.kind == expected
            check(found.detections, GREEN_CLASS)
            assert labelled.segmentation is not None
            assert labelled.detections is None


def test_a_setting_makes_propagation_copy_the_features(start: Starter) -> None:
    server = start(motion="none")
    with server.connect("d", Hello(model="detector", interval=2)) as detector:
        for color in (RED, GREEN, GREEN):
            detector.frame(jpeg(color))
        check(detector.result().detections, RED_CLASS)
        check(detector.result().detections, RED_CLASS)  # the key frame's again
        check(detector.result().detections, GREEN_CLASS)


def test_objects_have_masks_and_keypoints_as_the_stream_asks(start: Starter) -> None:
    server = start()
    [model] = [m for m in server.http.get("/v1/models").json() if m["name"] == "instances"]
    assert model["keypoints"] == {"names": ["corner", "foot"], "skeleton": [[0, 1]]}
    hellos = (Hello(model="instances"), Hello(model="instances", masks="none"))
    for hello in hellos:
        with server.connect("i", hello) as talk:
            talk.frame(jpeg(RED))
            talk.frame(jpeg(RED))
            for result in (talk.result(), talk.result()):
                assert result.detections is not None
                assert len(result.detections) == 32
                for one in result.detections:
                    assert (one.mask is None) == (hello.masks == "none")
                    assert one.keypoints is not None
                    assert [score for *_, score in one.keypoints] == [1.0, 0.5]
                [corner] = [one for one in result.detections if one.xyxy == (0.0, 0.0, 17.0, 17.0)]
                assert corner.keypoints is not None
                assert corner.keypoints[0] == (0.0, 0.0, 1.0)
                if corner.mask:
                    assert corner.mask.size == (64, 128)
                    assert 100 < sum(corner.mask.counts[1::2]) < 17 * 17
        server.http.delete("/v1/streams/i")


def test_objects_keep_their_ids_if_the_stream_tracks_them(start: Starter) -> None:
    server = start()
    with server.connect("t", Hello(model="detector", track=True, interval=2)) as talk:
        for _ in range(4):
            talk.frame(jpeg(RED))
        first, *later = [talk.result().detections or () for _ in range(4)]
        assert server.http.get("/v1/streams/t").json()["track"] is True
    assert {one.track_id for one in first} == {None}  # each object might be a single false detection
    places = [{one.xyxy: one.track_id for one in found} for found in later]
    assert sorted(filter(None, places[0].values())) == list(range(1, 33))
    assert places[0] == places[1] == places[2]  # a key frame and a propagated one
    with server.connect("n", Hello(model="detector")) as talk:
        talk.frame(jpeg(RED))
        talk.frame(jpeg(RED))
        assert "track_id" not in talk.result().model_dump_json(exclude_none=True)


def test_only_a_detector_tracks(start: Starter) -> None:
    refused = start().http.post("/v1/streams", json={"id": "t", "model": "tiny", "track": True})
    assert refused.status_code == 400
    assert "`track` needs a model that detects objects" in refused.json()["detail"]
