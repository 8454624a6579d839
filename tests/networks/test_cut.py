from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.segmentation import deeplabv3_mobilenet_v3_large, lraspp_mobilenet_v3_large

from keywarp.networks import TORCHVISION_MEAN, CutError, CutNetwork, FeatureMap, cut
from keywarp.saving import SavingWarning


class Tiny(nn.Module):
    """A network with one map of stride 16 and one score map for each of three classes."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 8, 16, 16)
        self.norm = nn.BatchNorm2d(8)
        self.score = nn.Conv2d(8, 3, 1)


def body(model: Tiny, image: Tensor) -> Tensor:
    return functional.relu(model.norm(model.body(image)))


def score(model: Tiny, features: Tensor) -> Tensor:
    scores: Tensor = model.score(features)
    return scores


def lraspp() -> CutNetwork:
    return cut(
        lraspp_mobilenet_v3_large(weights=None, weights_backbone=None),
        features=lambda model, image: model.backbone(image),
        head=lambda model, low, high: model.classifier({"low": low, "high": high}),
    )


def test_maps_of_several_strides_are_found() -> None:
    assert lraspp().maps == (FeatureMap(channels=40, stride=8), FeatureMap(channels=960, stride=16))


def test_maps_are_found_wherever_the_network_is_cut() -> None:
    model = deeplabv3_mobilenet_v3_large(weights=None, weights_backbone=None)
    early = cut(model, lambda m, image: m.backbone(image)["out"], lambda m, x: m.classifier(x))
    assert early.maps == (FeatureMap(channels=960, stride=16),)
    late = cut(
        model,
        lambda m, image: nn.Sequential(*list(m.classifier)[:-1])(m.backbone(image)["out"]),
        lambda m, x: m.classifier[-1](x),
    )
    assert late.maps == (FeatureMap(channels=256, stride=16),)
    image = torch.randn(1, 3, 64, 96)
    with torch.inference_mode():
        torch.testing.assert_close(late(image), early(image))


def test_dense_maps_are_returned_as_they_are() -> None:
    network = cut(Tiny(), body, lambda m, x: m.score(x)[:, :1], task="dense")
    assert network.outputs == ("values",)
    raw = torch.randn(2, 1, 4, 6)
    assert network.predict(raw)[0] is raw


@pytest.mark.parametrize(
    ("head", "returned"),
    [(score, r"a tensor of shape \(1, 3, "), (lambda m, x: m.score(x)[:, 0], r"a tensor of shape \(1, 8, 10\)")],
)
def test_several_or_flat_values_are_refused(head: Any, returned: str) -> None:
    with pytest.raises(CutError, match=rf"should return values \(N, 1, h, w\), not {returned}"):
        cut(Tiny(), body, head, task="dense")


def test_both_parts_together_are_the_network() -> None:
    torch.manual_seed(0)
    network, image = lraspp(), torch.randn(2, 3, 64, 96)
    with torch.inference_mode():
        scores = functional.interpolate(network(image), (64, 96), mode="bilinear", align_corners=False)
        torch.testing.assert_close(scores, network.model(image)["out"])


def test_predictions_are_probabilities() -> None:
    network = cut(Tiny(), body, score)
    with torch.inference_mode():
        [probabilities] = network.predict(network(torch.randn(2, 3, 64, 96)))
    assert probabilities.shape == (2, 3, 4, 6)
    torch.testing.assert_close(probabilities.sum(dim=1), torch.ones(2, 4, 6))


def boxed(model: Tiny, x: Tensor) -> tuple[Tensor, Tensor]:
    """Score all classes of each cell, in a box of the whole image."""
    scores = score(model, x).flatten(2).transpose(1, 2)
    return torch.tensor([0.0, 0.0, 64.0, 96.0]).expand(*scores.shape[:2], 4), scores


def test_a_detector_may_score_each_class_by_itself() -> None:
    network = cut(Tiny(), body, boxed, task="detection", activation="sigmoid")
    with torch.inference_mode():
        raw = network(torch.randn(2, 3, 64, 96))
        boxes, probabilities = network.predict(raw)
    assert boxes is raw[0]
    torch.testing.assert_close(probabilities[..., 1:], torch.sigmoid(raw[1]))
    torch.testing.assert_close(probabilities[..., 0], 1 - torch.sigmoid(raw[1]).amax(dim=-1))


def test_a_segmentation_needs_the_softmax() -> None:
    with pytest.raises(CutError, match="'sigmoid' is for detection only"):
        cut(Tiny(), body, score, activation="sigmoid")


def test_the_model_is_used_as_it_is_in_evaluation_mode() -> None:
    model = Tiny().train()
    network = cut(model, body, score)
    assert network.model is model
    assert not model.norm.training
    assert model.norm.num_batches_tracked == 0  # finding the maps didn't train it


def test_the_image_is_prepared_as_torchvision_does_unless_told_otherwise() -> None:
    assert cut(Tiny(), body, score).mean == TORCHVISION_MEAN
    network = cut(Tiny(), body, score, mean=(1, 2, 3), std=(4, 5, 6), multiple=48)
    assert (network.mean, network.std, network.multiple) == ((1, 2, 3), (4, 5, 6), 48)


@pytest.mark.parametrize("multiple", [1, 16, 24, 256])
def test_strides_are_found_whatever_the_multiple(multiple: int) -> None:
    def padded(model: Tiny, image: Tensor) -> Tensor:
        return body(model, functional.pad(image, (0, -image.shape[-1] % 16, 0, -image.shape[-2] % 16)))

    assert cut(Tiny(), padded, score, multiple=multiple).maps == (FeatureMap(8, 16),)


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (lambda *_: None, "not None$"),
        (lambda *_: {}, "not a dict of nothing$"),
        (lambda model, image: {"out": {"deep": body(model, image)}}, "not a dict of out$"),
        (lambda model, image: body(model, image).mean(dim=(2, 3)), r"not a tensor of shape \(1, 8\)$"),
        (
            lambda model, image: body(model, image).mean(dim=(2, 3), keepdim=True),
            "^1x1 cells .* cut elsewhere",
        ),
        (lambda _, image: image, "^128x160 cells .* match none of the strides 4, 8, 16"),
    ],
    ids=["nothing", "empty", "nested", "vector", "pooled", "stride-1"],
)
def test_features_that_cant_be_warped_are_refused(features: Any, message: str) -> None:
    with pytest.raises(CutError, match=message):
        cut(Tiny(), features, score)


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (lambda model, x: {"out": model.score(x), "aux": x}, "scores .* not a dict of out, aux$"),
        (lambda model, x: model.score(x).argmax(dim=1), r"not a tensor of shape \(1, 8, 10\)$"),
        (lambda model, x: model.score(x)[:, :1], "two classes or more, the background first, not 1$"),
        (
            lambda model, x: model.score(x)[..., 1:],
            "^8x9 cells for an image of 128x160 pixels match none of the strides 1, 2, 4",
        ),
    ],
    ids=["dict", "labels", "one-class", "cropped"],
)
def test_a_segmentation_head_must_return_scores(head: Any, message: str) -> None:
    with pytest.raises(CutError, match=message):
        cut(Tiny(), body, head)


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (lambda model, x: model.score(x), "should return boxes .* not a tensor of shape"),
        (lambda _, x: [{"boxes": x, "scores": x}], "not a list of a dict of boxes, scores$"),
        (lambda _, x: (x.flatten(2), x.flatten(2)), r"not \(1, 8, 80\) and \(1, 8, 80\)$"),
        (lambda _, x: (x.new_zeros(1, 5, 4), x.new_zeros(1, 6, 3)), r"not \(1, 5, 4\) and \(1, 6, 3\)$"),
    ],
    ids=["scores", "torchvision's", "no-corners", "lengths"],
)
def test_a_detection_head_must_return_boxes_and_scores(head: Any, message: str) -> None:
    with pytest.raises(CutError, match=message):
        cut(Tiny(), body, head, task="detection")


class Heavy(nn.Module):
    """A network of a few hundred thousand operations for each pixel of the image."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 256, 8, 8)
        self.body = nn.Conv2d(256, 1024, 7, padding=3)
        self.score = nn.Conv2d(1024, 3, 1)


def test_a_cut_that_pays_is_made_without_a_warning(recwarn: pytest.WarningsRecorder) -> None:
    cut(Heavy(), lambda m, image: m.score(m.body(m.stem(image))), lambda _, x: x)
    assert not [w for w in recwarn if issubclass(w.category, SavingWarning)]


def test_a_cut_that_leaves_the_work_to_every_frame_says_so() -> None:
    with pytest.warns(SavingWarning, match="leaves to every frame costs (99|100)% of a key frame"):
        cut(Heavy(), lambda m, image: m.stem(image), lambda m, x: m.score(m.body(x)))


def test_a_light_network_says_that_propagation_pays_little() -> None:
    with pytest.warns(SavingWarning, match="so light that following the motion"):
        cut(Tiny(), body, score)
