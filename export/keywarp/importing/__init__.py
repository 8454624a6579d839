"""Bundles from ONNX files, without torch."""
