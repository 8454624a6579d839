"""Which way up pictures are. The addresses are those of reports in public trackers."""

import numpy as np
import pytest

from keywarp.images.orientation import INVERSE, turn
from tests.videos.films import film, red_and_green
from tests.videos.reading import Seen


# https://github.com/meta-pytorch/torchcodec/issues/1084, https://github.com/opencv/opencv/issues/26876
@pytest.mark.parametrize(
    ("orientation", "degrees", "flip"),  # of FFmpeg: first counter-clockwise, then left for right
    [
        (1, 0, False),
        (8, 90, False),
        (3, 180, False),
        (6, 270, False),
        (2, 0, True),
        (7, 90, True),
        (4, 180, True),
        (5, 270, True),
    ],
)
@pytest.mark.parametrize("form", ["mp4", "matroska"])
def test_the_display_matrix_tells_which_way_up_pictures_are(
    orientation: int, degrees: int, flip: bool, form: str
) -> None:
    upright = red_and_green()
    stored = turn(upright, INVERSE.get(orientation, orientation))
    [picture] = Seen(film(form, [stored], turn=degrees, flip=flip)).pictures
    assert picture.orientation == orientation
    found = turn(picture.pixels, picture.orientation)
    assert found.shape == upright.shape
    assert np.abs(found.astype(int) - upright).mean() < 12
