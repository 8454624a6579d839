"""The arrays that all data sets deal in."""

import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]  # (H, W, 3) RGB
Labels = npt.NDArray[np.uint8]  # (H, W) class ids; IGNORE where nobody knows
IGNORE = 255
