"""Dense maps in the client: drawing, exports, and maps that servers shouldn't send."""

from base64 import b64encode
from io import BytesIO

import cv2
import numpy as np
import pytest
from PIL import Image

from keywarp.client import ProcessedFrame, ProtocolError
from keywarp.client.color_map import PALETTE, colorize
from keywarp.client.drawing import VALUE_OPACITY, Annotator
from keywarp.client.exports import to_coco, to_mot, to_supervision
from keywarp.client.images import decode_values
from keywarp.protocol import Dense
from tests.client.media import picture, result


def png(pixels: np.ndarray) -> str:
    file = BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return b64encode(file.getvalue()).decode()


def mapped(pixels: np.ndarray, minimum: float = 2.0, maximum: float = 4.0, unit: str | None = "m") -> ProcessedFrame:
    """A result whose map has the 16-bit pixels."""
    height, width = pixels.shape
    dense = Dense(
        width=width,
        height=height,
        quantity="depth",
        unit=unit,
        minimum=minimum,
        maximum=maximum,
        values_png=png(pixels.astype(np.uint16)),
    )
    return ProcessedFrame(result(0).model_copy(update={"dense": dense, "width": 640, "height": 360}))


def test_values_are_between_minimum_and_maximum() -> None:
    given = mapped(np.array([[0, 13107], [32768, 65535]]))
    np.testing.assert_allclose(given.values, np.array([[2, 2.4], [3, 4]]), atol=1e-4)
    assert given.values is given.values


def test_other_results_have_no_values() -> None:
    with pytest.raises(ValueError, match="no dense map"):
        _ = ProcessedFrame(result(0)).values
    with pytest.raises(ValueError, match="no segmentation"):
        _ = mapped(np.zeros((3, 4))).labels


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"values_png": "!"}, "can't be decoded"),
        ({"values_png": png(np.zeros((3, 4), np.uint8))}, "should be a grey 4x3 PNG, but it is L 4x3"),
        ({"width": 5}, "should be a grey 5x3 PNG, but it is I;16 4x3"),
        ({"maximum": float("inf")}, "can't have numbers from 2.0 to inf"),
        ({"minimum": float("nan")}, "can't have numbers from nan"),
    ],
)
def test_a_map_that_cannot_be_decoded_is_an_error(change: dict[str, object], message: str) -> None:
    dense = mapped(np.zeros((3, 4))).result.dense
    assert dense is not None
    with pytest.raises(ProtocolError, match=message):
        decode_values(dense.model_copy(update=change))


def test_formats_of_objects_refuse_maps() -> None:
    for convert in (to_coco, to_supervision):
        with pytest.raises(ValueError, match=r"can't hold a map of numbers \(depth\): use `result.values`"):
            convert(mapped(np.zeros((3, 4))))
    with pytest.raises(ValueError, match="MOTChallenge files hold boxes"):
        to_mot(mapped(np.zeros((3, 4))))


def test_colours_are_those_that_the_server_draws() -> None:
    drawn = cv2.applyColorMap(np.arange(256, dtype=np.uint8)[:, np.newaxis], cv2.COLORMAP_INFERNO)[:, 0, ::-1]
    np.testing.assert_allclose(PALETTE.astype(int), drawn, atol=7)
    brightness = PALETTE @ (0.299, 0.587, 0.114)
    assert (np.diff(brightness) > -0.5).all()


def test_numbers_outside_of_the_scale_have_its_ends_colours() -> None:
    colors = colorize(np.array([[-9, 0, 5, 99]], np.float32), 0, 5)
    np.testing.assert_array_equal(colors[0], PALETTE[[0, 0, 255, 255]])
    np.testing.assert_array_equal(colorize(np.ones((1, 1), np.float32), 1, 1)[0, 0], PALETTE[0])


def test_a_map_is_drawn_in_its_colours_over_a_grey_picture() -> None:
    pixels = np.repeat(np.linspace(0, 65535, 40)[np.newaxis], 20, axis=0)
    image = picture(0, 640, 360)
    image[..., 2] = 90  # blue, which would be taken for a colour of the map
    drawn = Annotator(()).annotate(image, mapped(pixels))
    for column, color in ((3, PALETTE[0]), (320, PALETTE[128]), (636, PALETTE[255])):
        np.testing.assert_allclose(drawn[120, column], VALUE_OPACITY * color + (1 - VALUE_OPACITY) * 30, atol=5)
    assert (image[..., :2] == 0).all()


def test_the_scale_says_what_the_numbers_are() -> None:
    """The picture changes where the scale is, with the unit and with the range."""
    image, pixels = picture(0, 640, 360), np.repeat(np.linspace(0, 65535, 40)[np.newaxis], 20, axis=0)
    plain = Annotator(()).annotate(image, mapped(pixels)).astype(int)
    for other in (mapped(pixels, unit="mm"), mapped(pixels, maximum=5.0)):
        rows, columns = np.nonzero((abs(Annotator(()).annotate(image, other) - plain) > 30).any(axis=2))
        assert len(rows)
        assert rows.min() > 250
        assert columns.max() < 320
