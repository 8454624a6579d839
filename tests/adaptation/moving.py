"""A tiny segmentation bundle and moving pictures, for tests that adapt the one to the other."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn
from torch.nn import functional

from keywarp.engines import Bundle, write_bundle
from keywarp.engines.comparison import Clip, ClipFrame
from keywarp.engines.manifest import GRAPHS
from keywarp.export import export_network
from keywarp.networks import DeepFeatureFlow, FlowNetInception, ModelCard, cut

HEIGHT, WIDTH = 64, 96  # pixels
SPEED = 3  # pixels per frame
MAX_AGE = 3


class Colours(nn.Module):
    """Feature maps of strides 4 and 8 from local means, and a head that tells red from green from blue."""

    def features(self, image: Tensor) -> tuple[Tensor, Tensor]:
        fine = functional.avg_pool2d(image, 4)
        return fine, functional.avg_pool2d(fine, 2)

    def head(self, fine: Tensor, coarse: Tensor) -> Tensor:
        return 4 * (fine + functional.interpolate(coarse, scale_factor=2))


def colour_bundle(folder: Path, share: float = 0.15) -> Bundle:
    """Write the bundle, with an untrained flow network."""
    torch.manual_seed(0)
    network = cut(Colours(), Colours.features, Colours.head, multiple=16)
    card = ModelCard("colours", "1.2.3", "MIT", ("red", "green", "blue"), HEIGHT, WIDTH, key_interval=MAX_AGE + 1)
    return export_network(DeepFeatureFlow(network, FlowNetInception(network.maps, share)), card, folder)


def boxed_bundle(folder: Path, bundle: Bundle) -> Bundle:
    """Write a bundle again, for letterboxed frames and without its flow network."""
    graphs = {name: bundle.graph(name) for name in GRAPHS if name != "flow.onnx"}
    fields = bundle.manifest.model_dump(exclude={"files", "schema_version", "image", "motion"})
    size = HEIGHT + 48
    image = {"fit": "letterbox", "height": size, "width": WIDTH, "std": bundle.manifest.image.std}
    return write_bundle(folder, graphs, image={**image, "mean": bundle.manifest.image.mean}, motion="dis", **fields)


def shade_bundle(folder: Path, bundle: Bundle) -> Bundle:
    """Write a bundle again, with a head that gives one number per pixel: how red it is, less how blue."""
    graphs = {name: bundle.graph(name) for name in GRAPHS}
    head = graphs["head.onnx"]
    weights = np.array([1, 0, -1], np.float32).reshape(1, 3, 1, 1)
    head.graph.initializer.append(numpy_helper.from_array(weights, "shades"))
    head.graph.node.append(helper.make_node("Conv", ["scores", "shades"], ["values"]))
    del head.graph.output[:]
    head.graph.output.append(helper.make_tensor_value_info("values", TensorProto.FLOAT, ["N", 1, "h", "w"]))
    fields = bundle.manifest.model_dump(exclude={"files", "schema_version", "task", "classes", "segmentation", "dense"})
    return write_bundle(folder, graphs, task="dense", dense={"stride": 4, "quantity": "shade"}, **fields)


def moving_clip(frames: int = 60, name: str = "moving", seed: int = 0, cut_at: int | None = None) -> Clip:
    """A texture that moves to the left, or a clip of two textures with a cut between them."""

    def read() -> Iterator[ClipFrame]:
        for number in range(frames):
            scene = int(cut_at is not None and number >= cut_at)
            yield ClipFrame(moving_frame(number, seed + scene), number, number / 10)

    return Clip(name, read, frames, f"{name} {seed} {frames} {cut_at}")


def moving_frame(number: int, seed: int = 0) -> NDArray[np.uint8]:
    texture = _texture(seed)
    columns = (np.arange(WIDTH) + SPEED * number) % texture.shape[1]
    return np.ascontiguousarray(texture[:, columns])


def _texture(seed: int) -> NDArray[np.uint8]:
    coarse = np.random.default_rng(seed).integers(0, 256, (1, 3, HEIGHT // 8, 32)).astype(np.float32)
    tiled = np.concatenate([coarse, coarse[..., :1]], axis=-1)
    fine = functional.interpolate(torch.from_numpy(tiled), scale_factor=8, mode="bicubic", align_corners=False)
    return fine[0, :, :, :256].clamp(0, 255).byte().permute(1, 2, 0).numpy()
