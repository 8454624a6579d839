"""The shipped detector: it comes with its licences, finds the people of a labelled street, and is served."""

import json
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from keywarp.client import Client, open_source
from keywarp.engines import Engine, FixedInterval, StreamSession, load_bundle
from keywarp.experiments.accuracy import judge
from keywarp.experiments.labelled import Found, LabelledVideo, judge_found, read_labels
from tests.e2e.running import MODELS, ROOT, Server, keywarp, street_video

SHIPPED = ("street", "street-detect")
LABELS = ROOT / "bench" / "labels" / "street.json"
MOST_BYTES = 60e6  # of all shipped bundles


@pytest.fixture(scope="module")
def labels() -> LabelledVideo:
    """The labels of the clip that the tests send."""
    return next(video for video in read_labels(LABELS) if video.name == street_video().name)


def test_the_bundle_comes_with_the_licences_of_its_weights() -> None:
    folder = MODELS / "street-detect"
    assert load_bundle(folder).manifest.license == "Apache-2.0 AND MIT"
    apache, notice = (folder / "LICENSE").read_text(), (folder / "NOTICE").read_text()
    assert apache.startswith(" Copyright 2020-2021 RangiLyu.")
    assert apache.endswith((ROOT / "LICENSE").read_text()[-200:])
    for part in ("Copyright 2020-2021 RangiLyu", "Changes made", "MIT License", "Copyright (c) 2021 Vladimir Mandic"):
        assert part in notice


def test_the_shipped_bundles_are_small_and_go_into_the_images() -> None:
    assert sum(file.stat().st_size for name in SHIPPED for file in (MODELS / name).iterdir()) < MOST_BYTES
    for name in SHIPPED:
        assert f"!models/{name}\n" in (ROOT / ".dockerignore").read_text()
        for file in ("Dockerfile.cpu", "Dockerfile.gpu", "Dockerfile.k40"):
            assert f"COPY models/{name} /models/{name}\n" in (ROOT / "docker" / file).read_text()


def test_people_are_found_where_they_are_labelled(labels: LabelledVideo) -> None:
    """A cyclist stands before a car in the frames 120, 128 and 135, seen at the key ages 2, 0 and 7."""
    bundle = load_bundle(MODELS / "street-detect")
    [person] = [c.id for c in bundle.manifest.classes if c.name == "person"]
    session = StreamSession(Engine(bundle), FixedInterval(10))
    found = {}
    with open_source(street_video()) as frames:
        for number, frame in enumerate(islice(frames, 136)):
            if number >= 118:
                result = session.process(frame.image)
                if number in labels.frames:
                    one = Found(number, result.key_age, frame.image, result.detections)
                    found[number, result.key_age] = judge_found(one, labels, "person", person).right.tolist()
    assert found == {(120, 2): [True], (128, 0): [True], (135, 7): [True]}


def test_the_server_has_both_models_and_takes_the_segmenter_by_default(
    server: Server, clip: Path, labels: LabelledVideo
) -> None:
    with Client(server.url) as client:
        assert sorted(model.name for model in client.models()) == list(SHIPPED)
        assert client.create_stream("any").model == "street"
        client.delete_stream("any")
        with client.stream(clip, model="street-detect", interval=3) as results:
            result = next(result for result in results if result.frame == 40)
    assert (result.kind, result.key_age) == ("propagated", 1)
    people = [one for one in result.result.detections or () if one.name == "person"]
    boxes = np.array([one.xyxy for one in people])
    found = judge(boxes, np.array([one.confidence for one in people]), labels.truth(40, "person"))
    assert found.right.tolist() == [True]


def test_the_demo_shows_the_detector(clip: Path, tmp_path: Path) -> None:
    done = keywarp("demo", "--model", "street-detect", "--video", clip, "--models", MODELS, "--out", tmp_path, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["model"]["name"] == "street-detect"
    lines = [json.loads(line) for line in (tmp_path / "bikes.ndjson").read_text().splitlines()]
    assert "person" in {detection["name"] for line in lines for detection in line["detections"]}
