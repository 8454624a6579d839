"""Small networks with random weights in ONNX files, as their users export them."""

import io
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn
from torch.nn import functional

SIZE = (128, 192)  # height and width of the image in pixels
CLASSES = ("cup", "hat", "key")
ULTRALYTICS = {
    "description": "Ultralytics test model",
    "author": "Ultralytics",
    "license": "AGPL-3.0 License (https://ultralytics.com/license)",
    "task": "detect",
    "names": str(dict(enumerate(CLASSES))),
}


def layer(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1), nn.ReLU())


class Segmenter(nn.Module):
    """Scores of four classes at stride 8."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(layer(3, 16, 2), layer(16, 32, 2), layer(32, 48, 2), layer(48, 48))
        self.head = nn.Conv2d(48, 4, 1)

    def forward(self, image: Tensor) -> Tensor:
        found: Tensor = self.head(self.features(image))
        return 20 * found


class Depth(nn.Module):
    """A positive number per pixel, decoded in steps as DPT does: (1, H, W)."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(layer(3, 16, 2), layer(16, 32, 2), layer(32, 48, 2), layer(48, 48))
        self.fine = layer(48, 16)
        self.head = nn.Conv2d(16, 1, 1)

    def forward(self, image: Tensor) -> Tensor:
        fine = functional.interpolate(self.fine(self.features(image)), scale_factor=4.0, mode="bilinear")
        found: Tensor = (50 * self.head(fine) + 20).relu().squeeze(1)
        return found


class Detector(nn.Module):
    """Boxes and scores in the layout of Ultralytics: (1, 4 + classes, boxes), centres and sizes in pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(layer(3, 16, 2), layer(16, 32, 2), layer(32, 32, 2))
        self.deep = nn.ModuleList((layer(32, 48, 2), layer(48, 64, 2)))
        self.boxes = nn.ModuleList(nn.Conv2d(channels, 4, 1) for channels in (32, 48, 64))
        self.scores = nn.ModuleList(nn.Conv2d(channels, len(CLASSES), 1) for channels in (32, 48, 64))

    def forward(self, image: Tensor) -> Tensor:
        maps = [self.stem(image)]
        for stage in self.deep:
            maps.append(stage(maps[-1]))
        levels = []
        for stride, x, boxes, scores in zip((8, 16, 32), maps, self.boxes, self.scores, strict=True):
            sides = boxes(x).abs() * 2 + 1
            rows, columns = x.shape[-2:]
            y, z = torch.meshgrid(torch.arange(rows) + 0.5, torch.arange(columns) + 0.5, indexing="ij")
            centre = torch.stack((z, y))[None] + (sides[:, 2:] - sides[:, :2]) / 2
            table = torch.cat((centre * stride, (sides[:, :2] + sides[:, 2:]) * stride, scores(x).mul(12).sigmoid()), 1)
            levels.append(table.flatten(2))
        return torch.cat(levels, dim=2)


def export(
    network: nn.Module,
    path: Path,
    image: str = "images",
    outputs: Sequence[str] = ("output0",),
    metadata: Mapping[str, str] | None = None,
    opset: int = 17,
    size: tuple[int, int] = SIZE,
) -> Path:
    """Write a network to a file, with weights that are the same each time."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            spread = 1.4 / max(parameter[0].numel(), 1) ** 0.5 if parameter.ndim > 1 else 0.1
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * spread)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network.eval(),
            (torch.zeros(1, 3, *size),),
            buffer,  # type: ignore[arg-type]  # it accepts a file, as its documentation says
            input_names=[image],
            output_names=list(outputs),
            opset_version=opset,
            dynamo=False,
        )
    model = onnx.load_model_from_string(buffer.getvalue())
    for key, value in (metadata or {}).items():
        model.metadata_props.add(key=key, value=value)
    onnx.save(model, path)
    return path
