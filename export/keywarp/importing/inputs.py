"""The inputs of a model file: the image among them, and what the others must be.

The image becomes a float (1, 3, H, W) named `image`, whatever the file takes. Further inputs, such as the size that
RT-DETR scales its boxes to, become constants.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from keywarp.importing.errors import ImportingError
from keywarp.importing.graph import IMAGE
from keywarp.importing.tensors import graphs_of, type_name

DEFAULT_SIDE = 640  # pixels
LARGEST_SIDE = 4096  # pixels
CHANNELS = 3
IMAGE_TYPES = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.UINT8)
RESERVED = ("image", "features", "held")  # first words of the names of a bundle's tensors


@dataclass(frozen=True)
class ImageInput:
    """The input of a file that takes the image."""

    name: str
    layout: Literal["nchw", "nhwc"]
    dtype: int  # TensorProto.DataType
    height: int | None  # None if any height is taken
    width: int | None

    def shape(self, height: int, width: int) -> tuple[int, ...]:
        """Return its shape for an image of one size."""
        return (1, CHANNELS, height, width) if self.layout == "nchw" else (1, height, width, CHANNELS)

    def feed(self, image: NDArray[np.float32]) -> NDArray[Any]:
        """Return an image (1, 3, H, W) as this input takes it."""
        laid = image if self.layout == "nchw" else np.ascontiguousarray(image.transpose(0, 2, 3, 1))
        return laid.astype(helper.tensor_dtype_to_np_dtype(self.dtype))


def find_image(inputs: Iterable[onnx.ValueInfoProto]) -> ImageInput:
    """Find the one input that is an image.

    Args:
        inputs: The model's inputs that aren't constants.

    Raises:
        ImportingError: If none is, or several are, or it takes a batch of several images or something else than floats
            or bytes.
    """
    values = list(inputs)
    for value in values:
        if value.type.WhichOneof("value") != "tensor_type":
            raise ImportingError(
                f"input {value.name!r} is a {_kind(value)}, but networks with tensors as inputs can be imported only"
            )
    found = [value for value in values if _layout(_dims(value)) is not None]
    if not found:
        takes = ", ".join(map(describe, values)) or "nothing"
        raise ImportingError(f"no input is an image (1, 3, H, W) or (1, H, W, 3): the file takes {takes}")
    if len(found) > 1:
        several = " and ".join(map(describe, found))
        raise ImportingError(f"the file takes {len(found)} images, {several}; networks of one image can be imported")
    value = found[0]
    dims, dtype = _dims(value), value.type.tensor_type.elem_type
    if dims[0] not in (None, 1):
        raise ImportingError(
            f"{describe(value)} is a batch of {dims[0]} images: export the network again for one image"
        )
    if dtype not in IMAGE_TYPES:
        raise ImportingError(f"{describe(value)} should be an image of floats or uint8: export the network again")
    if _layout(dims) == "nhwc":
        return ImageInput(value.name, "nhwc", dtype, dims[1], dims[2])
    return ImageInput(value.name, "nchw", dtype, dims[2], dims[3])


def choose_size(image: ImageInput, size: tuple[int, int] | None, metadata: Mapping[str, str]) -> tuple[int, int]:
    """Return the height and width in pixels for which a file is imported.

    Args:
        image: Its image input.
        size: The height and width that are asked for.
        metadata: The file's metadata, where Ultralytics has the size as `imgsz`.

    Raises:
        ImportingError: If the file takes another size only, or the size is impossible.
    """
    fixed = (image.height, image.width)
    wanted = size or _metadata_size(metadata) or (DEFAULT_SIDE, DEFAULT_SIDE)
    if size is None:
        wanted = (fixed[0] or wanted[0], fixed[1] or wanted[1])
    if any(side not in (None, given) for side, given in zip(fixed, wanted, strict=True)):
        raise ImportingError(
            f"the file is made for images of {fixed[0] or 'any'}x{fixed[1] or 'any'} (height x width) only, not "
            f"{wanted[0]}x{wanted[1]}: leave the size out, or export the network again for this size"
        )
    if not all(16 <= side <= LARGEST_SIDE for side in wanted):
        raise ImportingError(
            f"images of {wanted[0]}x{wanted[1]} aren't possible: height and width are from 16 to {LARGEST_SIDE}"
        )
    return wanted


def settle_inputs(model: onnx.ModelProto, image: ImageInput, height: int, width: int) -> None:
    """Leave a model one input, `image`, float (1, 3, height, width), in place.

    Args:
        model: The model, without functions.
        image: Its image input.
        height: The image's height in pixels.
        width: The image's width in pixels.

    Raises:
        ImportingError: If it isn't known what another input must be.
    """
    graph = model.graph
    others = [value for value in real_inputs(model) if value.name != image.name]
    for value in others:
        graph.initializer.append(numpy_helper.from_array(extra_value(value, height, width), value.name))
    _rename_reserved(model, image.name)
    before: list[onnx.NodeProto] = []
    source = IMAGE
    if image.layout == "nhwc":
        before.append(helper.make_node("Transpose", [source], [f"{IMAGE}/nhwc"], perm=[0, 2, 3, 1]))
        source = before[-1].output[0]
    if image.dtype != TensorProto.FLOAT:
        before.append(helper.make_node("Cast", [source], [f"{IMAGE}/cast"], to=image.dtype))
        source = before[-1].output[0]
    for inner in graphs_of(model):
        for node in inner.node:
            _replace(node.input, image.name, source)
    if any(output.name == image.name for output in graph.output):
        raise ImportingError(f"the file returns its input {image.name!r} as a result: export the network again without")
    nodes = [*before, *graph.node]
    del graph.node[:], graph.input[:], graph.value_info[:]
    graph.node.extend(nodes)
    graph.input.append(helper.make_tensor_value_info(IMAGE, TensorProto.FLOAT, (1, CHANNELS, height, width)))
    for output in graph.output:
        output.type.tensor_type.ClearField("shape")


def real_inputs(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """Return a model's inputs without the constants, which old files list among them."""
    constants = {initializer.name for initializer in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in constants]


def extra_value(value: onnx.ValueInfoProto, height: int, width: int) -> NDArray[Any]:
    """Return the value of an input besides the image, where its name says what it must be.

    Args:
        value: The input.
        height: The image's height in pixels.
        width: The image's width in pixels.

    Raises:
        ImportingError: If it isn't known.
    """
    name, dims = value.name.lower(), _dims(value)
    dtype = helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
    pair = len(dims) == 2 and dims[1] in (None, 2) and dims[0] in (None, 1)
    if pair and "orig" in name and "size" in name:  # RT-DETR, D-FINE and their kin: width, height
        return np.array([[width, height]], dtype)
    if pair and ("size" in name or name in ("im_shape", "image_shape", "img_shape")):  # PaddleDetection, Transformers
        return np.array([[height, width]], dtype)
    if pair and name == "scale_factor":  # PaddleDetection: 1, since boxes of this size are wanted
        return np.ones((1, 2), dtype)
    if "mask" in name and len(dims) == 3 and dims[1] in (None, height) and dims[2] in (None, width):
        return np.ones((1, height, width), dtype)  # Transformers' pixel_mask: no pixel is padding
    raise ImportingError(
        f"it isn't known what the input {describe(value)} must be: export the network again with the image as its only "
        "input"
    )


def describe(value: onnx.ValueInfoProto) -> str:
    """Return a tensor's name, type and shape for an error."""
    if value.type.WhichOneof("value") != "tensor_type":
        return f"{value.name!r}, a {_kind(value)}"
    tensor = value.type.tensor_type
    sides = [d.dim_param or "?" if not d.HasField("dim_value") else str(d.dim_value) for d in tensor.shape.dim]
    return f"{value.name!r} {type_name(tensor.elem_type)} ({', '.join(sides)})"


def _kind(value: onnx.ValueInfoProto) -> str:
    return (value.type.WhichOneof("value") or "value of unknown type").removesuffix("_type").replace("_", " ")


def _dims(value: onnx.ValueInfoProto) -> list[int | None]:
    # 0 and -1 stand for any size in some files
    return [d.dim_value if d.dim_value > 0 else None for d in value.type.tensor_type.shape.dim]


def _layout(dims: list[int | None]) -> Literal["nchw", "nhwc"] | None:
    if len(dims) != 4:
        return None
    if dims[1] == CHANNELS:
        return "nchw"
    if dims[3] == CHANNELS:
        return "nhwc"
    return "nchw" if dims[1] is None and dims[3] is None else None


def _metadata_size(metadata: Mapping[str, str]) -> tuple[int, int] | None:
    try:
        height, width = json.loads(metadata.get("imgsz", ""))
        return int(height), int(width)
    except (ValueError, TypeError):
        return None


def _rename_reserved(model: onnx.ModelProto, image: str) -> None:
    """Rename the tensors whose names a bundle's own tensors have."""

    def free(name: str) -> str:
        first = name.rstrip("0123456789").removesuffix("_")
        return f"{name}_" if name != image and (first in RESERVED or name.startswith(f"{IMAGE}/")) else name

    for graph in graphs_of(model):
        for node in graph.node:
            for names in (node.input, node.output):
                for index, name in enumerate(names):
                    names[index] = free(name)
        for named in (*graph.initializer, *graph.output, *graph.value_info, *graph.input):
            named.name = free(named.name)


def _replace(names: Any, old: str, new: str) -> None:
    for index, name in enumerate(names):
        if name == old:
            names[index] = new
