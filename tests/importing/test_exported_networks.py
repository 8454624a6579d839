"""Detectors and segmentations that torch exported give the same results as in torch."""

import io
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import detection
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList

from keywarp.importing.class_names import COCO
from keywarp.importing.formats import recognise
from keywarp.importing.model_file import ImportedModel, TensorSpec
from keywarp.importing.preparation import BYTE, PreparationHints, guess_preparation
from keywarp.importing.runtime import fold

from .written_outputs import decode, model_of

HEIGHT, WIDTH = 96, 128
STRIDES = (8, 16, 32)


def imported(network: nn.Module, names: Sequence[str], metadata: dict[str, str] | None = None) -> ImportedModel:
    """Export a network by tracing."""
    file: Any = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network, (picture(),), file, dynamo=False, opset_version=17, input_names=["image"], output_names=list(names)
        )
    model = fold(onnx.load_from_string(file.getvalue()))
    specs = []
    for output in model.graph.output:
        tensor = output.type.tensor_type
        shape = tuple(d.dim_value if d.HasField("dim_value") else -1 for d in tensor.shape.dim)
        specs.append(TensorSpec(output.name, shape, np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type))))
    return ImportedModel(model, HEIGHT, WIDTH, tuple(specs), metadata or {}, "pytorch")


def picture() -> Tensor:
    return torch.rand(1, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(1))


class Backbone(nn.Sequential):
    """One convolution with stride 16."""

    out_channels = 32

    def __init__(self) -> None:
        super().__init__(nn.Conv2d(3, 32, 16, stride=16), nn.ReLU())


def torchvision_detector(kind: str, classes: int) -> Any:
    options: dict[str, Any] = {"num_classes": classes, "min_size": HEIGHT, "max_size": WIDTH}
    anchors = AnchorGenerator(((16, 32),), ((0.5, 1.0),))
    if kind == "faster_rcnn":
        return detection.FasterRCNN(
            Backbone(), rpn_anchor_generator=anchors, rpn_pre_nms_top_n_test=50, rpn_post_nms_top_n_test=30,
            box_score_thresh=0.0, box_detections_per_img=20, **options,
        )  # fmt: skip
    if kind == "retinanet":
        return detection.RetinaNet(
            Backbone(), anchor_generator=anchors, score_thresh=0.0, topk_candidates=50, detections_per_img=20, **options
        )
    return detection.FCOS(
        Backbone(), anchor_generator=AnchorGenerator(((16,),), ((1.0,),)), score_thresh=0.0, topk_candidates=50,
        detections_per_img=20, **options,
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["faster_rcnn", "retinanet", "fcos"])
@pytest.mark.parametrize("classes", [91, 6])
def test_torchvisions_detectors_are_taken_with_their_suppression(kind: str, classes: int) -> None:
    torch.manual_seed(0)
    network = torchvision_detector(kind, classes).eval()
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight)  # so that no two scores are nearly equal
    with torch.inference_mode():
        (wanted,) = network(picture())
    names = list(wanted)
    model = imported(network, names)
    result = recognise(model)
    assert len(result.class_names) == (81 if classes == 91 else 6), result.guess
    found = decode(model, result, picture().numpy())
    used = list(range(1, classes))
    if classes == 91:
        assert result.class_names[1:] == COCO
        used = [n for n in used if n not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)]
    assert len(wanted["boxes"]) > 5
    np.testing.assert_allclose(found["boxes"][0], wanted["boxes"], atol=1e-2)
    one_hot = (wanted["labels"][:, None] == torch.tensor(used)) * wanted["scores"][:, None]
    np.testing.assert_allclose(found["scores"][0, :, 1:], one_hot, atol=1e-5)
    preparation = guess_preparation(model, result, PreparationHints())
    assert preparation.image.std == BYTE, preparation.pixel_guess  # the network normalises its image itself


class YoloHead(nn.Module):
    """A head with the layout of YOLOv8: distributed distances and classes per level, joined to (N, 4 + classes, n)."""

    def __init__(self, classes: int, decoded: bool) -> None:
        super().__init__()
        self.decoded = decoded
        self.stems = nn.ModuleList(nn.Conv2d(3, 16, stride, stride=stride) for stride in STRIDES)
        self.boxes = nn.ModuleList(nn.Conv2d(16, 64, 1) for _ in STRIDES)
        self.classes = nn.ModuleList(nn.Conv2d(16, classes, 1) for _ in STRIDES)

    def forward(self, image: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Return boxes and probabilities, or the maps of each level."""
        maps = [functional.silu(stem(image)) for stem in self.stems]
        levels = [torch.cat((b(x), c(x)), 1) for x, b, c in zip(maps, self.boxes, self.classes, strict=True)]
        if not self.decoded:
            return tuple(levels)
        table = torch.cat([level.flatten(2) for level in levels], 2)
        sides = table[:, :64].reshape(1, 4, 16, -1).softmax(2)
        sides = (sides * torch.arange(16.0).reshape(1, 1, 16, 1)).sum(2)
        centres, strides = [], []
        for size in STRIDES:
            h, w = HEIGHT // size, WIDTH // size
            y, x = torch.meshgrid(torch.arange(h) + 0.5, torch.arange(w) + 0.5, indexing="ij")
            centres.append(torch.stack((x.flatten(), y.flatten())))
            strides.append(torch.full((1, h * w), float(size)))
        centre, stride = torch.cat(centres, 1), torch.cat(strides, 1)
        low, high = centre - sides[:, :2], centre + sides[:, 2:]
        boxes = torch.cat(((low + high) / 2, high - low), 1) * stride
        return torch.cat((boxes, table[:, 64:].sigmoid()), 1)


def test_yolo_layout_is_the_same_joined_and_per_level() -> None:
    torch.manual_seed(0)
    whole = YoloHead(80, decoded=True).eval()
    with torch.inference_mode():
        table = whole(picture())
    assert isinstance(table, Tensor)
    wanted = table[0].T.numpy()
    half = wanted[:, 2:4] / 2
    boxes = np.concatenate((wanted[:, :2] - half, wanted[:, :2] + half), axis=1)
    names = {"names": repr(dict(enumerate(COCO))), "stride": "32", "task": "detect"}
    joined = imported(whole, ["output0"], names)
    whole.decoded = False
    apart = imported(whole, ["p3", "p4", "p5"])
    for model in (joined, apart):
        result = recognise(model)
        found = decode(model, result, picture().numpy())
        np.testing.assert_allclose(found["boxes"][0], boxes, atol=1e-3, err_msg=result.guess)
        np.testing.assert_allclose(found["scores"][0, :, 1:], wanted[:, 4:], atol=1e-5)
        assert result.class_names[1:] == COCO


@pytest.mark.parametrize("kind", ["retinanet", "fcos"])
def test_torchvisions_heads_without_suppression_are_decoded(kind: str) -> None:
    torch.manual_seed(0)
    size, strides = 128, (8, 16, 32, 64, 128)
    maps = [torch.rand(1, 64, size // s, size // s) for s in strides]
    images = ImageList(torch.zeros(1, 3, size, size), [(size, size)])
    if kind == "retinanet":
        network: nn.Module = detection.retinanet.RetinaNetHead(64, 9, 91)
        sizes = tuple((x, int(x * 2 ** (1 / 3)), int(x * 2 ** (2 / 3))) for x in (32, 64, 128, 256, 512))
        generator = AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * 5)
    else:
        network = detection.fcos.FCOSHead(64, 1, 91)
        generator = AnchorGenerator(tuple((s,) for s in strides), ((1.0,),) * 5)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, std=0.03)
    with torch.inference_mode():
        raw = network(maps)
        (anchors,) = generator(images, maps)
        if kind == "retinanet":
            boxes = detection.retinanet.det_utils.BoxCoder((1.0, 1.0, 1.0, 1.0)).decode_single(
                raw["bbox_regression"][0], anchors
            )
            scores = raw["cls_logits"][0].sigmoid()
        else:
            coder = detection.fcos.det_utils.BoxLinearCoder(normalize_by_size=True)
            boxes = coder.decode(raw["bbox_regression"][0], anchors)
            scores = (raw["cls_logits"][0].sigmoid() * raw["bbox_ctrness"][0].sigmoid()).sqrt()
    model = model_of({name: value.numpy() for name, value in raw.items()}, size=(size, size))
    result = recognise(model)
    found = decode(model, result)
    np.testing.assert_allclose(found["boxes"][0], boxes, atol=1e-2, err_msg=result.guess)
    used = [n for n in range(1, 91) if n not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)]
    np.testing.assert_allclose(found["scores"][0, :, 1:], scores[:, used], atol=1e-5)
