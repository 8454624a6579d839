"""Light networks of torchvision as ONNX files, with random weights: what a heavy network competes with.

They are exported for images of one size, without the selection of boxes, which a runtime can't make faster. Their
results mean nothing, but they cost what trained ones do.

It is run in a process of its own, which returns its memory:

    python -m keywarp.export.light_networks ssdlite 600 1000 ssdlite.onnx
"""

import argparse
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.models.detection import ssdlite320_mobilenet_v3_large
from torchvision.models.segmentation import lraspp_mobilenet_v3_large

from keywarp.export.graphs import OPSET


class Detector(nn.Module):
    """SSDLite with MobileNetV3 (Sandler et al., 2018; Howard et al., 2019), up to the scores and boxes of anchors."""

    def __init__(self) -> None:
        super().__init__()
        network = ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None)
        self.backbone, self.head = network.backbone, network.head

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return the scores (N, anchors, classes) and the boxes' offsets (N, anchors, 4) of images (N, 3, H, W)."""
        found = self.head(list(self.backbone(image).values()))
        return found["cls_logits"].softmax(-1), found["bbox_regression"]


class Segmenter(nn.Module):
    """LR-ASPP with MobileNetV3 (Howard et al., 2019)."""

    def __init__(self) -> None:
        super().__init__()
        self.network = lraspp_mobilenet_v3_large(weights=None, weights_backbone=None)

    def forward(self, image: Tensor) -> Tensor:
        """Return the scores of each pixel, (N, classes, H, W), of images (N, 3, H, W)."""
        scores: Tensor = self.network(image)["out"]
        return scores


NETWORKS: dict[str, Callable[[], nn.Module]] = {"ssdlite": Detector, "lr-aspp": Segmenter}


def write_network(name: str, height: int, width: int, out: Path) -> None:
    """Write a network for images of one size.

    Args:
        name: One of `NETWORKS`.
        height: The images' height in pixels.
        width: Their width.
        out: The file.
    """
    torch.manual_seed(0)
    with warnings.catch_warnings():
        # This exporter is deprecated, but its graphs have plain opset 17, which every runtime here supports.
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(
            NETWORKS[name]().eval(),
            (torch.zeros(1, 3, height, width),),
            str(out),
            input_names=["image"],
            opset_version=OPSET,
            dynamo=False,
        )


def main() -> None:
    """Write one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=NETWORKS)
    parser.add_argument("height", type=int)
    parser.add_argument("width", type=int)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    write_network(arguments.name, arguments.height, arguments.width, arguments.out)


if __name__ == "__main__":
    main()
