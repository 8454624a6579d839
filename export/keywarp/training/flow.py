"""Pre-training of the flow network, on Flying Chairs as in the paper or on another source of known motion.

All images here have the half size that the flow network takes.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from keywarp.datasets.batches import FlowBatch
from keywarp.networks import FlowNetwork
from keywarp.networks.flownet import INPUT_DOWNSCALE
from keywarp.training.images import normalised
from keywarp.training.process import CPU

# Weights of the refinement steps' losses, coarse to fine. The final flow's weight is 1.
PYRAMID_WEIGHTS = (0.05, 0.1, 0.2, 0.4)


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
