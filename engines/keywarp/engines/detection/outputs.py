"""What a head's graph must hand over."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keywarp.engines.errors import BundleError


def check_outputs(outputs: Mapping[str, NDArray[Any]], shapes: Mapping[str, Sequence[int | str]]) -> None:
    """Refuse outputs that the settings don't fit.

    Args:
        outputs: By name.
        shapes: By name; a dimension that is a word may have any size, but the same everywhere.

    Raises:
        BundleError: An output is missing, isn't float32 or has another shape.
    """
    sizes: dict[str, int] = {}  # of the dimensions that are words
    for name, shape in shapes.items():
        expected = f"float32 ({', '.join(map(str, shape))})"
        if name not in outputs:
            raise BundleError(f"head.onnx should yield {name}, {expected}; it yields {', '.join(outputs) or 'nothing'}")
        found = outputs[name]
        fits = len(found.shape) == len(shape) and all(
            got == (sizes.setdefault(want, got) if isinstance(want, str) else want)
            for want, got in zip(shape, found.shape, strict=True)
        )
        if not fits or found.dtype != np.float32:
            raise BundleError(f"head.onnx should yield {name}, {expected}; it is {found.dtype} {found.shape}")
