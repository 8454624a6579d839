"""Bundles in memory: their checks, their costs, and their manifest."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from keywarp.engines import Engine, FixedInterval, MotionName, StreamSession
from keywarp.engines.bundle import make_bundle
from keywarp.importing import Draft, Hints, ImportingError, ImportOptions, draft_bundle, picture
from keywarp.importing.draft import model_name
from tests.importing import networks
from tests.importing.exported_networks import ULTRALYTICS, Detector, export
from tests.importing.networks import MaskSet


def frames(count: int) -> list[NDArray[np.uint8]]:
    scene = (255 * picture(100, 150 + 3 * count)[0].transpose(1, 2, 0)).astype(np.uint8)
    return [np.ascontiguousarray(scene[:, 3 * n : 3 * n + 150]) for n in range(count)]


@pytest.fixture(scope="module")
def draft(tmp_path_factory: pytest.TempPathFactory) -> Draft:
    file = export(Detector(), tmp_path_factory.mktemp("file") / "tiny.onnx", metadata=ULTRALYTICS)
    return draft_bundle(file, ImportOptions(result=Hints(threshold=0.3)), frames(3))


def test_checks_compare_with_the_whole_network_on_both_runtimes(draft: Draft) -> None:
    checks = list(draft.check(frames(2)))
    assert len(checks) == 6
    assert {str(check).split(":")[0] for check in checks} == {"openvino", "onnxruntime"}
    assert all(check.passed for check in checks)
    assert all(check.agreement == 1 for check in checks)


def test_a_set_of_masks_is_cut_at_its_scores(tmp_path: Path) -> None:
    file = networks.export(MaskSet(), tmp_path / "masks.onnx", 128, 192, output_names=["class_logits", "mask_logits"])
    draft = draft_bundle(file, ImportOptions(), frames(2))
    manifest = draft.bundle.manifest
    assert [(m.channels, m.stride) for m in draft.candidates[draft.chosen].maps] == [(5, 8)]
    assert not manifest.held
    assert manifest.segmentation is not None
    assert manifest.segmentation.stride == 8
    assert (manifest.background, len(manifest.classes)) == (False, 5)
    assert all(check.passed for check in draft.check(frames(1)))


def with_graphs(draft: Draft, graphs: dict[str, onnx.ModelProto]) -> Draft:
    """The draft with other graphs in its bundle."""
    fields = draft.bundle.manifest.model_dump(exclude={"files", "schema_version"})
    return replace(draft, bundle=make_bundle(draft.bundle.path, graphs, **fields))


def graphs_of(draft: Draft) -> dict[str, onnx.ModelProto]:
    return {name: draft.bundle.graph(name) for name in draft.bundle.manifest.files}


def test_other_features_are_noticed(draft: Draft) -> None:
    graphs = graphs_of(draft)
    for tensor in graphs["features.onnx"].graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        if values.ndim == 4:
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.flip(values, axis=1).copy(), tensor.name))
    with pytest.raises(ImportingError, match="features and head against the whole network: outputs differ by"):
        list(with_graphs(draft, graphs).check(frames(1)))


def test_a_warp_that_moves_without_motion_is_noticed(draft: Draft) -> None:
    graphs = graphs_of(draft)
    for node in graphs["warp.onnx"].graph.node:
        if node.op_type == "GridSample":
            attribute = next(a for a in node.attribute if a.name == "align_corners")
            attribute.i = 0
    with pytest.raises(ImportingError, match="frames without motion against their key frames"):
        list(with_graphs(draft, graphs).check(frames(1)))


def test_costs_of_other_cuts_follow_their_work_and_bytes(draft: Draft) -> None:
    measured, cut = draft.measured, draft.cut
    assert measured.predict(cut).propagated == pytest.approx(measured.frames.propagated, rel=0.5)
    heavier = replace(cut, head_operations=cut.head_operations + cut.operations // 2)
    own = measured.predict(cut).propagated
    assert measured.predict(heavier).propagated == pytest.approx(own + measured.frames.key / 2, rel=0.01)
    larger = measured.predict(replace(cut, bytes=3 * cut.bytes))
    assert larger.propagated == pytest.approx(own + 2 * measured.frames.warp)


def test_manifest_says_where_the_bundle_is_from(draft: Draft) -> None:
    notes = draft.bundle.manifest.provenance.notes
    assert notes.startswith("Imported from tiny.onnx (SHA-256 ")
    assert all(m.tensor in notes for m in draft.cut.maps)
    assert draft.bundle.manifest.detection is not None
    assert draft.bundle.manifest.detection.threshold == 0.3


@pytest.mark.parametrize(
    ("text", "name"),
    [("YOLOv8 m (best)", "yolov8-m-best"), ("--", "imported"), ("x" * 80, "x" * 64), ("été.v1", "t-.v1")],
)
def test_any_file_name_gives_a_models_name(text: str, name: str) -> None:
    assert model_name(text) == name


def test_outputs_that_the_result_is_not_read_from_are_left_out(tmp_path: Path) -> None:
    file = export(Detector(), tmp_path / "two.onnx", metadata=ULTRALYTICS)
    model = onnx.load(file)
    model.graph.node.append(onnx.helper.make_node("GlobalMaxPool", ["images"], ["brightest"]))
    model.graph.output.append(onnx.helper.make_tensor_value_info("brightest", onnx.TensorProto.FLOAT, [1, 3, 1, 1]))
    onnx.save(model, file)
    found = draft_bundle(file, ImportOptions(), frames(2))
    assert not [node for node in found.whole.graph.node if node.op_type == "GlobalMaxPool"]


@pytest.mark.parametrize(("stride", "downscale"), [(7, 1), (14, 2), (12, 2)])
def test_maps_of_patches_are_moved_whatever_their_stride(tmp_path: Path, stride: int, downscale: int) -> None:
    random = np.random.default_rng(0)
    weights = {"patch": (6, 3, stride, stride), "mix": (6, 6, 3, 3), "classes": (4, 6, 1, 1)}
    nodes = [
        onnx.helper.make_node("Conv", ["image", "patch"], ["patches"], strides=[stride] * 2),
        onnx.helper.make_node("Conv", ["patches", "mix"], ["mixed"], pads=[1] * 4),
        onnx.helper.make_node("Relu", ["mixed"], ["map"]),
        onnx.helper.make_node("Conv", ["map", "classes"], ["logits"]),
    ]
    image = onnx.helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, [1, 3, 10 * stride, 14 * stride])
    logits = onnx.helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, [1, 4, 10, 14])
    constants = [
        onnx.numpy_helper.from_array(random.normal(0, shape[1] ** -0.5, shape).astype(np.float32), name)
        for name, shape in weights.items()
    ]
    graph = onnx.helper.make_graph(nodes, "patches", [image], [logits], constants)
    opset = onnx.helper.make_opsetid("", 17)
    onnx.save(onnx.helper.make_model(graph, opset_imports=[opset], ir_version=8), tmp_path / "patches.onnx")
    found = draft_bundle(tmp_path / "patches.onnx", ImportOptions(), frames(3))
    manifest = found.bundle.manifest
    assert (manifest.finest.stride, manifest.flow.downscale) == (stride, downscale)
    assert all(check.passed for check in found.check(frames(1)))
    moved = frames(3)
    motions: tuple[MotionName, ...] = ("flow", "dis-chained-repaired")
    for motion in motions:
        session = StreamSession(Engine(found.bundle, motion=motion), FixedInterval(3))
        results = [session.process(frame) for frame in moved]
        assert results[1].reliability is not None
        assert results[1].flow is not None
        # the scene moves by 3 pixels of 150 a frame to the left
        cells = 14 * 3 / 150
        assert np.median(results[1].flow[0]) == pytest.approx(cells, abs=0.3 * cells)
