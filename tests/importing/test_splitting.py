"""The parts of a network give what the whole gives."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from torch import nn

from keywarp.importing.candidates import Candidate, MapSpec, find_candidates
from keywarp.importing.errors import ImportingError
from keywarp.importing.graph import IMAGE, Graph
from keywarp.importing.model_file import ImportedModel, read_model
from keywarp.importing.picture import picture
from keywarp.importing.runtime import run
from keywarp.importing.splitting import check_split, split
from tests.importing.networks import ChannelsLast, Segmenter, TokenNetwork, Yolo, export


def imported(network: nn.Module, folder: Path, height: int, width: int, nhwc: bool = False) -> ImportedModel:
    return read_model(export(network, folder / "network.onnx", height, width, nhwc))


def shapes(values: object) -> dict[str, tuple[int, ...]]:
    return {v.name: tuple(d.dim_value for d in v.type.tensor_type.shape.dim) for v in values}  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("network", "size", "nhwc"),
    [
        (Segmenter(), (256, 320), False),
        (Yolo(), (256, 320), False),
        (TokenNetwork(), (96, 128), False),
        (ChannelsLast(), (64, 96), True),
    ],
)
def test_every_candidate_splits_and_gives_the_same(
    network: nn.Module, size: tuple[int, int], nhwc: bool, tmp_path: Path
) -> None:
    model = imported(network, tmp_path, *size, nhwc)
    found = find_candidates(model)
    assert found
    for candidate in found:
        features, head = split(model, candidate)
        count = len(candidate.maps)
        names = ["features"] if count == 1 else [f"features_{number}" for number in range(count)]
        expected = {
            name: (1, spec.channels, *spec.cells(*size)) for name, spec in zip(names, candidate.maps, strict=True)
        }
        given, taken = shapes(features.graph.output), shapes(head.graph.input)
        assert given == taken
        assert {name: shape for name, shape in given.items() if name in names} == expected
        assert [value.name for value in features.graph.input] == [IMAGE]
        assert [value.name for value in head.graph.output] == [output.name for output in model.outputs]
        assert IMAGE not in {name for reads in Graph(head).reads for name in reads}
        assert check_split(model, features, head) < 1e-4
        for part in (features, head):
            onnx.checker.check_model(part, full_check=True)


def test_held_tokens_are_separate_and_the_map_is_a_map(tmp_path: Path) -> None:
    model = imported(TokenNetwork(), tmp_path, 96, 128)
    features, _ = split(model, find_candidates(model)[0])
    assert shapes(features.graph.output) == {"features": (1, 32, 6, 8), "held": (1, 5, 32)}


def test_parts_that_give_something_else_are_noticed(tmp_path: Path) -> None:
    model = imported(Segmenter(), tmp_path, 64, 96)
    features, head = split(model, find_candidates(model)[0])
    weights = next(tensor for tensor in features.graph.initializer if len(tensor.dims) == 4)
    weights.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weights) * np.float32(1.001), weights.name))
    with pytest.raises(ImportingError, match=r"changes by .* of its largest value when the network is cut"):
        check_split(model, features, head)


def test_maps_that_do_not_separate_are_refused(tmp_path: Path) -> None:
    model = imported(Yolo(), tmp_path, 256, 320)
    best = find_candidates(model)[0]
    part = Candidate(best.maps[:2], 0, 1, 0, 1.0)
    with pytest.raises(ImportingError, match="still depend on the image"):
        split(model, part)


def test_moved_features_give_moved_results(tmp_path: Path) -> None:
    """The head is the network's own: features of a moved picture are moved features, away from the border."""
    model = imported(Segmenter(), tmp_path, 128, 160)
    candidate = next(c for c in find_candidates(model) if isinstance(c.maps[0], MapSpec) and c.maps[0].stride == 8)
    features, _ = split(model, candidate)
    large = picture(160, 192)
    still, moved = (
        run(features, {IMAGE: np.ascontiguousarray(view)})["features"]
        for view in (large[..., :128, :160], large[..., 32:, 32:])
    )
    a, b = still[0, :, 6:-2, 6:-2], moved[0, :, 2:-6, 2:-6]
    np.testing.assert_allclose(a, b, atol=1e-4 * float(np.abs(a).max()))
