"""The light networks that heavy ones are compared with are written as ONNX files that runtimes take."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from keywarp.export.light_networks import NETWORKS, write_network


@pytest.mark.parametrize("name", NETWORKS)
def test_a_light_network_runs_on_images_of_its_size(tmp_path: Path, name: str) -> None:
    path = tmp_path / f"{name}.onnx"
    write_network(name, 96, 160, path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    [image] = session.get_inputs()
    assert (image.name, image.shape) == ("image", [1, 3, 96, 160])
    image_values = np.random.default_rng(0).standard_normal((1, 3, 96, 160)).astype(np.float32)
    first, *others = session.run(None, {"image": image_values})
    if name == "ssdlite":
        assert first.shape == (1, others[0].shape[1], 91)
        np.testing.assert_allclose(first.sum(-1), 1, rtol=1e-4)
    else:
        assert first.shape == (1, 21, 96, 160)
