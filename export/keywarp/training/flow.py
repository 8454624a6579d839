"""Pre-training of the flow network, on Flying Chairs as in the paper or on another source of known motion.

All images here have the half size that the flow network takes.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from keywarp.datasets.batches import FlowBatch
from keywarp.networks import FlowNetwork, sample
from keywarp.networks.flow_pyramid import FlowPyramid
from keywarp.networks.flownet import FLOW_STRIDE, INPUT_DOWNSCALE
from keywarp.training.images import normalised
from keywarp.training.process import CPU

# Weights of the refinement steps' losses, coarse to fine. The final flow's weight is 1.
PYRAMID_WEIGHTS = (0.05, 0.1, 0.2, 0.4)
STEP_WEIGHTS = (0.4, 0.5, 0.6, 1.0)  # of the steps of FlowPyramid
MATCHING_WEIGHT = 0.15  # cells of end-point error that a nat of cross-entropy weighs as much as
PHOTOMETRIC_WEIGHT = 5.0  # cells of end-point error that a difference of the whole range of grey levels weighs as much as
COARSEST_PHOTOMETRIC = 16  # stride of the coarsest step that learns from pairs of unknown motion
SATURATION = 0.2  # of the range of grey levels: larger differences are hidden points
SMOOTHNESS = 0.02  # weight of a difference of one pixel between the flows of neighbouring cells
EDGE = 12.0  # how quickly smoothness ends where the image changes, per range of grey levels


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
        steps = self.network.steps(current, key)
        target = batch.flow.to(self.device).permute(0, 3, 1, 2) * INPUT_DOWNSCALE
        known = ~target.isnan().flatten(1).any(dim=1)
        total = torch.zeros((), device=self.device)
        if known.any():
            share = known.float().mean()
            for step, weight in zip(steps, STEP_WEIGHTS, strict=True):
                pixels = _resized(target[known], step.flow)
                error = end_point_error(step.flow[known] * step.stride, pixels) / FLOW_STRIDE
                missed = matching_loss(step.scores[known], pixels / step.stride - step.before[known])
                total = total + weight * share * (error + MATCHING_WEIGHT * missed)
        if not known.all():
            unknown = ~known
            share = unknown.float().mean()
            for step, weight in zip(steps, STEP_WEIGHTS, strict=True):
                if step.stride <= COARSEST_PHOTOMETRIC:
                    flow = step.flow[unknown] * (step.stride / INPUT_DOWNSCALE)
                    total = total + weight * share * photometric_loss(current[unknown], key[unknown], flow)
        return total


def photometric_loss(current: Tensor, key: Tensor, flow: Tensor) -> Tensor:
    """Return how badly a flow explains one image by another, for pairs whose flow nobody knows.

    Differences beyond `SATURATION` count as hidden points and don't pull. Where the image is smooth, so must be the
    flow.

    Args:
        current: (N, 3, H, W) in grey levels.
        key: (N, 3, H, W).
        flow: (N, 2, h, w) in pixels of these images.
    """
    factor = round(current.shape[-1] / flow.shape[-1])
    height, width = current.shape[-2:]
    fine = functional.interpolate(flow, scale_factor=factor, mode="bilinear", align_corners=False)[..., :height, :width]
    inside = sample(torch.ones_like(current[:, :1]), fine).detach() > 1 - 1e-3
    difference = (sample(key, fine) - current).abs().mean(dim=1, keepdim=True) / 255
    seen = (difference.clamp(max=SATURATION) * inside).mean()
    small = functional.adaptive_avg_pool2d(current, (flow.shape[-2], flow.shape[-1])) / 255
    rough = torch.zeros((), device=flow.device)
    for axis in (-1, -2):
        edge = small.diff(dim=axis).abs().mean(dim=1, keepdim=True)
        rough = rough + (torch.exp(-EDGE * edge) * flow.diff(dim=axis).abs()).mean()
    return PHOTOMETRIC_WEIGHT * seen + SMOOTHNESS * rough


def matching_loss(scores: Tensor, offset: Tensor) -> Tensor:
    """Return the cross-entropy of the matches in a window.

    Args:
        scores: (N, window^2, H, W), logits.
        offset: (N, 2, H, W): the true (dx, dy) in cells. Between cells, the truth is divided as in bilinear sampling;
            outside of the window there is none.
    """
    radius = (math.isqrt(scores.shape[1]) - 1) // 2
    steps = torch.arange(-radius, radius + 1, device=scores.device).view(1, -1, 1, 1)
    x, y = ((1 - (offset[:, axis : axis + 1] - steps).abs()).clamp(min=0) for axis in (0, 1))
    truth = (y.unsqueeze(2) * x.unsqueeze(1)).flatten(1, 2)
    return -(truth * functional.log_softmax(scores, dim=1)).sum(dim=1).mean()


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
