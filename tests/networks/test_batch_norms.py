import torch
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from keywarp.networks import ResNetFeatures, ResNetOptions, fold_batch_norms, unfreeze_batch_norms

TINY = ResNetOptions((1, 2, 1, 1), channels=8, width=0.25)


def trained() -> ResNetFeatures:
    """Return a network whose batch norms were trained for a few steps."""
    torch.manual_seed(0)
    network = ResNetFeatures(TINY)
    unfreeze_batch_norms(network)
    optimizer = torch.optim.AdamW(network.parameters(), 1e-2)
    for _ in range(3):
        loss = (network(50 * torch.randn(4, 3, 64, 64) + 20) - 1).square().mean()
        loss.backward()
        optimizer.step()
    nn.init.normal_(network.reduction.weight, std=0.1)  # large enough for differences to show
    return network.eval()


def test_all_batch_norms_can_be_trained_once_unfrozen() -> None:
    network = ResNetFeatures(TINY)
    frozen = [name for name, module in network.named_modules() if isinstance(module, FrozenBatchNorm2d)]
    unfreeze_batch_norms(network)
    live = [name for name, module in network.named_modules() if isinstance(module, nn.BatchNorm2d)]
    assert live == frozen
    assert len(live) == 1 + 3 * 5 + 4  # of the stem, the bottlenecks, and the projections of conv2 to conv5
    learnt = dict(trained().named_parameters())
    assert not torch.equal(learnt["layer2.1.bn2.weight"], torch.ones(32))


def with_random_statistics() -> ResNetFeatures:
    network = ResNetFeatures(TINY)
    for name, buffer in network.named_buffers():
        buffer.copy_(torch.rand_like(buffer) + (0.5 if name.endswith("var") else 0))
    return network


def test_folding_batch_norms_changes_nothing() -> None:
    network, image = with_random_statistics(), torch.randn(1, 3, 48, 64)
    with torch.inference_mode():
        before = network(image)
        fold_batch_norms(network)
        after = network(image)
    assert not list(network.buffers())
    assert not any(p.requires_grad for name, p in network.named_parameters() if name.endswith("conv1.bias"))
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-5)


def test_unfreezing_keeps_weights_and_statistics() -> None:
    network = with_random_statistics()
    image = torch.randn(1, 3, 48, 64)
    with torch.inference_mode():
        before = network(image)
        unfreeze_batch_norms(network)
        after = network.eval()(image)
    torch.testing.assert_close(after, before)


def test_trained_batch_norms_compute_the_same_when_frozen_and_folded() -> None:
    live = trained()
    frozen = ResNetFeatures(TINY)
    frozen.load_state_dict(live.state_dict())
    image = 50 * torch.randn(2, 3, 65, 90)
    with torch.inference_mode():
        expected = live(image)
        torch.testing.assert_close(frozen(image), expected, rtol=1e-4, atol=1e-4)
        fold_batch_norms(frozen)
        torch.testing.assert_close(frozen(image), expected, rtol=1e-4, atol=1e-4)
    assert expected.std() > 0.01
