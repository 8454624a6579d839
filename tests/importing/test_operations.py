"""Operations of nodes: by hand, and as `keywarp complexity` counts them."""

from pathlib import Path
from typing import Any

import pytest
import torch
from onnx import TensorProto, helper

from keywarp.importing.graph import Graph
from keywarp.importing.model_file import read_model
from keywarp.importing.operations import operations_of, total_operations
from keywarp.networks.complexity import measure
from keywarp.networks.resnet import resnet50_features
from tests.importing.networks import export


def counted(operator: str, inputs: list[tuple[int, ...]], output: tuple[int, ...], **attributes: Any) -> int:
    names = [f"input_{number}" for number in range(len(inputs))]
    node = helper.make_node(operator, names, ["output"], **attributes)
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in zip(names, inputs, strict=True)]
    result = helper.make_tensor_value_info("output", TensorProto.FLOAT, output)
    return operations_of(Graph(helper.make_model(helper.make_graph([node], "one", values, [result]))), node)


@pytest.mark.parametrize(
    ("operator", "inputs", "output", "attributes", "multiply_adds"),
    [
        ("Conv", [(1, 8, 10, 12), (16, 8, 3, 3)], (1, 16, 10, 12), {}, 16 * 120 * 8 * 9),
        ("Conv", [(1, 8, 10, 12), (8, 1, 3, 3)], (1, 8, 10, 12), {"group": 8}, 8 * 120 * 9),
        ("ConvTranspose", [(1, 8, 5, 6), (8, 16, 4, 4)], (1, 16, 10, 12), {}, 8 * 30 * 16 * 16),
        ("Gemm", [(5, 7), (7, 3)], (5, 3), {}, 5 * 7 * 3),
        ("Gemm", [(7, 5), (7, 3)], (5, 3), {"transA": 1}, 5 * 7 * 3),
        ("MatMul", [(1, 4, 50, 16), (1, 4, 16, 50)], (1, 4, 50, 50), {}, 4 * 50 * 50 * 16),
        ("MatMul", [(2, 9, 6), (6, 11)], (2, 9, 11), {}, 2 * 9 * 6 * 11),
        ("MatMul", [(6,), (6, 11)], (11,), {}, 66),
        ("Einsum", [(1, 5, 8), (1, 8, 3, 4)], (1, 5, 3, 4), {"equation": "bqc, bchw -> bqhw"}, 5 * 8 * 12),
        ("Relu", [(1, 8, 10, 12)], (1, 8, 10, 12), {}, 0),
        ("MatMul", [(-1, 6), (6, 11)], (-1, 11), {}, 0),
    ],
)
def test_a_multiply_add_counts_as_two_operations(
    operator: str,
    inputs: list[tuple[int, ...]],
    output: tuple[int, ...],
    attributes: dict[str, Any],
    multiply_adds: int,
) -> None:
    assert counted(operator, inputs, output, **attributes) == 2 * multiply_adds


def test_a_resnet_has_the_operations_of_keywarp_complexity(tmp_path: Path) -> None:
    network = resnet50_features()
    imported = read_model(export(network, tmp_path / "resnet.onnx", 64, 96))
    with torch.device("meta"):
        expected = measure(resnet50_features(), (1, 3, 64, 96)).operations
    assert total_operations(Graph(imported.model)) == expected
