"""A task's last step as a node of the fused graph, for backends that run it on the device with kernels of their own.

Runtimes have no such operators. A backend whose style asks for the node (`GraphStyle.last_step`) cuts it off before it
compiles the graph, and runs its kernels right after the rest, so that only its output is downloaded::

    ... -> head.onnx -> scores                                -> KeywarpLabels  -> labels
    ... -> head.onnx -> objectness, deltas, class, box maps   -> KeywarpObjects -> objects

Labels are what `keywarp.engines.labels` makes of scores on the host. Objects are what `RegionDetector` finds, as a
table, see `read_objects`. Other heads' last steps, such as those of dense detectors, run on the host.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from keywarp.engines.manifest import Manifest, RegionDetection
from keywarp.engines.result import Detections

DOMAIN: Final = "keywarp"  # of the nodes
LABELS_NODE, OBJECTS_NODE = "KeywarpLabels", "KeywarpObjects"
OBJECTS: Final = "objects"  # float (1, 1 + limit, 6)
MOST_BOXES: Final = 2**15  # that are compared with each other, so that the table of who removes whom stays small
ROW: Final = 6  # numbers of an object: x1, y1, x2, y2, confidence, class


@dataclass(frozen=True, slots=True)
class LastStep:
    """The last step of a task, and the tensors between it and the graph before it."""

    inputs: tuple[str, ...]  # in the order of the node's
    output: str
    height: int  # of the networks' input, pixels
    width: int
    stride: int = 0  # of a segmentation's scores, pixels; 0 for detection
    classes: int = 0  # of a detection, including the background
    detection: RegionDetection | None = None  # a detection's settings; None for segmentation


def has_last_step(manifest: Manifest) -> bool:
    """Return whether there is a node for a bundle's last step. Labels at the scores' own stride need none."""
    if manifest.task == "segmentation":
        return manifest.scores_stride > 1
    settings = manifest.detection
    if not isinstance(settings, RegionDetection):
        return False
    return max(settings.candidates, settings.proposals * len(manifest.classes)) <= MOST_BOXES


def last_step_node(manifest: Manifest, height: int, width: int, inputs: list[str], output: str) -> onnx.NodeProto:
    """Return the node of a bundle's last step.

    Args:
        manifest: The bundle's manifest, which `has_last_step`.
        height: The height of the networks' input in pixels.
        width: The width of the networks' input in pixels.
        inputs: The names of the head's outputs in the graph, in the order of `head_outputs`.
        output: The name of the result.
    """
    given: dict[str, Any] = {"height": height, "width": width}
    if manifest.task == "segmentation":
        kind, given["stride"] = LABELS_NODE, manifest.scores_stride
    else:
        assert manifest.detection is not None  # see `has_last_step`
        kind, given["classes"] = OBJECTS_NODE, len(manifest.classes)
        given["settings"] = manifest.detection.model_dump_json()
    return helper.make_node(kind, inputs, [output], domain=DOMAIN, **given)


def cut_last_step(model: onnx.ModelProto) -> tuple[onnx.ModelProto, LastStep | None]:
    """Return a graph without the node of its last step, whose inputs become outputs, and the last step.

    Args:
        model: The graph. It isn't changed. One without such a node is returned as it is, with None.
    """
    node = next((node for node in model.graph.node if node.domain == DOMAIN), None)
    if node is None:
        return model, None
    values: dict[str, Any] = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    settings = values.pop("settings", None)
    detection = RegionDetection.model_validate_json(settings) if settings else None
    step = LastStep(tuple(node.input), node.output[0], detection=detection, **values)
    rest = onnx.ModelProto()
    rest.CopyFrom(model)
    rest.graph.node.remove(node)
    outputs = [value for value in rest.graph.output if value.name != step.output]
    between = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * 4) for name in step.inputs]
    del rest.graph.output[:]
    rest.graph.output.extend([*between, *outputs])
    opsets = [opset for opset in rest.opset_import if opset.domain != DOMAIN]
    del rest.opset_import[:]
    rest.opset_import.extend(opsets)
    return rest, step


class ObjectReader:
    """Reads the objects that a device found, in place of finding them."""

    def detect(self, outputs: Mapping[str, NDArray[Any]]) -> Detections:
        """Return the objects; see `RegionDetector.detect`."""
        return read_objects(outputs[OBJECTS][0])


def read_objects(table: NDArray[np.float32]) -> Detections:
    """Return copies of the objects of a table.

    Args:
        table: The table, (1 + limit, 6), see `ROW`. Its first number is that of the objects, which begin in the second
            row. What is behind them is arbitrary.
    """
    rows = table[1 : 1 + int(table[0, 0])]
    return Detections(rows[:, :4].copy(), rows[:, 4].copy(), rows[:, 5].astype(np.intp))
