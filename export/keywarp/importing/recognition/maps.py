"""Recognise maps of the image: segmentations, and numbers per pixel."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from keywarp.importing.class_names import ClassNames
from keywarp.importing.decoding.segmentation import find_scores
from keywarp.importing.errors import ImportingError
from keywarp.importing.model_file import TensorSpec
from keywarp.importing.recognition.evidence import MAX_STRIDE, Evidence, are_probabilities, shape_text, sum_to_one
from keywarp.importing.result_format import (
    BACKGROUND,
    Activation,
    DenseLayout,
    ResultFormat,
    SegmentationLayout,
)

LEAST_CELLS = 4  # of a map along a side
# By words in the names of outputs: what numbers per pixel are, as far as a name can say
_QUANTITIES = {"disp": "disparity", "depth": "depth", "height": "height"}
_DENSE_NAMES = (*_QUANTITIES, "normal")


def recognise_maps(evidence: Evidence) -> ResultFormat | None:
    """Return what the outputs mean if the first of them is a map of the image.

    Args:
        evidence: The outputs.
    """
    output = _main_output(evidence)
    if output is None:
        return None
    shape = _four(output.shape)
    task = evidence.hints.task
    arrangement = _arrangement(evidence, shape)
    if output.dtype.kind in "iub" and task != "dense":
        return _labels(evidence, output)
    channels = shape[3] if arrangement == "channels_last" else shape[1]
    if task == "dense" or (task is None and channels == 1 and _is_dense(evidence, output)):
        return _dense(evidence, output, channels)
    return _scores(evidence, output, arrangement, channels)


def _main_output(evidence: Evidence) -> TensorSpec | None:
    """Return the first output that is a map; auxiliary ones of deep supervision come after it."""
    maps = [o for o in evidence.outputs if _is_map(evidence, o)]
    named = [o for o in maps if o.name.lower() in ("out", "output", "logits", "scores")]
    return next(iter(named or maps), None)


def _is_map(evidence: Evidence, output: TensorSpec) -> bool:
    shape = _four(output.shape)
    return len(shape) == 4 and shape[0] == 1 and any(_covers(evidence, size) for size in (shape[2:], shape[1:3]))


def _covers(evidence: Evidence, size: tuple[int, ...]) -> bool:
    """Return whether a map of this size may cover the image, though perhaps not with a whole stride."""
    rows, columns = size
    if min(size) < LEAST_CELLS:
        return False
    vertical, horizontal = evidence.model.height / rows, evidence.model.width / columns
    return max(vertical, horizontal) <= MAX_STRIDE and 0.8 < vertical / horizontal < 1.25


def _four(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape (h, w) or (1, h, w) as (1, 1, h, w)."""
    if len(shape) == 2:
        return (1, 1, *shape)
    return (1, *shape) if len(shape) == 3 and shape[0] == 1 else shape


def _arrangement(evidence: Evidence, shape: tuple[int, ...]) -> Literal["channels_first", "channels_last"]:
    first, last = shape[2:], shape[1:3]
    if evidence.is_map(first) != evidence.is_map(last):
        return "channels_first" if evidence.is_map(first) else "channels_last"
    return "channels_first" if _covers(evidence, first) else "channels_last"


def _is_dense(evidence: Evidence, output: TensorSpec) -> bool:
    """Tell numbers from a binary mask: by the name, or because they are positive and exceed 1."""
    if any(word in output.name.lower() for word in _DENSE_NAMES):
        return True
    if evidence.hints.class_names or evidence.hints.activation:
        return False
    values = _values(evidence, output)
    return bool(values.min() >= 0 and not are_probabilities(values))


def _dense(evidence: Evidence, output: TensorSpec, channels: int) -> ResultFormat:
    """Describe a map of numbers.

    Raises:
        ImportingError: If it has several numbers per pixel.
    """
    if channels != 1:
        raise ImportingError(
            f"the map {output.name} {shape_text(output.shape)} has {channels} numbers per pixel, and a dense map has "
            "one: name another output with --outputs, or choose another task"
        )
    hints = evidence.hints
    named = next((q for word, q in _QUANTITIES.items() if word in output.name.lower()), None)
    quantity = hints.quantity or named or "value"
    whose = "as you say" if hints.quantity else "after its name" if named else "whose meaning the file doesn't say"
    guess = (
        f"looks like a number per pixel, {quantity}{f' in {hints.unit}' if hints.unit else ''} ({whose}), "
        f"{output.name} {shape_text(output.shape)}"
    )
    if not hints.quantity:
        guess += (
            "; networks for depth mostly give inverse depth without a unit: say what it is with --quantity and --unit"
        )
    return ResultFormat("dense", DenseLayout(output.name, quantity, hints.unit), (), guess, background=False)


def _labels(evidence: Evidence, output: TensorSpec) -> ResultFormat:
    layout = SegmentationLayout(output.name, "labels", 1)
    model = evidence.model
    found = find_scores(model.model, layout, model.height, model.width)
    if found is not None:
        count = found.channels
        source = "before the ArgMax"
    else:
        count = max(2, evidence.known_classes or 0, int(_values(evidence, output).max()) + 1)
        source = "made of the labels"
    names = _names(evidence, count)
    guess = (
        f"looks like a segmentation that ends in labels, {output.name} {shape_text(output.shape)}: "
        f"scores of {count} classes are {'taken ' if found else ''}{source}; the classes are {names.origin}"
    )
    layout = SegmentationLayout(output.name, "labels", count)
    return ResultFormat("segmentation", layout, names.names, guess, background=_has_background(names))


def _scores(
    evidence: Evidence,
    output: TensorSpec,
    arrangement: Literal["channels_first", "channels_last"],
    channels: int,
) -> ResultFormat:
    values = _values(evidence, output)
    axis = 3 if arrangement == "channels_last" else 1
    activation: Activation
    if are_probabilities(values):
        activation = "none"
        separate = channels == 1 or not sum_to_one(values, axis=axis)
        kind = "sigmoid probabilities" if separate else "probabilities"
    else:
        activation, separate = ("sigmoid", True) if channels == 1 else ("softmax", False)
        kind = "logits"
    if evidence.hints.activation is not None:
        activation = evidence.hints.activation
        separate = activation == "sigmoid" or separate
    # Several sigmoids leave open what a pixel is where all of them are low.
    implied = separate and channels > 1 and evidence.hints.background != "first"
    if channels == 1:
        thing = evidence.names(1, segmentation=True)
        names = ClassNames((BACKGROUND, thing.names[0]), thing.origin)
        if evidence.known_classes is None:
            names = ClassNames((BACKGROUND, "foreground"), "the background and the thing")
    elif implied:
        found = evidence.names(channels, segmentation=True)
        names = ClassNames((BACKGROUND, *found.names), f"{found.origin}, and a background where none is above 0.5")
    else:
        names = _names(evidence, channels)
    what = "a binary segmentation" if channels == 1 else "a segmentation"
    guess = (
        f"looks like {what}: {kind} of {channels} {'class' if channels == 1 else 'classes'}, "
        f"{output.name} {shape_text(output.shape)}; the classes are {names.origin}"
    )
    layout = SegmentationLayout(output.name, arrangement, channels, activation, implied)
    return ResultFormat("segmentation", layout, names.names, guess, background=_has_background(names))


def _names(evidence: Evidence, count: int) -> ClassNames:
    """Name the classes of a segmentation, of which the first may be the background."""
    hints = evidence.hints
    known = hints.class_names or evidence.names_in_file
    if known and len(known) == count:
        return evidence.names(count, segmentation=True)
    if known and len(known) == count - 1 and hints.background in (None, "first"):
        found = evidence.names(count - 1, segmentation=True)
        return ClassNames((BACKGROUND, *found.names), found.origin)
    first = hints.background == "first" or (hints.background is None and count in (2, 21, 151))
    found = evidence.names(count - 1 if first else count, background=first, segmentation=True)
    return ClassNames((BACKGROUND, *found.names), found.origin) if first else found


def _has_background(names: ClassNames) -> bool:
    return names.names[0].strip("_ ").lower() in (BACKGROUND, "bg", "unlabeled", "unlabelled")


def _values(evidence: Evidence, output: TensorSpec) -> NDArray[np.float32]:
    value: NDArray[np.float32] = evidence.values[output.name].astype(np.float32)
    return value.reshape(_four(value.shape))
