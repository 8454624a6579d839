"""SIFT-Flow: dense correspondence of SIFT descriptors, coarse to fine.

Liu, Yuen, Torralba: "SIFT Flow: Dense Correspondence across Scenes and Its Applications", TPAMI 2011. This is
reference [26] of the paper, and the motion source of its baselines SFF-fast and SFF-slow (Table 3).
"""

from dataclasses import dataclass
from typing import ClassVar, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from keywarp.engines.motion.interface import check_pair
from keywarp.experiments.siftflow.belief_propagation import decide, match_costs, median_cost, sweep
from keywarp.experiments.siftflow.descriptors import dense_sift

Number = TypeVar("Number", bound=np.generic)

UNIT = 255.0  # norm of a descriptor; the energy's weights are for unit norm, and are multiplied by this
SHORTEST_SIDE = 8  # shortest side of the pyramid's images in pixels; only the input images may be smaller
COARSER_GRIDS = 2  # grids on which belief propagation starts, each half the size of the next
COARSER_ITERATIONS = 20  # sweeps on each of these grids


@dataclass(frozen=True, slots=True)
class SIFTFlowOptions:
    """The parameters of the energy (Liu et al., section 2) and of its minimisation. The defaults are the authors'."""

    cell: int = 3  # side of a descriptor's cells, pixels of the enlarged image
    smoothness: float = 2.0  # alpha, cost of a difference of one pixel between neighbours, at every level
    discontinuity: float = 40.0  # d, the largest cost of a difference
    shrinkage: float = 0.005  # eta, cost of one pixel of flow
    levels: int = 4  # levels of the pyramid
    top_window: int = 10  # pixels searched to either side at the coarsest level
    window: int = 2  # pixels searched to either side at finer levels, around the coarser flow
    top_iterations: int = 60  # sweeps at the coarsest level
    iterations: int = 30  # sweeps at each finer level
    enlargement: int = 1  # factor by which images are enlarged; the flow has steps of 1 / enlargement pixels


class SIFTFlow:
    """SIFT-Flow on the CPU. It is thread-safe, and equal images give equal results.

    `FAST` has the authors' default parameters ("SFF-fast"). The paper doesn't give the "best parameters" of "SFF-slow".
    Here, `SLOW` minimises the same energy on images of twice the size, so that the flow has steps of half a pixel. A
    further level lets it span the same motion. `bench/motion.py` compares the two.
    """

    FAST: ClassVar[SIFTFlowOptions] = SIFTFlowOptions()
    SLOW: ClassVar[SIFTFlowOptions] = SIFTFlowOptions(levels=5, enlargement=2)

    def __init__(self, options: SIFTFlowOptions = FAST) -> None:
        """Set the parameters."""
        self.options = options

    @property
    def name(self) -> str:
        """`sift-fast`, `sift-slow`, or `sift` for other settings."""
        return {self.FAST: "sift-fast", self.SLOW: "sift-slow"}.get(self.options, "sift")

    def estimate(self, current: NDArray[np.uint8], key: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Estimate the flow; see `OpticalFlow.estimate`.

        The flow is in whole pixels. If images are enlarged, it is the mean of finer steps.
        """
        check_pair(current, key)
        options = self.options
        pyramid = [(self._describe(current), self._describe(key))]
        while len(pyramid) < options.levels and min(pyramid[-1][0].shape[:2]) >= 2 * SHORTEST_SIDE:
            pyramid.append((_halve(pyramid[-1][0]), _halve(pyramid[-1][1])))

        top = len(pyramid) - 1
        flow = np.zeros((2, 1, 1), np.int32)
        for level in range(top, -1, -1):
            shape = pyramid[level][0].shape[:2]
            offsets = np.zeros((2, *shape), np.int32) if level == top else 2 * _double(flow, *shape)
            flow = self._match(*pyramid[level], offsets, level, level == top)

        height, width = current.shape[:2]
        fine = flow.transpose(1, 2, 0).astype(np.float32) / options.enlargement
        return np.asarray(cv2.resize(fine, (width, height), interpolation=cv2.INTER_AREA), dtype=np.float32)

    def _describe(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        factor = self.options.enlargement
        enlarged = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)
        return dense_sift(np.asarray(enlarged, dtype=np.uint8), self.options.cell)

    def _match(
        self, current: NDArray[np.uint8], key: NDArray[np.uint8], offsets: NDArray[np.int32], level: int, is_top: bool
    ) -> NDArray[np.int32]:
        """Return the flow (u, v) in pixels of this level, (2, H, W)."""
        options = self.options
        costs = match_costs(current, key, offsets, options.top_window if is_top else options.window)
        threshold = median_cost(costs)  # t, which is also the cost of matches outside of the key image
        np.minimum(costs, threshold, out=costs)
        weights = _Weights(
            slope=np.float32(UNIT * options.smoothness / options.enlargement),
            limit=np.float32(UNIT * options.discontinuity),
            shrinkage=np.float32(UNIT * options.shrinkage / options.enlargement * 2**level),
        )
        iterations = options.top_iterations if is_top else options.iterations
        messages = _propagate(costs, offsets, weights, iterations, COARSER_GRIDS)
        return decide(messages, offsets, weights.shrinkage)


@dataclass(frozen=True, slots=True)
class _Weights:
    slope: np.float32  # alpha
    limit: np.float32  # d
    shrinkage: np.float32  # eta


def _propagate(
    costs: NDArray[np.float32], offsets: NDArray[np.int32], weights: _Weights, iterations: int, coarser_grids: int
) -> NDArray[np.float32]:
    """Run belief propagation, with messages initialised on a coarser grid whose nodes are 2 x 2 pixels of one flow.

    Without this initialisation, sweeps end in minima far above the energy of the true flow, because the data of one
    pixel can't move its neighbours. A block has the data and displacement terms of all its pixels, but the smoothness
    terms of one pixel (Felzenszwalb and Huttenlocher 2006).

    Returns:
        The messages, (2, H, W, 5, states), by layer, receiving pixel, sender and state.
    """
    height, width, states, _ = costs.shape
    if coarser_grids and min(height, width) > 1:
        blocks = _Weights(weights.slope, weights.limit, 4 * weights.shrinkage)
        nearby = np.ascontiguousarray(offsets[:, ::2, ::2])
        coarse = _propagate(_sum_blocks(costs), nearby, blocks, COARSER_ITERATIONS, coarser_grids - 1)
        messages = _double(coarse, height, width)
    else:
        messages = np.zeros((2, height, width, 5, states), np.float32)
    for iteration in range(iterations):
        layer, forward = iteration % 2, iteration % 4 < 2
        sweep(messages, costs, offsets, layer, forward, weights.slope, weights.limit, weights.shrinkage)
    return messages


def _sum_blocks(costs: NDArray[np.float32]) -> NDArray[np.float32]:
    """Sum over blocks of 2 x 2: (H, W, ...) -> (ceil(H / 2), ceil(W / 2), ...)."""
    rows = costs[::2].copy()
    rows[: costs.shape[0] // 2] += costs[1::2]
    blocks = rows[:, ::2].copy()
    blocks[:, : costs.shape[1] // 2] += rows[:, 1::2]
    return blocks


def _halve(descriptors: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Smooth and keep every other pixel: (H, W, C) -> (ceil(H / 2), ceil(W / 2), C)."""
    return np.asarray(cv2.pyrDown(descriptors, borderType=cv2.BORDER_REPLICATE), dtype=np.uint8)


def _double(grid: NDArray[Number], height: int, width: int) -> NDArray[Number]:
    """Repeat each value for 2 x 2 pixels: (2, ceil(H / 2), ceil(W / 2), ...) -> (2, H, W, ...)."""
    rows, columns = np.arange(height) // 2, np.arange(width) // 2
    return grid[:, rows[:, np.newaxis], columns]
