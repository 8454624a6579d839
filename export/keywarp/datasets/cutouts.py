"""Cut-outs: the moving things in front of a camera that stands still, such as real walkers, for flying crowds.

The background is the median of the frames; what differs from it is cut out, with soft edges.
"""

import cv2
import numpy as np
import numpy.typing as npt

from keywarp.datasets.clips import Clip

DIFFERENT = 28  # grey levels between a frame and the background
AREA = (60, 4000)  # pixels: smallest and largest area of a cut-out
MARGIN = 3  # pixels around a cut-out
FRAMES = 150  # frames that are looked at, at most

Cutout = npt.NDArray[np.uint8]  # (h, w, 4): RGB, and how much of each pixel is covered


def cut_out(clip: Clip) -> list[Cutout]:
    """Cut out what moves in a clip."""
    frames = clip.frames[:: max(1, len(clip.frames) // FRAMES)]
    background = np.asarray(np.median(frames[:: max(1, len(frames) // 40)], axis=0), np.uint8)
    things: list[Cutout] = []
    for frame in frames:
        difference = cv2.GaussianBlur(cv2.absdiff(frame, background).max(axis=-1), (0, 0), 1.0)
        mask = cv2.morphologyEx(
            np.asarray(difference > DIFFERENT, np.uint8), cv2.MORPH_CLOSE, np.ones((5, 3), np.uint8)
        )
        _, labels, found, _ = cv2.connectedComponentsWithStats(mask)
        for number, (left, top, width, height, area) in enumerate(found):
            inside = left > MARGIN and top > MARGIN
            inside = inside and left + width + MARGIN < mask.shape[1] and top + height + MARGIN < mask.shape[0]
            if number and inside and AREA[0] <= area <= AREA[1] and height < 6 * width:
                part = (
                    slice(top - MARGIN, top + height + MARGIN),
                    slice(left - MARGIN, left + width + MARGIN),
                )
                solid = np.asarray(labels[part] == number, np.uint8) * 255
                alpha = cv2.GaussianBlur(solid, (0, 0), 0.8)
                things.append(np.dstack([frame[part], alpha]).astype(np.uint8))
    return things
