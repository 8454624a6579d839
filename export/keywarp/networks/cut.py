"""Other people's networks: any forward pass that can be cut into features and head."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from keywarp.networks.feature_maps import FeatureMap
from keywarp.networks.flownet import STRIDES
from keywarp.networks.pretrained import TORCHVISION_MEAN, TORCHVISION_STD
from keywarp.networks.recognition import RecognitionNetwork, Task

SCORE_STRIDES = (1, 2, *STRIDES)  # image pixels per cell of the scores


class CutError(ValueError):
    """A network can't be used as it was cut."""


class CutNetwork(RecognitionNetwork[Any]):
    """A network that someone else wrote, with two functions that say where it is cut; see `cut`."""

    def __init__(
        self,
        model: nn.Module,
        features: Callable[[Any, Tensor], Any],
        head: Callable[..., Any],
        maps: tuple[FeatureMap, ...],
        task: Task,
    ) -> None:
        super().__init__()
        self.model = model
        self.maps = maps
        self.task = task
        self.outputs = ("scores",) if task == "segmentation" else ("boxes", "scores")
        self._features, self._head = features, head

    def features(self, image: Tensor) -> tuple[Tensor, ...]:
        """The model's forward pass up to the cut."""
        return _as_maps(self._features(self.model, image))

    def head(self, *features: Tensor) -> Any:
        """The model's forward pass from the cut on."""
        return self._head(self.model, *features)

    def predict(self, raw: Any) -> tuple[Tensor, ...]:
        """Class probabilities from the scores; a detector's boxes stay as they are."""
        if self.task == "segmentation":
            return (torch.softmax(raw, dim=1),)
        boxes, scores = raw
        return (boxes, torch.softmax(scores, dim=-1))


def cut(
    model: nn.Module,
    features: Callable[[Any, Tensor], Tensor | Sequence[Tensor] | Mapping[str, Tensor]],
    head: Callable[..., Any],
    *,
    task: Task = "segmentation",
    mean: tuple[float, float, float] = TORCHVISION_MEAN,
    std: tuple[float, float, float] = TORCHVISION_STD,
    multiple: int = 32,
) -> CutNetwork:
    """Make any torch network a recognition network, by saying where its forward pass is cut.

    The model isn't copied, and is set to evaluation mode.

    Args:
        model: The network.
        features: (model, image) -> the feature map or maps that are cached and warped: all that is costly. The image is
            (N, 3, H, W), RGB, `(pixel - mean) / std`. The order of a dict's values is the order of the maps.
        head: (model, map, ...) -> for segmentation scores (N, classes, h, w) before the softmax, class 0 being the
            background; for detection boxes (N, n, 4), x1 y1 x2 y2 in pixels of the image, and scores (N, n, classes)
            before the softmax, likewise.
        task: What the network recognises.
        mean: RGB, in units of 0..255.
        std: Likewise.
        multiple: Image sides will be multiples of this, pixels; so the strides divide them.

    Returns:
        The network, with its maps' channels and strides found by running both functions once.

    Raises:
        CutError: What the functions return isn't that.

    Example:
        >>> network = cut(
        ...     lraspp_mobilenet_v3_large(weights="DEFAULT"),
        ...     features=lambda model, image: model.backbone(image),
        ...     head=lambda model, low, high: model.classifier({"low": low, "high": high}),
        ... )
        >>> network.maps
        (FeatureMap(channels=40, stride=8), FeatureMap(channels=960, stride=16))
    """
    model.eval()
    height = max(2 * multiple, max(STRIDES))
    height += -height % multiple
    width = height + multiple  # not square, so that rows and columns can't be confused
    with torch.inference_mode():
        found = _as_maps(features(model, torch.zeros(1, 3, height, width)))
        maps = tuple(FeatureMap(x.shape[1], _stride_of(x, height, width, STRIDES)) for x in found)
        raw = head(model, *found)
    if task == "segmentation":
        _check_scores(raw, height, width)
    else:
        _check_boxes(raw)
    network = CutNetwork(model, features, head, maps, task)
    network.mean, network.std, network.multiple = mean, std, multiple
    return network.eval()


def _as_maps(found: Any) -> tuple[Tensor, ...]:
    """One map, several or a dict of them, as a tuple."""
    values = (found,) if isinstance(found, Tensor) else found.values() if isinstance(found, Mapping) else found
    maps = tuple(values) if isinstance(values, Iterable) else ()
    if not maps or not all(isinstance(x, Tensor) and x.ndim == 4 for x in maps):
        raise CutError(f"features should return a map (N, C, H, W), or several in a tuple or dict, not {_told(found)}")
    return maps


def _stride_of(x: Tensor, height: int, width: int, strides: Sequence[int]) -> int:
    for stride in strides:
        if x.shape[-2:] == (-(-height // stride), -(-width // stride)):
            return stride
    raise CutError(
        f"{x.shape[-2]}x{x.shape[-1]} cells for an image of {height}x{width} pixels are none of the strides "
        f"{', '.join(map(str, strides))}: cut elsewhere, or give another multiple"
    )


def _check_scores(raw: Any, height: int, width: int) -> None:
    if not isinstance(raw, Tensor) or raw.ndim != 4:
        raise CutError(f"a segmentation head should return scores (N, classes, h, w), not {_told(raw)}")
    if raw.shape[1] < 2:
        raise CutError(f"scores should be of two classes or more, the background first, not of {raw.shape[1]}")
    _stride_of(raw, height, width, SCORE_STRIDES)


def _check_boxes(raw: Any) -> None:
    match raw:
        case (Tensor() as boxes, Tensor() as scores) if boxes.ndim == scores.ndim == 3:
            if boxes.shape[-1] != 4 or boxes.shape[1] != scores.shape[1] or scores.shape[-1] < 2:
                shapes = f"{tuple(boxes.shape)} and {tuple(scores.shape)}"
                raise CutError(f"boxes should be (N, n, 4) and scores (N, n, 2 classes or more), not {shapes}")
        case _:
            told = _told(raw)
            raise CutError(f"a detection head should return boxes (N, n, 4) and scores (N, n, classes), not {told}")


def _told(found: Any) -> str:
    if isinstance(found, Tensor):
        return f"a tensor of shape {tuple(found.shape)}"
    if isinstance(found, Mapping):
        return f"a dict of {', '.join(map(str, found)) or 'nothing'}"
    if isinstance(found, tuple | list):
        return f"a {type(found).__name__} of {' and '.join(map(_told, found)) or 'nothing'}"
    return "None" if found is None else f"a {type(found).__name__}"
