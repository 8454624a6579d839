"""OpenVINO compiles what it can't fuse, and says in one line what it can't compile."""

import numpy as np
import onnx
import pytest

from keywarp.engines import BackendError, open_backend
from keywarp.engines.backends.interface import DeviceTensor

# As in Mask2Former's file: the values have a dimension more than what they are weighted by.
ATTENTION = """
    <ir_version: 8, opset_import: ["" : 17]>
    attention (float[4, 50, 16] query, float[4, 16, 50] key, float[1, 4, 50, 16] value) => (float[1, 4, 50, 16] found) {
        products = MatMul (query, key)
        weights = Softmax <axis = -1> (products)
        found = MatMul (weights, value)
    }"""
FOREIGN = """
    <ir_version: 8, opset_import: ["" : 17, "elsewhere" : 1]>
    foreign (float[4] image) => (float[4] found) {
        found = elsewhere.Strange (image)
    }"""


def test_attention_that_cannot_be_fused_is_compiled() -> None:
    random = np.random.default_rng(0)
    query, key, value = (random.normal(size=s).astype(np.float32) for s in ((4, 50, 16), (4, 16, 50), (1, 4, 50, 16)))
    program = open_backend("openvino", "fp32").compile(onnx.parser.parse_model(ATTENTION))
    found = program.run({"query": query, "key": key, "value": value})["found"]
    assert not isinstance(found, DeviceTensor)
    weights = np.exp(query @ key)
    np.testing.assert_allclose(found, weights / weights.sum(-1, keepdims=True) @ value, atol=1e-5)


def test_an_error_is_one_line() -> None:
    with pytest.raises(BackendError, match=r"OpenVINO can't compile foreign: .*Strange") as caught:
        open_backend("openvino", "fp32").compile(onnx.parser.parse_model(FOREIGN))
    assert "\n" not in str(caught.value)
    assert "Exception from" not in str(caught.value)
