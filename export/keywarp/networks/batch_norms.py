"""Batch norms: live while a feature network is trained from scratch; then frozen, and folded into convolutions."""

import torch
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from keywarp.networks.resnet import Bottleneck, ResNetFeatures


def fold_batch_norms(network: ResNetFeatures) -> None:
    """Fold every batch norm of a feature network, in place; what is left of them are identities.

    A folded network is what training adapts and what is exported. It can't load unfolded weights any more.
    """
    _fold(network, "conv1", "bn1")
    for block in network.modules():
        if isinstance(block, Bottleneck):
            for number in "123":
                _fold(block, f"conv{number}", f"bn{number}")
            if isinstance(block.downsample, nn.Sequential):
                _fold(block.downsample, "0", "1")


def unfreeze_batch_norms(network: ResNetFeatures) -> None:
    """Let every frozen batch norm of a feature network learn again, in place: for training from scratch.

    The names of parameters and buffers stay, so that the weights fit a network whose batch norms are frozen.
    """
    for owner in list(network.modules()):
        for name, norm in list(owner.named_children()):
            if isinstance(norm, FrozenBatchNorm2d):
                live = nn.BatchNorm2d(norm.weight.numel(), norm.eps)
                live.load_state_dict(norm.state_dict(), strict=False)  # it counts batches, too
                setattr(owner, name, live)


def _fold(owner: nn.Module, convolution: str, norm: str) -> None:
    conv, bn = getattr(owner, convolution), getattr(owner, norm)
    if not isinstance(bn, FrozenBatchNorm2d):
        return
    scale = bn.weight * torch.rsqrt(bn.running_var + bn.eps)
    with torch.no_grad():
        conv.weight.mul_(scale.view(-1, 1, 1, 1))
    conv.bias = nn.Parameter(bn.bias - bn.running_mean * scale, requires_grad=False)  # frozen, as the norm was
    setattr(owner, norm, nn.Identity())
