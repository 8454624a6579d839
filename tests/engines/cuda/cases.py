"""Cases for the warp and their expected results, written as plainly as Eq. 1 to 3."""

import functools

import numpy as np
from numpy.typing import NDArray

from keywarp.engines.cuda import kernels
from keywarp.engines.cuda.kernels import DType
from tests.engines.cuda.shim import Case, Floats, flow_factor

# Error as a fraction of the largest product of feature and scale. float32 positions below 128 are off by 4e-6 cells.
POSITION = 1e-5
# relative error of a result that is rounded once
ROUNDING: dict[DType, float] = {"f32": 2.0**-24, "f16": 2.0**-11, "bf16": 2.0**-8}


@functools.cache
def reference(case: Case) -> NDArray[np.float64]:
    """Return the result of Eq. 2 and 3: cell q counts g(q_x, p_x + dx) g(q_y, p_y + dy), or 0 if that isn't finite."""
    height, width = case.features.shape[2:]
    flow = pooled(case.flow.astype(np.float64), flow_factor(height, width, *case.flow.shape[2:]))
    result = np.zeros(case.features.shape)
    for n, y, x in np.ndindex(len(flow), height, width):
        px = x + flow[n, 0, y, x] if width > 1 else 0.0
        py = y + flow[n, 1, y, x] if height > 1 else 0.0
        if np.isfinite(px) and np.isfinite(py):
            along_x = np.maximum(0, 1 - np.abs(np.arange(width) - px))
            along_y = np.maximum(0, 1 - np.abs(np.arange(height) - py))
            result[n, :, y, x] = case.features[n].astype(np.float64) @ along_x @ along_y
    return result if case.scale is None else result * case.scale


def pooled(flow: NDArray[np.float64], factor: int) -> NDArray[np.float64]:
    """Return the flow in cells `factor` times as large, by repeated means over 2x2 cells, fewer at the border."""
    while factor > 1:
        height, width = (-(-side // 2) for side in flow.shape[2:])
        coarse = np.empty((*flow.shape[:2], height, width))
        for y, x in np.ndindex(height, width):
            with np.errstate(invalid="ignore"):
                coarse[:, :, y, x] = flow[:, :, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2].mean((2, 3)) / 2
        flow, factor = coarse, factor // 2
    return flow


def worst(case: Case, result: Floats) -> float:
    """Return the largest error in units of the tolerance: up to 1 is right, and NaN counts as infinite."""
    expected = reference(case)
    largest = np.abs(case.features).max() * (1 if case.scale is None else np.abs(case.scale).max())
    tolerance = POSITION * largest + ROUNDING[case.dtype] * np.abs(expected)
    return float(np.nan_to_num(np.abs(result - expected) / tolerance, nan=np.inf).max())


def random_case(
    seed: int,
    shape: tuple[int, int, int, int],
    factor: int = 1,
    motion: float = 3.0,
    scaled: bool = True,
    **how: object,
) -> Case:
    """Make a case of random features, a flow of some cells, and optionally a scale."""
    rng = np.random.default_rng(seed)
    batch, _, height, width = shape
    # A few rows and columns fewer than the factor allows, so that the last cells are means over fewer cells.
    sides = (max(1, side * factor - (factor - 1 if side > 1 else 0)) for side in (height, width))
    flow = rng.normal(0, motion * factor, (batch, 2, *sides))
    scale = rng.uniform(0.5, 1.5, shape) if scaled else None
    return Case.of(rng.normal(size=shape), flow, scale, **how)  # type: ignore[arg-type]


@functools.cache
def battery() -> list[Case]:
    """Return the cases by which every planted mistake must be detected."""
    shapes = [(1, 3, 5, 7), (2, 9, 4, 6), (1, 8, 1, 5), (1, 2, 6, 1), (1, 1, 1, 1), (3, 17, 2, 2), (1, 40, 9, 30)]
    kinds = [(layout, dtype) for layout, dtype in kernels.KERNELS]
    cases = [
        random_case(seed, shape, factor, scaled=seed % 3 > 0, layout=layout, dtype=dtype)
        for seed, (shape, factor, (layout, dtype)) in enumerate(
            (shape, factor, kind) for shape in shapes for factor in (1, 2, 4) for kind in kinds
        )
    ]
    for seed, dtype in enumerate(("f32", "f16", "bf16")):
        cases += [random_case(seed, (1, 5, 8, 12), scaled=scaled, shifted=1, dtype=dtype) for scaled in (False, True)]
    cases += [random_case(7, (1, 3, 21, 31)), random_case(8, (1, 2, 20, 32))]  # more than a block, odd and even
    return cases + [special_case(value, axis) for value in SPECIAL for axis in (0, 1)]


SPECIAL = (np.nan, np.inf, -np.inf, 3e38, -3e38, 1e10, -1e10, 2.0**31, -(2.0**31), 2.0**24, 7.0, -7.0)


def special_case(value: float, axis: int) -> Case:
    """Make a case whose flow has a value in some cells of one component, and whole numbers elsewhere."""
    rng = np.random.default_rng(3)
    flow = rng.integers(-2, 3, (1, 2, 6, 8)).astype(np.float32)
    flow[0, axis, ::2, 1::2] = value
    return Case.of(rng.normal(size=(1, 3, 6, 8)), flow, None)
