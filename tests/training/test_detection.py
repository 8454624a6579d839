import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from keywarp.datasets.samples import Boxes
from keywarp.networks import DetectionMaps, DetectionNetwork, ResNetFeatures, ResNetOptions
from keywarp.networks.regions import RegionOptions, detect, propose, vote
from keywarp.training.detection import (
    IGNORED,
    DetectionLosses,
    DetectionLossOptions,
    detection_loss,
    detection_losses,
    label_anchors,
    label_regions,
)

CLASSES = 4
OPTIONS = RegionOptions(anchor_ratios=(1.0,), anchor_scales=(2.0, 4.0), pooling=3)  # anchors of 32 and 64 pixels
OBJECTS_ALONE = replace(OPTIONS, proposals=0)  # are the regions
ROWS, COLUMNS = 8, 10
HEIGHT, WIDTH = 16 * ROWS, 16 * COLUMNS
SURE = 20.0  # a logit
ANCHOR = (40.0, 24.0, 104.0, 88.0)  # the second one at row 3, column 4


def boxes(*objects: tuple[int, tuple[float, float, float, float]]) -> Boxes:
    """Make boxes from (class, corners)."""
    corners = np.array([c for _, c in objects], np.float32).reshape(-1, 4)
    return Boxes(corners, np.array([k for k, _ in objects], np.int64))


TRUTH = boxes((2, ANCHOR))


def right_maps() -> DetectionMaps:
    """Return maps that predict exactly `TRUTH`.

    Its neighbouring anchors overlap it by 0.6, so they are neither foreground nor background.
    """
    maps = DetectionMaps(*(torch.zeros(1, channels, ROWS, COLUMNS) for channels in (4, 8, CLASSES * 9, 4 * 9)))
    maps.objectness[0, :2] = SURE
    maps.objectness[0, 1, 3, 4] = -SURE
    maps.objectness[0, 2 + 1, 3, 4] = SURE
    maps.class_maps[0, 0::CLASSES] = SURE
    maps.class_maps[0, 0::CLASSES, 1:6, 2:7] = 0
    maps.class_maps[0, 2::CLASSES, 1:6, 2:7] = SURE
    return maps


def noisy_maps(images: int) -> DetectionMaps:
    torch.manual_seed(0)
    shapes = ((4, 1.0), (8, 0.3), (CLASSES * 9, 9.0), (4 * 9, 1.0))
    return DetectionMaps(*(torch.randn(images, channels, ROWS, COLUMNS) * scale for channels, scale in shapes))


def losses(
    maps: DetectionMaps,
    *truths: Boxes,
    options: RegionOptions = OPTIONS,
    training: DetectionLossOptions | None = None,
    seed: int = 0,
) -> DetectionLosses:
    generators = [torch.Generator().manual_seed(seed + n) for n in range(len(truths))]
    return detection_losses(maps, truths, HEIGHT, WIDTH, options, generators, training)


def test_right_maps_cost_next_to_nothing() -> None:
    found = losses(right_maps(), TRUTH, options=replace(OPTIONS, proposals=1))
    assert float(found.total) < 1e-5


@pytest.mark.parametrize("part", ["objectness", "anchors", "classes", "boxes"])
def test_each_map_has_its_own_loss(part: str) -> None:
    maps = right_maps()
    if part == "objectness":
        maps.objectness[0, 2 + 1, 3, 4] = -3 * SURE
    elif part == "anchors":
        maps.anchor_deltas[0, 4, 3, 4] = 0.1
    elif part == "classes":
        maps.class_maps[0, 3::CLASSES] = 2 * SURE
    else:
        maps.box_maps[0, 0] = 1
    found = losses(maps, TRUTH, options=OBJECTS_ALONE)._asdict()
    assert float(found.pop(part)) > 1e-4
    assert all(float(other) < 1e-5 for other in found.values())


def test_deltas_cost_by_smooth_l1_in_their_units() -> None:
    maps = right_maps()
    maps.box_maps[0, 0::4] = 3.0  # dx of the region, in deviations: beyond 1, hence 3 - 1/2
    assert float(losses(maps, TRUTH, options=OBJECTS_ALONE).boxes) == pytest.approx(2.5)
    maps.anchor_deltas[0, 4, 3, 4] = 0.1  # below 1/9: (3 x 0.1)^2 / 2 of the one foreground anchor
    drawn = int(
        (label_anchors(grid(), torch.tensor([ANCHOR]), HEIGHT, WIDTH, DetectionLossOptions()).labels >= 0).sum()
    )
    assert float(losses(maps, TRUTH).anchors) == pytest.approx(0.045 / drawn)


def test_boxes_are_learnt_relative_to_anchors_and_regions() -> None:
    maps = right_maps()  # propose the anchor
    # shifted by an eighth of the anchor's width, so its IoU with this anchor and the next is 7 / 9
    shifted = boxes((1, (48.0, 24.0, 112.0, 88.0)))
    found = losses(maps, shifted, options=replace(OPTIONS, proposals=1))
    labels = label_anchors(grid(), torch.from_numpy(shifted.corners), HEIGHT, WIDTH, DetectionLossOptions()).labels
    assert (labels == 1).sum() == 2
    assert float(found.anchors) == pytest.approx(2 * (1 / 8 - 1 / 18) / int((labels >= 0).sum()))
    assert float(found.boxes) == pytest.approx((1.25 - 0.5) / 2)  # of the proposal and the object: 1/8 is 1.25 x 0.1


def grid() -> torch.Tensor:
    """Return all anchors in the order of rows, columns and the anchors of a cell."""
    centres = [(16 * c + 8, 16 * r + 8, half) for r in range(ROWS) for c in range(COLUMNS) for half in (16, 32)]
    return torch.tensor([(x - half, y - half, x + half, y + half) for x, y, half in centres], dtype=torch.float32)


def test_anchors_are_labelled_by_overlap_and_the_best_of_an_object_always() -> None:
    objects = torch.tensor([[0.0, 0, 100, 100], [200.0, 200, 300, 300], [900.0, 0, 950, 50]])
    labelled = [
        ([0, 0, 100, 80], 1, 0),  # 0.8
        ([0, 0, 100, 100], 1, 0),  # the best
        ([0, 0, 100, 50], IGNORED, 0),  # 0.5
        ([0, 0, 100, 20], 0, 0),  # 0.2
        ([200, 200, 300, 240], 1, 1),  # 0.4: the best, ...
        ([200, 260, 300, 300], 1, 1),  # ... like this one
        ([200, 200, 300, 235], IGNORED, 1),  # 0.35
        ([500, 500, 600, 600], 0, 0),  # nothing; nor does any anchor touch the last object, so that none is its best
    ]
    anchors = torch.tensor([corners for corners, _, _ in labelled], dtype=torch.float32)
    labels, matches = label_anchors(anchors, objects, 1000, 1000, DetectionLossOptions())
    assert labels.tolist() == [label for _, label, _ in labelled]
    assert matches.tolist() == [match for _, _, match in labelled]


def test_anchors_across_the_border_can_be_left_out() -> None:
    objects = torch.tensor([[0.0, 0, 100, 100]])
    anchors = torch.tensor([[-1.0, 0, 100, 100], [0.0, 0, 100, 40], [60.0, 0, 101, 100], [0.0, 0, 100, 10]])
    training = DetectionLossOptions()
    assert label_anchors(anchors, objects, 100, 100, training).labels.tolist() == [1, IGNORED, IGNORED, 0]
    inside = replace(training, anchors_inside=True)
    assert label_anchors(anchors, objects, 100, 100, inside).labels.tolist() == [IGNORED, 1, IGNORED, 0]


def test_regions_get_the_class_of_the_object_that_they_overlap_most() -> None:
    objects, classes = torch.tensor([[0.0, 0, 100, 100], [0.0, 40, 100, 140]]), torch.tensor([3, 1])
    # their IoU with the first object is 0.5, 0.54, 0.4, 0.05, 0; with the second 0.07, 0.82, 0, 0, 0
    regions = torch.tensor(
        [[0.0, 0, 100, 50], [0.0, 30, 100, 130], [0.0, 0, 100, 40], [0.0, 0, 100, 5], [500.0, 0, 600, 100]]
    )
    labels, matches = label_regions(regions, objects, classes, DetectionLossOptions())
    assert labels.tolist() == [3, 1, 0, 0, 0]
    assert matches[:2].tolist() == [0, 1]
    mined = replace(DetectionLossOptions(), region_background=0.1)
    assert label_regions(regions, objects, classes, mined).labels.tolist() == [3, 1, 0, IGNORED, IGNORED]


def test_foreground_is_limited_and_background_fills_up() -> None:
    maps = right_maps()
    maps.objectness[:] = 0
    maps.objectness[0, :2] = 10  # background for sure: a foreground anchor costs 10, background nothing
    truth = boxes(*((1, (x, 24.0, x + 32, 56.0)) for x in (8.0, 40.0, 72.0, 104.0)))  # four anchors
    training = DetectionLossOptions(anchors=4, anchors_foreground=1)
    assert float(losses(maps, truth, training=training).objectness) == pytest.approx(10 / 4, rel=1e-3)
    assert float(losses(maps, truth, training=replace(training, anchors_foreground=3)).objectness) == pytest.approx(
        10 * 3 / 4, rel=1e-3
    )


def test_the_hardest_regions_are_kept() -> None:
    maps = noisy_maps(1)
    (proposals,) = propose(maps, HEIGHT, WIDTH, OPTIONS)
    logits = vote(maps, [proposals], OPTIONS).class_logits
    every = functional.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.int64), reduction="none")
    for kept in (1, 5, len(every)):
        found = losses(maps, boxes(), training=DetectionLossOptions(regions=kept))
        assert float(found.classes) == pytest.approx(float(every.topk(kept).values.mean()))
    maps.class_maps.requires_grad_()
    losses(maps, boxes(), training=DetectionLossOptions(regions=1)).total.backward()  # type: ignore[no-untyped-call]
    x1, y1, x2, y2 = (proposals[every.argmax()] / 16).round().int().tolist()
    assert maps.class_maps.grad is not None
    touched = maps.class_maps.grad[0].abs().sum(0) > 0
    assert touched.any()
    touched[y1:y2, x1:x2] = False
    assert not touched.any()


def test_a_wrong_box_makes_a_region_hard() -> None:
    maps = right_maps()
    maps.objectness[:] = 0  # so that the first proposal isn't the object
    maps.class_maps[:] = 0  # every region's class costs the same
    maps.box_maps[0, 0::4] = 9.0
    found = losses(maps, TRUTH, training=DetectionLossOptions(regions=1))
    assert float(found.classes) == pytest.approx(math.log(CLASSES))
    assert float(found.boxes) >= 8.5


def test_ignored_regions_do_not_count() -> None:
    maps = right_maps()
    maps.class_maps[:] = 0  # every region's class costs log 4
    found = losses(maps, TRUTH, training=DetectionLossOptions(region_background=0.4))
    assert float(found.classes) == pytest.approx(math.log(CLASSES))
    assert float(losses(maps, boxes(), training=DetectionLossOptions(region_background=0.4)).classes) == 0


def test_two_halves_of_a_batch_average_to_the_whole() -> None:
    maps = noisy_maps(4)
    truths = [TRUTH, boxes(), boxes((1, (8.0, 8.0, 40.0, 40.0)), (3, (30.0, 50.0, 150.0, 120.0))), TRUTH]
    training = DetectionLossOptions(anchors=20, regions=20)
    whole = losses(maps, *truths, training=training, seed=5)
    halves = [
        losses(DetectionMaps(*(m[n : n + 2] for m in maps)), *truths[n : n + 2], training=training, seed=5 + n)
        for n in (0, 2)
    ]
    for total, *parts in zip(whole, *halves, strict=True):
        torch.testing.assert_close(total, torch.stack(parts).mean())


def test_images_without_objects_teach_the_background() -> None:
    maps = DetectionMaps(*(m.requires_grad_() for m in noisy_maps(2)))
    found = losses(maps, boxes(), boxes())
    assert found.objectness.item() > 0
    assert found.classes.item() > 0
    assert found.anchors.item() == found.boxes.item() == 0
    found.total.backward()  # type: ignore[no-untyped-call]
    assert all(m.grad is not None and m.grad.isfinite().all() for m in maps)


def test_an_object_without_area_is_passed_over() -> None:
    maps = noisy_maps(1)
    flat = boxes((1, (20.0, 20.0, 20.0, 60.0)), (1, (60.0, 60.0, 20.0, 20.0)), (2, ANCHOR))
    assert losses(maps, flat) == losses(maps, TRUTH)


def test_maps_in_bfloat16_are_judged_in_float32() -> None:
    half = DetectionMaps(*(m.bfloat16() for m in noisy_maps(1)))
    with torch.autocast("cpu", torch.bfloat16):
        found = losses(half, TRUTH)
    assert found.total.dtype == torch.float32
    assert found == losses(DetectionMaps(*(m.float() for m in half)), TRUTH)


def test_the_generators_alone_decide_what_is_drawn() -> None:
    def run(seed: int) -> tuple[torch.Tensor, ...]:
        maps = DetectionMaps(*(m.requires_grad_() for m in noisy_maps(3)))
        truths = [TRUTH, boxes(), boxes((1, (8.0, 8.0, 40.0, 40.0)))]
        loss = losses(maps, *truths, training=DetectionLossOptions(anchors=16), seed=seed).total
        return loss, *torch.autograd.grad(loss, list(maps))

    first, same, other = run(1), run(1), run(2)
    assert all(torch.equal(a, b) for a, b in zip(first, same, strict=True))
    assert not torch.equal(first[0], other[0])


def test_truths_of_another_number_of_images_are_refused() -> None:
    with pytest.raises(ValueError, match="there are maps of 2 images, but objects of 1"):
        losses(noisy_maps(2), TRUTH)


def test_a_network_learns_to_detect_an_object() -> None:
    torch.manual_seed(0)
    network = DetectionNetwork(ResNetFeatures(ResNetOptions((1, 1, 1, 0), channels=8)), CLASSES, regions=OPTIONS)
    image = 3 * torch.randn(1, 3, 64, 80)
    image[..., 18:50, 34:66] += 10
    corners = (34.0, 18.0, 66.0, 50.0)
    optimizer = torch.optim.AdamW(network.parameters(), 3e-3)
    generators = [torch.Generator().manual_seed(0)]
    course = []
    for _ in range(50):
        optimizer.zero_grad()
        loss = detection_loss(network(image), [boxes((2, corners))], 64, 80, OPTIONS, generators)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        course.append(loss.item())
    assert course[-1] < 0.5 * course[0]
    with torch.inference_mode():
        (found,) = detect(network(image), 64, 80, OPTIONS)
    assert found.labels[0] == 2
    assert found.scores[0] > 0.3
    torch.testing.assert_close(found.boxes[0], torch.tensor(corners), atol=8, rtol=0)
