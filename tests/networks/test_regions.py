import math
from dataclasses import asdict

import pytest
import torch
from torch import Tensor

from keywarp.engines.manifest import RegionDetection
from keywarp.networks.regions import RegionOptions, detect, propose, vote
from keywarp.networks.rfcn import DetectionMaps

CLASSES = 4
OPTIONS = RegionOptions(anchor_ratios=(1.0,), anchor_scales=(2.0, 4.0), pooling=3)  # boxes of 32 and 64 pixels
ROWS, COLUMNS = 8, 10
HEIGHT, WIDTH = 16 * ROWS, 16 * COLUMNS


def quiet_maps(images: int = 1) -> DetectionMaps:
    """Return maps with background everywhere."""
    maps = DetectionMaps(*(torch.zeros(images, channels, ROWS, COLUMNS) for channels in (4, 8, CLASSES * 9, 4 * 9)))
    maps.class_maps[:, 0::CLASSES] = 8
    return maps


def noisy_maps(images: int = 1) -> DetectionMaps:
    maps = quiet_maps(images)
    return DetectionMaps(
        torch.randn_like(maps.objectness),
        torch.randn_like(maps.anchor_deltas) * 0.3,
        torch.randn_like(maps.class_maps) * 9,
        torch.randn_like(maps.box_maps),
    )


def pooled_by_loops(maps: Tensor, region: Tensor, options: RegionOptions) -> Tensor:
    """Average each bin over the cells that it touches, and then the bins, in one image's map."""
    k, (channels, rows, columns) = options.pooling, maps.shape
    x1, y1, x2, y2 = (math.floor(float(v) / options.stride + 0.5) for v in region)
    votes = torch.zeros(channels // k**2)
    for value in range(len(votes)):
        for row in range(k):
            for column in range(k):
                cells = [
                    maps[(row * k + column) * len(votes) + value, y, x]
                    for y in range(y1 + math.floor(row * (y2 - y1) / k), y1 + math.ceil((row + 1) * (y2 - y1) / k))
                    for x in range(
                        x1 + math.floor(column * (x2 - x1) / k), x1 + math.ceil((column + 1) * (x2 - x1) / k)
                    )
                    if y < rows and x < columns
                ]
                votes[value] += sum(cells) / max(len(cells), 1) / k**2
    return votes


def test_an_object_is_found_at_the_place_of_high_scores() -> None:
    maps = quiet_maps()
    maps.objectness[0, 2 + 1, 3, 4] = 5  # foreground of the second anchor, 64 pixels, at row 3, column 4
    maps.class_maps[0, 2::CLASSES, 1:6, 2:7] = 10
    first, *_ = propose(maps, HEIGHT, WIDTH, OPTIONS)[0]
    assert first.tolist() == [40, 24, 104, 88]
    (found,) = detect(maps, HEIGHT, WIDTH, OPTIONS)
    assert found.labels[0] == 2
    assert found.boxes[0].tolist() == [40, 24, 104, 88]
    score = torch.tensor([8.0, 0.0, 10.0, 0.0]).softmax(0)[2]
    torch.testing.assert_close(found.scores[0], score)


def test_the_box_maps_move_the_box_in_units_of_their_deviation() -> None:
    maps = quiet_maps()
    maps.objectness[0, 2 + 1, 3, 4] = 5
    maps.class_maps[0, 2::CLASSES] = 10
    maps.box_maps[0, 0::4] = 2.5  # dx: 2.5 x 0.1 x 64 = 16 pixels to the right
    maps.box_maps[0, 3::4] = math.log(2) / 0.2  # dh: twice as high, from the centre
    found = detect(maps, HEIGHT, WIDTH, OPTIONS)[0]
    moved = torch.tensor([56.0, 0.0, 120.0, 120.0])  # 24 - 32 is outside
    assert torch.isclose(found.boxes, moved, atol=1e-3).all(1).any()


def test_background_everywhere_gives_no_objects() -> None:
    (found,) = detect(quiet_maps(), HEIGHT, WIDTH, OPTIONS)
    assert (found.boxes.shape, found.scores.shape, found.labels.shape) == ((0, 4), (0,), (0,))


def test_images_of_a_batch_do_not_mix() -> None:
    torch.manual_seed(0)
    maps = noisy_maps(images=3)
    together = detect(maps, HEIGHT, WIDTH, OPTIONS)
    for n, found in enumerate(together):
        (alone,) = detect(DetectionMaps(*(m[n : n + 1] for m in maps)), HEIGHT, WIDTH, OPTIONS)
        assert len(found.scores) > 0
        for part, same in zip(found, alone, strict=True):
            assert torch.equal(part, same)


def test_proposals_are_the_best_inside_the_image_and_far_enough_apart() -> None:
    torch.manual_seed(1)
    (boxes,) = propose(noisy_maps(), HEIGHT, WIDTH, OPTIONS)
    assert (boxes >= 0).all()
    assert (boxes <= torch.tensor([WIDTH, HEIGHT, WIDTH, HEIGHT])).all()
    area = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    assert (area > 0).all()
    shared = (
        (torch.minimum(boxes[:, None, 2:], boxes[:, 2:]) - torch.maximum(boxes[:, None, :2], boxes[:, :2]))
        .clamp(min=0)
        .prod(2)
    )
    overlap = shared / (area[:, None] + area - shared)
    assert (overlap.fill_diagonal_(0) <= OPTIONS.proposal_iou).all()


def test_pooling_equals_written_out_loops_up_to_the_last_row_and_column() -> None:
    torch.manual_seed(2)
    maps = noisy_maps()
    regions = torch.tensor(
        [
            [0.0, 0.0, WIDTH, HEIGHT],
            [40.0, 24.0, 104.0, 88.0],
            [7.9, 8.1, 60.0, 100.0],
            [WIDTH - 48.0, HEIGHT - 40.0, WIDTH, HEIGHT],
            [WIDTH - 16.0, HEIGHT - 16.0, WIDTH, HEIGHT],  # the last cell alone
        ]
    )
    logits, deltas = vote(maps, [regions], OPTIONS)
    for n, region in enumerate(regions):
        torch.testing.assert_close(logits[n], pooled_by_loops(maps.class_maps[0], region, OPTIONS))
        torch.testing.assert_close(deltas[n], pooled_by_loops(maps.box_maps[0], region, OPTIONS))


def test_votes_pass_gradients_to_every_cell_of_the_region() -> None:
    maps = noisy_maps()
    maps.class_maps.requires_grad_()
    region = torch.tensor([[WIDTH - 48.0, HEIGHT - 48.0, WIDTH, HEIGHT]])
    (gradient,) = torch.autograd.grad(vote(maps, [region], OPTIONS).class_logits.sum(), maps.class_maps)
    touched = gradient.abs().sum((0, 1)) > 0
    expected = torch.zeros(ROWS, COLUMNS, dtype=torch.bool)
    expected[-3:, -3:] = True
    assert torch.equal(touched, expected)


def test_nan_scores_and_deltas_give_no_proposals_or_objects() -> None:
    torch.manual_seed(3)
    maps = noisy_maps()
    for m in maps:
        m[torch.rand_like(m) < 0.05] = math.nan
    (found,) = detect(maps, HEIGHT, WIDTH, OPTIONS)
    assert not found.boxes.isnan().any()
    assert not found.scores.isnan().any()
    for m in maps:
        m.fill_(math.nan)
    assert len(propose(maps, HEIGHT, WIDTH, OPTIONS)[0]) == 0
    assert len(detect(maps, HEIGHT, WIDTH, OPTIONS)[0].scores) == 0


def test_an_anchor_with_a_nan_score_is_not_proposed() -> None:
    maps, anchor = quiet_maps(), torch.tensor([40.0, 24.0, 104.0, 88.0])  # the second one at row 3, column 4
    assert (propose(maps, HEIGHT, WIDTH, OPTIONS)[0] == anchor).all(1).any()
    maps.objectness[0, 2 + 1, 3, 4] = math.nan
    assert not (propose(maps, HEIGHT, WIDTH, OPTIONS)[0] == anchor).all(1).any()


def test_maps_of_other_anchors_than_the_options_are_refused() -> None:
    with pytest.raises(ValueError, match="9 anchors per cell, but the maps have 2; use the options"):
        propose(quiet_maps(), HEIGHT, WIDTH, RegionOptions())


def test_the_bundles_manifest_has_the_same_options_with_the_same_defaults() -> None:
    manifest = RegionDetection().model_dump(exclude={"kind"})
    assert manifest == asdict(RegionOptions())
