"""`keywarp run`."""

import json
from pathlib import Path

import pytest
from PIL import Image

from tests.commands.running import keywarp
from tests.engines.scenes import scene
from tests.tiny_bundle import tiny_bundle


@pytest.fixture
def film(tmp_path: Path) -> Path:
    """A folder of six frames, with a cut before the fifth."""
    folder = tmp_path / "film"
    folder.mkdir()
    for index in range(6):
        Image.fromarray(scene(0 if index < 4 else 1)).save(folder / f"{index}.png")
    return folder


@pytest.mark.parametrize(
    ("schedule", "reasons"),
    [
        ("fixed", ["start", None, None, "interval", None, None]),
        ("adaptive", ["start", None, None, None, "cut", None]),
    ],
)
def test_key_frames_are_placed_by_the_chosen_schedule(
    schedule: str, reasons: list[str | None], film: Path, tmp_path: Path
) -> None:
    bundle, results = tiny_bundle(tmp_path / "tiny"), tmp_path / "r.ndjson"
    ran = keywarp("run", film, "--model", bundle.path, "--schedule", schedule, "--interval", "3", "--ndjson", results)
    assert ran.status == 0, ran.stderr
    assert [json.loads(line)["reason"] for line in results.read_text().splitlines()] == reasons


def test_a_rate_leaves_frames_out_and_regions_are_hidden(film: Path, tmp_path: Path) -> None:
    bundle, results = tiny_bundle(tmp_path / "tiny"), tmp_path / "r.ndjson"
    whole = "0,0 1,0 1,1 0,1"
    ran = keywarp(
        "run",
        film,
        "--model",
        bundle.path,
        "--max-fps",
        "12.5",
        "--hidden",
        whole,
        "--interval",
        "2",
        "--ndjson",
        results,
    )
    assert ran.status == 0, ran.stderr
    found = [json.loads(line) for line in results.read_text().splitlines()]
    assert [(one["frame"], one["kind"], one["key_age"]) for one in found] == [
        (0, "key", 0),
        (2, "propagated", 2),
        (4, "key", 0),
    ]
    assert {len(one["segmentation"]["regions"]) for one in found} == {0}, "all is black"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--schedule", "daily"], "adaptive"),
        (["--max-interval", "20"], "needs the schedule"),
        (["--interval", "4", "--overlap", "4"], "must be less than the interval, 4"),
        (["--schedule", "adaptive", "--max-interval", "9"], "is less than"),
    ],
)
def test_a_schedule_that_makes_no_sense_is_wrong_use(options: list[str], says: str, film: Path, tmp_path: Path) -> None:
    ran = keywarp("run", film, "--model", tiny_bundle(tmp_path / "tiny").path, *options)
    assert ran.status == 2
    assert says in ran.stderr


def test_masks_are_the_same_with_and_without_a_results_file(film: Path, tmp_path: Path) -> None:
    bundle, results = tiny_bundle(tmp_path / "tiny"), tmp_path / "r.ndjson"
    alone, beside = tmp_path / "alone.json", tmp_path / "beside.json"
    for options in (("--coco", alone), ("--coco", beside, "--ndjson", results)):
        ran = keywarp("run", film, "--model", bundle.path, *options)
        assert ran.status == 0, ran.stderr
    assert json.loads(alone.read_text())["annotations"]
    assert alone.read_text() == beside.read_text()
    lines = [json.loads(line) for line in results.read_text().splitlines()]
    assert all(line["segmentation"]["labels_png"] for line in lines)


def test_key_frames_overlap_with_the_frames_after_them(film: Path, tmp_path: Path) -> None:
    bundle, results = tiny_bundle(tmp_path / "tiny"), tmp_path / "r.ndjson"
    ran = keywarp("run", film, "--model", bundle.path, "--interval", "2", "--overlap", "1", "--ndjson", results)
    assert ran.status == 0, ran.stderr
    assert [json.loads(line)["key_age"] for line in results.read_text().splitlines()] == [0, 1, 2, 1, 2, 1]


def test_tracked_objects_have_ids_in_results_and_in_the_motchallenge_file(film: Path, tmp_path: Path) -> None:
    bundle, results, mot = tiny_bundle(tmp_path / "d", detection=True), tmp_path / "r.ndjson", tmp_path / "mot.txt"
    ran = keywarp("run", film, "--model", bundle.path, "--track", "--ndjson", results, "--mot", mot)
    assert ran.status == 0, ran.stderr
    lines = [json.loads(line) for line in results.read_text().splitlines()]
    found = {(line["frame"] + 1, one["track_id"]) for line in lines for one in line["detections"] if one["track_id"]}
    assert found
    assert {tuple(map(int, line.split(",")[:2])) for line in mot.read_text().splitlines()} == found


def test_what_has_no_objects_is_not_tracked(film: Path, tmp_path: Path) -> None:
    ran = keywarp("run", film, "--model", tiny_bundle(tmp_path / "tiny").path, "--track")
    assert ran.status == 2
    assert "detects no objects" in ran.stderr
