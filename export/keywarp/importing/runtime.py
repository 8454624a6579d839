"""ONNX Runtime on the CPU, as importing uses it: to fold constants and to run networks once."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import onnx
from numpy.typing import NDArray
from onnx import shape_inference

from keywarp.engines.backends.ort import DISABLED, ort
from keywarp.importing.errors import ImportingError

ERRORS_ONLY = 4  # log level: errors are raised, and warnings are about the file, not for its user
MAX_MESSAGE = 240  # characters
NOISE = re.compile(
    r"\[ONNXRuntimeError\] : \d+ : \w+ : |Non-zero status code returned while running | Name:''|Status Message: "
    r"|/onnxruntime_src/\S+:\d+ .*?\) (\w+ == \w+ was false\. )?"
)


def run(
    model: onnx.ModelProto, feeds: Mapping[str, NDArray[Any]], outputs: Sequence[str] | None = None
) -> dict[str, NDArray[Any]]:
    """Run a model once, see `run_each`."""
    return run_each(model, [feeds], outputs)[0]


def run_each(
    model: onnx.ModelProto, feeds: Iterable[Mapping[str, NDArray[Any]]], outputs: Sequence[str] | None = None
) -> list[dict[str, NDArray[Any]]]:
    """Run a model on some inputs.

    Args:
        model: The model, smaller than 2 GB.
        feeds: Its inputs, for each run.
        outputs: The names of the outputs to return; all by default.

    Raises:
        ImportingError: If ONNX Runtime can't load or run it.
    """
    try:
        session = ort.InferenceSession(
            model.SerializeToString(), _options(), providers=["CPUExecutionProvider"], disabled_optimizers=DISABLED
        )
        names = list(outputs or (output.name for output in session.get_outputs()))
        return [dict(zip(names, session.run(names, dict(feed)), strict=True)) for feed in feeds]
    except MemoryError:
        raise
    except Exception as error:  # the runtime's own exceptions have no common class
        raise ImportingError(f"ONNX Runtime can't run the network: {first_line(error)}") from error


def fold(model: onnx.ModelProto) -> onnx.ModelProto:
    """Fold a model's constants with ONNX Runtime's basic optimisation, which keeps to standard operators.

    Args:
        model: The model, smaller than 2 GB, with inputs of fixed shape.

    Returns:
        The model with the types and shapes of all tensors.

    Raises:
        ImportingError: If ONNX Runtime can't load it.
    """
    with TemporaryDirectory(prefix="keywarp-fold-") as folder:
        path = Path(folder) / "folded.onnx"
        options = _options()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(path)
        try:
            ort.InferenceSession(
                model.SerializeToString(), options, providers=["CPUExecutionProvider"], disabled_optimizers=DISABLED
            )
        except MemoryError:
            raise
        except Exception as error:  # the runtime's own exceptions have no common class
            raise ImportingError(f"ONNX Runtime can't load the network: {first_line(error)}") from error
        folded = onnx.load(path)
    used = {node.domain for node in folded.graph.node}
    foreign = [opset for opset in folded.opset_import if opset.domain not in used | {""}]
    for opset in foreign:
        folded.opset_import.remove(opset)
    return shape_inference.infer_shapes(folded, data_prop=True)


def first_line(error: Exception) -> str:
    """Return an error's message on one line, without codes and places of a runtime's own source code."""
    line = NOISE.sub("", " ".join(str(error).split())) or type(error).__name__
    return line if len(line) <= MAX_MESSAGE else f"{line[:MAX_MESSAGE]}..."


def _options() -> Any:
    options = ort.SessionOptions()
    options.log_severity_level = ERRORS_ONLY
    return options
