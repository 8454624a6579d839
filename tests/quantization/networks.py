"""A bundle with a few real layers, in which a test knows which of them can't be quantised, and drawn clips."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from keywarp.engines.bundle import Bundle, add_precision, write_bundle
from keywarp.engines.comparison import Clip, ClipFrame
from keywarp.engines.processor import int8_instructions
from keywarp.quantization.graph import GraphQuantizer
from tests.tiny_bundle import HEAD_WEIGHT, WARP, graph_of

HEIGHT, WIDTH = 64, 96
FEATURES = """
features_net (float[N,3,H,W] image) => (float[N,3,h,w] features)
{
  cells = Conv <kernel_shape=[16,16], strides=[16,16]> (image, mean_weight, mean_bias)
  signs = Conv (cells, signs_weight)
  parts = Relu (signs)
  wide = Conv (parts, wide_weight)
  narrow = Conv (wide, narrow_weight)
  features = Conv (narrow, last_weight)
}
"""
HEAD = """
head (float[N,3,H,W] features) => (float[N,3,H,W] scores)
{
  logits = Conv (features, head_weight, head_bias)
  scores = Softmax <axis=1> (logits)
}
"""
OUTLIER = 20_000.0


def layered_bundle(path: Path, *, outlier: bool = False, half: bool = False) -> Bundle:
    """Write a bundle that segments by colour, like the tiny one, in five layers of features.

    With `outlier`, the layer that makes `narrow` reads a channel, which it ignores, whose values are so large that
    nothing of the others is left in 8 bits. With `half`, weights are stored in 16 bits behind Casts.
    """
    mean = np.zeros((3, 3, 16, 16))
    for channel in range(3):
        mean[channel, channel] = 1 / 256
    signs = np.concatenate([np.eye(3), -np.eye(3)])  # ReLU keeps positive and negative parts apart
    wide = np.zeros((4, 6))
    wide[:3] = np.concatenate([np.eye(3), -np.eye(3)], axis=1)
    wide[3, 0] = wide[3, 3] = OUTLIER if outlier else 1.0
    narrow = np.concatenate([np.eye(3), np.zeros((3, 1))], axis=1)
    matrices = {"signs_weight": signs, "wide_weight": wide, "narrow_weight": narrow, "last_weight": np.eye(3)}
    weights = {name: matrix.reshape(*matrix.shape, 1, 1) for name, matrix in matrices.items()}
    features = graph_of(FEATURES, mean_weight=mean, mean_bias=np.zeros(3), **weights)
    if half:
        from keywarp.importing.weights import store_in_16_bits

        store_in_16_bits(features)
    return write_bundle(
        path,
        {
            "features.onnx": features,
            "warp.onnx": graph_of(WARP),
            "head.onnx": graph_of(HEAD, head_weight=HEAD_WEIGHT, head_bias=np.zeros(3)),
        },
        name="layered",
        version="1.0.0",
        task="segmentation",
        classes=[
            {"id": 0, "name": "background", "color": (0, 0, 0)},
            {"id": 1, "name": "red", "color": (255, 0, 0)},
            {"id": 2, "name": "green", "color": (0, 255, 0)},
        ],
        image={"short_side": HEIGHT, "long_side": 1024, "multiple": 16, "mean": (100.0, 100.0, 100.0)},
        features=[{"name": "features", "stride": 16, "channels": 3}],
        key_interval=3,
        motion="none",
        opset=17,
        license="Apache-2.0",
    )


def drawn_clip(frames: int = 60, seed: int = 0) -> Clip:
    """Return a clip of coloured blocks, which differ from frame to frame."""
    random = np.random.default_rng(seed)
    cells = random.integers(0, 256, (frames, HEIGHT // 16, WIDTH // 16, 3), np.uint8)

    def read() -> Iterator[ClipFrame]:
        for index, blocks in enumerate(cells):
            yield ClipFrame(np.repeat(np.repeat(blocks, 16, axis=0), 16, axis=1), index, index / 25)

    return Clip("drawn", read, frames)


def images(count: int = 8) -> list[dict[str, np.ndarray]]:
    """Return inputs of the feature network."""
    clip = drawn_clip(count)
    return [{"image": frame.image.transpose(2, 0, 1)[np.newaxis].astype(np.float32) - 100.0} for frame in clip.frames()]


def measurement(**fields: object) -> dict[str, object]:
    """Return a measurement on this processor in OpenVINO that is within a tolerance of 0.99."""
    return {
        "backend": "openvino",
        "device": "a processor",
        "instructions": int8_instructions() or "none",
        "size": (HEIGHT, WIDTH),
        "key_agreement": 0.995,
        "propagated_agreement": 0.993,
        "key_ms": 1.0,
        "propagated_ms": 0.5,
        "instead": "fp32",
        "instead_key_ms": 2.0,
        "instead_propagated_ms": 0.8,
        **fields,
    }


def with_int8(bundle: Bundle, path: Path | None = None, **fields: object) -> Bundle:
    """Return a bundle in memory that also has its features in int8; `fields` are those of the measurement."""
    quantizer = GraphQuantizer("features.onnx", bundle.graph("features.onnx"), images())
    graphs = {"features.onnx": quantizer.quantize(quantizer.layers)}
    record: dict[str, Any] = {
        "tolerance": 0.99,
        "measure": "pixels with the same label",
        "measurements": [measurement(**fields)],
    }
    return add_precision(bundle, "int8", graphs, path, **record)
