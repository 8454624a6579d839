"""An adapter for other networks, whose forward pass is cut into a feature network and a head."""

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from keywarp.choices import ServedTask
from keywarp.networks.complexity import doubt_saving
from keywarp.networks.feature_maps import FeatureMap
from keywarp.networks.pretrained import TORCHVISION_MEAN, TORCHVISION_STD
from keywarp.networks.recognition import RecognitionNetwork
from keywarp.saving import SavingWarning

Activation = Literal["softmax", "sigmoid"]
STRIDES = (4, 8, 16, 32, 64, 128)  # supported strides of feature maps, in image pixels
SCORE_STRIDES = (1, 2, *STRIDES)  # supported strides of segmentation scores and dense maps, in image pixels
OUTPUTS: dict[ServedTask, tuple[str, ...]] = {
    "segmentation": ("scores",),
    "detection": ("boxes", "scores"),
    "dense": ("values",),
}


class CutError(ValueError):
    """The functions that cut a network don't return usable features or scores."""


class CutNetwork(RecognitionNetwork[Any]):
    """A network from another source with two functions that say where it is cut. Use `cut` to make one."""

    def __init__(
        self,
        model: nn.Module,
        features: Callable[[Any, Tensor], Any],
        head: Callable[..., Any],
        maps: tuple[FeatureMap, ...],
        task: ServedTask,
        activation: Activation,
    ) -> None:
        super().__init__()
        self.model = model
        self.maps = maps
        self.task = task
        self.outputs = OUTPUTS[task]
        self.activation = activation
        self._features, self._head = features, head

    def features(self, image: Tensor) -> tuple[Tensor, ...]:
        """Run the model's forward pass up to the cut."""
        return _as_maps(self._features(self.model, image))

    def head(self, *features: Tensor) -> Any:
        """Run the model's forward pass from the cut on."""
        return self._head(self.model, *features)

    def predict(self, raw: Any) -> tuple[Tensor, ...]:
        """Convert scores to class probabilities. A detector's boxes and dense maps are returned unchanged."""
        if self.task == "dense":
            return (raw,)
        if self.task == "segmentation":
            return (torch.softmax(raw, dim=1),)
        boxes, scores = raw
        if self.activation == "softmax":
            return (boxes, torch.softmax(scores, dim=-1))
        classes = torch.sigmoid(scores)
        background = 1 - classes.amax(dim=-1, keepdim=True)
        return (boxes, torch.cat((background, classes), dim=-1))


def cut(
    model: nn.Module,
    features: Callable[[Any, Tensor], Tensor | Sequence[Tensor] | Mapping[str, Tensor]],
    head: Callable[..., Any],
    *,
    task: ServedTask = "segmentation",
    activation: Activation = "softmax",
    mean: tuple[float, float, float] = TORCHVISION_MEAN,
    std: tuple[float, float, float] = TORCHVISION_STD,
    multiple: int = 32,
) -> CutNetwork:
    """Make any torch network a recognition network by specifying where its forward pass is cut.

    The model isn't copied. It is set to evaluation mode. If propagation would save little, a `SavingWarning` says why.

    Args:
        model: The network.
        features: A function (model, image) -> the feature map or maps that are cached and warped. It should do all the
            costly work. The image is (N, 3, H, W), RGB, `(pixel - mean) / std`. A dict's values are the maps in order.
        head: A function (model, map, ...) -> raw outputs. For segmentation these are scores (N, classes, h, w) before
            the softmax, where class 0 is the background. For detection they are boxes (N, n, 4), as x1 y1 x2 y2 in
            pixels of the image, and scores (N, n, classes) before the softmax, where class 0 is the background, or
            before the sigmoid, without a background. For dense maps they are values (N, 1, h, w), such as the depth.
        task: The network's task.
        activation: What makes probabilities of the scores. `sigmoid` is for detectors that score each class by itself.
        mean: The image mean, RGB in units of 0..255.
        std: The image's standard deviation, RGB in units of 0..255.
        multiple: The number of pixels of which the image's sides are made multiples, so that the strides divide them.

    Returns:
        The network. The channels and strides of its maps are found by running both functions once.

    Raises:
        CutError: If the functions don't return maps, scores, boxes or values of these shapes, or `activation` doesn't
            fit the task.

    Example:
        >>> network = cut(
        ...     lraspp_mobilenet_v3_large(weights="DEFAULT"),
        ...     features=lambda model, image: model.backbone(image),
        ...     head=lambda model, low, high: model.classifier({"low": low, "high": high}),
        ... )
        >>> network.maps
        (FeatureMap(channels=40, stride=8), FeatureMap(channels=960, stride=16))
    """
    if task != "detection" and activation != "softmax":
        raise CutError(f"activation {activation!r} is for detection only; a segmentation's scores need the softmax")
    model.eval()
    height = max(2 * multiple, max(STRIDES))
    height += -height % multiple
    width = height + multiple  # not square, so that swapped rows and columns are noticed
    with torch.inference_mode():
        computed = _as_maps(features(model, torch.zeros(1, 3, height, width)))
        maps = tuple(FeatureMap(x.shape[1], _stride_of(x, height, width, STRIDES)) for x in computed)
        raw = head(model, *computed)
    if task == "segmentation":
        _check_scores(raw, height, width)
    elif task == "dense":
        _check_values(raw, height, width)
    else:
        _check_boxes(raw, least_classes=2 if activation == "softmax" else 1)
    network = CutNetwork(model, features, head, maps, task, activation)
    network.mean, network.std, network.multiple = mean, std, multiple
    if reason := doubt_saving(network.eval(), height, width):
        warnings.warn(SavingWarning(reason), stacklevel=2)
    return network


def _as_maps(returned: Any) -> tuple[Tensor, ...]:
    """Return one map, several maps or a dict of maps as a tuple."""
    values = returned.values() if isinstance(returned, Mapping) else returned
    if isinstance(returned, Tensor):
        values = (returned,)
    maps = tuple(values) if isinstance(values, Iterable) else ()
    if not maps or not all(isinstance(x, Tensor) and x.ndim == 4 for x in maps):
        raise CutError(
            f"features should return a map (N, C, H, W), or several in a tuple or dict, not {_describe(returned)}"
        )
    return maps


def _stride_of(x: Tensor, height: int, width: int, strides: Sequence[int]) -> int:
    for stride in strides:
        if x.shape[-2:] == (-(-height // stride), -(-width // stride)):
            return stride
    raise CutError(
        f"{x.shape[-2]}x{x.shape[-1]} cells for an image of {height}x{width} pixels match none of the strides "
        f"{', '.join(map(str, strides))}: cut elsewhere, or choose another `multiple`"
    )


def _check_scores(raw: Any, height: int, width: int) -> None:
    if not isinstance(raw, Tensor) or raw.ndim != 4:
        raise CutError(f"a segmentation head should return scores (N, classes, h, w), not {_describe(raw)}")
    if raw.shape[1] < 2:
        raise CutError(f"scores should have two classes or more, the background first, not {raw.shape[1]}")
    _stride_of(raw, height, width, SCORE_STRIDES)


def _check_values(raw: Any, height: int, width: int) -> None:
    if not isinstance(raw, Tensor) or raw.ndim != 4 or raw.shape[1] != 1:
        raise CutError(f"a head for dense maps should return values (N, 1, h, w), not {_describe(raw)}")
    _stride_of(raw, height, width, SCORE_STRIDES)


def _check_boxes(raw: Any, least_classes: int) -> None:
    match raw:
        case (Tensor() as boxes, Tensor() as scores) if boxes.ndim == scores.ndim == 3:
            if boxes.shape[-1] != 4 or boxes.shape[1] != scores.shape[1] or scores.shape[-1] < least_classes:
                shapes = f"{tuple(boxes.shape)} and {tuple(scores.shape)}"
                raise CutError(
                    f"boxes should be (N, n, 4) and scores (N, n, {least_classes} or more classes), not {shapes}"
                )
        case _:
            raise CutError(
                f"a detection head should return boxes (N, n, 4) and scores (N, n, classes), not {_describe(raw)}"
            )


def _describe(value: Any) -> str:
    """Describe what a function returned, for an error."""
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    if isinstance(value, Mapping):
        return f"a dict of {', '.join(map(str, value)) or 'nothing'}"
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {' and '.join(map(_describe, value)) or 'nothing'}"
    return "None" if value is None else f"a {type(value).__name__}"
