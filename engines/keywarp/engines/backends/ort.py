"""ONNX Runtime, which gives the device an id and sends its maker what it does, unless told not to before its import."""

import os

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime as ort

__all__ = ["ort"]
