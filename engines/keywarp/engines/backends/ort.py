"""Import ONNX Runtime with its telemetry switched off, which must happen before the import."""

import os

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime as ort

__all__ = ["DISABLED", "ort"]

# It makes [0, -1] of the shape of an array that may be empty, such as that of the boxes of a level, which then fails.
DISABLED = ["ReshapeFusion"]
