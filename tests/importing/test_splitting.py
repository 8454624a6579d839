"""The parts of a network give what the whole gives."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from keywarp.importing.candidates import Candidate, find_candidates
from keywarp.importing.errors import ImportingError
from keywarp.importing.graph import IMAGE, Graph
from keywarp.importing.model_file import ImportedModel
from keywarp.importing.picture import picture
from keywarp.importing.runtime import run
from keywarp.importing.splitting import check_split, split


def shapes(values: object) -> dict[str, tuple[int, ...]]:
    return {v.name: tuple(d.dim_value for d in v.type.tensor_type.shape.dim) for v in values}  # type: ignore[attr-defined]


@pytest.mark.parametrize("network", ["segmenter", "yolo", "token_network", "channels_last"])
def test_every_candidate_splits_and_gives_the_same(network: str, request: pytest.FixtureRequest) -> None:
    model: ImportedModel = request.getfixturevalue(network)
    size = (model.height, model.width)
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


def test_held_tokens_are_separate_and_the_map_is_a_map(token_network: ImportedModel) -> None:
    features, _ = split(token_network, find_candidates(token_network)[0])
    assert shapes(features.graph.output) == {"features": (1, 32, 6, 8), "held": (1, 5, 32)}


def test_parts_that_give_something_else_are_noticed(segmenter: ImportedModel) -> None:
    features, head = split(segmenter, find_candidates(segmenter)[0])
    weights = next(tensor for tensor in features.graph.initializer if len(tensor.dims) == 4)
    weights.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weights) * np.float32(2), weights.name))
    with pytest.raises(ImportingError, match=r"changes by .* of its largest value when the network is cut"):
        check_split(segmenter, features, head)


def test_maps_that_do_not_separate_are_refused(yolo: ImportedModel) -> None:
    best = find_candidates(yolo)[0]
    part = Candidate(best.maps[:2], 0, 1, 0, 1.0)
    with pytest.raises(ImportingError, match="still depend on the image"):
        split(yolo, part)


def test_features_move_with_the_picture(segmenter: ImportedModel) -> None:
    """Away from the border, the features of a moved picture are moved features."""
    features, _ = split(segmenter, find_candidates(segmenter)[0])
    large = picture(288, 352)
    still, moved = (
        run(features, {IMAGE: np.ascontiguousarray(view)})["features"]
        for view in (large[..., :256, :320], large[..., 32:, 32:])
    )
    a, b = still[0, :, 6:-2, 6:-2], moved[0, :, 2:-6, 2:-6]
    np.testing.assert_allclose(a, b, atol=1e-4 * float(np.abs(a).max()))
