"""A model file, read and made ready for one image size."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx


@dataclass(frozen=True)
class TensorSpec:
    """An output of the model."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype


@dataclass(frozen=True)
class ImportedModel:
    """The model, for one image size and a batch of 1."""

    model: onnx.ModelProto
    height: int
    width: int
    outputs: tuple[TensorSpec, ...]
    metadata: Mapping[str, str]
    producer: str
