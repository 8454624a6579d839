"""Importing: from any network's ONNX file to the parts of a bundle. No PyTorch is needed."""
