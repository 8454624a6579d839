"""The arrays that all data sets use."""

import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]  # (H, W, 3) RGB
Labels = npt.NDArray[np.uint8]  # (H, W) class ids; IGNORE where the class is unknown
IGNORE = 255
