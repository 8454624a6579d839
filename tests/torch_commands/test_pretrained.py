"""From `keywarp pretrained` to the objects of a photograph, as a user types it."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from keywarp.engines import Engine, FixedInterval, StreamSession
from keywarp.engines.bundle import Bundle, load_bundle
from keywarp.engines.manifest import GRAPHS
from tests.command_line import keywarp
from tests.e2e.running import MODELS
from tests.networks.test_imagenet_accuracy import CACHE, photograph_file


@pytest.mark.parametrize("layers", ["1", "2"])
def test_nanodet_finds_a_cat_on_key_and_propagated_frames(layers: str, tmp_path: Path) -> None:
    made = keywarp(
        "pretrained", "nanodet", "--out", tmp_path / "nanodet", "--work", CACHE, "--short-side", "224",
        "--head-layers", layers,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    assert made.stderr.count("Warning: propagation pays little") <= 1
    manifest = json.loads((tmp_path / "nanodet" / "bundle.json").read_text())
    assert (manifest["motion"], manifest["license"]) == ("dis-chained-repaired", "Apache-2.0 AND MIT")
    for origin in ("human-models@3.0.4", "2020-2021 RangiLyu", "2021 Vladimir Mandic"):
        assert origin in manifest["provenance"]["notes"]
    bundle = load_bundle(tmp_path / "nanodet")
    names = [c.name for c in bundle.manifest.classes]
    with Image.open(photograph_file("chelsea.png")) as file:
        image = np.asarray(file.convert("RGB"))
    session = StreamSession(Engine(bundle, "onnxruntime"), FixedInterval(4))
    for shift in (0, 4, 8):  # pixels that the cat moves to the left
        result = session.process(
            np.ascontiguousarray(image[:, shift:]) if shift == 0 else np.roll(image, -shift, axis=1)
        )
        found = result.detections
        assert [names[n] for n in found.class_id] == ["cat"], result.kind
        x1, y1, x2, y2 = found.xyxy[0]
        assert (x2 - x1) * (y2 - y1) > 0.5 * image.shape[0] * image.shape[1]


def test_the_shipped_detector_can_be_made_again(tmp_path: Path) -> None:
    """Other versions of the exporter may name nodes differently, so the weights and the manifests are compared.

    The graphs in int8 are added by `keywarp quantize`.
    """
    made = keywarp("pretrained", "street-detect", "--out", tmp_path / "street-detect", "--work", CACHE)
    assert made.returncode == 0, made.stderr
    again, shipped = load_bundle(tmp_path / "street-detect"), load_bundle(MODELS / "street-detect")
    others: dict[str, object] = {"files": {}, "precisions": {}}
    assert again.manifest.model_copy(update=others) == shipped.manifest.model_copy(update=others)
    for name in GRAPHS:
        assert weights(again, name) == weights(shipped, name), name


def weights(bundle: Bundle, name: str) -> list[bytes]:
    """Return the weights of a graph, without the constants of its arithmetic."""
    return sorted(w.raw_data for w in bundle.graph(name).graph.initializer if len(w.raw_data) >= 64)


def test_a_long_side_below_the_short_side_is_status_two(tmp_path: Path) -> None:
    made = keywarp("pretrained", "nanodet", "--out", tmp_path / "x", "--short-side", "416", "--long-side", "320")
    assert made.returncode == 2
    assert "--long-side" in made.stderr
    assert not (tmp_path / "x").exists()


def test_a_folder_that_cannot_be_written_is_refused_before_the_download(tmp_path: Path) -> None:
    made = keywarp("pretrained", "nanodet", "--out", "/proc/self/nanodet", "--work", tmp_path / "work")
    assert made.returncode == 1
    assert made.stderr == "keywarp: '/proc/self/nanodet' can't be written: No such file or directory\n"
    assert not list(tmp_path.iterdir())
