import struct
import zlib
from base64 import b64encode
from io import BytesIO

import numpy as np
import pytest
import simplejpeg
from PIL import Image

from keywarp.client import ProcessedFrame, ProtocolError, SourceError
from keywarp.client.images import decode_labels, decode_reliability, encode_jpeg
from keywarp.protocol import Detection, Region, RunLengths, Segmentation
from tests.client.media import picture, result, segmentation

PERSON = Detection(class_id=1, name="person", confidence=0.9, xyxy=(1.25, 2.0, 30.5, 47.1))
CAR = Detection(class_id=2, name="car", confidence=0.6, xyxy=(20.0, 10.0, 64.0, 40.0))


def detected(*objects: Detection) -> ProcessedFrame:
    return ProcessedFrame(result(0).model_copy(update={"detections": objects}))


def test_a_jpeg_decodes_to_the_picture() -> None:
    image = picture(0, 65, 33)
    image[:, :, 0] = np.linspace(0, 255, 65, dtype=np.uint8)
    decoded = simplejpeg.decode_jpeg(encode_jpeg(image, 95))
    assert np.abs(decoded.astype(int) - image).mean() < 4


def test_higher_quality_takes_more_bytes() -> None:
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    assert len(encode_jpeg(image, 30)) < len(encode_jpeg(image, 95))


def test_an_array_that_is_not_rgb_is_refused() -> None:
    with pytest.raises(SourceError, match=r"uint8 \(4, 4, 4\)"):
        encode_jpeg(np.zeros((4, 4, 4), np.uint8))
    with pytest.raises(SourceError, match="not str"):
        encode_jpeg("image")  # type: ignore[arg-type]


def test_labels_are_decoded_from_the_result() -> None:
    labels = np.arange(12, dtype=np.uint8).reshape(3, 4)
    given = ProcessedFrame(result(0, labels=labels))
    np.testing.assert_array_equal(given.labels, labels)
    assert given.labels is given.labels


def test_a_label_map_in_memory_is_used_as_it_is_and_needs_no_masks_on_the_wire() -> None:
    labels = np.arange(3, dtype=np.uint8).repeat(4).reshape(3, 4)
    wire = result(0, labels=labels)
    assert wire.segmentation
    without_masks = wire.model_copy(update={"segmentation": wire.segmentation.model_copy(update={"labels_png": None})})
    given = ProcessedFrame(without_masks, label_map=labels)
    assert given.labels is labels
    np.testing.assert_array_equal(given.frame_labels, ProcessedFrame(wire).frame_labels)
    assert given.to_coco() == ProcessedFrame(wire).to_coco()


def test_a_result_of_another_task_has_no_labels_or_no_detections() -> None:
    with pytest.raises(ValueError, match="no segmentation"):
        _ = detected(PERSON).labels
    with pytest.raises(ValueError, match="no detections"):
        _ = ProcessedFrame(result(0, labels=np.zeros((3, 4), np.uint8))).detections


def test_detections_are_arrays_in_the_servers_order() -> None:
    given = detected(PERSON, CAR)
    found = given.detections
    np.testing.assert_array_equal(found.xyxy, np.array([PERSON.xyxy, CAR.xyxy], np.float32))
    np.testing.assert_array_equal(found.confidence, np.array([0.9, 0.6], np.float32))
    np.testing.assert_array_equal(found.class_id, [1, 2])
    assert found.xyxy.dtype == found.confidence.dtype == np.dtype(np.float32)
    assert found.class_id.dtype == np.dtype(np.intp)
    assert given.detections is found


def test_the_arrays_of_a_result_without_objects_are_empty() -> None:
    found = detected().detections
    assert len(found) == 0
    assert (found.xyxy.shape, found.confidence.shape, found.class_id.shape) == ((0, 4), (0,), (0,))


@pytest.mark.parametrize("objects", [(), (PERSON, CAR)])
def test_objects_have_their_reliability_which_is_unknown_on_key_frames(objects: tuple[Detection, ...]) -> None:
    assert np.isnan(detected(*objects).detections.reliability).all()
    propagated = [one.model_copy(update={"reliability": 0.25 * i}) for i, one in enumerate(objects)]
    found = detected(*propagated).detections
    np.testing.assert_array_equal(found.reliability, np.array([0, 0.25][: len(objects)], np.float32))


@pytest.mark.parametrize("png", ["", "!", b64encode(simplejpeg.encode_jpeg(picture(0))).decode()])
def test_a_reliability_map_that_cannot_be_decoded_is_an_error(png: str) -> None:
    given = ProcessedFrame(result(0).model_copy(update={"reliability_png": png}))
    with pytest.raises(ProtocolError, match="the reliability map can't be decoded"):
        _ = given.reliability_map


def test_a_map_of_far_too_many_pixels_is_an_error() -> None:
    small = BytesIO()
    Image.new("L", (8, 8)).save(small, "PNG")
    content = bytearray(small.getvalue())
    content[16:24] = struct.pack(">II", 2**20, 2**20)  # width and height
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    with pytest.raises(ProtocolError, match="the reliability map can't be decoded"):
        decode_reliability(b64encode(content).decode())


def test_a_reliability_map_in_colour_is_an_error() -> None:
    coloured = BytesIO()
    Image.fromarray(picture(0)).save(coloured, "PNG")
    with pytest.raises(ProtocolError, match="should be a grey PNG, but it is RGB 64x48"):
        decode_reliability(b64encode(coloured.getvalue()).decode())


@pytest.mark.parametrize("counts", [(), (12, 1), (-1, 13), (11,)])
def test_run_lengths_of_another_size_are_an_error(counts: tuple[int, ...]) -> None:
    region = Region(class_id=1, name="person", area=0.5, rle=RunLengths(size=(3, 4), counts=counts))
    with pytest.raises(ProtocolError, match="4x3"):
        decode_labels(Segmentation(width=4, height=3, regions=(region,)))


@pytest.mark.parametrize("class_id", [-1, 256])
def test_a_class_that_no_label_map_can_have_is_an_error(class_id: int) -> None:
    region = Region(class_id=class_id, name="person", area=1.0, rle=RunLengths(size=(1, 2), counts=(0, 2)))
    with pytest.raises(ProtocolError, match="can't have the class"):
        decode_labels(Segmentation(width=2, height=1, regions=(region,)))


@pytest.mark.parametrize("size", [(0, 4), (-4, -3), (10**30, 1), (2**20, 2**20)])
def test_a_label_map_of_an_impossible_size_is_an_error(size: tuple[int, int]) -> None:
    with pytest.raises(ProtocolError, match="can't have"):
        decode_labels(Segmentation(width=size[0], height=size[1], regions=()))


@pytest.mark.parametrize("png", ["", "!", b64encode(b"not a PNG").decode()])
def test_a_label_map_that_cannot_be_decoded_is_an_error(png: str) -> None:
    with pytest.raises(ProtocolError, match="can't be decoded"):
        decode_labels(Segmentation(width=4, height=3, labels_png=png, regions=()))


def test_a_label_map_of_another_size_is_an_error() -> None:
    said = segmentation(np.zeros((3, 4), np.uint8)).model_copy(update={"width": 5})
    with pytest.raises(ProtocolError, match="5x3 PNG, but it is L 4x3"):
        decode_labels(said)


def test_a_read_only_picture_is_compressed() -> None:
    frozen = np.frombuffer(bytes(48 * 64 * 3), np.uint8).reshape(48, 64, 3)
    assert simplejpeg.decode_jpeg(encode_jpeg(frozen)).shape == (48, 64, 3)
