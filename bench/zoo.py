"""Makes ONNX files of networks of torchvision, timm and transformers, as their users export them, with random weights.

Weights are random, but not meaningless: batch norms get the statistics of real frames, and the last layers are scaled
until scores differ from place to place. So results can be compared, although they mean nothing.

It needs the extra `zoo`. Example: python -m bench.zoo retinanet-resnet50 --out retinanet.onnx
"""

import argparse
import contextlib
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import av
import cv2
import numpy as np
import timm
import torch
import torchvision.models as vision
import transformers as hf
from torch import Tensor, nn
from torchvision.models import detection
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from keywarp.commands.sample_video import sample_video

FRAMES = (0, 60, 120, 180)  # of the sample video: each from another shot
SPREAD = 1.5  # the standard deviation of the classifiers' logits
FOUND = 20  # positive logits of each image, as a trained detector would have
NO_WEIGHTS: Mapping[str, Any] = {"weights": None, "weights_backbone": None}
SIDES: Mapping[str, Any] = {"min_size": 640, "max_size": 640}  # pixels: frames of this size aren't resized
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Network:
    """A network, and how its users export it."""

    library: str
    task: str
    build: Callable[[], nn.Module]
    outputs: tuple[str, ...]  # the names of the file's outputs
    classifiers: tuple[str, ...]  # the layers that give the logits, or the map
    size: tuple[int, int] = (640, 640)  # height and width of the image
    image: str = "image"  # the name of the file's input
    exporter: Literal["dynamo", "tracing"] = "dynamo"
    opset: int = 18
    fields: tuple[str, ...] = ()  # which of the network's outputs are taken; all if empty
    normalised: bool = True  # takes frames less the mean of ImageNet, divided by its deviation


class Fields(nn.Module):
    """A network that gives some of its outputs, which another gives by name."""

    def __init__(self, network: nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        self.network = network
        self.names = tuple(names)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs in the order of their names."""
        outputs = self.network(image)
        return tuple(outputs[name] for name in self.names)


class Segmenter(nn.Module):
    """A backbone with a linear layer per cell, and bilinear upsampling: the usual probe of a backbone."""

    def __init__(self, backbone: nn.Module, channels: int, classes: int = 21) -> None:
        super().__init__()
        self.backbone = backbone
        self.classifier = nn.Conv2d(channels, classes, 1)

    def maps(self, image: Tensor) -> Tensor:
        """Return the backbone's last map."""
        maps: Tensor = self.backbone(image)[-1]
        return maps

    def forward(self, image: Tensor) -> Tensor:
        """Return logits (N, classes, H, W)."""
        return nn.functional.interpolate(self.classifier(self.maps(image)), image.shape[-2:], mode="bilinear")


class TokenSegmenter(Segmenter):
    """The same on the tokens of a vision transformer from transformers."""

    def __init__(self, backbone: nn.Module, channels: int, patch: int, held: int) -> None:
        super().__init__(backbone, channels)
        self.patch, self.held = patch, held

    def maps(self, image: Tensor) -> Tensor:
        """Return the tokens without those that belong to no cell, as a map."""
        tokens = self.backbone(image).last_hidden_state[:, self.held :]  # (N, h*w, C)
        height, width = image.shape[-2] // self.patch, image.shape[-1] // self.patch
        maps: Tensor = tokens.transpose(1, 2).reshape(image.shape[0], -1, height, width)
        return maps


class PyramidSegmenter(nn.Module):
    """A backbone's four maps, added up in the coarsest but one's size, and a classifier of two layers."""

    def __init__(self, backbone: nn.Module, channels: Sequence[int], classes: int = 19) -> None:
        super().__init__()
        self.backbone = backbone
        self.lateral = nn.ModuleList(nn.Conv2d(count, 128, 1) for count in channels)
        self.smooth = nn.Sequential(nn.Conv2d(128, 128, 3, padding=1), nn.BatchNorm2d(128), nn.ReLU())
        self.classifier = nn.Conv2d(128, classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Return logits (N, classes, H, W)."""
        maps = [layer(level) for layer, level in zip(self.lateral, self.backbone(image), strict=True)]
        total = maps[0]
        for level in maps[1:]:
            total = total + nn.functional.interpolate(level, maps[0].shape[-2:], mode="bilinear")
        return nn.functional.interpolate(self.classifier(self.smooth(total)), image.shape[-2:], mode="bilinear")


def heavy_retinanet() -> Any:
    """Build RetinaNet with ResNet-101."""
    backbone = detection.backbone_utils.resnet_fpn_backbone(
        backbone_name="resnet101", weights=None, returned_layers=[2, 3, 4], extra_blocks=LastLevelP6P7(256, 256)
    )
    return detection.RetinaNet(backbone, 91, **SIDES)


def rt_detr_v2() -> Any:
    """Build RT-DETR v2 with ResNet-18."""
    backbone = hf.RTDetrResNetConfig(
        hidden_sizes=(64, 128, 256, 512), depths=(2, 2, 2, 2), layer_type="basic", out_indices=[2, 3, 4]
    )
    config = hf.RTDetrV2Config(
        backbone_config=backbone,
        encoder_in_channels=[128, 256, 512],
        hidden_expansion=0.5,
        decoder_layers=3,
        num_labels=80,
    )
    return hf.RTDetrV2ForObjectDetection(config)


def d_fine() -> Any:
    """Build D-FINE-s."""
    backbone = hf.HGNetV2Config(
        stem_channels=[3, 16, 16],
        stage_in_channels=[16, 64, 256, 512],
        stage_mid_channels=[16, 32, 64, 128],
        stage_out_channels=[64, 256, 512, 1024],
        hidden_sizes=[64, 256, 512, 1024],
        stage_num_blocks=[1, 1, 2, 1],
        stage_numb_of_layers=[3, 3, 3, 3],
        use_learnable_affine_block=True,
        out_indices=[2, 3, 4],
    )
    config = hf.DFineConfig(
        backbone_config=backbone,
        encoder_in_channels=[256, 512, 1024],
        hidden_expansion=0.5,
        depth_mult=0.34,
        decoder_layers=3,
        decoder_n_points=[3, 6, 3],
        num_labels=80,
    )
    return hf.DFineForObjectDetection(config)


def detr() -> Any:
    """Build DETR with ResNet-50."""
    backbone = hf.ResNetConfig(out_features=["stage4"])
    return hf.DetrForObjectDetection(hf.DetrConfig(backbone_config=backbone, num_labels=91))


def yolos() -> Any:
    """Build YOLOS-tiny for 512 x 512."""
    config = hf.YolosConfig(
        hidden_size=192,
        num_attention_heads=3,
        intermediate_size=768,
        image_size=(512, 512),
        num_labels=91,
        use_mid_position_embeddings=False,
    )
    return hf.YolosForObjectDetection(config)


def rf_detr() -> Any:
    """Build RF-DETR-nano, which has windowed attention and register tokens in its backbone."""
    return hf.RfDetrForObjectDetection(hf.RfDetrConfig(num_labels=91))


def segformer() -> Any:
    """Build SegFormer-B0."""
    return hf.SegformerForSemanticSegmentation(hf.SegformerConfig(num_labels=150))


def swin() -> Any:
    """Describe Swin-tiny."""
    return hf.SwinConfig(
        embed_dim=96,
        depths=[2, 2, 6, 2],
        num_heads=[3, 6, 12, 24],
        window_size=7,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )


def mask2former() -> Any:
    """Build Mask2Former with Swin-tiny."""
    config = hf.Mask2FormerConfig(backbone_config=swin(), num_labels=80)
    return hf.Mask2FormerForUniversalSegmentation(config)


def maskformer() -> Any:
    """Build MaskFormer with Swin-tiny."""
    return hf.MaskFormerForInstanceSegmentation(
        hf.MaskFormerConfig(
            backbone_config=hf.MaskFormerSwinConfig(
                embed_dim=96,
                depths=[2, 2, 6, 2],
                num_heads=[3, 6, 12, 24],
                window_size=7,
                out_features=["stage1", "stage2", "stage3", "stage4"],
            ),
            num_labels=150,
        )
    )


def upernet(backbone: Any) -> Any:
    """Build UPerNet of 256 channels on a backbone of four maps."""
    config = hf.UperNetConfig(backbone_config=backbone, hidden_size=256, use_auxiliary_head=False, num_labels=150)
    return hf.UperNetForSemanticSegmentation(config)


def upernet_convnext() -> Any:
    """Build UPerNet with ConvNeXt-tiny."""
    return upernet(
        hf.ConvNextConfig(hidden_sizes=[96, 192, 384, 768], out_features=["stage1", "stage2", "stage3", "stage4"])
    )


def dpt() -> Any:
    """Build DPT with a ViT-small for 384 x 384."""
    config = hf.DPTConfig(
        hidden_size=384,
        num_attention_heads=6,
        intermediate_size=1536,
        neck_hidden_sizes=[48, 96, 192, 384],
        fusion_hidden_size=128,
        image_size=384,
    )
    return hf.DPTForDepthEstimation(config)


def depth_anything() -> Any:
    """Build Depth Anything V2 small for 518 x 518."""
    backbone = hf.Dinov2Config(
        hidden_size=384,
        num_attention_heads=6,
        image_size=518,
        patch_size=14,
        apply_layernorm=True,
        reshape_hidden_states=False,
        out_indices=[3, 6, 9, 12],
    )
    return hf.DepthAnythingForDepthEstimation(hf.DepthAnythingConfig(backbone_config=backbone))


def dinov2() -> nn.Module:
    """Build DINOv2-small with register tokens and a linear segmentation head, for 518 x 518."""
    config = hf.Dinov2WithRegistersConfig(hidden_size=384, num_attention_heads=6, image_size=518, patch_size=14)
    return TokenSegmenter(hf.Dinov2WithRegistersModel(config), 384, 14, held=5)


def timm_segmenter(name: str, **options: Any) -> nn.Module:
    """Build a backbone of timm with a linear segmentation head."""
    backbone = timm.create_model(name, pretrained=False, features_only=True, **options)
    return Segmenter(backbone, backbone.feature_info.channels()[-1])


def timm_pyramid(name: str) -> nn.Module:
    """Build a backbone of timm with a small pyramid."""
    backbone = timm.create_model(name, pretrained=False, features_only=True, out_indices=(-4, -3, -2, -1))
    return PyramidSegmenter(backbone, backbone.feature_info.channels())


def detector(build: Callable[[], nn.Module], *classifiers: str, outputs: tuple[str, ...], side: int = 640) -> Network:
    """Describe a detector of torchvision, with the suppression of boxes in its graph."""
    task = "instances" if "masks" in outputs else "detection"
    return Network("torchvision", task, build, outputs, classifiers, (side, side), "image", "tracing", 17, (), False)


def one_stage(builder: Callable[..., nn.Module], **options: Any) -> Network:
    """Describe a detector of torchvision without proposals."""
    layer = "head.classification_head.cls_logits"
    return detector(lambda: builder(**NO_WEIGHTS, **options), layer, outputs=("boxes", "scores", "labels"))


def two_stage(builder: Callable[..., nn.Module], *more: str) -> Network:
    """Describe a detector of torchvision with proposals."""
    layers = "rpn.head.cls_logits", "roi_heads.box_predictor.cls_score"
    build = lambda: builder(**NO_WEIGHTS, **SIDES)  # noqa: E731
    return detector(build, *layers, outputs=("boxes", "labels", "scores", *more))


def torchvision_segmenter(builder: Callable[..., nn.Module], *classifiers: str, **options: Any) -> Network:
    """Describe a segmentation network of torchvision, exported by tracing or with what `options` says."""
    build = lambda: builder(**NO_WEIGHTS)  # noqa: E731
    return Network("torchvision", "segmentation", build, ("out",), classifiers, (512, 512), fields=("out",), **options)


def set_detector(build: Callable[[], nn.Module], classifier: str, side: int = 640, **options: Any) -> Network:
    """Describe a detector of transformers, which gives a set of boxes."""
    fields = "logits", "pred_boxes"
    size = side, side
    return Network(
        "transformers", "detection", build, fields, (classifier,), size, "pixel_values", fields=fields, **options
    )


def segmenter(build: Callable[[], nn.Module]) -> Network:
    """Describe a segmentation network of transformers, which gives a map of logits."""
    layers = ("decode_head.classifier",)
    return Network(
        "transformers", "segmentation", build, ("logits",), layers, (512, 512), "pixel_values", fields=("logits",)
    )


def mask_segmenter(build: Callable[[], nn.Module]) -> Network:
    """Describe a segmentation network of transformers, which gives masks and their classes."""
    fields = "class_queries_logits", "masks_queries_logits"
    layers = ("class_predictor",)
    return Network("transformers", "segmentation", build, fields, layers, (512, 512), "pixel_values", fields=fields)


def depth(build: Callable[[], nn.Module], layer: str, side: int) -> Network:
    """Describe a depth network of transformers."""
    fields = ("predicted_depth",)
    return Network("transformers", "dense", build, fields, (layer,), (side, side), "pixel_values", fields=fields)


def probe(library: str, build: Callable[[], nn.Module], side: int = 512) -> Network:
    """Describe a backbone with a segmentation head of ours."""
    return Network(library, "segmentation", build, ("logits",), ("classifier",), (side, side))


TRACED: Mapping[str, Any] = {"exporter": "tracing", "opset": 17}
SSD_LAYERS = (f"head.classification_head.module_list.{level}.1" for level in range(6))
NETWORKS = {
    "retinanet-resnet50": one_stage(detection.retinanet_resnet50_fpn, **SIDES),
    "retinanet-resnet101": detector(
        heavy_retinanet, "head.classification_head.cls_logits", outputs=("boxes", "scores", "labels")
    ),
    "fcos-resnet50": one_stage(detection.fcos_resnet50_fpn, **SIDES),
    "faster-rcnn-resnet50": two_stage(detection.fasterrcnn_resnet50_fpn),
    "faster-rcnn-mobilenet": two_stage(detection.fasterrcnn_mobilenet_v3_large_fpn),
    "mask-rcnn-resnet50": two_stage(detection.maskrcnn_resnet50_fpn, "masks"),
    "ssdlite-mobilenet": detector(
        lambda: detection.ssdlite320_mobilenet_v3_large(**NO_WEIGHTS),
        *SSD_LAYERS,
        outputs=("boxes", "scores", "labels"),
        side=320,
    ),
    "deeplabv3-resnet50": torchvision_segmenter(vision.segmentation.deeplabv3_resnet50, "classifier.4", **TRACED),
    "deeplabv3-resnet101": torchvision_segmenter(vision.segmentation.deeplabv3_resnet101, "classifier.4"),
    "deeplabv3-mobilenet": torchvision_segmenter(vision.segmentation.deeplabv3_mobilenet_v3_large, "classifier.4"),
    "lr-aspp-mobilenet": torchvision_segmenter(
        vision.segmentation.lraspp_mobilenet_v3_large, "classifier.high_classifier", "classifier.low_classifier"
    ),
    "rt-detr-v2-r18": set_detector(rt_detr_v2, "model.decoder.class_embed.2", normalised=False, **TRACED),
    "d-fine-s": set_detector(d_fine, "model.decoder.class_embed.2", normalised=False, **TRACED),
    "detr-resnet50": set_detector(detr, "class_labels_classifier"),
    "yolos-tiny": set_detector(yolos, "class_labels_classifier.layers.2", 512),
    "rf-detr": set_detector(rf_detr, "class_embed", 560),
    "segformer-b0": segmenter(segformer),
    "upernet-convnext-t": segmenter(upernet_convnext),
    "upernet-swin-t": segmenter(lambda: upernet(swin())),
    "mask2former-swin-t": mask_segmenter(mask2former),
    "maskformer-swin-t": mask_segmenter(maskformer),
    "dpt-vit-s": depth(dpt, "head.head.4", 384),
    "depth-anything-v2-s": depth(depth_anything, "head.conv3", 518),
    "dinov2-s-linear": probe("transformers", dinov2, 518),
    "vit-s-linear": probe("timm", lambda: timm_segmenter("vit_small_patch16_224", img_size=512)),
    "convnext-t-pyramid": probe("timm", lambda: timm_pyramid("convnext_tiny")),
    "resnet50-pyramid": probe("timm", lambda: timm_pyramid("resnet50")),
    "efficientnet-b3-pyramid": probe("timm", lambda: timm_pyramid("efficientnet_b3")),
}


def sample_frames(height: int, width: int, *, normalised: bool) -> Tensor:
    """Return a few frames of the sample video in RGB, (N, 3, H, W)."""
    frames = []
    with av.open(str(sample_video())) as video:
        for index, frame in enumerate(video.decode(video=0)):
            if index in FRAMES:
                frames.append(
                    cv2.resize(frame.to_ndarray(format="rgb24"), (width, height), interpolation=cv2.INTER_AREA)
                )
    values = np.stack(frames).astype(np.float32) / 255
    if normalised:
        values = (values - np.array(IMAGENET_MEAN, np.float32)) / np.array(IMAGENET_STD, np.float32)
    return torch.from_numpy(values.transpose(0, 3, 1, 2).copy())


@contextlib.contextmanager
def hooked(modules: Sequence[nn.Module], hook: Callable[..., Any], *, before: bool) -> Iterator[None]:
    """Call a function before or after each of the modules."""
    handles = [
        module.register_forward_pre_hook(hook) if before else module.register_forward_hook(hook) for module in modules
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def settle(network: nn.Module, frames: Tensor, classifiers: Sequence[str], *, positive: bool = False) -> None:
    """Give batch norms the statistics of real frames, and the classifiers' logits a spread.

    Args:
        network: The network, in evaluation mode.
        frames: Its input, (N, 3, H, W).
        classifiers: The names of the layers that give logits, or a map of numbers.
        positive: Whether nearly all numbers should be positive, as a depth is.
    """

    def measure(norm: Any, inputs: tuple[Tensor, ...]) -> None:
        dimensions = [0, *range(2, inputs[0].ndim)]
        norm.running_mean.copy_(inputs[0].mean(dimensions))
        norm.running_var.copy_(inputs[0].var(dimensions).clamp(min=1e-6))

    def spread(layer: Any, _: Any, output: Tensor) -> Tensor:
        if layer in done:  # shared by the levels of a pyramid
            return output
        done.add(layer)
        others = [0, *range(2, output.ndim)] if isinstance(layer, nn.Conv2d) else [*range(output.ndim - 1)]
        centre = output.mean(others)  # of each class, so that none of them wins everywhere
        shape = (1, -1, *(1 for _ in others[1:])) if isinstance(layer, nn.Conv2d) else (-1,)
        gain = SPREAD / max(float((output - centre.reshape(shape)).std()), 1e-6)
        spread_out = (output - centre.reshape(shape)) * gain
        highest = spread_out.flatten().topk(min(FOUND * len(frames), spread_out.numel())).values
        mean = 3 * SPREAD if positive else -float(highest[-1])
        bias = torch.zeros_like(centre) if layer.bias is None else layer.bias
        layer.weight.mul_(gain)
        layer.bias = nn.Parameter((bias - centre) * gain + mean)
        return spread_out + mean

    done: set[nn.Module] = set()
    norms = [module for module in network.modules() if isinstance(getattr(module, "running_mean", None), Tensor)]
    layers = [network.get_submodule(name) for name in classifiers]
    with torch.no_grad(), hooked(norms, measure, before=True), hooked(layers, spread, before=False):
        network(frames)


def make(network: Network, path: Path) -> None:
    """Write a network's ONNX file."""
    torch.manual_seed(0)
    module = network.build().eval()
    settle(
        module,
        sample_frames(*network.size, normalised=network.normalised),
        network.classifiers,
        positive=network.task == "dense",
    )
    whole = Fields(module, network.fields) if network.fields else module
    image = sample_frames(*network.size, normalised=network.normalised)[:1]
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            whole.eval(),
            (image,),
            str(path),
            input_names=[network.image],
            output_names=list(network.outputs),
            opset_version=network.opset,
            dynamo=network.exporter == "dynamo",
            external_data=False,
        )


def main() -> None:
    """Make one file, or list the names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="?", choices=sorted(NETWORKS))
    parser.add_argument("--out", type=Path, help="the file to write (default: NAME.onnx)")
    arguments = parser.parse_args()
    if not arguments.name:
        for name, network in NETWORKS.items():
            print(f"{name:28} {network.library:14} {network.task}")
        return
    make(NETWORKS[arguments.name], arguments.out or Path(f"{arguments.name}.onnx"))


if __name__ == "__main__":
    main()
