import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from keywarp.networks import IMAGE_MEAN, ResNetFeatures, ResNetOptions, WeightsError, load_keras_weights
from keywarp.networks.pretrained import KERAS_EPS, KERAS_MEAN, Array

OPTIONS = ResNetOptions((1, 1, 1, 0), channels=4)


def keras_arrays(random: np.random.Generator) -> dict[str, Array]:
    """Random weights of one block each of conv2 to conv4, in Keras's names and layout."""
    arrays: dict[str, Array] = {}

    def add(name: str, norm: str, kernel: int, inputs: int, outputs: int) -> None:
        arrays[f"{name}/kernel"] = random.normal(0, 0.1, (kernel, kernel, inputs, outputs)).astype(np.float32)
        arrays[f"{name}/bias"] = random.normal(0, 0.1, outputs).astype(np.float32)
        for part in ("gamma", "beta", "moving_mean", "moving_variance"):
            arrays[f"{norm}/{part}"] = random.uniform(0.5, 1.5, outputs).astype(np.float32)

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
    bgr = (rgb - torch.tensor(KERAS_MEAN).view(1, 3, 1, 1)).flip(1)
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
