"""Batch norms of feature networks: trained from scratch, or frozen and folded into convolutions."""

import torch
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from keywarp.networks.resnet import Bottleneck, ResNetFeatures


def fold_batch_norms(network: ResNetFeatures) -> None:
    """Fold every batch norm of a feature network into the convolution before it, in place.

    Identities take the batch norms' places. Fine-tuning and export work on a folded network. Unfolded weights can't be
    loaded into it any more.
    """
    _fold(network, "conv1", "bn1")
    for block in network.modules():
        if isinstance(block, Bottleneck):
            for number in "123":
                _fold(block, f"conv{number}", f"bn{number}")
            if isinstance(block.downsample, nn.Sequential):
                _fold(block.downsample, "0", "1")


def unfreeze_batch_norms(network: ResNetFeatures) -> None:
    """Replace every frozen batch norm of a feature network by a trainable one, in place, for training from scratch.

    Parameters and buffers keep their names, so that the weights also fit a network with frozen batch norms.
    """
    for owner in list(network.modules()):
        for name, norm in list(owner.named_children()):
            if isinstance(norm, FrozenBatchNorm2d):
                trainable = nn.BatchNorm2d(norm.weight.numel(), norm.eps)
                trainable.load_state_dict(norm.state_dict(), strict=False)  # it also counts batches
                setattr(owner, name, trainable)


def _fold(owner: nn.Module, convolution: str, norm: str) -> None:
    conv, bn = getattr(owner, convolution), getattr(owner, norm)
    if not isinstance(bn, FrozenBatchNorm2d):
        return
    scale = bn.weight * torch.rsqrt(bn.running_var + bn.eps)
    with torch.no_grad():
        conv.weight.mul_(scale.view(-1, 1, 1, 1))
    conv.bias = nn.Parameter(bn.bias - bn.running_mean * scale, requires_grad=False)  # frozen like the batch norm
    setattr(owner, norm, nn.Identity())
