"""The errors of `keywarp.quantization`.

QuantizationError
└── RefusedError    the bundle in int8 isn't close enough to fp32, or isn't faster
"""


class QuantizationError(Exception):
    """A bundle that can't be quantised, or videos that can't be used for it."""


class RefusedError(QuantizationError):
    """The bundle in int8 isn't worth writing. The message has the figures."""
