"""How frames become a network's input: the image size's fit, and the pixels' normalisation.

A file rarely says how its image was normalised, and a wrong guess costs accuracy without any error. So the guess comes
with a sentence that says what it rests on, and every part of it can be given instead.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from keywarp.engines.manifest import ImagePreparation
from keywarp.importing.graph import IMAGE
from keywarp.importing.model_file import ImportedModel
from keywarp.importing.result_format import DetectionLayout, ResultFormat

Triple = tuple[float, float, float]
Fit = Literal["letterbox", "stretch"]
ChannelOrder = Literal["rgb", "bgr"]

IMAGENET_MEAN: Triple = (123.675, 116.28, 103.53)  # RGB, in units of 0..255
IMAGENET_STD: Triple = (58.395, 57.12, 57.375)
NONE: Triple = (0.0, 0.0, 0.0)
ONES: Triple = (1.0, 1.0, 1.0)
BYTE: Triple = (255.0, 255.0, 255.0)  # the deviation that brings pixels from 0..255 to 0..1
SPAN = (1.5, 12.0)  # widths of the range of normalised pixels that are plausible: -1..1 has 2, ImageNet's 4.4
ACTIVE = 0.75  # share of its own extent that a network's input must keep to count as unscaled


@dataclass(frozen=True)
class Normalisation:
    """What turns pixels from 0..255 into a network's input: `(pixel - mean) / std`, in a channel order."""

    mean: Triple
    std: Triple
    channel_order: ChannelOrder
    guess: str  # what it is, and why it was taken for this, to be read after "pixels: "


@dataclass(frozen=True)
class PreparationHints:
    """What a user says about the image. None leaves it to the guess."""

    fit: Fit | None = None
    mean: Triple | None = None
    std: Triple | None = None
    channel_order: ChannelOrder | None = None


@dataclass(frozen=True)
class Preparation:
    """How frames are prepared, and sentences that say what was guessed."""

    image: ImagePreparation
    fit_guess: str
    pixel_guess: str


def guess_preparation(model: ImportedModel, result: ResultFormat | None, hints: PreparationHints) -> Preparation:
    """Return how frames become the image that a network takes.

    Args:
        model: The network.
        result: What its outputs mean, or None if that isn't known yet.
        hints: What the user says.

    Raises:
        pydantic.ValidationError: If a size or deviation is out of range.
    """
    normal = _normalisation(model, result)
    fit, padding, pad, fit_guess = _fit(model, result, normal)
    pixel_guess = normal.guess
    if hints.fit is not None:
        fit, fit_guess = hints.fit, f"{hints.fit}, as you say"
    given = [name for name in ("mean", "std", "channel_order") if getattr(hints, name) is not None]
    mean, std, order = hints.mean or normal.mean, hints.std or normal.std, hints.channel_order or normal.channel_order
    if given:
        pixel_guess = (
            f"{_describe(mean, std, order)}, {'of which ' if len(given) < 3 else ''}{_listed(given)} as you say"
        )
    letterbox = {"pad": pad, "padding": padding} if fit == "letterbox" else {}
    image = ImagePreparation(
        fit=fit, height=model.height, width=model.width, mean=mean, std=std, channel_order=order, **letterbox
    )
    return Preparation(image, fit_guess, pixel_guess)


def _normalisation(model: ImportedModel, result: ResultFormat | None) -> Normalisation:
    def known(mean: Triple, std: Triple, order: ChannelOrder, why: str) -> Normalisation:
        return Normalisation(mean, std, order, f"{_describe(mean, std, order)}, {why}")

    if model.bytes_in:
        return known(NONE, ONES, "rgb", "because the file takes bytes")
    own = own_normalisation(model.model)
    if own is not None:
        scale = "0 to 1" if own == BYTE else "0 to 255"
        return known(NONE, own, "rgb", f"because the file normalises them itself, from {scale}")
    producer = f"{model.producer} {' '.join(model.metadata.values())}".lower()
    name = model.image_name.lower()
    if "ultralytics" in producer:
        return known(NONE, BYTE, "rgb", "because the file is from Ultralytics")
    if name == "pixel_values":
        if _is_rt_detr(model, result):
            return known(NONE, BYTE, "rgb", "because it looks like RT-DETR or D-FINE from Hugging Face")
        return known(IMAGENET_MEAN, IMAGENET_STD, "rgb", "ImageNet's, because the file is from Hugging Face")
    layout = result.layout if result else None
    if isinstance(layout, DetectionLayout):
        if layout.objectness is not None and layout.grid is None and _has_row_per_cell(model):
            return known(NONE, ONES, "bgr", "because it looks like YOLOX")
        if layout.objectness is not None and layout.form == "offsets":
            return known(NONE, ONES, "bgr", "because it looks like YOLOX")
        if layout.form == "distributions":
            mean, std = IMAGENET_MEAN[::-1], IMAGENET_STD[::-1]
            return known(mean, std, "bgr", "ImageNet's, because it looks like NanoDet")
        if layout.objectness is not None or name == "images":
            return known(NONE, BYTE, "rgb", "because it looks like a YOLO")
    return known(
        IMAGENET_MEAN, IMAGENET_STD, "rgb", "ImageNet's, which is only the commonest: nothing in the file says"
    )


def own_normalisation(model: onnx.ModelProto) -> Triple | None:
    """Return what pixels must be divided by before a graph normalises them itself, or None if it doesn't.

    The nodes after the image are followed as long as they add to it or multiply it by a constant per channel. If what
    comes out has the range of normalised pixels for an image from 0 to 1, or from 0 to 255, the graph normalises it.
    """
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    low, high = np.zeros(3), np.ones(3)  # what black and white become
    steps = 0
    for operator, first, value in _chain(model, constants):
        if operator == "Sub":
            low, high = (low - value, high - value) if first else (value - low, value - high)
        elif operator == "Div" and first:
            low, high = low / value, high / value
        elif operator in ("Add", "Mul"):
            low, high = (low + value, high + value) if operator == "Add" else (low * value, high * value)
        else:
            break
        steps += 1
    if not steps:
        return None
    span = float(np.abs(high - low).mean())
    if span * 255 <= SPAN[1]:
        return ONES
    return BYTE if SPAN[0] <= span <= SPAN[1] else None


def _chain(
    model: onnx.ModelProto, constants: dict[str, onnx.TensorProto]
) -> Iterator[tuple[str, bool, NDArray[np.float64]]]:
    """Yield the operators after the image that combine it with a constant per channel.

    Each comes with whether the image is the first operand, and the constant.
    """
    tensor = IMAGE
    while True:
        readers = [node for node in model.graph.node if tensor in node.input]
        if len(readers) != 1:
            return
        node = readers[0]
        if node.op_type in ("Identity", "Squeeze", "Unsqueeze", "Cast", "Reshape"):
            tensor = node.output[0]
            continue
        others = [name for name in node.input if name != tensor]
        if node.op_type not in ("Add", "Sub", "Mul", "Div") or len(others) != 1 or others[0] not in constants:
            return
        value = numpy_helper.to_array(constants[others[0]]).astype(np.float64)
        if value.size not in (1, 3):
            return
        yield node.op_type, node.input[0] == tensor, np.broadcast_to(value.ravel(), 3)
        tensor = node.output[0]


def _fit(
    model: ImportedModel, result: ResultFormat | None, normal: Normalisation
) -> tuple[Fit, Literal["center", "end"], int, str]:
    """Return how frames fit into the image, where padding goes, its value, and a sentence on the guess."""
    if result is None or result.task != "detection":
        return "stretch", "center", 0, "stretched to the image's size, as is usual for this task"
    if "ultralytics" in " ".join((model.producer, *model.metadata.values())).lower() and "rtdetr" not in model.producer:
        return "letterbox", "center", 114, "letterboxed, because the file is from Ultralytics"
    if "YOLOX" in normal.guess:
        return "letterbox", "end", 114, "letterboxed with padding at the end, because it looks like YOLOX"
    if "YOLO" in normal.guess:
        return "letterbox", "center", 114, "letterboxed, because it looks like a YOLO"
    if "file normalises them itself" in normal.guess:
        return "letterbox", "end", 124, "letterboxed with padding at the end, as torchvision's detectors do"
    return "stretch", "center", 0, "stretched to the image's size, as is usual where nothing says otherwise"


def _is_rt_detr(model: ImportedModel, result: ResultFormat | None) -> bool:
    """Return whether a Hugging Face detector samples its maps where its queries look: RT-DETR, D-FINE."""
    return (result is None or result.task == "detection") and any(
        node.op_type == "GridSample" for node in model.model.graph.node
    )


def _has_row_per_cell(model: ImportedModel) -> bool:
    """Return whether an output has as many rows as strides 8, 16 and 32 have cells."""
    cells = sum((model.height // s) * (model.width // s) for s in (8, 16, 32))
    return any(cells in spec.shape for spec in model.outputs)


def _describe(mean: Triple, std: Triple, order: ChannelOrder) -> str:
    channels = order.upper()
    if mean == NONE and std == BYTE:
        return f"{channels} divided by 255"
    if mean == NONE and std == ONES:
        return f"{channels} from 0 to 255 as they are"
    return f"{channels} minus ({_numbers(mean)}), divided by ({_numbers(std)})"


def _numbers(values: Triple) -> str:
    return ", ".join(f"{value:g}" for value in values)


def _listed(names: list[str]) -> str:
    words = [name.replace("_", " ") for name in names]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
