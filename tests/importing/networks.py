"""Small networks of the kinds that people import, with random weights, and their export."""

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


def export(network: nn.Module, path: Path, height: int, width: int, nhwc: bool = False, **options: Any) -> Path:
    """Export a network of one image by tracing it."""
    shape = (1, height, width, 3) if nhwc else (1, 3, height, width)
    torch.manual_seed(0)
    settings: dict[str, Any] = {"opset_version": 17, "dynamo": False, "input_names": ["pixels"], **options}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # this exporter is deprecated, and traces constants
        torch.onnx.export(network.eval(), (torch.rand(shape),), str(path), **settings)
    return path


def layer(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    """Make a convolution with batch norm and activation."""
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.SiLU())


class Segmenter(nn.Module):
    """A network for segmentation with a stride of 8, whose last layer classifies cells."""

    def __init__(self, classes: int = 5) -> None:
        super().__init__()
        self.backbone = nn.Sequential(layer(3, 16, stride=2), layer(16, 32, stride=2), layer(32, 64, stride=2))
        self.head = nn.Sequential(layer(64, 64), nn.Conv2d(64, classes, 1))

    def forward(self, image: Tensor) -> Tensor:
        """Return scores (N, classes, H, W)."""
        scores = self.head(self.backbone(image))
        return functional.interpolate(scores, scale_factor=8, mode="bilinear", align_corners=False)


class MaskSet(nn.Module):
    """A network for segmentation by a set of masks: logits of masks at stride 8, and logits of classes for each."""

    def __init__(self, masks: int = 9, classes: int = 5) -> None:
        super().__init__()
        self.backbone = nn.Sequential(layer(3, 16, stride=2), layer(16, 32, stride=2), layer(32, 64, stride=2))
        self.coarse = layer(64, 64, stride=4)
        self.queries = nn.Parameter(torch.randn(1, masks, 64))
        self.attention = nn.MultiheadAttention(64, 4, batch_first=True)
        self.classes = nn.Linear(64, classes + 1)
        self.masks = nn.Conv2d(64, 64, 1)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits of classes (N, masks, classes + 1) and of masks (N, masks, H / 8, W / 8)."""
        features = self.backbone(image)
        memory = self.coarse(features).flatten(2).transpose(1, 2)
        found = self.queries + 0.05 * self.attention(self.queries, memory, memory)[0]  # the image changes them little
        return self.classes(found), torch.einsum("bnc,bchw->bnhw", found, self.masks(features))


class Yolo(nn.Module):
    """A detector laid out as YOLOv8: strides 8, 16, 32, distances as distributions, an output (N, 4 + classes, n)."""

    BINS = 16

    def __init__(self, width: int = 8, classes: int = 80) -> None:
        super().__init__()
        w, self.classes = width, classes
        self.early = nn.Sequential(layer(3, w, stride=2), layer(w, 2 * w, stride=2), layer(2 * w, 2 * w))
        self.p3 = nn.Sequential(layer(2 * w, 4 * w, stride=2), layer(4 * w, 4 * w))
        self.p4 = nn.Sequential(layer(4 * w, 8 * w, stride=2), layer(8 * w, 8 * w))
        self.p5 = nn.Sequential(layer(8 * w, 16 * w, stride=2), layer(16 * w, 16 * w))
        self.up4, self.up3 = layer(24 * w, 8 * w), layer(12 * w, 4 * w)
        sides = (4 * w, 8 * w, 16 * w)
        self.boxes = nn.ModuleList(nn.Sequential(layer(c, 64), layer(64, 64), nn.Conv2d(64, 64, 1)) for c in sides)
        self.scores = nn.ModuleList(
            nn.Sequential(layer(c, classes), layer(classes, classes), nn.Conv2d(classes, classes, 1)) for c in sides
        )
        self.register_buffer("bins", torch.arange(float(self.BINS)))

    def forward(self, image: Tensor) -> Tensor:
        """Return centres, sizes and scores."""
        p3 = self.p3(self.early(image))
        p4 = self.p4(p3)
        p5 = self.p5(p4)
        p4 = self.up4(torch.cat((functional.interpolate(p5, scale_factor=2.0), p4), 1))
        p3 = self.up3(torch.cat((functional.interpolate(p4, scale_factor=2.0), p3), 1))
        found, points, strides = [], [], []
        for level, features in enumerate((p3, p4, p5)):
            found.append(torch.cat((self.boxes[level](features), self.scores[level](features)), 1).flatten(2))
            rows, columns = (torch.arange(side, dtype=torch.float32) + 0.5 for side in features.shape[2:])
            y, x = torch.meshgrid(rows, columns, indexing="ij")
            points.append(torch.stack((x, y)).flatten(1))
            strides.append(torch.full((1, points[-1].shape[1]), 8.0 * 2**level))
        boxes, scores = torch.split(torch.cat(found, 2), [4 * self.BINS, self.classes], 1)
        bins = torch.unflatten(boxes, 1, (4, self.BINS)).softmax(2)
        distances = (bins * self.get_buffer("bins").view(1, 1, -1, 1)).sum(2)
        first, last = torch.cat(points, 1) - distances[:, :2], torch.cat(points, 1) + distances[:, 2:]
        boxes = torch.cat(((first + last) / 2, last - first), 1) * torch.cat(strides, 1)
        return torch.cat((boxes, scores.sigmoid()), 1)


class TokenNetwork(nn.Module):
    """A vision transformer with a class token and register tokens, and a linear layer that classifies patches."""

    def __init__(self, patch: int = 16, grid: tuple[int, int] = (6, 8), registers: int = 4, channels: int = 32) -> None:
        super().__init__()
        self.grid, self.first = grid, 1 + registers
        self.patches = nn.Conv2d(3, channels, patch, patch)
        self.held = nn.Parameter(torch.randn(1, 1 + registers, channels))
        self.position = nn.Parameter(0.02 * torch.randn(1, grid[0] * grid[1], channels))
        block = nn.TransformerEncoderLayer(channels, 4, 2 * channels, 0.0, functional.gelu, batch_first=True)
        self.blocks = nn.TransformerEncoder(block, 2, enable_nested_tensor=False)
        self.classify = nn.Linear(channels, 7)
        self.whole = nn.Linear(channels, 3)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return scores (N, 7, h, w), and scores of the whole image from the class token."""
        tokens = self.patches(image).flatten(2).transpose(1, 2) + self.position
        tokens = self.blocks(torch.cat((self.held.expand(tokens.shape[0], -1, -1), tokens), 1))
        scores = torch.unflatten(self.classify(tokens[:, self.first :]).transpose(1, 2), 2, self.grid)
        return scores, self.whole(tokens[:, 0])


class ChannelsLast(nn.Module):
    """A segmenter with maps (N, h, w, C), as networks with layer norms have them, and an image (N, H, W, 3)."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 4, 4)
        self.mix = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(16), nn.Linear(16, 64), nn.GELU(), nn.Linear(64, 16)) for _ in range(2)
        )
        self.classify = nn.Linear(16, 40)

    def forward(self, image: Tensor) -> Tensor:
        """Return scores (N, 40, h, w)."""
        x = self.patches(image.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        for mix in self.mix:
            x = x + mix(x)
        scores: Tensor = self.classify(x)
        return scores.softmax(-1).permute(0, 3, 1, 2)
