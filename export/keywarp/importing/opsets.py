"""Conversion of a model between versions of ONNX's operators."""

import onnx
from onnx import checker, defs, inliner, shape_inference, version_converter

from keywarp.importing.errors import ImportingError
from keywarp.importing.runtime import first_line

OLDEST, NEWEST = 16, 19  # opsets of a bundle's graphs, which every runtime here knows
TARGET = 17  # for older files
DOMAINS = ("", "ai.onnx")
GRID_SAMPLE_MODES = {b"linear": b"bilinear", b"cubic": b"bicubic"}  # renamed by opset 20
CHANGED = {"DFT"}  # operators whose inputs mean something else in newer opsets


def opset_of(model: onnx.ModelProto) -> int:
    """Return the version of ONNX's operators that a model uses.

    Raises:
        ImportingError: If the model doesn't say.
    """
    for opset in model.opset_import:
        if opset.domain in DOMAINS:
            return int(opset.version)
    raise ImportingError("the file doesn't say which version of ONNX's operators it uses: it is damaged")


def convert_opset(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a model of an opset from `OLDEST` to `NEWEST`.

    Older ones are converted by ONNX's converter. Of newer ones, operators that aren't in `NEWEST` are written out as
    the functions that ONNX defines for them, and the others, of which later versions only take more types, stay.

    Args:
        model: The model, without functions.

    Raises:
        ImportingError: If the model can't be converted.
    """
    opset = opset_of(model)
    if OLDEST <= opset <= NEWEST:
        return model
    if opset < OLDEST:
        try:
            return version_converter.convert_version(model, TARGET)
        except Exception as error:  # the converter raises RuntimeError and others
            raise ImportingError(_refusal(opset, first_line(error))) from error
    return _lower(model, opset)


def _lower(model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    model = shape_inference.infer_shapes(model)
    absent = {node.op_type for node in model.graph.node if not _known(node.op_type, NEWEST)}
    if absent:
        model = inliner.inline_selected_functions(model, [("", name) for name in absent], inline_schema_functions=True)
    for node in model.graph.node:
        if reason := _adapt(node, opset):
            raise ImportingError(_refusal(opset, reason))
    for entry in model.opset_import:
        if entry.domain in DOMAINS:
            entry.version = NEWEST
    del model.graph.value_info[:]
    try:
        checker.check_model(model, full_check=True)
    except Exception as error:  # ValidationError and InferenceError have no common class
        raise ImportingError(_refusal(opset, first_line(error))) from error
    return model


def _adapt(node: onnx.NodeProto, opset: int) -> str:
    """Make a node one of `NEWEST`, in place; return why this isn't possible, or an empty text."""
    if not _known(node.op_type, NEWEST):
        return f"{node.op_type} came later than opset {NEWEST}, and has no definition by older operators"
    schema, newer = (defs.get_schema(node.op_type, version, "") for version in (NEWEST, opset))
    if schema.since_version == newer.since_version:
        return ""
    if node.op_type in CHANGED or len(node.input) > schema.max_input:
        return f"{node.op_type} of opset {newer.since_version} means something else than before"
    for attribute in list(node.attribute):
        if attribute.name not in schema.attributes:
            default = newer.attributes[attribute.name].default_value if attribute.name in newer.attributes else None
            if default is None or not default.name or _value(default) != _value(attribute):
                return f"{node.op_type} has {attribute.name}, which came later than opset {NEWEST}"
            node.attribute.remove(attribute)
        elif node.op_type == "GridSample" and attribute.name == "mode":
            attribute.s = GRID_SAMPLE_MODES.get(attribute.s, attribute.s)
    return ""


def _value(attribute: onnx.AttributeProto) -> object:
    return onnx.helper.get_attribute_value(attribute)


def _known(operator: str, opset: int) -> bool:
    try:
        return not defs.get_schema(operator, opset, "").deprecated
    except defs.SchemaError:
        return False


def _refusal(opset: int, reason: str) -> str:
    return f"the file's opset {opset} can't be converted ({reason}): export it again with opset 17"
