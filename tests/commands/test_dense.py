"""A network for depth, from its file to results, a comparison and a video."""

import json
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from keywarp.client import ProcessedFrame
from keywarp.engines import load_bundle
from keywarp.engines.manifest import DenseSettings
from keywarp.importing import picture
from keywarp.protocol import Result
from tests.commands.running import keywarp
from tests.importing.exported_networks import SIZE, Depth, export

FRAMES = 8


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a video, and the bundle of a network that was imported with it."""
    folder = tmp_path_factory.mktemp("depth")
    height, width = SIZE
    scene = (255 * picture(height, width + 3 * FRAMES)[0].transpose(1, 2, 0)).astype(np.uint8)
    (folder / "street").mkdir()
    for n in range(FRAMES):
        Image.fromarray(scene[:, 3 * n : 3 * n + width]).save(folder / "street" / f"{n}.png")
    export(Depth(), folder / "depth.onnx", image="pixel_values", outputs=["predicted_depth"])
    done = keywarp(
        *("import", folder / "depth.onnx", "--out", folder / "depth", "--quantity", "inverse depth"),
        *("--video", folder / "street"),
    )
    assert done.status == 0, done.stderr
    assert "inverse depth (as you say), predicted_depth (1, 64, 96)" in done.stdout
    return folder


def test_the_bundle_says_what_its_values_are(folder: Path) -> None:
    manifest = load_bundle(folder / "depth").manifest
    assert (manifest.task, manifest.classes) == ("dense", ())
    assert manifest.dense == DenseSettings(stride=2, quantity="inverse depth")
    shown = keywarp("models", "show", "depth", "--models", folder)
    assert shown.status == 0, shown.stderr
    assert "inverse depth" in shown.stdout


def test_a_run_writes_values_and_a_video(folder: Path, tmp_path: Path) -> None:
    done = keywarp(
        *("run", folder / "street", "--model", folder / "depth", "--interval", "4"),
        *("--ndjson", tmp_path / "results.ndjson", "--out", tmp_path / "annotated.mp4"),
    )
    assert done.status == 0, done.stderr
    results = [Result.model_validate_json(line) for line in (tmp_path / "results.ndjson").read_text().splitlines()]
    assert [result.kind for result in results] == ["key", *["propagated"] * 3] * 2
    for result in results:
        values = ProcessedFrame(result).values
        assert result.dense is not None
        assert result.dense.quantity == "inverse depth"
        assert values.shape == (SIZE[0] // 2, SIZE[1] // 2)
        assert np.ptp(values) > 0
    with av.open(str(tmp_path / "annotated.mp4")) as video:
        assert len(list(video.decode(video=0))) == FRAMES


@pytest.mark.parametrize(
    ("option", "message"), [("--coco", "COCO's annotations can't hold a map of numbers"), ("--mot", "MOTChallenge")]
)
def test_formats_of_objects_are_refused(folder: Path, tmp_path: Path, option: str, message: str) -> None:
    done = keywarp("run", folder / "street", "--model", folder / "depth", option, tmp_path / "objects")
    assert done.status == 1
    assert message in done.stderr


def test_a_comparison_draws_both_maps(folder: Path, tmp_path: Path) -> None:
    done = keywarp(
        *("compare", folder / "depth", folder / "street", "--motion", "none,dis-chained", "--interval", "2,4"),
        *("--schedule", "fixed,adaptive", "--stride", "2", "--out", tmp_path / "report", "--json"),
    )
    assert done.status == 0, done.stderr
    figures = json.loads(done.stdout)
    assert figures["measure"] == "within 5 %"
    sources = figures["sources"]
    assert 1 >= sources["dis-chained"]["mean"] > sources["none"]["mean"] > 0
    assert set(sources["none"]["figures_by_age"]) == {"pixels", "error"}
    assert {path.suffix for path in (tmp_path / "report").iterdir()} >= {".md", ".json", ".jpg"}
