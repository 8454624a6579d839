"""Quantise one graph with ONNX Runtime's quantiser, layer by layer as chosen.

Weights become int8 with a scale per channel, activations uint8 with one scale per tensor. Both are written as pairs of
QuantizeLinear and DequantizeLinear (QDQ), which runtimes replace by layers in int8. The ranges of activations are those
seen while the graph runs on given inputs; the biases take back what rounding shifts.
"""

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from keywarp.engines.backends.ort import DISABLED, ort
from keywarp.quantization.bias import Shifts, measure_shifts, shift_biases
from keywarp.quantization.capture import Feed
from keywarp.quantization.errors import QuantizationError
from keywarp.quantization.placement import BETWEEN, LAYERS, keep_exact, place
from keywarp.quantization.subpixel import to_subpixel


class GraphQuantizer:
    """One graph, ready to be quantised.

    Attributes:
        name: The graph's name, such as `features.onnx`.
        layers: The names of the layers that can be quantised.
        model: The graph in fp32, with constants in place of what computes them.
    """

    def __init__(self, name: str, model: onnx.ModelProto, feeds: Sequence[Feed]) -> None:
        """Find the ranges of all activations.

        Args:
            name: The graph's name.
            model: The graph. It isn't changed.
            feeds: The inputs to run it on.

        Raises:
            QuantizationError: If ONNX Runtime can't run it.
        """
        self.name = name
        folded = fold_weights(model)
        to_subpixel(folded)
        drop_unused(folded)
        self.model = onnx.shape_inference.infer_shapes(folded)
        constants = {initializer.name for initializer in self.model.graph.initializer}
        self.layers = tuple(
            node.name for node in self.model.graph.node if node.op_type in LAYERS and node.input[1] in constants
        )
        self._outputs = [output.name for output in self.model.graph.output]
        self._ranges: Any = self._calibrate(feeds) if self.layers else {}
        self._shifts: Shifts = self._measure_shifts(feeds) if self.layers else {}

    def quantize(self, layers: Collection[str]) -> onnx.ModelProto:
        """Return the graph with some of its layers quantised.

        Args:
            layers: The names of the layers to quantise. The others stay in fp32, with their inputs.
        """
        from onnxruntime.quantization import QDQQuantizer, QuantType

        copy = onnx.ModelProto()
        copy.CopyFrom(self.model)
        chosen = frozenset(layers)
        if not chosen:
            return copy
        shift_biases(copy, {name: shift for name, shift in self._shifts.items() if name in chosen})
        placement = place(self.model, self.layers, chosen)
        with _quiet():
            quantizer = QDQQuantizer(
                copy,
                per_channel=True,
                reduce_range=False,
                weight_qType=QuantType.QInt8,
                activation_qType=QuantType.QUInt8,
                tensors_range=self._ranges,
                nodes_to_quantize=sorted(chosen | placement.between),
                nodes_to_exclude=[],
                op_types_to_quantize=[*LAYERS, *BETWEEN],
                extra_options={"WeightSymmetric": True},
            )
            quantizer.quantize_model()
        quantized: onnx.ModelProto = quantizer.model.model
        keep_exact(quantized, placement.exact, chosen)
        quantizer.model.remove_unused_constant()
        quantizer.model.topological_sort()
        del quantized.graph.value_info[:]
        return quantized

    def error(self, layers: Collection[str], feeds: Sequence[Feed]) -> float:
        """Return the error of the outputs with some layers quantised, as a share of the outputs' own mean square.

        Args:
            layers: The names of the layers that are quantised.
            feeds: The inputs to run on.

        Raises:
            QuantizationError: If ONNX Runtime can't run the graph.
        """
        wanted = _run(self.model, self._outputs, feeds)
        found = _run(self.quantize(layers), self._outputs, feeds)
        errors = []
        for number in range(len(self._outputs)):
            difference = sum(float(np.square(a[number] - b[number]).mean()) for a, b in zip(found, wanted, strict=True))
            power = sum(float(np.square(b[number]).mean()) for b in wanted)
            errors.append(difference / power if power else difference)
        return float(np.mean(errors))

    def _measure_shifts(self, feeds: Sequence[Feed]) -> Shifts:
        ranges = {name: data.range_value for name, data in self._ranges.items()}
        return measure_shifts(self.model, self.layers, ranges, feeds)

    def _calibrate(self, feeds: Sequence[Feed]) -> Any:
        from onnxruntime.quantization import create_calibrator

        with TemporaryDirectory(prefix="keywarp-quantize-") as folder, _quiet():
            path = Path(folder) / "graph.onnx"
            onnx.save(self.model, path)
            try:
                calibrator = create_calibrator(
                    path, [*LAYERS, *BETWEEN], augmented_model_path=str(Path(folder) / "augmented.onnx")
                )
                calibrator.collect_data(_Reader(feeds))
                return calibrator.compute_data()
            except Exception as error:  # ONNX Runtime's exceptions have no common base class
                raise QuantizationError(f"ONNX Runtime can't calibrate {self.name}: {error}") from error


def fold_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a graph whose weights are in 32 bits, without nodes behind them, and whose nodes all have names."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    stored = {initializer.name: initializer for initializer in graph.initializer}
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        if node.op_type == "Cast" and node.input[0] in stored:
            dtype = helper.tensor_dtype_to_np_dtype(helper.get_node_attr_value(node, "to"))
            value = numpy_helper.to_array(stored[node.input[0]]).astype(dtype)
            graph.initializer.append(numpy_helper.from_array(value, node.output[0]))
        elif node.op_type == "Identity" and node.input[0] in stored:  # layers that share a constant
            copy = graph.initializer.add()
            copy.CopyFrom(stored[node.input[0]])
            copy.name = node.output[0]
            stored[copy.name] = copy
        elif node.op_type == "Constant" and node.attribute[0].name == "value":
            stored[node.output[0]] = graph.initializer.add()
            stored[node.output[0]].CopyFrom(node.attribute[0].t)
            stored[node.output[0]].name = node.output[0]
        else:
            nodes.append(node)
    names = {node.name for node in nodes}
    for number, node in enumerate(nodes):
        if not node.name:
            node.name = next(name for name in _numbered(f"{node.op_type}_{number}") if name not in names)
            names.add(node.name)
    del graph.node[:]
    graph.node.extend(nodes)
    drop_unused(result)
    return result


def drop_unused(model: onnx.ModelProto) -> None:
    """Remove the constants that no node reads, in place."""
    graph = model.graph
    used = {name for node in graph.node for name in node.input} | {output.name for output in graph.output}
    kept = [initializer for initializer in graph.initializer if initializer.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def _numbered(name: str) -> Iterator[str]:
    yield name
    number = 1
    while True:
        yield f"{name}_{number}"
        number += 1


def _run(model: onnx.ModelProto, outputs: Sequence[str], feeds: Sequence[Feed]) -> list[list[Any]]:
    options = ort.SessionOptions()
    options.log_severity_level = 3  # errors only
    try:
        session = ort.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"], disabled_optimizers=DISABLED
        )
        return [session.run(list(outputs), dict(feed)) for feed in feeds]
    except Exception as error:  # ONNX Runtime's exceptions have no common base class
        raise QuantizationError(f"ONNX Runtime can't run {model.graph.name}: {error}") from error


class _Reader:
    """Gives ONNX Runtime's calibrator its inputs."""

    def __init__(self, feeds: Sequence[Feed]) -> None:
        self._feeds = iter(feeds)

    def get_next(self) -> Mapping[str, Any] | None:
        return next(self._feeds, None)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the quantiser's advice, which it gives to the root logger."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
