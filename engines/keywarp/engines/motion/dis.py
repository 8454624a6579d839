"""DIS: dense optical flow by inverse search (Kroeger et al., ECCV 2016), as implemented in OpenCV."""

from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from keywarp.engines.motion.interface import check_pair

Preset = Literal["ultrafast", "fast", "medium"]

PRESETS: dict[Preset, int] = {
    "ultrafast": cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST,
    "fast": cv2.DISOPTICAL_FLOW_PRESET_FAST,
    "medium": cv2.DISOPTICAL_FLOW_PRESET_MEDIUM,
}
SHORTEST_SIDE = 32  # pixels; on smaller images OpenCV's choice of pyramid fails or crashes the process


class DIS:
    """OpenCV's DISOpticalFlow on grey images: fast flow with subpixel precision. It is thread-safe."""

    name = "dis"

    def __init__(self, preset: Preset = "medium", finest: int | None = None) -> None:
        """Choose the settings.

        Args:
            preset: OpenCV's preset. `medium` is the most accurate on a single pair. `ultrafast` doesn't smooth the
                flow, so that small objects keep theirs, and composed steps don't blur more and more.
            finest: The finest level of the pyramid that is searched, 0 for the image's own pixels, or None for the
                preset's.
        """
        self.preset: Preset = preset
        self.finest = finest

    @classmethod
    def for_steps(cls) -> "DIS":
        """Return the settings that are best for successive frames, whose flows are composed."""
        return cls("ultrafast", finest=1)

    def estimate(self, current: NDArray[np.uint8], key: NDArray[np.uint8]) -> NDArray[np.float32]:
        """See `OpticalFlow.estimate`."""
        check_pair(current, key)
        search = cv2.DISOpticalFlow.create(PRESETS[self.preset])  # holds buffers, so each call has its own
        if self.finest is not None:
            search.setFinestScale(self.finest)
        height, width = current.shape[:2]
        flow = np.asarray(search.calc(_grey(current), _grey(key), None), dtype=np.float32)  # type: ignore[call-overload]
        return np.ascontiguousarray(flow[:height, :width])


def _grey(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the grey image, (H, W), with its border repeated below and on the right up to `SHORTEST_SIDE`."""
    below, right = (max(0, SHORTEST_SIDE - side) for side in image.shape[:2])
    grey = cv2.copyMakeBorder(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), 0, below, 0, right, cv2.BORDER_REPLICATE)
    return np.asarray(grey, dtype=np.uint8)
