from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from keywarp.engines.detection import RegionDetector
from keywarp.engines.errors import BundleError
from keywarp.engines.manifest import RegionDetection
from keywarp.networks.regions import RegionOptions, detect
from keywarp.networks.rfcn import DetectionMaps, RFCNHead, detection_outputs
from tests.engines.detection.maps import clustered_maps, outputs_of, random_maps, settings_of

Maps = Callable[[RegionOptions, int, int, int], DetectionMaps]
PAPER = RegionOptions()
OTHERS = [
    RegionOptions(pooling=3, anchor_ratios=(1.0, 3.0), anchor_scales=(2.0, 5.0)),
    RegionOptions(
        stride=8, anchor_base=8, pooling=5, candidates=50, proposals=20, proposal_iou=0.5, box_std=(1, 1, 1, 1)
    ),
    RegionOptions(threshold=0.0, iou=0.5, limit=1000),
    RegionOptions(threshold=0.6, limit=3),
]


def assert_same(maps: DetectionMaps, options: RegionOptions, classes: int, height: int, width: int) -> int:
    (expected,) = detect(maps, height, width, options)
    detector = RegionDetector(settings_of(options), classes, height, width)
    found = detector.detect(outputs_of(maps))
    np.testing.assert_array_equal(found.class_id, expected.labels.numpy())
    np.testing.assert_array_equal(found.xyxy, expected.boxes.numpy())
    np.testing.assert_array_equal(found.confidence, expected.scores.numpy())
    return len(found.confidence)


@pytest.mark.parametrize("make", [random_maps, clustered_maps])
@pytest.mark.parametrize(("height", "width"), [(600, 1000), (563, 999), (96, 128), (101, 67), (16, 16), (40, 1)])
def test_the_objects_are_the_references_bit_for_bit(make: Maps, height: int, width: int) -> None:
    torch.manual_seed(height + 1)
    assert assert_same(make(PAPER, 31, height, width), PAPER, 31, height, width) > 0


@pytest.mark.parametrize("make", [random_maps, clustered_maps])
@pytest.mark.parametrize("options", OTHERS)
@pytest.mark.parametrize("classes", [2, 9])
def test_the_objects_are_the_references_with_other_settings_too(
    make: Maps, options: RegionOptions, classes: int
) -> None:
    torch.manual_seed(classes)
    assert assert_same(make(options, classes, 203, 310), options, classes, 203, 310) > 0


def test_equal_scores_are_ordered_as_in_the_reference() -> None:
    torch.manual_seed(0)
    maps = DetectionMaps(*((m * 2).round() / 2 for m in random_maps(PAPER, 5, 160, 240)))
    assert assert_same(maps, PAPER, 5, 160, 240) > 0


def test_nan_is_ignored_as_in_the_reference() -> None:
    torch.manual_seed(0)
    maps = random_maps(PAPER, 5, 160, 240)
    for m, share in zip(maps, (0.05, 0.05, 1e-4, 1e-4), strict=True):
        m[torch.rand_like(m) < share] = torch.nan
    assert assert_same(maps, PAPER, 5, 160, 240) > 0


def test_the_settings_of_both_sides_have_the_same_names_and_defaults() -> None:
    assert settings_of(RegionOptions()) == RegionDetection()


def test_a_head_as_a_graph_gives_the_objects_of_the_head() -> None:
    torch.manual_seed(0)
    head = RFCNHead(32, classes=4)
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    features = torch.randn(1, 32, 6, 9)
    with torch.no_grad():
        maps = head(features)
        (expected,) = detect(maps, 96, 144, PAPER)
        outputs = {name: values.numpy() for name, values in detection_outputs(maps)._asdict().items()}
    found = RegionDetector(RegionDetection(), 4, 96, 144).detect(outputs)  # channels-last views of torch's memory
    assert len(found.confidence) > 0
    np.testing.assert_array_equal(found.class_id, expected.labels.numpy())
    np.testing.assert_allclose(found.xyxy, expected.boxes.numpy(), atol=1e-2)
    np.testing.assert_allclose(found.confidence, expected.scores.numpy(), atol=1e-4)


def outputs() -> dict[str, NDArray[np.float32]]:
    torch.manual_seed(0)
    return outputs_of(random_maps(PAPER, 5, 96, 128))


@pytest.fixture(scope="module")
def detector() -> RegionDetector:
    return RegionDetector(RegionDetection(), 5, 96, 128)


@pytest.mark.parametrize("name", ["objectness", "anchor_deltas", "class_maps", "box_maps"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30])
def test_invalid_values_never_crash_and_never_become_objects(detector: RegionDetector, name: str, value: float) -> None:
    some, all_ = outputs(), outputs()
    some[name][np.random.default_rng(0).random(some[name].shape) < 0.001] = value
    all_[name][:] = value
    for damaged in (some, all_):
        found = detector.detect(damaged)
        assert np.isfinite(found.xyxy).all()
        assert ((found.confidence >= 0.05) & (found.confidence <= 1)).all()
        assert (found.xyxy[:, :2] < found.xyxy[:, 2:]).all()
        assert (found.xyxy >= 0).all()
        assert (found.xyxy <= [128, 96, 128, 96]).all()


def test_without_objects_all_arrays_are_empty(detector: RegionDetector) -> None:
    for value in (0, np.nan):  # with 0 every class has the probability 0.2; NaN has none
        empty = {name: np.full_like(values, value) for name, values in outputs().items()}
        empty["class_maps"].reshape(6, 8, 49, 5)[..., 0] += 50
        found = detector.detect(empty)
        assert (found.xyxy.shape, found.confidence.shape, found.class_id.shape) == ((0, 4), (0,), (0,))
        assert [a.dtype.char for a in (found.xyxy, found.confidence, found.class_id)] == [
            "f",
            "f",
            np.dtype(np.intp).char,
        ]


def test_outputs_may_be_read_only_and_strided_and_stay_as_they_are(detector: RegionDetector) -> None:
    plain = outputs()
    expected = detector.detect(plain)
    strided = {name: np.asfortranarray(values) for name, values in plain.items()}
    frozen = outputs()
    for values in frozen.values():
        values.flags.writeable = False
    for same in (strided, frozen):
        found = detector.detect(same)
        np.testing.assert_array_equal(found.xyxy, expected.xyxy)
    for name, values in outputs().items():
        np.testing.assert_array_equal(plain[name], values)


def test_outputs_that_do_not_fit_are_refused(detector: RegionDetector) -> None:
    missing = outputs()
    del missing["box_maps"]
    with pytest.raises(BundleError, match="should give box_maps"):
        detector.detect(missing)
    with pytest.raises(BundleError, match=r"class_maps, float32 \(1, 6, 8, 245\), but it is float32 \(1, 245, 6, 8\)"):
        detector.detect(outputs() | {"class_maps": np.zeros((1, 245, 6, 8), np.float32)})
    with pytest.raises(BundleError, match="but it is float64"):
        detector.detect({name: values.astype(np.float64) for name, values in outputs().items()})
