"""What is known about a model's outputs: names, shapes, metadata, and their values on a picture."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product

import numpy as np
from numpy.typing import NDArray

from keywarp.importing.class_names import ClassNames, names_in_metadata, well_known_names
from keywarp.importing.errors import ImportingError
from keywarp.importing.graph import IMAGE
from keywarp.importing.model_file import ImportedModel, TensorSpec
from keywarp.importing.picture import picture
from keywarp.importing.result_format import Activation, Columns, Grid, Hints
from keywarp.importing.runtime import run
from keywarp.importing.strides import whole_stride

# Sets of strides that detectors have, the commonest first
STRIDES = (
    (8, 16, 32),
    (8, 16, 32, 64),
    (8, 16, 32, 64, 128),
    (4, 8, 16, 32),
    (4, 8, 16, 32, 64),
    (16, 32),
    (16, 32, 64),
    (4,),
    (8,),
    (16,),
    (32,),
)
MAX_STRIDE = 64  # pixels per cell of a map
MOST_OBJECTS = 1000  # rows of a set or of what a suppression left
ROUNDING = 1e-3  # of probabilities


@dataclass(frozen=True)
class GridRows:
    """A grid of cells whose rows an output has, and how many rows each cell has."""

    grid: Grid
    per_cell: int


class Evidence:
    """The outputs to interpret."""

    def __init__(self, model: ImportedModel, hints: Hints, image: NDArray[np.float32] | None = None) -> None:
        """Choose the outputs.

        Args:
            model: The model.
            hints: What the user says.
            image: An input of the network, (1, 3, H, W); a drawn picture by default.

        Raises:
            ImportingError: If the hints name an output that the model lacks.
        """
        self.model = model
        self.hints = hints
        self._image = image
        names = [o.name for o in model.outputs]
        unknown = [name for name in hints.outputs or () if name not in names]
        if unknown:
            raise ImportingError(f"the file has no output {', '.join(unknown)}; its outputs are {', '.join(names)}")
        self.outputs = tuple(o for o in model.outputs if hints.outputs is None or o.name in hints.outputs)
        self.names_in_file = names_in_metadata(model.metadata)
        self.ultralytics = "stride" in model.metadata and "names" in model.metadata

    @property
    def known_classes(self) -> int | None:
        """The number of classes besides the background, if the user or the metadata names them."""
        names = self.hints.class_names or self.names_in_file
        return len(names) if names else None

    @cached_property
    def values(self) -> Mapping[str, NDArray[np.generic]]:
        """The outputs on a picture, by name."""
        image = picture(self.model.height, self.model.width) if self._image is None else self._image
        if self._image is None and self.model.bytes_in:
            image = image * np.float32(255)
        return run(self.model.model, {IMAGE: image}, [o.name for o in self.outputs])

    def table(self, columns: Columns) -> NDArray[np.float32]:
        """Return the values of columns as rows, (n, count)."""
        parts = []
        for name in columns.tensors:
            value = self.values[name].astype(np.float32)
            if columns.arrangement == "rows":
                rows = value.reshape(-1, columns.width)
            else:
                apart = value.reshape(columns.per_cell, columns.width, -1)
                rows = apart.transpose(2, 0, 1).reshape(-1, columns.width)
            parts.append(rows[:, columns.first : columns.first + columns.count])
        return np.concatenate(parts)

    def grid(self, count: int) -> GridRows | None:
        """Return the grid that has so many rows, with up to 9 rows per cell."""
        for per_cell, strides in product((1, 3, 9), STRIDES):
            if count <= MOST_OBJECTS and len(strides) < 3:
                continue  # a number of objects, such as 100, that happens to be that of the cells of stride 32
            if count == per_cell * Grid(strides).count(self.model.height, self.model.width):
                return GridRows(Grid(strides), per_cell)
        return None

    def largest_table(self) -> TensorSpec | None:
        """Return the output of floats with two or three dimensions that is the largest."""
        tables = [o for o in self.outputs if len(o.shape) in (2, 3) and o.dtype.kind == "f"]
        return max(tables, key=lambda o: abs(math.prod(o.shape)), default=None)

    def is_map(self, size: Sequence[int]) -> bool:
        """Return whether a map of this size, rows and columns, has a whole stride."""
        rows, columns = size
        stride = whole_stride(rows, columns, self.model.height, self.model.width)
        return stride is not None and stride <= MAX_STRIDE

    def names(self, count: int, *, background: bool = False, segmentation: bool = False) -> ClassNames:
        """Return names for a number of classes, from the hints, the metadata or a well-known data set.

        Args:
            count: The number of classes besides the background.
            background: Whether there is a background as well; names may include it.
            segmentation: Whether the classes are a segmentation's.

        Raises:
            ImportingError: If the user gives another number of names.
        """
        for names, origin in ((self.hints.class_names, "yours"), (self.names_in_file, "those of the file's metadata")):
            if names and len(names) == count:
                return ClassNames(names, origin)
            if names and background and len(names) == count + 1:
                return ClassNames(names[1:], origin)
        if self.hints.class_names:
            raise ImportingError(
                f"{len(self.hints.class_names)} class names were given, but the outputs have {count} classes"
            )
        return well_known_names(count, background, segmentation)


def are_probabilities(values: NDArray[np.float32]) -> bool:
    """Return whether all values are from 0 to 1."""
    return not values.size or bool(np.nanmin(values) >= -ROUNDING and np.nanmax(values) <= 1 + ROUNDING)


def tell_sigmoid(values: NDArray[np.float32]) -> Activation:
    """Return what must be applied to scores that are sigmoids: nothing if they are probabilities already."""
    return "none" if are_probabilities(values) else "sigmoid"


def sum_to_one(values: NDArray[np.float32], axis: int) -> bool:
    """Return whether probabilities sum to 1 along an axis, as those of a softmax do."""
    return bool(values.size) and bool(np.abs(values.sum(axis=axis) - 1).max() < 10 * ROUNDING)


def are_integers(values: NDArray[np.float32]) -> bool:
    """Return whether all values are whole numbers that aren't negative."""
    return bool((values >= 0).all() and (np.abs(values - np.round(values)) < ROUNDING).all())


def shape_text(shape: Sequence[int]) -> str:
    """Write a shape for people, such as (1, 84, 8400)."""
    return f"({', '.join('n' if d <= 0 else str(d) for d in shape)})"
