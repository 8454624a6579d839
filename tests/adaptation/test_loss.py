"""The parts of the loss, on a tiny bundle whose features are known."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from keywarp.adaptation import TorchGraph
from keywarp.adaptation.footage import Budget, Range, collect
from keywarp.adaptation.loss import PropagationLoss, measure_deviations, output_difference
from keywarp.adaptation.pairs import PairBatch, PairSampler
from keywarp.engines import Bundle
from keywarp.engines.manifest import SegmentationSettings
from keywarp.training.reporting import SilentReporter
from tests.adaptation.moving import HEIGHT, MAX_AGE, SPEED, WIDTH, boxed_bundle, colour_bundle, moving_clip
from tests.tiny_bundle import tiny_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return colour_bundle(tmp_path_factory.mktemp("colours"))


def sampler(bundle: Bundle, folder: Path, crop: int | None = None) -> PairSampler:
    footage = collect(bundle, [moving_clip(30)], [Range(0, 30)], folder, 9, Budget(1 << 30), SilentReporter())
    return PairSampler(footage, bundle.manifest, MAX_AGE, crop=crop)


def open_loss(bundle: Bundle, batch: PairBatch) -> tuple[PropagationLoss, TorchGraph]:
    flow, head = TorchGraph(bundle.graph("flow.onnx"), "flow"), TorchGraph(bundle.graph("head.onnx"), "head")
    return PropagationLoss(bundle.manifest, flow, head, None, measure_deviations(batch.target)), flow


def test_flows_from_elsewhere_are_those_of_the_picture(bundle: Bundle, tmp_path: Path) -> None:
    """The picture moves to the left, so everything was further to the right before."""
    drawn = [sampler(bundle, tmp_path).draw(step, 4) for step in range(3)]
    for batch in drawn:
        for flow in (batch.chained, batch.direct):
            dx = flow[:, 0, 2:-2, 6:-6].median(dim=-1).values.median(dim=-1).values * 4  # pixels
            ages = (dx / SPEED).round()
            assert bool((ages.abs() >= 1).all())
            assert bool((ages.abs() <= MAX_AGE).all())
            torch.testing.assert_close(dx, ages * SPEED, atol=0.5, rtol=0)
    assert {bool(x > 0) for batch in drawn for x in batch.chained[:, 0].mean(dim=(1, 2))} == {False, True}


def test_padding_of_a_letterbox_teaches_nothing(bundle: Bundle, tmp_path: Path) -> None:
    boxed = boxed_bundle(tmp_path / "boxed", bundle)
    alone, padded = sampler(bundle, tmp_path / "alone"), sampler(boxed, tmp_path / "padded")
    for step in range(3):
        one, other = alone.draw(step, 4), padded.draw(step, 4)
        assert bool((one.counts[0] == 1).all())
        for stride, counts in zip((4, 8), other.counts, strict=True):
            above, rows = 24 // stride, HEIGHT // stride
            assert bool((counts[:, :, above : above + rows] == 1).all())
            assert bool((counts[:, :, :above] == 0).all())
            assert bool((counts[:, :, above + rows :] == 0).all())
        seen = slice(24 // 4, 24 // 4 + HEIGHT // 4)
        torch.testing.assert_close(one.target[0], other.target[0][:, :, seen])
        dx = other.chained[:, 0, seen][:, 2:-2, 6:-6].median(dim=-1).values.median(dim=-1).values * 4  # pixels
        torch.testing.assert_close(dx, (dx / SPEED).round() * SPEED, atol=0.5, rtol=0)
        assert bool((dx.abs() >= SPEED - 0.5).all())


def test_the_head_gets_the_key_frames_held_tensors(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path / "tiny", held=True)
    batch = sampler(bundle, tmp_path / "work").draw(0, 4)
    assert batch.held[0].shape == batch.key_held[0].shape == (4, 3, 1, 1)
    loss, _ = open_loss(bundle, batch)
    parts = loss(batch, torch.zeros(4, dtype=torch.bool)).as_dict()
    assert np.isfinite(parts["head"])
    changed = replace(batch, key_held=tuple(x + 50 for x in batch.key_held))
    assert loss(changed, torch.zeros(4, dtype=torch.bool)).as_dict()["head"] > parts["head"]


def test_copying_costs_one_unit_of_each_part(bundle: Bundle, tmp_path: Path) -> None:
    batch = sampler(bundle, tmp_path).draw(0, 4)
    loss, flow = open_loss(bundle, batch)
    loss.calibrate([batch])
    with torch.no_grad():
        for name, parameter in flow.named_parameters():
            if "scales" not in name:
                parameter.zero_()  # no flow, and a scale of 1
        parts = loss(batch, torch.zeros(4, dtype=torch.bool)).as_dict()
        moved = loss(batch, torch.ones(4, dtype=torch.bool)).as_dict()
    assert parts["features"] == pytest.approx(1)
    assert parts["unscaled"] == pytest.approx(1)
    assert parts["head"] == pytest.approx(1)
    assert 0.5 < parts["pull"] <= 1  # nearly everywhere another flow is better
    assert moved["unscaled"] < 0.5  # along chained DIS


def test_only_a_flow_that_explains_the_features_better_pulls(bundle: Bundle, tmp_path: Path) -> None:
    batch = sampler(bundle, tmp_path).draw(0, 4)
    nothing = PairBatch(
        batch.current, batch.current, batch.target, batch.target, batch.chained, batch.direct, batch.counts
    )
    loss, flow = open_loss(bundle, batch)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.zero_()
        assert loss(nothing, torch.zeros(4, dtype=torch.bool)).pull < 1e-6


def test_crops_are_cut_from_frames_and_maps_alike(bundle: Bundle, tmp_path: Path) -> None:
    batch = sampler(bundle, tmp_path, crop=48).draw(0, 6)
    assert batch.current.shape == (6, 48, 48, 3)
    fine, coarse = batch.target
    assert fine.shape == (6, 3, 12, 12)
    assert coarse.shape == (6, 3, 6, 6)
    mean = torch.tensor(bundle.manifest.image.mean)
    std = torch.tensor(bundle.manifest.image.std)
    image = ((batch.current.float() - mean) / std).permute(0, 3, 1, 2)
    torch.testing.assert_close(torch.nn.functional.avg_pool2d(image, 4), fine, atol=2e-3, rtol=2e-3)
    counts = batch.counts[0][:, 0]
    assert set(np.unique(counts.numpy())) == {0.0, 1.0}  # 48 pixels of 96 can't touch both borders
    assert bool((counts[:, 5:7, 5:7] == 1).all())
    whole = sampler(bundle, tmp_path).draw(0, 2)
    assert whole.current.shape == (2, HEIGHT, WIDTH, 3)
    assert bool((whole.counts[0] == 1).all())


def test_boxes_that_are_elsewhere_and_scores_that_are_lost_cost(tmp_path: Path) -> None:
    manifest = tiny_bundle(tmp_path, detection=True).manifest
    boxes = torch.tensor([[[10.0, 10, 30, 50], [60, 10, 80, 50]]])
    scores = torch.tensor([[[0.1, 0.9, 0.0], [0.98, 0.0, 0.02]]])
    wanted = {"boxes": boxes, "scores": scores}

    def cost(found_boxes: torch.Tensor, found_scores: torch.Tensor) -> float:
        return float(output_difference(manifest, {"boxes": found_boxes, "scores": found_scores}, wanted))

    assert cost(boxes, scores) == pytest.approx(0, abs=1e-6)
    near, far = cost(boxes + 3, scores), cost(boxes + 9, scores)
    assert 0 < near < far
    assert cost(boxes, scores.flip(1)) > 1
    elsewhere = boxes.clone()
    elsewhere[:, 1] += 40  # a box of no object
    assert cost(elsewhere, scores) < 0.1 * far


def test_values_that_differ_cost_their_distance_in_units_of_the_spread(tmp_path: Path) -> None:
    manifest = tiny_bundle(tmp_path, dense=True).manifest
    wanted = torch.linspace(0, 9, 10).view(1, 1, 1, 10).repeat(2, 1, 6, 1)  # its mean distance from its mean is 2.5

    def cost(found: torch.Tensor, truth: torch.Tensor = wanted) -> float:
        return float(output_difference(manifest, {"values": found}, {"values": truth}))

    assert cost(wanted) == 0
    assert cost(wanted + 1) == pytest.approx(1 / 2.5)
    assert cost(-3 * (wanted + 1) + 50, -3 * wanted + 50) == pytest.approx(1 / 2.5)
    blurred = (wanted + wanted.roll(1, dims=2)) / 2
    assert cost(blurred) == 0  # rows are the same
    ragged = wanted + torch.tensor([1.0, -1.0]).repeat(5)
    assert cost(ragged) > 2 * cost(wanted + 1)  # as far away, but with false contours
    flat = torch.ones_like(wanted)
    assert np.isfinite(cost(flat + 1, flat))


def test_labels_that_differ_cost_their_divergence(tmp_path: Path) -> None:
    manifest = tiny_bundle(tmp_path).manifest
    p = torch.tensor([0.7, 0.2, 0.1]).view(1, 3, 1, 1)
    q = torch.tensor([0.1, 0.2, 0.7]).view(1, 3, 1, 1)
    assert float(output_difference(manifest, {"scores": p}, {"scores": p})) == 0
    expected = 0.6 * np.log(7)
    assert float(output_difference(manifest, {"scores": q}, {"scores": p})) == pytest.approx(expected, rel=1e-5)


def test_logits_cost_what_their_probabilities_do(tmp_path: Path) -> None:
    manifest = tiny_bundle(tmp_path / "probabilities").manifest
    settings = SegmentationSettings(stride=manifest.finest.stride, logits=True)
    of_logits = manifest.model_copy(update={"segmentation": settings})
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(1, 3, 4, 4, generator=generator) for _ in range(2))
    expected = output_difference(manifest, {"scores": x.softmax(1)}, {"scores": y.softmax(1)})
    torch.testing.assert_close(output_difference(of_logits, {"scores": x}, {"scores": y}), expected)


def test_masks_and_keypoints_of_objects_are_distilled(tmp_path: Path) -> None:
    manifest = tiny_bundle(tmp_path / "tiny", instances=True).manifest
    generator = torch.Generator().manual_seed(0)
    boxes = torch.tensor([[[0.0, 0.0, 40.0, 40.0], [10.0, 10.0, 50.0, 50.0]]])
    scores = torch.tensor([[[0.0, 0.9], [0.0, 0.0]]])  # the second row isn't an object
    wanted = {
        "boxes": boxes,
        "scores": scores,
        "mask_coefficients": torch.randn(1, 2, 8, generator=generator),
        "mask_prototypes": torch.randn(1, 8, 4, 4, generator=generator),
        "masks": torch.randn(1, 2, 7, 7, generator=generator),
        "keypoints": torch.tensor([[[[5.0, 5.0, 0.9], [20.0, 20.0, 0.0]]] * 2]),
    }
    same = float(output_difference(manifest, wanted, wanted))
    for name in ("mask_coefficients", "mask_prototypes", "masks", "keypoints"):
        shift = torch.zeros_like(wanted[name])
        shift[:, 0] = 1  # of the object, or of a prototype
        near = float(output_difference(manifest, {**wanted, name: wanted[name] + shift}, wanted))
        far = float(output_difference(manifest, {**wanted, name: wanted[name] + 3 * shift}, wanted))
        assert same < near < far, name
        if name != "mask_prototypes":
            other = output_difference(manifest, {**wanted, name: wanted[name] + shift.flip(1)}, wanted)
            assert float(other) == pytest.approx(same), name


def test_a_head_with_masks_and_keypoints_is_compared_on_moving_features(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path / "tiny", instances=True)
    batch = sampler(bundle, tmp_path / "work").draw(0, 4)
    loss, _ = open_loss(bundle, batch)
    assert np.isfinite(loss(batch, torch.zeros(4, dtype=torch.bool)).as_dict()["head"])
