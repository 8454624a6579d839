from collections.abc import Callable

import pytest
import torch
import torchvision

from keywarp.networks import (
    ResNetFeatures,
    ResNetOptions,
    load_torchvision_weights,
    resnet50_conv4_features,
    resnet50_features,
    resnet101_features,
)
from keywarp.networks.pretrained import IMAGE_MEAN, WeightsError

TINY = ResNetOptions((1, 1, 1, 1), channels=8)


@pytest.mark.parametrize(("height", "width"), [(64, 96), (97, 131), (16, 33)])
def test_features_have_stride_16_at_any_size(height: int, width: int) -> None:
    features = ResNetFeatures(TINY)(torch.randn(1, 3, height, width))
    assert features.shape == (1, 8, -(-height // 16), -(-width // 16))
    assert features.min() >= 0


def test_conv5_is_dilated_and_the_reduction_is_the_papers() -> None:
    with torch.device("meta"):  # shapes only
        network = resnet50_features()
    strides = [m.stride[0] for m in network.layer4.modules() if isinstance(m, torch.nn.Conv2d)]
    dilations = {
        m.dilation[0] for m in network.layer4.modules() if isinstance(m, torch.nn.Conv2d) and m.kernel_size == (3, 3)
    }
    assert set(strides) == {1}
    assert dilations == {2}
    reduction = network.reduction
    assert (reduction.in_channels, reduction.out_channels) == (2048, 1024)
    assert (reduction.kernel_size, reduction.dilation, reduction.padding) == ((3, 3), (6, 6), (6, 6))


@pytest.mark.parametrize(("build", "blocks"), [(resnet50_features, 16), (resnet101_features, 33)])
def test_networks_have_the_depth_in_their_name(build: Callable[[int], ResNetFeatures], blocks: int) -> None:
    with torch.device("meta"):
        network = build(16)
    assert sum(len(stage) for stage in (network.layer1, network.layer2, network.layer3, network.layer4)) == blocks


def test_a_share_of_the_width_is_a_share_of_all_channels_but_those_of_the_map() -> None:
    with torch.device("meta"):
        network = ResNetFeatures(ResNetOptions((1, 1, 1, 1), channels=24, width=0.25))
        features = network(torch.zeros(1, 3, 64, 96))
    assert network.conv1.out_channels == 16
    assert [block.outputs for block in network.bottlenecks()] == [64, 128, 256, 512]
    assert features.shape == (1, 24, 4, 6)


def test_a_network_may_end_within_conv4() -> None:
    with torch.device("meta"):
        network = resnet50_conv4_features(16, conv4_blocks=2)
    assert len(network.layer3) == 2
    assert network.reduction.in_channels == 1024


def test_the_stride_is_on_the_first_1x1_unless_asked_otherwise() -> None:
    for stride_on, conv1, conv2 in (("1x1", 2, 1), ("3x3", 1, 2)):
        block = ResNetFeatures(ResNetOptions((1, 1, 1, 0), 8, stride_on)).layer2[0]  # type: ignore[arg-type]
        assert (block.conv1.stride[0], block.conv2.stride[0]) == (conv1, conv2)  # type: ignore[index]


def test_torchvision_weights_give_torchvisions_conv4() -> None:
    torch.manual_seed(0)
    theirs = torchvision.models.resnet50(weights=None).eval()
    for name, buffer in theirs.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            buffer.copy_(torch.rand_like(buffer) + (0.5 if name.endswith("var") else -0.5))
    ours = ResNetFeatures(ResNetOptions((3, 4, 6, 0), 8, "3x3"))
    load_torchvision_weights(ours, theirs.state_dict())
    image = torch.rand(1, 3, 352, 352) * 255
    mean, std = (torch.tensor(x).view(1, 3, 1, 1) for x in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    normalised = (image / 255 - mean) / std
    with torch.inference_mode():
        expected = theirs.layer2(theirs.layer1(theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(normalised))))))
        expected = theirs.layer3(expected)
        x = ours.stem(image - torch.tensor(IMAGE_MEAN).view(1, 3, 1, 1))
        found = ours.layer3(ours.layer2(ours.layer1(x)))
    # a cell of conv4 sees 134 pixels to each side, and the border has another mean
    inside = (..., slice(9, -9), slice(9, -9))
    assert expected[inside].shape[-2:] == (4, 4)
    torch.testing.assert_close(found[inside], expected[inside], rtol=1e-4, atol=1e-2)  # of values up to 500


def test_weights_of_another_depth_are_refused() -> None:
    with torch.device("meta"):
        network, weights = resnet101_features(8), torchvision.models.resnet50(weights=None).state_dict()
    with pytest.raises(WeightsError, match="layer3"):
        load_torchvision_weights(network, weights)
