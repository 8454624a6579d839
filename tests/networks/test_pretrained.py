import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from keywarp.networks.feature_maps import FeatureMap
from keywarp.networks.flownet import FlowNet, FlowNetHalf
from keywarp.networks.pretrained import (
    CAFFE_MEAN,
    IMAGE_MEAN,
    KERAS_EPS,
    Array,
    WeightsError,
    load_caffe_weights,
    load_flownet_weights,
    load_keras_weights,
    load_mxnet_flownet_weights,
    load_torchvision_weights,
)
from keywarp.networks.resnet import ResNetFeatures, ResNetOptions

OPTIONS = ResNetOptions((1, 1, 1, 0), channels=4)


def keras_arrays(random: np.random.Generator) -> dict[str, Array]:
    """Return random weights of one block each of conv2 to conv4, in Keras's names and layout."""
    arrays: dict[str, Array] = {}

    def add(name: str, norm: str, kernel: int, inputs: int, outputs: int) -> None:
        arrays[f"{name}/kernel"] = random.normal(0, 0.1, (kernel, kernel, inputs, outputs)).astype(np.float32)
        arrays[f"{name}/bias"] = random.normal(0, 0.1, outputs).astype(np.float32)
        for part in ("gamma", "beta", "moving_mean"):
            arrays[f"{norm}/{part}"] = random.uniform(0.5, 1.5, outputs).astype(np.float32)
        arrays[f"{norm}/moving_variance"] = random.uniform(0.01, 0.1, outputs).astype(np.float32)  # so epsilon matters

    add("conv1", "bn_conv1", 7, 3, 64)
    inputs = 64
    for stage, width in ((2, 64), (3, 128), (4, 256)):
        add(f"res{stage}a_branch1", f"bn{stage}a_branch1", 1, inputs, 4 * width)
        add(f"res{stage}a_branch2a", f"bn{stage}a_branch2a", 1, inputs, width)
        add(f"res{stage}a_branch2b", f"bn{stage}a_branch2b", 3, width, width)
        add(f"res{stage}a_branch2c", f"bn{stage}a_branch2c", 1, width, 4 * width)
        inputs = 4 * width
    arrays["fc1000/kernel"] = np.zeros((2048, 10), np.float32)
    return arrays


def write_tfjs(arrays: dict[str, Array], folder: Path, shard: int = 100_000) -> None:
    content = b"".join(array.astype("<f4").tobytes() for array in arrays.values())
    paths = []
    for start in range(0, len(content), shard):
        paths.append(f"shard{start}.bin")
        (folder / paths[-1]).write_bytes(content[start : start + shard])
    weights = [{"name": name, "shape": list(array.shape), "dtype": "float32"} for name, array in arrays.items()]
    (folder / "model.json").write_text(json.dumps({"weightsManifest": [{"paths": paths, "weights": weights}]}))


def test_a_keras_convolution_is_reproduced_with_bias_epsilon_channel_order_and_mean(tmp_path: Path) -> None:
    arrays = keras_arrays(np.random.default_rng(0))
    write_tfjs(arrays, tmp_path)
    network = ResNetFeatures(OPTIONS)
    load_keras_weights(network, tmp_path)

    rgb = torch.rand(1, 3, 40, 48) * 255
    bgr = (rgb - torch.tensor(CAFFE_MEAN).view(1, 3, 1, 1)).flip(1)
    kernel = torch.from_numpy(arrays["conv1/kernel"].transpose(3, 2, 0, 1).copy())
    convolved = functional.conv2d(bgr, kernel, torch.from_numpy(arrays["conv1/bias"]), stride=2, padding=3)
    gamma, beta, mean, variance = (
        torch.from_numpy(arrays[f"bn_conv1/{part}"]).view(1, -1, 1, 1)
        for part in ("gamma", "beta", "moving_mean", "moving_variance")
    )
    expected = gamma * (convolved - mean) / torch.sqrt(variance + KERAS_EPS) + beta
    found = network.bn1(network.conv1(rgb - torch.tensor(IMAGE_MEAN).view(1, 3, 1, 1)))
    inside = (..., slice(2, -2), slice(2, -2))  # the padding has another mean, and is a few cells wide
    torch.testing.assert_close(found[inside], expected[inside], rtol=1e-3, atol=1e-2)


def test_every_block_gets_its_weights(tmp_path: Path) -> None:
    arrays = keras_arrays(np.random.default_rng(1))
    write_tfjs(arrays, tmp_path)
    network = ResNetFeatures(OPTIONS)
    load_keras_weights(network, tmp_path)
    found = network.state_dict()
    places = {
        "res2a_branch1": "layer1.0.downsample.0",
        "res3a_branch2b": "layer2.0.conv2",
        "res4a_branch2c": "layer3.0.conv3",
    }
    for keras, ours in places.items():
        expected = arrays[f"{keras}/kernel"].transpose(3, 2, 0, 1)
        np.testing.assert_array_equal(found[f"{ours}.weight"].numpy(), expected)


def test_a_missing_shard_is_refused(tmp_path: Path) -> None:
    write_tfjs(keras_arrays(np.random.default_rng(2)), tmp_path)
    next(tmp_path.glob("shard*.bin")).unlink()
    with pytest.raises(WeightsError, match=r"not a TensorFlow\.js model"):
        load_keras_weights(ResNetFeatures(OPTIONS), tmp_path)


def test_weights_without_a_needed_block_are_refused(tmp_path: Path) -> None:
    arrays = keras_arrays(np.random.default_rng(3))
    write_tfjs({name: array for name, array in arrays.items() if "4a" not in name}, tmp_path)
    with pytest.raises(WeightsError, match=r"layer3\.0"):
        load_keras_weights(ResNetFeatures(OPTIONS), tmp_path)


def caffe_weights() -> dict[str, Tensor]:
    """Return random weights of one block each of conv2 to conv4, in torchvision's names."""
    torch.manual_seed(0)
    state = ResNetFeatures(OPTIONS).state_dict()
    weights = {
        name: torch.rand_like(value) + 0.5 if ".bn" in f".{name}" else torch.randn_like(value) * 0.1
        for name, value in state.items()
        if not name.startswith("reduction.")
    }
    return weights | {"fc.weight": torch.zeros(10, 2048)}


@pytest.mark.parametrize("with_bias", [False, True], ids=["resnet101", "resnet50"])
def test_a_caffe_convolution_is_reproduced_with_channel_order_mean_and_bias(with_bias: bool) -> None:
    weights = caffe_weights()
    if with_bias:  # only that of ResNet-50 has one
        weights["conv1.bias"] = torch.randn(64)
    network = ResNetFeatures(OPTIONS)
    load_caffe_weights(network, weights)

    rgb = torch.rand(1, 3, 40, 48) * 255
    bgr = rgb.flip(1) - torch.tensor([103.939, 116.779, 123.68]).view(1, 3, 1, 1)
    convolved = functional.conv2d(bgr, weights["conv1.weight"], weights.get("conv1.bias"), stride=2, padding=3)
    gamma, beta, mean, variance = (
        weights[f"bn1.{part}"].view(1, -1, 1, 1) for part in ("weight", "bias", "running_mean", "running_var")
    )
    expected = gamma * (convolved - mean) / torch.sqrt(variance + 1e-5) + beta
    found = network.bn1(network.conv1(rgb - torch.tensor(IMAGE_MEAN).view(1, 3, 1, 1)))
    inside = (..., slice(2, -2), slice(2, -2))
    torch.testing.assert_close(found[inside], expected[inside], rtol=1e-3, atol=1e-2)
    for name in ("layer1.0.downsample.1.running_var", "layer3.0.conv2.weight"):
        assert torch.equal(network.state_dict()[name], weights[name])


def test_weights_for_a_stride_on_another_convolution_are_refused() -> None:
    for load, stride_on in ((load_caffe_weights, "3x3"), (load_torchvision_weights, "1x1")):
        network = ResNetFeatures(ResNetOptions((1, 1, 1, 0), 4, stride_on))  # type: ignore[arg-type]
        with pytest.raises(WeightsError, match="stride"):
            load(network, caffe_weights())


def published_flownet() -> dict[str, Tensor]:
    """Return random weights in the layout of FlowNetPytorch's FlowNetS without batch norms, at their usual size."""
    torch.manual_seed(0)
    weights: dict[str, Tensor] = {}
    contraction = [
        ("conv1", 6, 64, 7), ("conv2", 64, 128, 5), ("conv3", 128, 256, 5), ("conv3_1", 256, 256, 3),
        ("conv4", 256, 512, 3), ("conv4_1", 512, 512, 3), ("conv5", 512, 512, 3), ("conv5_1", 512, 512, 3),
        ("conv6", 512, 1024, 3), ("conv6_1", 1024, 1024, 3),
    ]  # fmt: skip
    for name, inputs, outputs, kernel in contraction:
        weights[f"{name}.0.weight"] = torch.randn(outputs, inputs, kernel, kernel) * (2 / (inputs * kernel**2)) ** 0.5
        weights[f"{name}.0.bias"] = torch.randn(outputs) * 0.1
    for level, inputs, outputs in ((6, 1024, 512), (5, 1026, 256), (4, 770, 128), (3, 386, 64), (2, 194, 0)):
        weights[f"predict_flow{level}.weight"] = torch.randn(2, inputs, 3, 3) * (1 / (inputs * 9)) ** 0.5
        if outputs:
            weights[f"deconv{level - 1}.0.weight"] = torch.randn(inputs, outputs, 4, 4) * (2 / (inputs * 4)) ** 0.5
            weights[f"upsampled_flow{level}_to_{level - 1}.weight"] = torch.randn(2, 2, 4, 4) * 0.3
    return weights


def published_flows(weights: dict[str, Tensor], first: Tensor, second: Tensor) -> list[Tensor]:
    """Compute flow6 to flow2 with an explicit copy of the published network, for two RGB images (N, 3, H, W) in 0..255.

    It differs in one point: the published network pads images with its own mean, grey, while these are already padded
    by 3 pixels.
    """

    def conv(name: str, x: Tensor, stride: int, padding: int) -> Tensor:
        x = functional.conv2d(x, weights[f"{name}.0.weight"], weights[f"{name}.0.bias"], stride, padding)
        return functional.leaky_relu(x, 0.1)

    def refine(level: int, x: Tensor, skip: Tensor) -> tuple[Tensor, Tensor]:
        flow = predict(level, x)
        finer = level - 1
        upsampled = weights[f"upsampled_flow{level}_to_{finer}.weight"], bias(f"upsampled_flow{level}_to_{finer}")
        deconvolved = weights[f"deconv{finer}.0.weight"], bias(f"deconv{finer}.0")
        up = functional.conv_transpose2d(flow, *upsampled, stride=2, padding=1)
        deep = functional.leaky_relu(functional.conv_transpose2d(x, *deconvolved, stride=2, padding=1), 0.1)
        height, width = skip.shape[2:]
        return torch.cat((skip, deep[:, :, :height, :width], up[:, :, :height, :width]), 1), flow

    def predict(level: int, x: Tensor) -> Tensor:
        return functional.conv2d(x, weights[f"predict_flow{level}.weight"], bias(f"predict_flow{level}"), padding=1)

    def bias(name: str) -> Tensor | None:
        return weights.get(f"{name}.bias")  # the published file has none of these

    mean = torch.tensor([0.411, 0.432, 0.45]).view(1, 3, 1, 1)
    out2 = conv("conv2", conv("conv1", torch.cat((first / 255 - mean, second / 255 - mean), 1), 2, 0), 2, 2)
    out3 = conv("conv3_1", conv("conv3", out2, 2, 2), 1, 1)
    out4 = conv("conv4_1", conv("conv4", out3, 2, 1), 1, 1)
    out5 = conv("conv5_1", conv("conv5", out4, 2, 1), 1, 1)
    out6 = conv("conv6_1", conv("conv6", out5, 2, 1), 1, 1)
    concat5, flow6 = refine(6, out6, out5)
    concat4, flow5 = refine(5, concat5, out4)
    concat3, flow4 = refine(4, concat4, out3)
    concat2, flow3 = refine(3, concat3, out2)
    return [flow6, flow5, flow4, flow3, predict(2, concat2)]


def assert_flows_agree(network: FlowNet, weights: dict[str, Tensor]) -> None:
    mean = torch.tensor(IMAGE_MEAN).view(1, 3, 1, 1)
    current, key = torch.rand(2, 1, 3, 70, 101) * 255
    # a border of our mean, as our padding is
    padded = [functional.pad(image - mean, (3, 3, 3, 3)) + mean for image in (current, key)]
    with torch.inference_mode():
        motion, pyramid = network.forward_with_pyramid(current - mean, key - mean)
        expected = published_flows(weights, *padded)
    for found, flow in zip([*pyramid, motion.flow / network.cells_per_unit], expected, strict=True):
        torch.testing.assert_close(found, flow, rtol=1e-3, atol=1e-4)


def test_flownetpytorchs_weights_give_its_flow_at_every_level() -> None:
    network = FlowNet((FeatureMap(4, 8),))  # of the stride at which the published network ends
    weights = published_flownet()
    load_flownet_weights(network, weights)
    assert_flows_agree(network, weights)


def test_biases_that_flownetpytorch_lacks_are_loaded_where_a_file_has_them() -> None:
    weights = published_flownet()
    for name, weight in list(weights.items()):
        if not name.startswith("conv"):
            outputs = weight.shape[0] if name.startswith("predict") else weight.shape[1]
            weights[name.replace("weight", "bias")] = torch.randn(outputs) * 0.1
    network = FlowNet((FeatureMap(4, 8),))
    load_flownet_weights(network, weights)
    assert_flows_agree(network, weights)


def test_loading_flownet_leaves_the_scale_at_one() -> None:
    network = FlowNet((FeatureMap(4, 16),))
    load_flownet_weights(network, published_flownet())
    scale = network(*torch.randn(2, 1, 3, 32, 32)).scales[0]
    assert torch.equal(scale, torch.ones_like(scale))


@pytest.mark.parametrize("name", ["conv4_1.0.weight", "conv6.0.bias", "predict_flow2.weight", "deconv3.0.weight"])
def test_flownet_weights_without_a_layer_are_refused(name: str) -> None:
    weights = published_flownet()
    del weights[name]
    with torch.device("meta"):
        network = FlowNet()
    with pytest.raises(WeightsError, match=name):
        load_flownet_weights(network, weights)


def test_flownet_weights_for_another_width_are_refused() -> None:
    with torch.device("meta"):
        network = FlowNetHalf()
    with pytest.raises(WeightsError, match=r"conv1\.0\.weight should have shape \(32, 6, 7, 7\)"):
        load_flownet_weights(network, published_flownet())


def test_the_papers_own_flownet_weights_are_loaded_by_their_names() -> None:
    ours = FlowNet((FeatureMap(4, 8),))
    for name, parameter in ours.named_parameters():
        if name.endswith("bias") and not name.startswith("scales"):
            torch.nn.init.normal_(parameter, std=0.1)
    state = ours.state_dict()
    layers = {"conv1.0": "flow_conv1", "conv2.0": "conv2", "conv3.0": "conv3", "conv3_1.0": "conv3_1"}
    layers |= {f"conv{n}.0": f"conv{n}" for n in ("4", "4_1", "5", "5_1", "6", "6_1")}
    layers |= {f"refinement.{n}.predict": f"Convolution{n + 1}" for n in range(4)} | {"flow": "Convolution5"}
    layers |= {f"refinement.{n}.deconv": f"deconv{5 - n}" for n in range(4)}
    layers |= {f"refinement.{n}.upsample_flow": f"upsample_flow{6 - n}to{5 - n}" for n in range(4)}
    weights = {f"{mx}_{part}": state[f"{name}.{part}"] for name, mx in layers.items() for part in ("weight", "bias")}
    loaded = FlowNet((FeatureMap(4, 8),))
    load_mxnet_flownet_weights(loaded, weights)
    pair = torch.randn(2, 1, 3, 32, 48) * 60
    assert torch.equal(loaded(*pair).flow, ours(*pair).flow)
    del weights["upsample_flow5to4_bias"]
    with pytest.raises(WeightsError, match="upsample_flow5to4_bias"):
        load_mxnet_flownet_weights(loaded, weights)
