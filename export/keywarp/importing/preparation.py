"""How frames become a network's input: the image size's fit, and the pixels' normalisation.

A file rarely says how its image was normalised, and a wrong guess costs accuracy without any error. So the guess comes
with a sentence that says what it rests on, and every part of it can be given instead.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
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
HALF: Triple = (127.5, 127.5, 127.5)  # mean and deviation that bring them to -1..1
PASSING = ("Identity", "Squeeze", "Unsqueeze", "Cast", "Reshape")  # operators that leave pixels as they are
SPAN = (1.5, 12.0)  # widths of the range of normalised pixels that are plausible: -1..1 has 2, ImageNet's 4.4


@dataclass(frozen=True)
class Family:
    """How the networks of one family take their image."""

    sign: str  # by which a network is told to be one of them, to be read after "because"; "" if there is none
    mean: Triple
    std: Triple
    channel_order: ChannelOrder = "rgb"
    fit: Fit = "stretch"
    pad: int = 114  # the padding's value
    padding: Literal["center", "end"] = "center"
    lookup: str = ""  # where the normalisation of one of them can be looked up


ULTRALYTICS = Family("the file is from Ultralytics", NONE, BYTE, fit="letterbox")
YOLO = Family("it looks like a YOLO", NONE, BYTE, fit="letterbox")
YOLOX = Family("it looks like YOLOX", NONE, ONES, "bgr", "letterbox", padding="end")
NANODET = Family("it looks like NanoDet", IMAGENET_MEAN[::-1], IMAGENET_STD[::-1], "bgr")
RT_DETR = Family("it looks like RT-DETR or D-FINE", NONE, BYTE)
RF_DETR = Family("it looks like RF-DETR", IMAGENET_MEAN, IMAGENET_STD)
HUGGING_FACE = Family(
    "the file is from Hugging Face",
    IMAGENET_MEAN,
    IMAGENET_STD,
    lookup="the network's preprocessor_config.json has image_mean and image_std, which are these divided by 255",
)
TORCHVISION = Family("it looks like torchvision's", NONE, BYTE, fit="letterbox", pad=124, padding="end")
UNKNOWN = Family("", IMAGENET_MEAN, IMAGENET_STD)
# Networks of Hugging Face whose images aren't normalised with ImageNet's mean, by a part of their weights' names
OTHERS_OF_HUGGING_FACE: Mapping[str, tuple[str, Triple, Triple, ChannelOrder]] = {
    "dpt": ("DPT", HALF, HALF, "rgb"),
    "beit": ("BEiT", HALF, HALF, "rgb"),
    "data2vec_vision": ("Data2Vec", HALF, HALF, "rgb"),
    "depth_pro": ("Depth Pro", HALF, HALF, "rgb"),
    "vit": ("ViT", HALF, HALF, "rgb"),
    "mobilenet_v2": ("MobileNetV2", HALF, HALF, "rgb"),
    "glpn": ("GLPN", NONE, BYTE, "rgb"),
    "mobilevit": ("MobileViT", NONE, BYTE, "bgr"),
}


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
    own = own_normalisation(model.model)
    family = _family(model, result, own is not None)
    if result is not None and result.task != "detection":
        family = replace(family, fit="stretch")
    fit_guess = _fit_guess(family, hints, result)
    if model.bytes_in:
        family = replace(family, mean=NONE, std=ONES, sign="the file takes bytes", lookup="")
    elif own is not None:
        family = replace(family, mean=NONE, std=own, sign="the file normalises them itself", lookup="")
    mean, std = hints.mean or family.mean, hints.std or family.std
    order, fit = hints.channel_order or family.channel_order, hints.fit or family.fit
    letterbox = {"pad": family.pad, "padding": family.padding} if fit == "letterbox" else {}
    image = ImagePreparation(
        fit=fit, height=model.height, width=model.width, mean=mean, std=std, channel_order=order, **letterbox
    )
    return Preparation(image, fit_guess, _pixel_guess(family, hints, image))


def _family(model: ImportedModel, result: ResultFormat | None, own: bool) -> Family:
    """Return the family that a network looks like.

    Args:
        model: The network.
        result: What its outputs mean, or None if that isn't known yet.
        own: Whether it normalises its image itself.
    """
    looks = result.guess if result else ""
    transformer = "RT-DETR" in looks or "RTDETR" in model.metadata.get("head", "")
    if "ultralytics" in f"{model.producer} {' '.join(model.metadata.values())}".lower():
        return replace(ULTRALYTICS, fit="stretch") if transformer else ULTRALYTICS
    if transformer:
        return RT_DETR
    if "RF-DETR" in looks:
        return RF_DETR
    if model.image_name == "pixel_values":
        return _of_hugging_face(model)
    layout = result.layout if result else None
    if isinstance(layout, DetectionLayout):
        if own:
            return TORCHVISION
        if layout.objectness is not None:
            return YOLOX if _has_row_per_cell(model) else YOLO
        if layout.form == "distributions":
            return NANODET
        if model.image_name == "images":
            return YOLO
    return UNKNOWN


def _of_hugging_face(model: ImportedModel) -> Family:
    """Return the family of a network of Hugging Face, by the names of its weights."""
    for part, (name, mean, std, order) in OTHERS_OF_HUGGING_FACE.items():
        if part in model.weight_names:
            sign = f"its weights are named like those of Hugging Face's {name}"
            return replace(HUGGING_FACE, sign=sign, mean=mean, std=std, channel_order=order)
    return HUGGING_FACE


def _fit_guess(family: Family, hints: PreparationHints, result: ResultFormat | None) -> str:
    """Return a sentence that says how frames get the image's size, and why."""
    fit = hints.fit or family.fit
    if fit == "letterbox":
        text = "letterboxed" + (" with padding at the end" if family.padding == "end" else "")
    else:
        text = "stretched to the image's size"
    if hints.fit is not None:
        return f"{text}, as you say"
    if fit == "stretch" and (not family.sign or (result is not None and result.task != "detection")):
        return f"{text}, as is usual where nothing says otherwise"
    return f"{text}, because {family.sign}"


def _pixel_guess(family: Family, hints: PreparationHints, image: ImagePreparation) -> str:
    """Return a sentence that says how pixels are normalised, and why."""
    text = _describe(image.mean, image.std, image.channel_order)
    given = [name for name in ("mean", "std", "channel_order") if getattr(hints, name) is not None]
    if given:
        return f"{text}, {'of which ' if len(given) < 3 else ''}{_listed(given)} as you say"
    whose = "ImageNet's, " if sorted(image.mean) == sorted(IMAGENET_MEAN) else ""
    if not family.sign:
        return f"{text}, {whose}which is only the commonest: nothing in the file says"
    return f"{text}, {whose}because {family.sign}{f'; {family.lookup}' if family.lookup else ''}"


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
        if node.op_type in PASSING or (node.op_type == "Split" and len(node.output) == 1):  # the only image of a batch
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
