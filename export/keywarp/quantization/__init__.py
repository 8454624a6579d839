"""Quantise bundles to int8 after training. It needs no torch.

Example:
    >>> from keywarp.engines import load_bundle
    >>> from keywarp.engines.bundle import save_bundle
    >>> from keywarp.quantization import Options, quantize
    >>> quantized = quantize(load_bundle("models/street"), clips, Options(tolerance=0.99))
    >>> save_bundle(quantized.bundle)
"""

from keywarp.quantization.errors import QuantizationError, RefusedError
from keywarp.quantization.quantizing import GraphTimes, Options, Progress, Quantized, Trial, quantize, quantize_unjudged

__all__ = [
    "GraphTimes",
    "Options",
    "Progress",
    "QuantizationError",
    "Quantized",
    "RefusedError",
    "Trial",
    "quantize",
    "quantize_unjudged",
]
