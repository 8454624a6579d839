"""A segmentation's labels on the device against the host's, which must be the same, and their bandwidth."""

from collections.abc import Sequence
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from bench.gpu.bandwidth import buffer_sets, measure
from bench.gpu.case import Case, FailedError
from bench.gpu.device_arrays import DeviceArrays
from keywarp.engines.backends.tensorrt.device_labels import DeviceLabeller
from keywarp.engines.backends.tensorrt.device_memory import DeviceMemory
from keywarp.engines.labels import Labeller

Shape = tuple[int, int, int, int]  # classes, height and width of the networks' input, stride

# The last one is that of Cityscapes' classes at the paper's size.
SHAPES: Final[Sequence[Shape]] = ((2, 64, 96, 8), (3, 61, 97, 8), (256, 32, 64, 32), (5, 7, 9, 2), (19, 512, 1024, 16))


def run(case: Case) -> None:
    """Compare, then measure."""
    compare(case, SHAPES[:-1] if case.dry else SHAPES)
    classes, height, width, stride = SHAPES[0 if case.dry else -1]
    scores = random_scores(1, classes, height, width, stride)[:1]
    driver = case.kernel_driver
    labeller = DeviceLabeller(driver, DeviceMemory(driver), case.gpu.capability, scores.shape, stride, height, width)
    moved = scores.nbytes + height * width  # scores are read, labels are written
    sets = buffer_sets(case, moved)
    with DeviceArrays(driver) as arrays:
        pairs = [(arrays.filled(scores).address, arrays.poisoned(height * width).address) for _ in range(sets)]

        def queue(number: int) -> None:
            source, result = pairs[number]
            labeller.enqueue([source], result, arrays.stream)

        figure = measure(case, driver, arrays.stream, moved, sets, queue)
    case.record(bandwidth=figure, summary=f"{case.figures['summary']}; {figure['us']:.0f} µs")


def compare(case: Case, shapes: Sequence[Shape]) -> None:
    """Compare the labels of some images.

    Raises:
        FailedError: If a label differs, or something is written behind the labels.
    """
    driver, pixels = case.kernel_driver, 0
    for classes, height, width, stride in shapes:
        host = Labeller(height, width, stride)
        for seed in range(4):
            scores = random_scores(seed, classes, height, width, stride)
            shape = f"{classes} classes at {height}x{width}, seed {seed}"
            with DeviceArrays(driver) as arrays:
                memory = DeviceMemory(driver)
                labeller = DeviceLabeller(driver, memory, case.gpu.capability, scores.shape, stride, height, width)
                result = arrays.poisoned(len(scores) * height * width)
                labeller.enqueue([arrays.filled(scores).address], result.address, arrays.stream)
                content, untouched = arrays.read(result)
            if not untouched:
                raise FailedError(f"{shape}: something is written behind the labels")
            found = np.frombuffer(content, np.uint8).reshape(-1, height, width)
            different = np.count_nonzero(found != np.stack([host.label(image) for image in scores]))
            if different:
                raise FailedError(f"{shape}: {different} labels of {found.size} aren't the host's")
            pixels += found.size
    case.record(pixels=pixels, summary=f"{pixels} labels, all the host's")


def random_scores(seed: int, classes: int, height: int, width: int, stride: int) -> NDArray[np.float32]:
    """Return two images' scores: noise, or in areas as in a picture; every third time with ties."""
    rng = np.random.default_rng(seed)
    cells = -(-height // stride), -(-width // stride)
    scores = rng.standard_normal((2, classes, *cells)).astype(np.float32)
    if seed % 2:
        scores = np.array([[cv2.GaussianBlur(plane, (0, 0), 2) for plane in image] for image in scores], np.float32)
    return scores if seed % 3 else (np.round(scores * 2) / 2).astype(np.float32)
