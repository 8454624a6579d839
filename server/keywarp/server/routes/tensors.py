"""Requests and responses of the Open Inference Protocol's `infer`, with its extension for binary tensors.

A body is JSON, or JSON of as many bytes as the header `Inference-Header-Content-Length` says, and behind it the
tensors' bytes, one after the other, in the order of the JSON: little-endian, row-major; of datatype BYTES each element
behind its length in 4 bytes.
"""

import json
from collections.abc import Mapping, Sequence
from math import prod
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from keywarp.server.errors import BadMessageError

Datatype = Literal["BOOL", "UINT8", "INT32", "FP32", "BYTES"]
DTYPES: Final[Mapping[str, str]] = {"BOOL": "?", "UINT8": "u1", "INT32": "<i4", "FP32": "<f4"}
Parameters = dict[str, bool | int | float | str]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True)  # unknown fields are ignored, as the protocol wants


class InputTensor(_Part):
    """An input as the JSON tells it."""

    name: str
    shape: tuple[int, ...] = Field(max_length=8)
    datatype: str
    parameters: Parameters = {}
    data: Any = None


class RequestedOutput(_Part):
    """An output that the client wants."""

    name: str
    parameters: Parameters = {}


class InferRequest(_Part):
    """The JSON of a request."""

    id: str | None = None
    parameters: Parameters = {}
    inputs: tuple[InputTensor, ...]
    outputs: tuple[RequestedOutput, ...] | None = None  # None: all


def parse_request(body: bytes, header_length: str | None) -> tuple[InferRequest, dict[str, NDArray[Any] | bytes]]:
    """Read a request.

    Args:
        body: All of it.
        header_length: The header `Inference-Header-Content-Length`, if there is one.

    Returns:
        Its JSON; and the inputs by name: arrays, or of datatype BYTES their one element.

    Raises:
        BadMessageError: It isn't one.
    """
    split = len(body)
    if header_length is not None:
        if not header_length.isdecimal() or int(header_length) > len(body):
            raise BadMessageError(f"Inference-Header-Content-Length {header_length[:20]!r} isn't a part of the body")
        split = int(header_length)
    try:
        request = InferRequest.model_validate_json(body[:split])
    except ValidationError as error:
        fault = error.errors()[0]
        raise BadMessageError(f"{'.'.join(map(str, fault['loc'])) or 'body'}: {fault['msg']}") from error
    rest = memoryview(body)[split:]
    tensors: dict[str, NDArray[Any] | bytes] = {}
    for tensor in request.inputs:
        size = tensor.parameters.get("binary_data_size")
        if size is None:
            tensors[tensor.name] = _from_json(tensor)
        elif isinstance(size, int) and 0 <= size <= len(rest):
            tensors[tensor.name] = _from_bytes(tensor, rest[:size])
            rest = rest[size:]
        else:
            raise BadMessageError(f"input {tensor.name!r}: binary_data_size {size} is more than the body holds")
    if rest:
        raise BadMessageError(f"{len(rest)} bytes of the body belong to no input")
    return request, tensors


def format_response(
    head: Mapping[str, Any], outputs: Mapping[str, NDArray[Any]], wanted: Mapping[str, bool]
) -> tuple[bytes, int | None]:
    """Write a response.

    Args:
        head: The JSON but for its outputs.
        outputs: By name.
        wanted: Which of them, and whether as binary data.

    Returns:
        The body, and how much of it is JSON if there is something behind that.
    """
    described, binaries = [], []
    for name, as_binary in wanted.items():
        array = outputs[name]
        entry: dict[str, Any] = {"name": name, "datatype": datatype_of(array), "shape": array.shape}
        if as_binary:
            binaries.append(np.ascontiguousarray(array).tobytes())
            entry["parameters"] = {"binary_data_size": len(binaries[-1])}
        else:
            entry["data"] = array.ravel().tolist()
        described.append(entry)
    text = json.dumps({**head, "outputs": described}, separators=(",", ":")).encode()
    return b"".join([text, *binaries]), len(text) if binaries else None


def datatype_of(array: NDArray[Any]) -> str:
    """The protocol's name of an array's type."""
    return next(name for name, dtype in DTYPES.items() if np.dtype(dtype) == array.dtype)


def wanted_outputs(request: InferRequest, available: Sequence[str]) -> dict[str, bool]:
    """Which outputs a request wants, and whether as binary data.

    Raises:
        BadMessageError: One that there isn't.
    """
    default = bool(request.parameters.get("binary_data_output", False))
    if request.outputs is None:
        return dict.fromkeys(available, default)
    wanted = {output.name: bool(output.parameters.get("binary_data", default)) for output in request.outputs}
    if unknown := [name for name in wanted if name not in available]:
        raise BadMessageError(f"there is no output {unknown[0][:64]!r}; there are: {', '.join(available)}")
    return wanted


def _from_bytes(tensor: InputTensor, data: memoryview) -> NDArray[Any] | bytes:
    if tensor.datatype == "BYTES":
        length = int.from_bytes(data[:4], "little")
        if prod(tensor.shape) != 1 or len(data) != 4 + length:
            raise BadMessageError(f"input {tensor.name!r} should be one element of BYTES, behind its length")
        return bytes(data[4:])
    dtype = _dtype(tensor)
    if len(data) != prod(tensor.shape) * dtype.itemsize:
        raise BadMessageError(f"input {tensor.name!r} of shape {list(tensor.shape)} doesn't have {len(data)} bytes")
    return np.frombuffer(data, dtype).reshape(tensor.shape)


def _from_json(tensor: InputTensor) -> NDArray[Any]:
    dtype = _dtype(tensor)
    try:
        return np.array(tensor.data, dtype).reshape(tensor.shape)
    except (ValueError, TypeError, OverflowError) as error:
        raise BadMessageError(
            f"input {tensor.name!r}: its data aren't {tensor.datatype} of shape {list(tensor.shape)}"
        ) from error


def _dtype(tensor: InputTensor) -> np.dtype[Any]:
    if min(tensor.shape, default=0) < 0:
        raise BadMessageError(f"input {tensor.name!r} has the shape {list(tensor.shape)}")
    if tensor.datatype == "BYTES":
        raise BadMessageError(f"input {tensor.name!r}: BYTES are taken as binary data only")
    if (found := DTYPES.get(tensor.datatype)) is None:
        raise BadMessageError(f"input {tensor.name!r}: the datatype {tensor.datatype[:20]!r} isn't taken")
    return np.dtype(found)
