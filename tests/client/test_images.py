from base64 import b64encode

import numpy as np
import pytest
import simplejpeg

from keywarp.client import FrameResult, ProtocolError, SourceError
from keywarp.client.images import decode_labels, encode_jpeg
from keywarp.protocol import Segmentation
from tests.client.media import picture, result, segmentation


def test_a_jpeg_keeps_the_picture() -> None:
    image = picture(0, 65, 33)
    image[:, :, 0] = np.linspace(0, 255, 65, dtype=np.uint8)
    decoded = simplejpeg.decode_jpeg(encode_jpeg(image, 95))
    assert np.abs(decoded.astype(int) - image).mean() < 4


def test_quality_costs_bytes() -> None:
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    assert len(encode_jpeg(image, 30)) < len(encode_jpeg(image, 95))


def test_what_is_not_rgb_is_refused() -> None:
    with pytest.raises(SourceError, match=r"uint8 \(4, 4, 4\)"):
        encode_jpeg(np.zeros((4, 4, 4), np.uint8))
    with pytest.raises(SourceError, match="not str"):
        encode_jpeg("image")  # type: ignore[arg-type]


def test_labels_survive_the_wire() -> None:
    labels = np.arange(12, dtype=np.uint8).reshape(3, 4)
    given = FrameResult(result(0, labels=labels))
    np.testing.assert_array_equal(given.labels, labels)
    assert given.labels is given.labels


def test_a_result_without_segmentation_has_no_labels() -> None:
    with pytest.raises(ValueError, match="no segmentation"):
        _ = FrameResult(result(0)).labels


@pytest.mark.parametrize("png", ["", "!", b64encode(b"not a PNG").decode()])
def test_a_broken_label_map_is_said_so(png: str) -> None:
    with pytest.raises(ProtocolError, match="can't be decoded"):
        decode_labels(Segmentation(width=4, height=3, labels_png=png, regions=()))


def test_a_label_map_of_another_size_is_refused() -> None:
    said = segmentation(np.zeros((3, 4), np.uint8)).model_copy(update={"width": 5})
    with pytest.raises(ProtocolError, match="5x3 PNG, it is L 4x3"):
        decode_labels(said)
