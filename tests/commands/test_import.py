"""`keywarp import`: from a model file to a bundle that runs."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from keywarp.commands.import_model import read_frames
from keywarp.engines import Detections, Engine, FixedInterval, LabelMap, StreamSession, load_bundle
from keywarp.importing import picture
from tests.commands.running import keywarp
from tests.importing.exported_networks import CLASSES, SIZE, ULTRALYTICS, Detector, Segmenter, export
from tests.videos.films import film, saved, two_videos


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    export(Detector(), folder / "Tiny YOLO.onnx", metadata=ULTRALYTICS)
    export(Segmenter(), folder / "segmenter.onnx", image="pixel_values", outputs=["logits"])
    return folder


def frames(count: int, height: int = 90, width: int = 160) -> list[NDArray[np.uint8]]:
    """Frames of a scene that moves sideways by 2 pixels a frame."""
    scene = (255 * picture(height, width + 2 * count)[0].transpose(1, 2, 0)).astype(np.uint8)
    return [np.ascontiguousarray(scene[:, 2 * n : 2 * n + width]) for n in range(count)]


def test_a_detector_becomes_a_bundle_that_runs(files: Path, tmp_path: Path) -> None:
    done = keywarp("import", files / "Tiny YOLO.onnx", "--out", tmp_path / "Tiny")
    assert done.status == 0, done.stderr
    assert "probabilities of 3 classes, and cxcywh boxes in pixels" in done.stdout
    assert "RGB divided by 255, because the file is from Ultralytics" in done.stdout
    assert "interval" in done.stdout
    bundle = load_bundle(tmp_path / "Tiny")
    manifest = bundle.manifest
    assert (bundle.name, manifest.task, manifest.motion) == ("tiny", "detection", "dis-chained-repaired")
    assert [c.name for c in manifest.classes][1:] == list(CLASSES)
    assert (manifest.image.fit, manifest.image.height, manifest.image.width) == ("letterbox", *SIZE)
    assert manifest.license.startswith("AGPL-3.0")
    session = StreamSession(Engine(bundle), FixedInterval(3))
    found = [session.process(frame).output for frame in frames(4)]
    assert all(isinstance(output, Detections) and len(output.xyxy) for output in found)


def test_a_segmentation_becomes_a_bundle_that_runs(files: Path, tmp_path: Path) -> None:
    names = tmp_path / "names.txt"
    names.write_text("road\nsky\ntree\nwall\n")
    done = keywarp(
        *("import", files / "segmenter.onnx", "--out", tmp_path / "s", "--background", "none", "--classes", names)
    )
    assert done.status == 0, done.stderr
    bundle = load_bundle(tmp_path / "s")
    assert [c.name for c in bundle.manifest.classes] == ["road", "sky", "tree", "wall"]
    assert not bundle.manifest.background
    assert all(any(c.color) for c in bundle.manifest.classes)
    result = StreamSession(Engine(bundle, motion="flow"), FixedInterval(2)).process(frames(1)[0]).output
    assert isinstance(result, LabelMap)
    assert len(np.unique(result.labels)) > 1


def figures(*arguments: str | Path) -> dict[str, Any]:
    done = keywarp("import", *arguments, "--json")
    assert done.status == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_list_writes_nothing_and_gives_the_figures(files: Path, tmp_path: Path) -> None:
    found = figures(files / "segmenter.onnx", "--list", "--out", tmp_path / "s")
    assert not list(tmp_path.iterdir())
    best = found["candidates"][found["best"]]
    assert best["maps"] == [{"channels": m["channels"], "stride": 8} for m in best["maps"]]
    assert best["tensors"]
    assert 0 <= best["head_share"] < 0.5
    assert best["bytes"] == 4 * best["maps"][0]["channels"] * (SIZE[0] // 8) * (SIZE[1] // 8)
    assert set(best["speedup"]) == {"5", "10"}
    assert any(candidate["mends"] for candidate in found["candidates"])
    assert found["bundle"] is None


def test_a_network_that_is_too_light_is_imported_with_a_warning(files: Path, tmp_path: Path) -> None:
    done = keywarp("import", files / "segmenter.onnx", "--out", tmp_path / "s")
    assert done.status == 0
    assert "Warning: propagation pays little here" in done.stdout
    assert (tmp_path / "s" / "bundle.json").exists()


def test_a_cut_can_be_chosen(files: Path, tmp_path: Path) -> None:
    listed = figures(files / "Tiny YOLO.onnx", "--list")
    other = listed["candidates"][-1]
    named = [part for tensor in other["tensors"] for part in ("--cut", tensor)]
    found = figures(files / "Tiny YOLO.onnx", *named, "--out", tmp_path / "other")
    assert found["candidates"][found["chosen"]]["tensors"] == other["tensors"]
    features = load_bundle(tmp_path / "other").manifest.features
    assert [{"channels": f.channels, "stride": f.stride} for f in features] == other["maps"]


def test_every_guess_about_the_image_can_be_overridden(files: Path) -> None:
    found = figures(
        *(files / "segmenter.onnx", "--list", "--fit", "letterbox", "--mean", "127.5", "--std", "58.4,57.1,57.4"),
        *("--channel-order", "bgr"),
    )
    image = found["image"]
    assert (image["fit"], image["mean"], image["std"]) == ("letterbox", [127.5] * 3, [58.4, 57.1, 57.4])
    assert image["channel_order"] == "bgr"
    assert image["pixel_guess"].endswith("as you say")


def test_a_video_of_the_users_is_measured_and_checked_on(files: Path, tmp_path: Path) -> None:
    import cv2

    cv2.imwrite(str(tmp_path / "street.png"), frames(1)[0])
    found = figures(files / "segmenter.onnx", "--video", tmp_path / "street.png", "--out", tmp_path / "s")
    assert found["checks"]
    assert all(check["agreement"] > 0.99 for check in found["checks"])


def test_frames_of_the_users_video_are_upright_unless_they_are_wanted_as_stored(tmp_path: Path) -> None:
    turned = str(saved(tmp_path / "turned.mp4", film(turn=90)))
    shapes = [read_frames([turned], as_stored=as_stored)[0][0].shape for as_stored in (False, True)]
    assert shapes == [(64, 48, 3), (48, 64, 3)]


def test_import_takes_frames_as_stored_and_says_what_one_should_know_of_them(files: Path, tmp_path: Path) -> None:
    several = saved(tmp_path / "several.mkv", two_videos())
    done = keywarp("import", files / "segmenter.onnx", "--video", several, "--as-stored", "--list", "--json")
    assert done.status == 0, done.stderr
    assert "there are 2 videos" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.onnx"], "missing.onnx"),
        (["damaged.onnx"], "damaged"),
        (["segmenter.onnx", "--cut", "nothing"], "no tensor 'nothing'"),
        (["segmenter.onnx", "--task", "detection"], "detection"),
        (["segmenter.onnx", "--classes", "no-names.txt"], "no-names.txt"),
        (["segmenter.onnx", "--video", "no-video.mp4"], "no-video.mp4"),
        (["classifier.onnx"], "look like nothing"),
    ],
)
def test_a_refusal_is_one_sentence_and_leaves_nothing(
    files: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    (files / "damaged.onnx").write_bytes((files / "segmenter.onnx").read_bytes()[:5000])
    classifier = onnx.load(files / "segmenter.onnx")
    pooled = onnx.helper.make_tensor_value_info("pooled", onnx.TensorProto.FLOAT, [1, 4, 1, 1])
    classifier.graph.node.append(onnx.helper.make_node("GlobalAveragePool", ["logits"], ["pooled"]))
    classifier.graph.output[0].CopyFrom(pooled)
    onnx.save(classifier, files / "classifier.onnx")
    done = keywarp("import", files / arguments[0], *arguments[1:], "--out", tmp_path / "models" / "x")
    assert done.status == 1
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "arguments",
    [("--size", "640"), ("--mean", "1,2"), ("--std", "0"), ("--fit", "crop"), ("--threshold", "2")],
)
def test_wrong_use_is_status_two(files: Path, arguments: tuple[str, ...]) -> None:
    failed = keywarp("import", files / "segmenter.onnx", *arguments)
    assert failed.status == 2
    assert arguments[0] in failed.stderr


def test_an_older_bundle_is_kept_if_the_import_is_refused_and_replaced_otherwise(files: Path, tmp_path: Path) -> None:
    assert keywarp("import", files / "segmenter.onnx", "--out", tmp_path / "m").status == 0
    before = load_bundle(tmp_path / "m").digest
    assert keywarp("import", files / "Tiny YOLO.onnx", "--out", tmp_path / "m", "--cut", "nothing").status == 1
    assert load_bundle(tmp_path / "m").digest == before
    assert keywarp("import", files / "Tiny YOLO.onnx", "--out", tmp_path / "m").status == 0
    assert load_bundle(tmp_path / "m").digest != before
