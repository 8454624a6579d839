"""Transposed convolutions become convolutions that give the same."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from keywarp.engines import open_backend
from keywarp.quantization.subpixel import to_subpixel


def layer(kernel: int, attributes: str, groups: int = 1) -> onnx.ModelProto:
    model = onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 17]>
        layer (float[1, 6, 5, 7] maps) => (float[1, N, H, W] found) {{
            found = ConvTranspose <kernel_shape = [{kernel}, {kernel}], {attributes}> (maps, weight, bias)
        }}"""
    )
    random = np.random.default_rng(0)
    model.graph.node[0].name = "layer"
    for name, shape in (("weight", (6, 4 // groups, kernel, kernel)), ("bias", (4,))):
        values = random.normal(size=shape).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(values, name))
    return model


def run(model: onnx.ModelProto) -> np.ndarray:
    maps = np.random.default_rng(1).normal(size=(1, 6, 5, 7)).astype(np.float32)
    return np.asarray(open_backend("onnxruntime").compile(model).run({"maps": maps})["found"])


@pytest.mark.parametrize(
    ("kernel", "attributes"),
    [
        pytest.param(4, "strides = [2, 2]", id="FlowNet"),
        pytest.param(4, "strides = [2, 2], pads = [1, 1, 1, 1]", id="cropped"),
        pytest.param(4, "strides = [2, 2], pads = [1, 0, 0, 1]", id="cropped on two sides"),
        pytest.param(2, "strides = [2, 2]", id="without overlap"),
        pytest.param(9, "strides = [3, 3], pads = [3, 3, 3, 3]", id="stride 3"),
    ],
)
def test_the_convolution_gives_the_same(kernel: int, attributes: str) -> None:
    model = layer(kernel, attributes)
    wanted = run(model)
    to_subpixel(model)
    onnx.checker.check_model(model, full_check=True)
    assert [node.op_type for node in model.graph.node][:2] == ["Conv", "DepthToSpace"]
    np.testing.assert_allclose(run(model), wanted, atol=1e-4)


@pytest.mark.parametrize(
    ("kernel", "attributes", "groups"),
    [
        pytest.param(3, "strides = [2, 2]", 1, id="a kernel of one and a half strides"),
        pytest.param(4, "strides = [1, 1]", 1, id="stride 1"),
        pytest.param(4, "strides = [2, 2], group = 2", 2, id="groups"),
        pytest.param(4, "strides = [2, 2], dilations = [2, 2]", 1, id="dilation"),
        pytest.param(4, "strides = [2, 2], output_padding = [1, 1]", 1, id="output padding"),
    ],
)
def test_others_stay(kernel: int, attributes: str, groups: int) -> None:
    model = layer(kernel, attributes, groups)
    to_subpixel(model)
    assert [node.op_type for node in model.graph.node] == ["ConvTranspose"]
