"""Parse requests and format responses of the Open Inference Protocol's `infer`, with binary tensors.

A body is JSON. With binary tensors, the header `Inference-Header-Content-Length` gives the length of the JSON, and the
bytes of the tensors follow it in the order of the JSON: little-endian and row-major. Each element of the datatype BYTES
comes after its length in 4 bytes. In JSON, it is base64.
"""

import binascii
import json
from base64 import b64decode
from collections.abc import Mapping, Sequence
from math import prod
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from keywarp.protocol import faults
from keywarp.server.errors import BadMessageError

DTYPES: Final[Mapping[str, str]] = {"BOOL": "?", "UINT8": "u1", "INT32": "<i4", "FP32": "<f4"}
Parameters = dict[str, bool | int | float | str]


class _Tolerant(BaseModel):
    model_config = ConfigDict(frozen=True)  # unknown fields are ignored, as the protocol demands


class InputTensor(_Tolerant):
    """An input tensor in the JSON of a request."""

    name: str
    shape: tuple[int, ...] = Field(max_length=8)
    datatype: str
    parameters: Parameters = {}
    data: Any = None


class RequestedOutput(_Tolerant):
    """An output that the client asks for."""

    name: str
    parameters: Parameters = {}


class InferRequest(_Tolerant):
    """The JSON of an inference request."""

    id: str | None = None
    parameters: Parameters = {}
    inputs: tuple[InputTensor, ...]
    outputs: tuple[RequestedOutput, ...] | None = None  # None for all outputs


def parse_request(body: bytes, header_length: str | None) -> tuple[InferRequest, dict[str, NDArray[Any] | bytes]]:
    """Parse a request.

    Args:
        body: The whole body.
        header_length: The value of the header `Inference-Header-Content-Length`, or None if it is missing.

    Returns:
        The request's JSON, and its inputs by name: arrays, or the single element of a BYTES tensor.

    Raises:
        BadMessageError: The body isn't a valid request.
    """
    split = len(body)
    if header_length is not None:
        if not header_length.isdecimal() or int(header_length) > len(body):
            raise BadMessageError(
                f"Inference-Header-Content-Length is {header_length[:20]!r}, but the body has {len(body)} bytes"
            )
        split = int(header_length)
    try:
        request = InferRequest.model_validate_json(body[:split])
    except ValidationError as error:
        raise BadMessageError(faults.describe(error, whole="body", limit=1)) from error
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
    """Format a response.

    Args:
        head: The JSON without its outputs.
        outputs: The arrays by name.
        wanted: The names of the outputs to send, and whether to send each as binary data.

    Returns:
        The body, and the length of its JSON in bytes, or None if nothing follows the JSON.
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
    """Return the protocol's name of an array's type."""
    return next(name for name, dtype in DTYPES.items() if np.dtype(dtype) == array.dtype)


def wanted_outputs(request: InferRequest, available: Sequence[str]) -> dict[str, bool]:
    """Return the names of the outputs that a request asks for, and whether it wants each as binary data.

    Raises:
        BadMessageError: The request asks for an output that doesn't exist.
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
            raise BadMessageError(f"input {tensor.name!r} must be one element of BYTES after its length")
        return bytes(data[4:])
    dtype = _dtype(tensor)
    if len(data) != prod(tensor.shape) * dtype.itemsize:
        raise BadMessageError(f"input {tensor.name!r} of shape {list(tensor.shape)} can't have {len(data)} bytes")
    return np.frombuffer(data, dtype).reshape(tensor.shape)


def _from_json(tensor: InputTensor) -> NDArray[Any] | bytes:
    if tensor.datatype == "BYTES":
        return _from_base64(tensor)
    dtype = _dtype(tensor)
    try:
        return np.array(tensor.data, dtype).reshape(tensor.shape)
    except (ValueError, TypeError, OverflowError) as error:
        raise BadMessageError(
            f"input {tensor.name!r}: its data isn't {tensor.datatype} of shape {list(tensor.shape)}"
        ) from error


def _from_base64(tensor: InputTensor) -> bytes:
    """Return the one element of a BYTES tensor, which is base64 or `{"b64": base64}`."""
    match tensor.data:
        case [{"b64": str(text)}] | [str(text)]:
            try:
                return b64decode(text, validate=True)
            except (binascii.Error, ValueError):
                pass
    raise BadMessageError(
        f'input {tensor.name!r} of BYTES must be one element in base64, as in [{{"b64": ...}}], or binary data'
    )


def _dtype(tensor: InputTensor) -> np.dtype[Any]:
    if min(tensor.shape, default=0) < 0:
        raise BadMessageError(f"input {tensor.name!r} has the shape {list(tensor.shape)}")
    if (found := DTYPES.get(tensor.datatype)) is None:
        raise BadMessageError(f"input {tensor.name!r}: the datatype {tensor.datatype[:20]!r} isn't supported")
    return np.dtype(found)
