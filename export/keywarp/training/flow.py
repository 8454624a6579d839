"""Pre-training of the flow network, on Flying Chairs as in the paper or on another source of known motion.

All images here have the half size that the flow network takes.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from keywarp.datasets.batches import FlowBatch
from keywarp.networks import FlowNetwork
from keywarp.networks.flow_pyramid import FlowPyramid
from keywarp.networks.flownet import FLOW_STRIDE, INPUT_DOWNSCALE
from keywarp.training.images import normalised
from keywarp.training.process import CPU

# Weights of the refinement steps' losses, coarse to fine. The final flow's weight is 1.
PYRAMID_WEIGHTS = (0.05, 0.1, 0.2, 0.4)
STEP_WEIGHTS = (0.4, 0.5, 0.6, 1.0)  # of the steps of FlowPyramid
OBJECT_WEIGHT = 6.0  # further weight of cells that move unlike their surroundings
OWN_MOTION = 1.5  # full-size pixels: the least such motion
SURROUNDINGS = (4, 6)  # rows and columns of the grid whose means are the surroundings
MATCHING_WEIGHT = 0.15  # cells of end-point error that a nat of cross-entropy weighs as much as


@dataclass(frozen=True)
class FlowLoss:
    """The end-point error of the final flow in cells, plus the weighted errors of the refinement steps."""

    network: FlowNetwork
    device: torch.device = CPU

    def __call__(self, batch: FlowBatch) -> Tensor:
        """Return the loss, a mean over the batch."""
        current, key = (normalised(x.to(self.device)) for x in (batch.current, batch.key))
        motion, pyramid = self.network.forward_with_pyramid(current, key)
        cells = in_cells(batch.flow.to(self.device), self.network)
        total = end_point_error(motion.flow.float(), _resized(cells, motion.flow))
        for weight, flow in zip(PYRAMID_WEIGHTS, pyramid, strict=True):
            total = total + weight * end_point_error(flow.float() * self.network.cells_per_unit, _resized(cells, flow))
        return total


@dataclass(frozen=True)
class PyramidLoss:
    """The loss of FlowPyramid: the end-point error after every step, and how probable its matches make the truth.

    The second part trains the encoder as a classifier of matches, which is far quicker than by the flow's error alone.
    """

    network: FlowPyramid
    device: torch.device = CPU

    def __call__(self, batch: FlowBatch) -> Tensor:
        """Return the loss, a mean over the batch."""
        current, key = (normalised(x.to(self.device)) for x in (batch.current, batch.key))
        target = batch.flow.to(self.device).permute(0, 3, 1, 2) * INPUT_DOWNSCALE
        total = torch.zeros((), device=self.device)
        for step, weight in zip(self.network.steps(current, key, apart=True), STEP_WEIGHTS, strict=True):
            pixels = _resized(target, step.flow)
            error = torch.sqrt((step.flow * step.stride - pixels).square().sum(dim=1) + 1e-8) / FLOW_STRIDE
            missed = matching_loss(step.scores, pixels / step.stride - step.before)
            total = total + weight * (object_weights(pixels) * (error + MATCHING_WEIGHT * missed)).mean()
        return total


def object_weights(target: Tensor) -> Tensor:
    """Weigh cells that move unlike their surroundings more than others.

    Small objects are few of the cells but most of what matters. With equal weights, a network learns to be exact on the
    background and to leave them out.

    Args:
        target: The true flow, (N, 2, H, W), in full-size pixels.

    Returns:
        (N, H, W).
    """
    sides = (target.shape[-2], target.shape[-1])
    around = functional.adaptive_avg_pool2d(target, SURROUNDINGS)
    smooth = functional.interpolate(around, size=sides, mode="bilinear", align_corners=False)
    own: Tensor = torch.linalg.vector_norm(target - smooth, dim=1)
    weights: Tensor = 1 + OBJECT_WEIGHT * (own > OWN_MOTION).float()
    return weights


def matching_loss(scores: Tensor, offset: Tensor) -> Tensor:
    """Return the cross-entropy of the matches in a window, (N, H, W).

    Args:
        scores: (N, window^2, H, W), logits.
        offset: (N, 2, H, W): the true (dx, dy) in cells. Between cells, the truth is divided as in bilinear sampling;
            outside of the window there is none.
    """
    radius = (math.isqrt(scores.shape[1]) - 1) // 2
    steps = torch.arange(-radius, radius + 1, device=scores.device).view(1, -1, 1, 1)
    x, y = ((1 - (offset[:, axis : axis + 1] - steps).abs()).clamp(min=0) for axis in (0, 1))
    truth = (y.unsqueeze(2) * x.unsqueeze(1)).flatten(1, 2)
    return -(truth * functional.log_softmax(scores, dim=1)).sum(dim=1)


def in_cells(flow: Tensor, network: FlowNetwork) -> Tensor:
    """Convert a flow from pixels of half-size images (N, H, W, 2) to cells of the network's stride (N, 2, H, W)."""
    return flow.permute(0, 3, 1, 2) / (network.stride / INPUT_DOWNSCALE)


def end_point_error(flow: Tensor, target: Tensor) -> Tensor:
    """Return the mean Euclidean distance between two flows (N, 2, H, W)."""
    return torch.sqrt(((flow - target) ** 2).sum(dim=1) + 1e-8).mean()


def measure_flow(network: FlowNetwork, batch: FlowBatch) -> dict[str, float]:
    """Return the end-point errors in cells of the network's flow ("network") and of no motion at all ("zero")."""
    with torch.inference_mode():
        motion = network(normalised(batch.current), normalised(batch.key))
        target = _resized(in_cells(batch.flow, network), motion.flow)
        network_error = end_point_error(motion.flow, target)
        zero_error = end_point_error(torch.zeros_like(target), target)
    return {"network": float(network_error), "zero": float(zero_error)}


def _resized(target: Tensor, like: Tensor) -> Tensor:
    """Average the target down to a prediction's resolution."""
    return functional.adaptive_avg_pool2d(target, (like.shape[-2], like.shape[-1]))
