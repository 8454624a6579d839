"""Import ONNX Runtime with its telemetry switched off, which must happen before the import."""

import os

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime as ort

__all__ = ["ort"]
