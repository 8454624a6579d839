from dataclasses import fields, replace

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from keywarp.datasets.errors import DataError
from keywarp.datasets.motion import Flow, warp_image
from keywarp.datasets.moving_scenes import CLASSES, MovingScene, MovingScenes, SceneOptions
from keywarp.datasets.samples import FlowSource, PairSource, SnippetSource, Truth
from tests.datasets.synthetic import textured

Mask = npt.NDArray[np.bool_]

SMALL = SceneOptions(height=96, width=128, diameter=(20, 56), shot=(6, 12))
PICTURES = [textured(120, 160, seed) for seed in range(5)]


def scenes(options: SceneOptions = SMALL, seed: int = 0) -> MovingScenes:
    return MovingScenes(PICTURES, options, seed=seed, size=4)


def drawn(count: int, options: SceneOptions = SMALL) -> list[MovingScene]:
    random = np.random.default_rng(11)
    return [scenes(options).draw(random) for _ in range(count)]


def assert_same_truth(first: Truth, second: Truth) -> None:
    assert first.labels is not None
    assert second.labels is not None
    np.testing.assert_array_equal(first.labels, second.labels)
    assert first.boxes is not None
    assert second.boxes is not None
    np.testing.assert_array_equal(first.boxes.corners, second.boxes.corners)
    np.testing.assert_array_equal(first.boxes.classes, second.boxes.classes)


def test_it_is_a_source_of_pairs_snippets_and_flow() -> None:
    pairs: PairSource = scenes()
    snippets: SnippetSource = scenes()
    motion: FlowSource = scenes()
    pair = pairs.pair(np.random.default_rng(0))
    assert pair.current.shape == pair.key.shape == (96, 128, 3)
    assert pair.truth.labels is not None
    assert pair.truth.labels.shape == (96, 128)
    assert len(snippets) == len(list(snippets.snippets(1))) == 4
    flow = motion.flow_pair(np.random.default_rng(0)).flow
    assert flow.shape == (96, 128, 2)
    assert flow.dtype == np.float32


def test_equal_generators_draw_equal_pairs_whatever_the_data_sets_seed() -> None:
    first, second = (scenes(seed=seed).pair(np.random.default_rng(3)) for seed in (0, 1))
    np.testing.assert_array_equal(first.current, second.current)
    np.testing.assert_array_equal(first.key, second.key)
    assert first.gap == second.gap
    assert_same_truth(first.truth, second.truth)
    other = scenes().pair(np.random.default_rng(4))
    assert np.any(other.current != first.current)


def test_gaps_are_uniform_from_zero() -> None:
    source, random = scenes(replace(SMALL, objects=(0, 0), clutter=(0, 0))), np.random.default_rng(0)
    pairs = [source.pair(random, 3) for _ in range(200)]
    counts = np.bincount([pair.gap for pair in pairs])
    assert len(counts) == 4
    assert counts.min() > 30
    assert all((pair.key is pair.current) == (pair.gap == 0) for pair in pairs)


def test_a_key_frame_is_the_earlier_moment_of_the_same_scene() -> None:
    pair = next(pair for seed in range(9) if (pair := scenes().pair(np.random.default_rng(seed))).gap)
    seed = next(seed for seed in range(9) if scenes().pair(np.random.default_rng(seed)).gap)
    random = np.random.default_rng(seed)
    assert pair.gap == random.integers(10)
    scene = scenes().draw(random)
    np.testing.assert_array_equal(pair.key, scene.image(-pair.gap))
    np.testing.assert_array_equal(pair.current, scene.image(0))
    assert_same_truth(pair.truth, scene.truth(0))


def test_mapping_to_the_surface_and_back_is_exact_at_any_time() -> None:
    y, x = np.indices((24, 32), np.float64) * 4
    for scene in drawn(8):
        for object_ in scene.objects:
            surface = object_.to_surface(x, y, 1.5)
            for time in (-9, 1.5, 30):
                image = object_.to_image(*surface, time)
                np.testing.assert_allclose(object_.to_surface(*image, time), surface, atol=1e-9)
            np.testing.assert_allclose(object_.to_image(*surface, 1.5), (x, y), atol=1e-7)


def test_the_key_frame_warped_along_the_flow_is_the_current_one() -> None:
    """Compare where a surface's point is visible in both frames, away from edges."""
    compared = 0
    for scene in drawn(12, replace(SMALL, contrast=(0, 0))):  # patterns have edges that interpolation blurs
        for key in (-9, -1, 4):
            flow = scene.flow(0, key)
            error = np.abs(warp_image(scene.unlit_image(key).astype(np.float32), flow) - scene.unlit_image(0)).mean(
                axis=-1
            )
            seen = inner(scene, 0) & visible(scene, flow, key)
            compared += int(seen.sum())
            assert error[seen].mean() < 0.8  # grey levels: both are interpolated
            assert np.quantile(error[seen], 0.99) < 3
    assert compared > 12 * 3 * 96 * 128 / 2


def visible(scene: MovingScene, flow: Flow, key: float) -> Mask:
    """Return a mask of the pixels whose surface point is also visible at `key`."""
    height, width = flow.shape[:2]
    rows, columns = np.indices((height, width))
    x, y = columns + flow[..., 0], rows + flow[..., 1]
    inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    place = (np.rint(y).astype(int).clip(0, height - 1), np.rint(x).astype(int).clip(0, width - 1))
    return np.asarray(inside & inner(scene, key)[place] & (scene.surfaces(key)[place] == scene.surfaces(0)))


def inner(scene: MovingScene, time: float) -> Mask:
    """Return a mask of the pixels away from the edges of surfaces, where a pixel mixes two surfaces."""
    surfaces, around = scene.surfaces(time), np.ones((5, 5), np.uint8)
    return np.asarray(cv2.erode(surfaces, around) == cv2.dilate(surfaces, around))


def test_half_a_pixel_off_would_be_noticed() -> None:
    """The bound of the previous test is tight enough to detect a flow that is half a pixel off."""
    scene = drawn(1, replace(SMALL, objects=(0, 0), clutter=(0, 0)))[0]
    flow = scene.flow(0, -5)
    right, wrong = (
        np.abs(warp_image(scene.unlit_image(-5).astype(np.float32), moved) - scene.unlit_image(0))[
            20:-20, 20:-20
        ].mean()
        for moved in (flow, flow + np.float32(0.5))
    )
    assert wrong > 3 * right


def test_resting_objects_move_with_the_background() -> None:
    resting = replace(SMALL, still=1.0, growth=0.0, bend=0.0, turn=0.0, camera_still=0.0, objects=(4, 4))
    rows, columns = np.indices((96, 128), np.float64)
    for scene in drawn(6, resting):
        assert np.count_nonzero(scene.surfaces(0)) > 100
        there = np.linalg.inv(scene.camera.matrix(-7)) @ scene.camera.matrix(0)
        x, y = (there[axis, 0] * columns + there[axis, 1] * rows + there[axis, 2] for axis in (0, 1))
        np.testing.assert_allclose(scene.flow(0, -7), np.stack([x - columns, y - rows], -1), atol=1e-4)


def test_the_flow_between_equal_times_is_zero() -> None:
    for scene in drawn(4):
        np.testing.assert_allclose(scene.flow(2, 2), 0, atol=1e-4)


def test_labels_are_classes_and_boxes_are_the_extents_of_what_is_visible() -> None:
    count = 0
    for scene in drawn(20):
        truth, surfaces = scene.truth(0), scene.surfaces(0)
        assert truth.labels is not None
        assert truth.labels.max() < len(CLASSES)
        categories = np.array([0, *(object_.category for object_ in scene.objects)])
        np.testing.assert_array_equal(truth.labels, categories[surfaces])
        assert truth.boxes is not None
        boxes = list(zip(truth.boxes.corners, truth.boxes.classes, strict=True))
        for number, object_ in enumerate(scene.objects, 1):
            mask = surfaces == number
            if object_.category and mask.sum() >= max(64, 0.25 * object_.area(0)):
                corners, category = boxes.pop(0)
                x1, y1, x2, y2 = corners.astype(int)
                assert category == object_.category
                assert mask.sum() == mask[y1:y2, x1:x2].sum()
                assert all(side.any() for side in (mask[y1], mask[y2 - 1], mask[:, x1], mask[:, x2 - 1]))
                count += 1
        assert not boxes
    assert count > 30


def test_a_bent_object_keeps_its_area() -> None:
    options = replace(SMALL, height=256, width=256, objects=(1, 1), clutter=(0, 0), speed=(0.1, 0.1))
    whole_objects = 0
    for scene in drawn(6, options):
        for time in (-4, 3):
            seen, whole = np.count_nonzero(scene.surfaces(time)), scene.objects[0].area(time)
            assert seen <= whole * 1.05  # as much as whole, unless it is partly outside
            rows, columns = scene.objects[0].extent(time, 256, 256)
            if min(rows.start, columns.start) > 0 and max(rows.stop, columns.stop) < 256:
                assert seen == pytest.approx(whole, rel=0.05)
                whole_objects += 1
    assert whole_objects > 3


def test_hardly_visible_objects_have_no_box() -> None:
    strict, loose = replace(SMALL, min_visible=0.9), replace(SMALL, min_visible=0.0, min_area=1)
    counts = []
    for options in (strict, loose):
        boxes = [scene.truth(0).boxes for scene in drawn(10, options)]
        counts.append(sum(len(box.classes) for box in boxes if box is not None))
    assert counts[0] < counts[1]


def test_snippets_of_any_length_end_in_the_same_labelled_frames() -> None:
    short, long = list(scenes().snippets(2)), list(scenes().snippets(5))
    assert len({snippet.name for snippet in long}) == 4
    for first, second in zip(short, long, strict=True):
        assert (len(first.frames), len(second.frames)) == (2, 5)
        np.testing.assert_array_equal(first.frames[0], second.frames[3])
        np.testing.assert_array_equal(first.frames[-1], second.frames[-1])
        np.testing.assert_array_equal(np.stack(second.frames[3:]), np.stack(first.frames))
        assert np.any(second.frames[0] != second.frames[4])
        assert_same_truth(first.truth, second.truth)
    with pytest.raises(IndexError):
        short[0].frames[2]


def test_other_seeds_have_other_snippets() -> None:
    first, second = (next(scenes(seed=seed).snippets(1)).frames[0] for seed in (0, 1))
    assert np.any(first != second)


def test_a_cut_changes_the_picture_and_the_truth() -> None:
    clip = scenes().clip(0, 40)
    images, truths = clip.images(), clip.truths()
    assert images.shape == (40, 96, 128, 3)
    assert 3 <= len(clip.cuts) <= 6
    change = np.abs(np.diff(images.astype(np.float32), axis=0)).mean(axis=(1, 2, 3))
    at_cuts = np.isin(np.arange(1, 40), clip.cuts)
    assert change[at_cuts].min() > 2 * np.median(change[~at_cuts])
    for cut in clip.cuts:
        before, after = truths[cut - 1].labels, truths[cut].labels
        assert before is not None
        assert after is not None
        assert np.mean(before != after) > 0.05


def test_a_clip_is_streamed_frame_by_frame_and_always_the_same() -> None:
    clip, again = scenes().clip(1, 14), scenes().clip(1, 20)
    assert len(clip) == 14
    for index, frame in enumerate(clip):
        np.testing.assert_array_equal(frame.image, again[index].image)
        assert_same_truth(frame.truth, again[index].truth)
    np.testing.assert_array_equal(scenes().clip(1, 14).images()[5], clip[5].image)
    with pytest.raises(IndexError, match="clip 0-1 has frames 0 to 13, but no frame 14"):
        clip[14]


def test_older_labels_overlap_only_partly_with_current_ones() -> None:
    overlap = []
    for scene in drawn(20):
        current, key = scene.truth(0).labels, scene.truth(-5).labels
        assert current is not None
        assert key is not None
        for category in np.unique(current[current > 0]):
            a, b = current == category, key == category
            overlap.append((a & b).sum() / (a | b).sum())
    assert 0.3 < np.mean(overlap) < 0.8


def test_the_sensor_adds_different_noise_to_every_frame() -> None:
    still = replace(
        SMALL, objects=(0, 0), clutter=(0, 0), camera_still=1, shadow=0, motion_blur=0, defocus=0, noise=(5, 5)
    )
    scene = drawn(1, still)[0]
    np.testing.assert_array_equal(scene.unlit_image(0), scene.unlit_image(-1))
    difference = scene.image(0).astype(np.float32) - scene.image(-1)
    assert 5 < difference.std() < 9  # of two independent ones sqrt(2) * 5, less where white is reached
    np.testing.assert_array_equal(scene.image(-1), scene.image(-1))


@pytest.mark.parametrize("blur", [{"motion_blur": 1.0}, {"defocus": 1.0}])
def test_blur_changes_the_image_but_not_the_truth(blur: dict[str, float]) -> None:
    sharp, blurred = (
        drawn(1, replace(SMALL, noise=(0, 0), **share))[0] for share in ({"motion_blur": 0, "defocus": 0}, blur)
    )
    assert_same_truth(sharp.truth(0), blurred.truth(0))
    gradients = [np.abs(np.diff(scene.image(0).astype(np.float32), axis=1)).mean() for scene in (sharp, blurred)]
    assert gradients[1] < gradients[0]


def test_every_class_occurs() -> None:
    categories = {object_.category for scene in drawn(60) for object_ in scene.objects}
    assert categories == set(range(len(CLASSES)))
    assert CLASSES[0] == ("background", (0, 0, 0))
    assert len({color for _, color in CLASSES}) == len({name for name, _ in CLASSES}) == len(CLASSES)


@pytest.mark.parametrize("wrong", [{"diameter": (0, 5)}, {"speed": (3, 1)}, {"width": 0}, {"objects": (0, 300)}])
def test_impossible_options_are_refused(wrong: dict[str, object]) -> None:
    options = {field.name: getattr(SMALL, field.name) for field in fields(SMALL)} | wrong
    with pytest.raises(DataError):
        SceneOptions(**options)


def test_an_empty_list_of_photographs_is_refused() -> None:
    with pytest.raises(DataError, match="photographs"):
        MovingScenes([])
