"""Where networks are cut: what an expert would choose."""

from pathlib import Path

import pytest
from torch import Tensor, nn

from keywarp.importing.candidates import Candidate, MapSpec, find_candidates, named_candidate, rank
from keywarp.importing.errors import ImportingError
from keywarp.importing.graph import Graph
from keywarp.importing.model_file import ImportedModel, read_model
from tests.importing.networks import export, layer


def imported(network: nn.Module, folder: Path) -> ImportedModel:
    return read_model(export(network, folder / "network.onnx", 64, 96))


def maps(candidate: Candidate) -> list[tuple[int, int]]:
    return [(spec.channels, spec.stride) for spec in candidate.maps]


def test_a_segmenter_is_cut_before_its_last_layer_or_at_its_scores(segmenter: ImportedModel) -> None:
    found = find_candidates(segmenter)
    kinds = {(tuple(maps(candidate)), candidate.layers) for candidate in found}
    assert {(((64, 8),), True), (((5, 8),), False)} <= kinds
    assert all(candidate.head_share < 0.02 for candidate in found[:2])
    assert found[0].operations == sum(
        2 * outputs * inputs * kernel * 256 * 320 // stride**2
        for inputs, outputs, kernel, stride in (
            (3, 16, 9, 2),
            (16, 32, 9, 4),
            (32, 64, 9, 8),
            (64, 64, 9, 8),
            (64, 5, 1, 8),
        )
    )


def test_a_yolo_is_cut_at_one_map_for_each_stride_before_its_boxes(yolo: ImportedModel) -> None:
    best = find_candidates(yolo)[0]
    assert maps(best) == [(144, 8), (144, 16), (144, 32)]  # 4 x 16 distances and 80 classes
    assert best.head_share < 0.01
    assert best.bytes == 4 * 144 * (32 * 40 + 16 * 20 + 8 * 10)


def test_candidates_trade_work_against_bytes(yolo: ImportedModel) -> None:
    found = find_candidates(yolo)
    assert len(found) > 2
    for one in found:
        assert not any(
            other.head_operations < one.head_operations
            and other.bytes < one.bytes
            and len(other.maps) <= len(one.maps)
            and other.layers >= one.layers
            and other.mends >= one.mends
            for other in found
        )


def test_the_cheapest_cut_whose_head_mends_the_warp_is_listed_last(yolo: ImportedModel) -> None:
    *cheaper, last = find_candidates(yolo)
    assert last.mends
    assert not any(candidate.mends and candidate.head_share <= 0.5 for candidate in cheaper)
    assert {m.stride for m in last.maps} == {8, 16, 32}
    assert 0.01 < last.head_share <= 0.5


def test_class_and_register_tokens_are_held(token_network: ImportedModel) -> None:
    """The class token's own result and the patches' are made of the same tokens."""
    best = find_candidates(token_network)[0]
    assert [(m.channels, m.stride, m.layout, m.held) for m in best.maps] == [(32, 16, "tokens", 5)]
    assert best.head_share < 0.01
    assert best.equivariance > 0.5


def test_maps_with_channels_last(channels_last: ImportedModel) -> None:
    found = find_candidates(channels_last)
    assert (16, 4, "nhwc") in [(m.channels, m.stride, m.layout) for candidate in found for m in candidate.maps]


class Deep(nn.Module):
    """A network whose only small maps come early, and whose head does most of the work."""

    def __init__(self) -> None:
        super().__init__()
        self.early = layer(3, 8, stride=8)
        self.late = nn.Sequential(nn.Upsample(scale_factor=8), layer(8, 32), layer(32, 32), nn.Conv2d(32, 5, 3, 1, 1))

    def forward(self, image: Tensor) -> Tensor:
        """Return scores (N, 5, H, W)."""
        scores: Tensor = self.late(self.early(image))
        return scores


def test_a_network_that_leaves_most_of_the_work_says_so(tmp_path: Path) -> None:
    found = find_candidates(imported(Deep(), tmp_path))
    assert [maps(candidate) for candidate in found] == [[(8, 8)]]
    assert found[0].head_share > 0.95


class Whole(nn.Module):
    """A classifier, whose result isn't made of maps of any one place."""

    def __init__(self) -> None:
        super().__init__()
        self.flat = nn.Conv2d(3, 10, (64, 96))

    def forward(self, image: Tensor) -> Tensor:
        """Return scores (N, 10)."""
        scores: Tensor = self.flat(image).flatten(1)
        return scores


def test_a_network_without_maps_has_no_candidates(tmp_path: Path) -> None:
    assert find_candidates(imported(Whole(), tmp_path)) == []


def test_the_best_of_nearly_equal_costs_has_few_coarse_maps_and_a_layer_left() -> None:
    def candidate(head: int, *strides: int, layers: bool = True) -> Candidate:
        specs = tuple(MapSpec(f"{head}_{stride}", 8, stride, "nchw") for stride in strides)
        return Candidate(specs, head, 10**12, 1000, 1.0, layers)

    cheap, single = candidate(10**9, 8, 16), candidate(4 * 10**9, 8)
    coarse, result = candidate(5 * 10**9, 16), candidate(10**8, 16, layers=False)
    dear = candidate(10**11, 32)
    assert rank([dear, result, single, cheap, coarse])[0] == coarse
    assert rank([dear, cheap])[0] == cheap


def test_named_tensors_are_checked(yolo: ImportedModel) -> None:
    best = find_candidates(yolo)[0]
    names = [spec.tensor for spec in best.maps]
    assert named_candidate(yolo, names) == best
    with pytest.raises(ImportingError, match="still depend on the image when the network is cut at"):
        named_candidate(yolo, names[:2])
    with pytest.raises(ImportingError, match="has no tensor 'nothing'"):
        named_candidate(yolo, ["nothing"])
    with pytest.raises(ImportingError, match=r"don't need .* besides the other tensors: leave it out"):
        named_candidate(yolo, [*names, early_map(yolo)])
    output = yolo.outputs[0].name
    with pytest.raises(ImportingError, match="doesn't move with the image, although"):  # 84 = 8 x 10 + 4
        named_candidate(yolo, [output])


def test_named_tensors_must_be_maps(segmenter: ImportedModel) -> None:
    with pytest.raises(ImportingError, match="of shape 1x5x256x320 isn't a map of an image of 256x320"):
        named_candidate(segmenter, [segmenter.outputs[0].name])


def early_map(model: ImportedModel) -> str:
    return str(Graph(model.model).nodes[0].output[0])
