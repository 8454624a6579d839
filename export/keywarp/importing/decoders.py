"""Append nodes to a head so that its outputs are what the engine takes (docs/bundle.md)."""

import onnx

from keywarp.engines.manifest import DenseSettings, SegmentationSettings
from keywarp.importing.decoding.dense import append_dense
from keywarp.importing.decoding.detection import append_detection
from keywarp.importing.decoding.segmentation import append_mask_set, append_segmentation
from keywarp.importing.errors import ImportingError
from keywarp.importing.result_format import (
    DenseLayout,
    DetectionLayout,
    MaskSetLayout,
    ResultFormat,
    SegmentationLayout,
)
from keywarp.importing.strides import whole_stride


def append_decoder(head: onnx.ModelProto, result: ResultFormat, height: int, width: int) -> onnx.ModelProto:
    """Return the head with the outputs that the engine takes, instead of the file's own.

    Args:
        head: The graph from features to the file's own outputs.
        result: What they mean.
        height: The height of the network's input in pixels.
        width: The width of the network's input in pixels.

    Returns:
        For segmentation, `scores` (1, classes, h, w): probabilities. For detection, `boxes` (1, n, 4): x1, y1, x2, y2
        in pixels of the network's input, and `scores` (1, n, classes): probabilities with a column of zeros for the
        background in front. For dense maps, `values` (1, 1, h, w).

    Raises:
        ImportingError: If the engine has no such result yet, or the head lacks an output.
    """
    if isinstance(result.layout, DetectionLayout):
        return append_detection(head, result.layout, height, width)
    if isinstance(result.layout, SegmentationLayout):
        return append_segmentation(head, result.layout, height, width)
    if isinstance(result.layout, MaskSetLayout):
        return append_mask_set(head, result.layout, height, width)
    if isinstance(result.layout, DenseLayout):
        return append_dense(head, result.layout, height, width)
    raise ImportingError(result.later)


def segmentation_settings(decoded: onnx.ModelProto, height: int, width: int) -> SegmentationSettings:
    """Return the manifest's settings of a segmentation.

    Args:
        decoded: What `append_decoder` returned.
        height: The height of the network's input in pixels.
        width: The width of the network's input in pixels.
    """
    return SegmentationSettings(stride=_stride(decoded, height, width))


def dense_settings(decoded: onnx.ModelProto, layout: DenseLayout, height: int, width: int) -> DenseSettings:
    """Return the manifest's settings of a dense map.

    Args:
        decoded: What `append_decoder` returned.
        layout: What the map is.
        height: The height of the network's input in pixels.
        width: The width of the network's input in pixels.
    """
    return DenseSettings(stride=_stride(decoded, height, width), quantity=layout.quantity, unit=layout.unit)


def _stride(decoded: onnx.ModelProto, height: int, width: int) -> int:
    """Return the stride of the only output."""
    (output,) = decoded.graph.output
    *_, rows, columns = (d.dim_value for d in output.type.tensor_type.shape.dim)
    stride = whole_stride(rows, columns, height, width)
    assert stride is not None  # ensured by the decoder
    return stride
