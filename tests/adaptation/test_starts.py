"""Flow networks from elsewhere as the start, for feature maps of any strides."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray

from keywarp.adaptation.errors import StartError
from keywarp.adaptation.starts import flow_graph, given_start, pretrained_start, rebuild
from keywarp.adaptation.torch_graph import TorchGraph
from keywarp.engines import Manifest, load_bundle
from keywarp.engines.manifest import FeatureSpec, FlowInput
from keywarp.networks import FeatureMap, FlowNetInception

MODELS = Path(__file__).parents[2] / "models"
STREET_DETECT = MODELS / "street-detect"  # its flow network is the pre-trained one, for strides 8, 16 and 32


def manifest(*strides: int, downscale: int = 2) -> Manifest:
    """Return a manifest with feature maps of these strides."""
    features = [FeatureSpec(name=f"features_{n}", stride=s, channels=4) for n, s in enumerate(strides)]
    return load_bundle(MODELS / "street").manifest.model_copy(
        update={"features": features, "flow": FlowInput(downscale=downscale)}
    )


def run(graph: onnx.ModelProto, height: int, width: int) -> dict[str, NDArray[np.float32]]:
    """Run a flow network on a pair of smooth images of one motion."""
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    y, x = np.mgrid[:height, :width].astype(np.float32)
    images = [
        np.stack([60 * np.sin((x - moved) / 5 + c) * np.cos(y / 7) for c in range(3)])[np.newaxis].astype(np.float32)
        for moved in (3, 0)
    ]
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"current": images[0], "key": images[1]}), strict=True))


@pytest.mark.parametrize(("strides", "downscale"), [((14,), 2), ((12, 24), 2), ((2, 4), 2), ((7, 14), 1), ((16,), 4)])
def test_a_start_for_any_stride_is_the_pretrained_network_for_that_stride(
    strides: tuple[int, ...], downscale: int
) -> None:
    wanted = manifest(*strides, downscale=downscale)
    given, pretrained = given_start(STREET_DETECT, wanted), pretrained_start(wanted)
    for rows, columns in ((6, 9), (5, 7)):  # cells of the coarsest map
        height, width = (cells * strides[-1] // downscale for cells in (rows, columns))
        found, expected = run(given, height, width), run(pretrained, height, width)
        assert set(found) == set(expected)
        assert found["flow"].shape[2:] == tuple(cells * strides[-1] // strides[0] for cells in (rows, columns))
        for name in expected:
            np.testing.assert_allclose(found[name], expected[name], atol=2e-3)
        assert np.abs(expected["flow"]).max() > 0.05


def test_a_start_for_any_stride_can_be_trained() -> None:
    graph = given_start(STREET_DETECT, manifest(14))
    outputs = TorchGraph(graph, "start")(current=torch.zeros(1, 3, 42, 63), key=torch.zeros(1, 3, 42, 63))
    outputs["flow"].sum().backward()
    assert outputs["flow"].shape == (1, 2, 6, 9)


def test_the_papers_flow_networks_are_starts_for_any_stride_too() -> None:
    paper = FlowNetInception([FeatureMap(8, 16)], share=0.25)
    given = flow_graph(paper, manifest(16))
    network = rebuild(given, manifest(12), "paper.onnx")
    assert isinstance(network, FlowNetInception)
    assert run(flow_graph(network, manifest(12)), 48, 36)["flow"].shape == (1, 2, 8, 6)


def test_cells_that_cover_no_whole_pixels_are_refused_in_one_sentence() -> None:
    for start in (pretrained_start, lambda wanted: given_start(STREET_DETECT, wanted)):
        with pytest.raises(StartError, match=r"images of 1/2 the size, where cells of 7 pixels don't cover"):
            start(manifest(7))
