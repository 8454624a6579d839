"""torchvision's one-stage detectors, whose selection of objects is left out."""

import warnings
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn
from torchvision.models.detection import FCOS, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator

from keywarp.importing.decoders import append_decoder
from keywarp.importing.formats import recognise
from keywarp.importing.graph import IMAGE
from keywarp.importing.model_file import ImportedModel, read_model
from keywarp.importing.picture import picture
from keywarp.importing.result_format import Hints
from keywarp.importing.runtime import run
from keywarp.importing.selection import without_selection

SIZE = 128, 160
CLASSES = 5


class Levels(nn.Module):
    """Maps of 32 channels at the strides 8 to 128."""

    out_channels = 32

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 9, 8, 4)
        self.steps = nn.ModuleList(nn.Conv2d(32, 32, 3, 2, 1) for _ in range(4))

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        maps = [self.stem(image)]
        for step in self.steps:
            maps.append(step(maps[-1].relu()))
        return {str(number): level for number, level in enumerate(maps)}


@pytest.fixture(scope="module", params=["fcos", "retinanet"])
def detector(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ImportedModel:
    """Read the file of a small detector."""
    torch.manual_seed(0)
    sides = {"min_size": SIZE[0], "max_size": SIZE[1]}
    if request.param == "fcos":
        network: nn.Module = FCOS(Levels(), CLASSES, **sides)
    else:
        sizes = tuple((4 * s, int(4 * s * 2 ** (1 / 3)), int(4 * s * 2 ** (2 / 3))) for s in (8, 16, 32, 64, 128))
        anchors = AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * 5)
        network = RetinaNet(Levels(), CLASSES, anchor_generator=anchors, **sides)
    with torch.no_grad():
        for name, parameter in network.named_parameters():  # so that there are objects, and levels without any
            if request.param == "fcos" and name.endswith("cls_logits.weight"):
                parameter.mul_(60)
            elif request.param == "retinanet" and name.startswith("head.") and parameter.ndim == 4:
                nn.init.kaiming_normal_(parameter)
    path = tmp_path_factory.mktemp("file") / f"{request.param}.onnx"
    names = {"input_names": ["image"], "output_names": ["boxes", "scores", "labels"]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image = torch.from_numpy(picture(*SIZE))
        torch.onnx.export(network.eval(), (image,), path, opset_version=17, dynamo=False, **names)  # type: ignore[arg-type]  # as documented
    return read_model(path)


def test_all_places_have_the_boxes_and_scores_of_the_objects_that_the_file_selects(detector: ImportedModel) -> None:
    places = without_selection(detector)
    assert places is not None
    assert (places.background(0), places.background(CLASSES)) == ("first", "none")
    result = recognise(places.model, Hints(boxes=places.boxes, background=places.background(CLASSES)))
    assert "without its suppression" in result.guess
    assert result.detection is not None
    assert result.detection.iou < 1  # the engine suppresses overlaps instead
    for seed in (0, 1):
        feeds = {IMAGE: picture(*SIZE, seed=seed)}
        selected = run(detector.model, feeds)
        decoded = run(append_decoder(places.model.model, result, *SIZE), feeds)
        boxes, scores = decoded["boxes"][0].clip(0, (SIZE[1], SIZE[0]) * 2), decoded["scores"][0]
        assert len(selected["boxes"]) > 3
        for box, score, label in zip(selected["boxes"], selected["scores"], selected["labels"], strict=True):
            near = np.abs(boxes - box).max(axis=1) < 0.05
            assert np.abs(scores[near][:, 1 + label] - score).min() < 1e-3


def test_a_selection_that_takes_more_from_the_image_is_left_in(detector: ImportedModel) -> None:
    model = onnx.ModelProto()
    model.CopyFrom(detector.model)
    model.graph.node.append(helper.make_node("ReduceMean", [IMAGE], ["light"], keepdims=0))
    model.graph.node.append(helper.make_node("Mul", ["scores", "light"], ["lit"]))
    model.graph.output[1].CopyFrom(helper.make_tensor_value_info("lit", TensorProto.FLOAT, [None]))
    other = ImportedModel(model, *SIZE, detector.outputs, {}, "")
    assert without_selection(other) is None
    assert without_selection(detector) is not None


def test_an_empty_array_can_get_another_shape(tmp_path: Path) -> None:
    """ONNX Runtime joins such nodes to a shape of [0, -1], which fails."""
    nodes = [
        helper.make_node("GlobalMaxPool", ["image"], ["pooled"]),
        helper.make_node("Greater", ["pooled", "limit"], ["bright"]),
        helper.make_node("NonZero", ["bright"], ["places"]),  # (4, n)
        helper.make_node("Transpose", ["places"], ["rows"]),
        helper.make_node("Shape", ["rows"], ["shape"]),
        helper.make_node("Gather", ["shape", "zero"], ["count"]),
        helper.make_node("Gather", ["shape", "one"], ["width"]),
        helper.make_node("Reshape", ["rows", "square"], ["squares"]),
        helper.make_node("Unsqueeze", ["count", "axis"], ["counts"]),
        helper.make_node("Unsqueeze", ["width", "axis"], ["widths"]),
        helper.make_node("Concat", ["counts", "widths"], ["wanted"], axis=0),
        helper.make_node("Reshape", ["squares", "wanted"], ["again"]),
        helper.make_node("Cast", ["again"], ["out"], to=TensorProto.FLOAT),
    ]
    values = {"zero": 0, "one": 1, "axis": [0], "square": [-1, 2, 2]}
    constants = [onnx.numpy_helper.from_array(np.array(value, np.int64), name) for name, value in values.items()]
    constants.append(onnx.numpy_helper.from_array(np.array(9, np.float32), "limit"))
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 64, 64])
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, [None, 4])
    graph = helper.make_graph(nodes, "empty", [image], [out], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "f.onnx")
    found = read_model(tmp_path / "f.onnx")
    assert run(found.model, {IMAGE: picture(64, 64)})["out"].shape == (0, 4)
