"""Frames as the networks' input, made on the device, against OpenCV: the same bytes, and the bandwidth."""

from collections.abc import Callable, Sequence
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from bench.gpu.bandwidth import buffer_sets, measure
from bench.gpu.case import Case, FailedError
from bench.gpu.device_arrays import DeviceArrays
from keywarp.engines.backends.tensorrt.device_frames import DeviceFrames
from keywarp.engines.backends.tensorrt.device_images import DeviceResizer
from keywarp.engines.backends.tensorrt.device_memory import DeviceMemory
from keywarp.engines.placement import Placement
from keywarp.engines.preparation import resize

Sizes = tuple[tuple[int, int], Placement]  # of the frame, (height, width), and where it is in the networks' input

PADDING: Final = 114
DOWNSCALES: Final = (2, 3, 4)
STRIDE: Final = 16
# The last one is Full HD at the paper's size.
SIZES: Final[Sequence[Sizes]] = (
    ((97, 131), Placement(64, 96, 0, 0, 64, 96)),
    ((128, 192), Placement(64, 96, 0, 0, 64, 96)),
    ((77, 200), Placement(64, 96, 13, 0, 37, 96)),
    ((5, 7), Placement(33, 47, 0, 0, 33, 47)),
    ((1080, 1920), Placement(562, 1000, 0, 0, 562, 1000)),
)


def run(case: Case) -> None:
    """Compare, then measure."""
    compare(case, SIZES[:-1] if case.dry else SIZES)
    (height, width), placement = SIZES[0 if case.dry else -1]
    driver = case.kernel_driver
    resizer = DeviceResizer(driver, DeviceMemory(driver), case.gpu.capability, height, width, placement, PADDING)
    frame, pixels = _noise(0, height, width), 3 * placement.height * placement.width
    small = 3 * int(np.prod(resizer.seen_size(2)))
    moved = {"keywarp_resize": frame.nbytes + pixels, "keywarp_shrink": pixels + small}
    sets = buffer_sets(case, sum(moved.values()))
    with DeviceArrays(driver) as arrays:
        stream = arrays.stream
        triples = [
            (arrays.filled(frame).address, arrays.poisoned(pixels).address, arrays.poisoned(small).address)
            for _ in range(sets)
        ]
        queues: dict[str, Callable[[int], None]] = {
            "keywarp_resize": lambda number: resizer.resize(*triples[number][:2], stream),
            "keywarp_shrink": lambda number: resizer.shrink_input(*triples[number][1:], 2, stream),
        }
        found = {name: measure(case, driver, stream, moved[name], sets, queue) for name, queue in queues.items()}
    times = ", ".join(f"{name} {figure['us']:.0f} µs" for name, figure in found.items())
    case.record(bandwidth=found, summary=f"{case.figures['summary']}; {times}")


def compare(case: Case, sizes: Sequence[Sizes]) -> None:
    """Compare the images of some frames.

    Raises:
        FailedError: If a byte differs, or something is written behind an image.
    """
    driver, count = case.kernel_driver, 0
    for (height, width), placement in sizes:
        frame, name = _noise(height, height, width), f"{height}x{width} as {placement.rows}x{placement.columns}"
        picture = resize(frame, placement.rows, placement.columns)
        whole = placement.pad(picture, PADDING)
        with DeviceArrays(driver) as arrays:
            memory = DeviceMemory(driver)
            resizer = DeviceResizer(driver, memory, case.gpu.capability, height, width, placement, PADDING)
            pitch = 3 * width + 5  # the rows of a decoder's surface have gaps
            surface = np.pad(frame.reshape(height, -1), ((0, 0), (0, 5)))
            store = DeviceFrames(driver, memory, case.gpu.capability, case.gpu.index)
            if not np.array_equal(store.keep(arrays.filled(surface).address, pitch, height, width), frame):
                raise FailedError(f"{name}: a frame that was kept isn't the decoder's")
            image = arrays.poisoned(whole.nbytes)
            resizer.resize(arrays.filled(frame).address, image.address, arrays.stream)
            pairs = [(image, whole)]
            for factor in DOWNSCALES:
                seen, covered = _shrunk(whole, factor), _shrunk(placement.cover(picture, STRIDE), factor)
                blocks = arrays.poisoned(seen.nbytes), arrays.poisoned(covered.nbytes)
                resizer.shrink_input(image.address, blocks[0].address, factor, arrays.stream)
                resizer.shrink_picture(image.address, blocks[1].address, factor, STRIDE, arrays.stream)
                pairs += zip(blocks, (seen, covered), strict=True)
            for block, expected in pairs:
                content, untouched = arrays.read(block)
                if not untouched:
                    raise FailedError(f"{name}: something is written behind an image")
                if content != expected.tobytes():
                    raise FailedError(f"{name}: bytes of {expected.shape} aren't OpenCV's")
                count += 1
    case.record(images=count, summary=f"{count} images, all bytes OpenCV's")


def _shrunk(image: NDArray[np.uint8], factor: int) -> NDArray[np.uint8]:
    """Return what the engine averages an image to."""
    height, width = image.shape[:2]
    padded = cv2.copyMakeBorder(image, 0, -height % factor, 0, -width % factor, cv2.BORDER_REPLICATE)
    size = (padded.shape[1] // factor, padded.shape[0] // factor)
    return np.asarray(cv2.resize(padded, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def _noise(seed: int, height: int, width: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
