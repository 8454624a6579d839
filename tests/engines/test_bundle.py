"""A bundle is loaded only if its files are exactly those of its manifest."""

import json
import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

import numpy as np
import onnx
import pytest

from keywarp.engines import BundleError, Engine, MotionName, load_bundle, write_bundle
from keywarp.engines.manifest import GRAPHS, MANIFEST
from tests.tiny_bundle import tiny_bundle

SHIPPED = Path(__file__).parents[2] / "models" / "street"
LETTERBOX = {"fit": "letterbox", "height": 64, "width": 64}


def edit_manifest(bundle: Path, change: Callable[[dict[str, Any]], None]) -> None:
    file = bundle / "bundle.json"
    manifest = json.loads(file.read_text())
    change(manifest)
    file.write_text(json.dumps(manifest))


def test_a_written_bundle_loads_with_its_graphs(bundle_path: Path) -> None:
    bundle = load_bundle(bundle_path)
    assert bundle.name == "tiny"
    for name in GRAPHS:
        onnx.checker.check_model(bundle.graph(name))


@pytest.mark.parametrize("name", GRAPHS)
def test_a_changed_byte_is_refused(bundle_path: Path, name: str) -> None:
    file = bundle_path / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(BundleError, match=rf"{name} doesn't match its manifest.*copy the bundle again"):
        load_bundle(bundle_path)


def test_a_change_after_loading_is_refused_before_anything_is_compiled(bundle_path: Path) -> None:
    bundle = load_bundle(bundle_path)
    (bundle_path / "head.onnx").write_bytes(b"\0")
    with pytest.raises(BundleError, match="doesn't match"):
        bundle.graph("head.onnx")


def test_a_bundle_kept_in_memory_survives_changes_of_its_folder(bundle_path: Path) -> None:
    bundle = load_bundle(bundle_path, keep=True)
    for name in GRAPHS:
        (bundle_path / name).write_bytes(b"\0")
        onnx.checker.check_model(bundle.graph(name))


def test_a_missing_graph_is_refused(bundle_path: Path) -> None:
    (bundle_path / "flow.onnx").unlink()
    with pytest.raises(BundleError, match=r"can't read .*flow\.onnx"):
        load_bundle(bundle_path)


def test_the_flow_network_may_be_missing(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path / "tiny", flow_network=False, motion="dis")
    assert not bundle.manifest.has_flow_network
    assert bundle.digest != tiny_bundle(tmp_path / "other", motion="dis").digest
    with pytest.raises(BundleError, match=r"tiny has no flow\.onnx"):
        bundle.graph("flow.onnx")


def test_the_default_motion_must_be_one_that_the_bundle_has(tmp_path: Path) -> None:
    for fields in ({}, {"motion": "dis+scale"}, {"motion": "flow-chained"}):
        with pytest.raises(
            ValueError, match=r"needs flow\.onnx, which is missing: set the field `motion` to one of none"
        ):
            tiny_bundle(tmp_path / "tiny", flow_network=False, **fields)  # type: ignore[arg-type]
    assert not (tmp_path / "tiny").exists()


@pytest.mark.parametrize(
    "fields",
    [
        {"background": False},
        {"held": True},
        {"image": LETTERBOX},
        {"segmentation": {"stride": 8, "logits": True}},
        {"instances": True},
    ],
)
def test_what_is_new_in_version_2_needs_it(tmp_path: Path, fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="needs `schema_version` 2"):
        tiny_bundle(tmp_path / "tiny", schema_version=1, **fields)


def test_bundles_from_before_are_read_unchanged(tmp_path: Path) -> None:
    """Today's fields have the values that mean what their absence meant."""
    folder = shutil.copytree(SHIPPED, tmp_path / "before")
    written = json.loads((folder / "bundle.json").read_text())
    for name in ("background", "held", "segmentation", "detection", "dense", "precisions"):
        del written[name]
    for name in ("fit", "height", "width", "pad", "padding"):
        del written["image"][name]
    (folder / "bundle.json").write_text(json.dumps(written))
    manifest = load_bundle(folder).manifest
    assert manifest.image.fit == "resize"
    assert manifest.background
    assert manifest.held == ()
    assert manifest.precisions == {}
    assert len(manifest.motions) == len(get_args(MotionName))


def test_a_folder_without_manifest_is_not_a_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"is not a bundle: can't read its bundle\.json"):
        load_bundle(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(lambda m: m.update(schema_version=3), "schema_version", id="unknown version"),
        pytest.param(lambda m: m.update(task="detection"), "detector needs the field", id="no detection settings"),
        pytest.param(
            lambda m: m.update(classes=[{"id": i, "name": "x", "color": [0, 0, 0]} for i in range(257)]),
            "256 classes at most, got 257",
            id="more classes than a byte has values",
        ),
        pytest.param(
            lambda m: m.update(held=[{"name": "tokens", "shape": [1, 4]}]), "must be named held", id="name of held"
        ),
        pytest.param(lambda m: m.update(held=[{"name": "held", "shape": [1, 0]}]), "held.0.shape", id="shape of held"),
        pytest.param(
            lambda m: m.update(
                task="detection", detection={"kind": "dense"}, background=False, schema_version=2, segmentation=None
            ),
            "class 0 is always the background",
            id="detector without a background",
        ),
        pytest.param(
            lambda m: m.update(features=[{"name": f"features_{i}", "stride": 16, "channels": 3} for i in (0, 1)]),
            "must give the scores' stride",
            id="several maps without the stride of the scores",
        ),
        pytest.param(
            lambda m: m.update(task="detection", detection={"kind": "regions", "pooling": 3000}),
            "pooling",
            id="too many bins",
        ),
        pytest.param(
            lambda m: m.update(task="detection", detection={"kind": "regions", "anchor_ratios": []}),
            "anchor_ratios",
            id="no anchors",
        ),
        pytest.param(
            lambda m: m.update(
                task="detection", detection={"kind": "dense", "keypoints": {"names": ["nose"], "skeleton": [[0, 1]]}}
            ),
            r"joins the points \(0, 1\)",
            id="a skeleton of points that there aren't",
        ),
        pytest.param(lambda m: m.update(colour="red"), "colour: Extra inputs", id="unknown field"),
        pytest.param(lambda m: m.update(opset=20), "opset", id="an opset that renames GridSample's modes"),
        pytest.param(lambda m: m.update(key_interval=0), "key_interval", id="no interval"),
        pytest.param(lambda m: m.update(name="../evil"), "name", id="a path as name"),
        pytest.param(lambda m: m["files"].pop("warp.onnx"), "warp.onnx", id="a graph that isn't listed"),
        pytest.param(lambda m: m["files"].update(x=m["files"]["head.onnx"]), "unknown", id="an unknown file"),
        pytest.param(lambda m: m["classes"].reverse(), "class ids", id="classes out of order"),
        pytest.param(lambda m: m["image"].update(long_side=16), "below short_side", id="sides swapped"),
        pytest.param(lambda m: m["image"].update(std=[0, 1, 1]), "std must be positive", id="zero deviation"),
    ],
)
def test_an_invalid_manifest_is_refused(
    bundle_path: Path, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    edit_manifest(bundle_path, change)
    with pytest.raises(BundleError, match=message):
        load_bundle(bundle_path)


def test_a_manifest_that_is_not_json_is_refused(bundle_path: Path) -> None:
    (bundle_path / "bundle.json").write_bytes(b"\xff\xfe")
    with pytest.raises(BundleError, match="not a valid manifest"):
        load_bundle(bundle_path)


def test_the_digest_follows_the_graphs(tmp_path: Path) -> None:
    one, same = tiny_bundle(tmp_path / "one"), tiny_bundle(tmp_path / "same", name="other")
    moved = tiny_bundle(tmp_path / "moved", flow=(1.0, 0.0))
    assert one.digest == same.digest != moved.digest


@pytest.mark.parametrize("name", GRAPHS)
def test_a_graph_with_other_outputs_is_refused(tmp_path: Path, name: str) -> None:
    sound = tiny_bundle(tmp_path / "sound")
    graphs = {file: sound.graph(file) for file in GRAPHS}
    output = graphs[name].graph.output[0]
    for node in graphs[name].graph.node:
        node.output[:] = ["other" if n == output.name else n for n in node.output]
        node.input[:] = ["other" if n == output.name else n for n in node.input]
    output.name = "other"
    fields = sound.manifest.model_dump(exclude={"files"})
    bundle = write_bundle(tmp_path / "other", graphs, **fields)
    with pytest.raises(BundleError, match=rf"{name} should have the outputs .* it has .*other"):
        Engine(bundle, cache=tmp_path / "cache").prepare(64, 96)


def test_labels_that_the_manifest_doesnt_name_are_refused(tmp_path: Path) -> None:
    sound = tiny_bundle(tmp_path / "sound")
    fields = sound.manifest.model_dump(exclude={"files"})
    fields["classes"] = fields["classes"][:2]  # the head scores three
    bundle = write_bundle(tmp_path / "fewer", {file: sound.graph(file) for file in GRAPHS}, **fields)
    green = np.full((64, 96, 3), (0, 255, 0), np.uint8)
    with pytest.raises(BundleError, match="should score 2 classes"):
        Engine(bundle, cache=tmp_path / "cache").key(green)


@contextmanager
def full_disk() -> Iterator[None]:
    """Let every write beyond a file's first 500 bytes fail."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_bundle_that_cannot_be_written_leaves_the_older_one(tmp_path: Path) -> None:
    old = tiny_bundle(tmp_path / "old")
    graphs = {file: old.graph(file) for file in GRAPHS}
    fields = old.manifest.model_dump(exclude={"files"}) | {"version": "9.9.9"}
    for name in ("old", "new"):
        with full_disk(), pytest.raises(OSError, match="too large"):
            write_bundle(tmp_path / name, graphs, **fields)
    assert load_bundle(tmp_path / "old").manifest == old.manifest
    assert {file.name for file in (tmp_path / "old").iterdir()} == {MANIFEST, *GRAPHS}
    assert not (tmp_path / "new").exists()
