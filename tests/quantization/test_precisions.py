"""Bundles with graphs in int8: their manifest, and the choice of a precision."""

import json
from pathlib import Path

import pytest

from keywarp.engines import BackendError, BundleError, Engine, load_bundle
from keywarp.engines.bundle import save_bundle
from keywarp.engines.devices import list_gpus
from keywarp.engines.manifest import MANIFEST
from keywarp.engines.precisions import choose_precision
from tests.quantization.networks import layered_bundle, with_int8
from tests.tiny_bundle import tiny_bundle


def edit(path: Path, **fields: object) -> None:
    """Change fields of the manifest's first measurement."""
    manifest = json.loads((path / MANIFEST).read_text())
    record = manifest["precisions"]["int8"]
    record.update({name: value for name, value in fields.items() if name in record})
    record["measurements"][0].update({name: value for name, value in fields.items() if name not in record})
    (path / MANIFEST).write_text(json.dumps(manifest))


def test_a_bundle_is_written_and_read_with_its_int8(tmp_path: Path) -> None:
    bundle = layered_bundle(tmp_path / "layered")
    written = save_bundle(with_int8(bundle))
    assert load_bundle(bundle.path).manifest == written.manifest
    assert written.digest == bundle.digest
    plain, int8 = (b.graph("features.onnx") for b in (written, written.in_precision("int8")))
    assert "DequantizeLinear" not in {node.op_type for node in plain.graph.node}
    assert "DequantizeLinear" in {node.op_type for node in int8.graph.node}
    assert int8.graph.node != plain.graph.node
    assert written.in_precision("int8").graph("head.onnx") == written.graph("head.onnx")  # which int8 doesn't replace
    assert written.in_precision("bf16").graph("features.onnx") == plain


def test_a_bundle_without_int8_is_written_as_before(tmp_path: Path) -> None:
    assert "precisions" not in json.loads((tiny_bundle(tmp_path / "tiny").path / MANIFEST).read_text())


def test_a_new_version_of_a_bundle_leaves_no_graph_in_int8_behind(tmp_path: Path) -> None:
    save_bundle(with_int8(layered_bundle(tmp_path / "layered")))
    assert (tmp_path / "layered" / "features.int8.onnx").exists()
    layered_bundle(tmp_path / "layered", outlier=True)
    assert not list((tmp_path / "layered").glob("*.int8.onnx"))
    assert load_bundle(tmp_path / "layered").manifest.precisions == {}


def test_an_agreement_below_the_tolerance_is_refused(tmp_path: Path) -> None:
    path = save_bundle(with_int8(layered_bundle(tmp_path / "layered"))).path
    edit(path, propagated_agreement=0.98)
    with pytest.raises(BundleError, match=r"precisions\.int8.*98\.00 %.*tolerance of 99\.00 %.*keywarp quantize"):
        load_bundle(path)


def test_int8_of_other_graphs_is_refused(tmp_path: Path) -> None:
    path = save_bundle(with_int8(layered_bundle(tmp_path / "layered"))).path
    edit(path, source="0" * 64)
    with pytest.raises(BundleError, match="int8 were made of other graphs"):
        load_bundle(path)


def test_a_damaged_graph_in_int8_is_refused(tmp_path: Path) -> None:
    path = save_bundle(with_int8(layered_bundle(tmp_path / "layered"))).path
    with (path / "features.int8.onnx").open("ab") as file:
        file.write(b"x")
    with pytest.raises(BundleError, match=r"features\.int8\.onnx doesn't match its manifest"):
        load_bundle(path)


def test_int8_of_an_unknown_graph_is_refused(tmp_path: Path) -> None:
    path = save_bundle(with_int8(layered_bundle(tmp_path / "layered"))).path
    manifest = json.loads((path / MANIFEST).read_text())
    files = manifest["precisions"]["int8"]["files"]
    files["warp.int8.onnx"] = files["features.int8.onnx"]
    (path / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match=r"the files in int8 must be of .*got warp\.int8\.onnx"):
        load_bundle(path)


@pytest.mark.parametrize(
    ("backend", "instructions", "chosen", "reason"),
    [
        ("openvino", "vnni", "int8", "int8 agrees with fp32 to 99.3 %, and was measured to be faster than fp32"),
        ("openvino", "amx", "auto", "wasn't measured to be faster with openvino on a processor with amx"),
        ("openvino", "", "auto", "a processor without instructions for int8"),
        ("onnxruntime", "vnni", "auto", "wasn't measured to be faster with onnxruntime"),
    ],
)
def test_auto_takes_int8_where_it_was_measured_to_be_faster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: str, instructions: str, chosen: str, reason: str
) -> None:
    bundle = with_int8(layered_bundle(tmp_path / "layered"), instructions="vnni")
    monkeypatch.setattr("keywarp.engines.precisions.int8_instructions", lambda: instructions)
    precision, why = choose_precision(bundle, "auto", backend)  # type: ignore[arg-type]
    assert precision == chosen
    assert reason in why
    engine = Engine(bundle, backend, cache=tmp_path / "cache")  # type: ignore[arg-type]
    assert (engine.backend.precision == "int8") == (chosen == "int8")
    assert reason in engine.backend.reason


@pytest.mark.skipif(bool(list_gpus()), reason="there is a GPU")
def test_the_cpu_in_place_of_a_gpu_runs_int8_where_it_is_faster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = with_int8(layered_bundle(tmp_path / "layered"), instructions="vnni")
    monkeypatch.setattr("keywarp.engines.precisions.int8_instructions", lambda: "vnni")
    engine = Engine(bundle, "tensorrt", cache=tmp_path / "cache", fallback=True)
    assert (engine.backend.name, engine.backend.precision) == ("openvino", "int8")
    assert engine.backend.reason.startswith("tensorrt can't be used")
    assert "int8 agrees with fp32" in engine.backend.reason


def test_a_precision_that_was_asked_for_is_taken(tmp_path: Path) -> None:
    bundle = with_int8(layered_bundle(tmp_path / "layered"))
    assert choose_precision(bundle, "fp32", "openvino") == ("fp32", "")
    assert choose_precision(bundle, "int8", "onnxruntime") == ("int8", "")


def test_int8_needs_graphs_in_int8(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="has no graphs in int8: make them with keywarp quantize"):
        Engine(tiny_bundle(tmp_path / "tiny"), precision="int8")
    assert choose_precision(tiny_bundle(tmp_path / "tiny"), "auto", "openvino") == ("auto", "")
