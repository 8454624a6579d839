"""Pre-training of the flow network, in place of the paper's Flying Chairs.

Some of the samples have made motion, which is known exactly; the others are real pairs whose motion another method
measured. All are drawn at the half size that the flow network sees.
"""

import torch
from torch import Tensor
from torch.nn import functional

from keywarp.datasets import FlowPairs, MadeMotion, PairSampler
from keywarp.networks import FlowNetwork
from keywarp.networks.flownet import INPUT_DOWNSCALE
from keywarp.training.images import normalised

PYRAMID_WEIGHTS = (0.05, 0.1, 0.2, 0.4)  # of the refinement steps' losses, coarse to fine; the final flow's is 1


def flow_loss(network: FlowNetwork, sampler: PairSampler, step: int, batch: int, made_share: float) -> Tensor:
    """End-point error of the final flow in cells, plus the weighted errors of the refinement steps."""
    pairs = sampler.flows(step, batch, made_share, MadeMotion())
    motion, pyramid = network.with_pyramid(normalised(pairs.current), normalised(pairs.key))
    cells = torch.from_numpy(pairs.flow).permute(0, 3, 1, 2) / (network.stride / INPUT_DOWNSCALE)
    total = end_point_error(motion.flow.float(), _to(cells, motion.flow))
    for weight, flow in zip(PYRAMID_WEIGHTS, pyramid, strict=True):
        total = total + weight * end_point_error(flow.float() * network.cells_per_unit, _to(cells, flow))
    return total


def end_point_error(flow: Tensor, target: Tensor) -> Tensor:
    """Mean Euclidean distance between two flows (N, 2, H, W)."""
    return torch.sqrt(((flow - target) ** 2).sum(dim=1) + 1e-8).mean()


def measure_flow(network: FlowNetwork, pairs: FlowPairs) -> dict[str, float]:
    """End-point errors in cells: of the network, and of predicting no motion."""
    with torch.inference_mode():
        motion = network(normalised(pairs.current), normalised(pairs.key))
        target = _to(torch.from_numpy(pairs.flow).permute(0, 3, 1, 2) / (network.stride / INPUT_DOWNSCALE), motion.flow)
        network_error = end_point_error(motion.flow, target)
        zero_error = end_point_error(torch.zeros_like(target), target)
    return {"network": float(network_error), "zero": float(zero_error)}


def _to(target: Tensor, like: Tensor) -> Tensor:
    """The target at a prediction's resolution, by averaging."""
    return functional.adaptive_avg_pool2d(target, (like.shape[-2], like.shape[-1]))
