"""A bundle is either exactly what its manifest says, or refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

from keywarp.engines import BundleError, load_bundle
from keywarp.engines.manifest import GRAPHS


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


def test_a_missing_graph_is_refused(bundle_path: Path) -> None:
    (bundle_path / "flow.onnx").unlink()
    with pytest.raises(BundleError, match=r"can't read .*flow\.onnx"):
        load_bundle(bundle_path)


def test_a_folder_without_manifest_is_not_a_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"is not a bundle: can't read bundle\.json"):
        load_bundle(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(lambda m: m.update(schema_version=2), "schema_version", id="unknown version"),
        pytest.param(lambda m: m.update(colour="red"), "colour: Extra inputs", id="unknown field"),
        pytest.param(lambda m: m.update(opset=20), "opset", id="an opset that renames GridSample's modes"),
        pytest.param(lambda m: m.update(key_interval=0), "key_interval", id="no interval"),
        pytest.param(lambda m: m.update(name="../evil"), "name", id="a path as name"),
        pytest.param(lambda m: m["files"].pop("warp.onnx"), "warp.onnx", id="a graph not listed"),
        pytest.param(lambda m: m["files"].update(x=m["files"]["head.onnx"]), "unknown", id="a foreign file"),
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
    from tests.tiny_bundle import tiny_bundle

    one, same = tiny_bundle(tmp_path / "one"), tiny_bundle(tmp_path / "same", name="other")
    moved = tiny_bundle(tmp_path / "moved", flow=(1.0, 0.0))
    assert one.digest == same.digest != moved.digest
