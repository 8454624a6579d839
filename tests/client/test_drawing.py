import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from keywarp.client import DrawingError, ProcessedFrame, open_source
from keywarp.client.drawing import INK, KEY_PANEL, Annotator
from keywarp.client.writing import VideoWriter
from keywarp.protocol import Detection, KeypointsInfo, Region, run_lengths
from keywarp.videos import writing
from tests.client.media import CLASSES, frame_result, picture, result

pytest.importorskip("supervision", reason="the extra `draw` is not installed")

PERSON, CAR = 1, 2
BOX = (400, 100, 480, 180)
Box = tuple[float, float, float, float]


def found(class_id: int, xyxy: Box = BOX, confidence: float = 0.87) -> Detection:
    return Detection(class_id=class_id, name=CLASSES[class_id].name, confidence=confidence, xyxy=xyxy)


def detected(*objects: Detection, width: int = 640, height: int = 272) -> ProcessedFrame:
    return ProcessedFrame(result(1).model_copy(update={"width": width, "height": height, "detections": objects}))


def draw(*objects: Detection, width: int = 640, height: int = 272) -> NDArray[np.uint8]:
    return Annotator(CLASSES).annotate(picture(128, width, height), detected(*objects, width=width, height=height))


def painted(drawn: NDArray[np.uint8], class_id: int) -> NDArray[np.bool_]:
    """Return a mask of the pixels that have exactly a class's colour."""
    return np.asarray((drawn == CLASSES[class_id].color).all(axis=2))


def extent(pixels: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """Return the first and the last column and row of the pixels, as x1, y1, x2, y2."""
    ys, xs = np.nonzero(pixels)
    return int(xs.min()), int(ys.min()), int(xs.max()), int(ys.max())


def ink(drawn: NDArray[np.uint8]) -> int:
    return int((drawn == INK).all(axis=2).sum())


def legend(drawn: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return drawn[180:, :160]


@pytest.mark.parametrize(("width", "height"), [(640, 272), (1920, 1080), (64, 48), (65, 49)])
def test_classes_are_drawn_in_their_colours(width: int, height: int) -> None:
    given = frame_result(1, width=width, height=height)
    assert given.image is not None
    before = given.image.copy()
    drawn = Annotator(CLASSES).annotate(given.image, given)
    np.testing.assert_array_equal(given.image, before)
    assert drawn.shape == (height, width, 3)
    assert drawn.dtype == np.uint8
    person, background = drawn[height // 2, width // 4], drawn[height // 2, width * 7 // 8]
    np.testing.assert_allclose(person, np.add((128, 128, 128), CLASSES[1].color) / 2, atol=2)
    np.testing.assert_array_equal(background, (128, 128, 128))


def test_key_frames_are_marked() -> None:
    annotator = Annotator(CLASSES)

    def marked(frame: int) -> int:
        drawn = annotator.annotate(picture(128, 640, 272), frame_result(frame))
        return int((drawn == KEY_PANEL[:3]).all(axis=2).sum())

    assert marked(0) > 50
    assert marked(1) == 0
    assert marked(10) > 50


def test_only_the_tag_is_drawn_on_a_frame_of_background() -> None:
    given = frame_result(1, latency=None)
    given.labels[:] = 0
    drawn = Annotator(CLASSES).annotate(picture(128, 640, 272), given)
    np.testing.assert_array_equal(drawn[:, 320:], 128)


@pytest.mark.parametrize(("width", "height"), [(640, 272), (1920, 1080)])
def test_a_box_is_a_line_along_the_inside_of_its_area(width: int, height: int) -> None:
    x, y = width // 2, height // 3
    drawn = draw(found(CAR, (x - 0.4, y + 0.4, x + 200, y + 100)), width=width, height=height)
    lines = painted(drawn, CAR)[y : y + 100, width // 4 :]
    assert extent(lines) == (width // 4, 0, width // 4 + 199, 99)
    np.testing.assert_array_equal(drawn[y + 10 : y + 90, x + 10 : x + 190], 128)


def test_boxes_are_clipped_to_the_picture() -> None:
    lines = painted(draw(found(CAR, (300, -50, 900, 1000))), CAR)
    assert lines[:, 300].all()
    assert lines[:, 639].all()
    assert lines[0, 400:].all()  # left of it there is the label
    assert lines[271, 300:].all()


@pytest.mark.parametrize(
    "box", [(640, 0, 700, 50), (-50, 0, 0, 50), (300, -20, 400, 0), (300, 272, 400, 300), (1e9, 1e9, 2e9, 2e9)]
)
def test_boxes_outside_the_picture_are_left_out(box: Box) -> None:
    np.testing.assert_array_equal(draw(found(CAR, box)), draw())


@pytest.mark.parametrize("box", [(500, 100, 500.2, 100.2), (500, 100, 501, 101), (499.6, 99.6, 500, 100)])
def test_the_smallest_objects_have_at_least_one_pixel(box: Box) -> None:
    assert painted(draw(found(CAR, box)), CAR)[100, 500]


def test_boxes_are_scaled_to_a_picture_of_another_size() -> None:
    given = detected(found(CAR, (32, 12, 48, 36)), width=64, height=48)
    lines = painted(Annotator(CLASSES).annotate(picture(128, 640, 240), given), CAR)
    assert extent(lines[60:180, 160:]) == (320 - 160, 0, 479 - 160, 119)


def test_objects_below_the_confidence_are_neither_drawn_nor_counted() -> None:
    given = detected(found(CAR), found(PERSON, (500, 100, 600, 200), 0.49))
    image = picture(128, 640, 272)
    np.testing.assert_array_equal(Annotator(CLASSES).annotate(image, given), draw(found(CAR)))
    assert painted(Annotator(CLASSES, confidence=0.4).annotate(image, given), PERSON).any()


def test_only_the_annotators_own_classes_are_drawn() -> None:
    given = detected(found(CAR), found(PERSON, (500, 100, 600, 200)), found(0, (300, 50, 350, 90)))
    drawn = Annotator(CLASSES[2:]).annotate(picture(128, 640, 272), given)
    np.testing.assert_array_equal(drawn, draw(found(CAR)))


@pytest.mark.parametrize(
    "box",
    [
        *((left, top, left + 80, top + 80) for left in (0, 280, 560) for top in (0, 96, 192)),
        *((left, top, left + 8, top + 8) for left in (300, 632) for top in (0, 96, 264)),
        (0, 100, 8, 108),
        (0, 0, 640, 272),
        (-100, -100, 1000, 1000),
    ],
)
def test_labels_are_whole_wherever_the_box_is(box: Box) -> None:
    assert ink(draw(found(CAR, box))) == ink(draw(found(CAR)))


def test_labels_do_not_cover_each_other() -> None:
    one, two, three = (ink(draw(*[found(CAR)] * count)) for count in (1, 2, 3))
    assert three - two == two - one > 0


def test_in_a_crowd_the_most_confident_objects_are_in_front_and_have_labels() -> None:
    crowd = [found(CAR, confidence=0.6)] * 50
    drawn = draw(found(PERSON), *crowd)
    assert painted(drawn, PERSON)[90, 400]  # the label's edge, above the box
    assert painted(drawn, PERSON)[140, 400]  # the box's line
    assert ink(drawn) == ink(draw(found(PERSON), *crowd[:25]))


def test_the_legend_counts_objects() -> None:
    two = draw(found(CAR), found(CAR, (500, 10, 600, 60)), found(PERSON))
    elsewhere = draw(found(CAR, (250, 10, 300, 60)), found(CAR, (300, 10, 360, 60)), found(PERSON))
    three = draw(found(CAR), found(CAR), found(CAR), found(PERSON))
    np.testing.assert_array_equal(legend(two), legend(elsewhere))
    assert (legend(two) != legend(three)).any()
    assert extent(painted(legend(two), CAR))[3] < extent(painted(legend(two), PERSON))[1]


def test_classes_with_equal_counts_are_in_the_order_of_their_ids() -> None:
    np.testing.assert_array_equal(
        legend(draw(found(CAR), found(PERSON, (500, 10, 600, 60), 0.6))),
        legend(draw(found(PERSON, (500, 10, 600, 60)), found(CAR, confidence=0.6))),
    )


@pytest.mark.parametrize(("width", "height"), [(64, 48), (65, 49), (16, 16), (1, 1)])
def test_detections_are_drawn_on_the_smallest_pictures(width: int, height: int) -> None:
    drawn = draw(found(CAR, (0, 0, width, height)), found(PERSON, (0, 0, 5, 5)), width=width, height=height)
    assert drawn.shape == (height, width, 3)


def test_only_the_tag_is_drawn_if_there_are_no_objects() -> None:
    np.testing.assert_array_equal(draw()[30:], 128)


def test_the_error_without_supervision_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(DrawingError, match="extra `draw`"):
        Annotator(CLASSES)


@pytest.mark.parametrize(("width", "height"), [(64, 48), (65, 49)])
def test_a_video_is_written_with_even_sides(tmp_path: Path, width: int, height: int) -> None:
    path = tmp_path / "any.name"
    with VideoWriter(path, 29.97) as video:
        for level in (40, 120, 200):
            video.write(picture(level, width, height))
    with open_source(path) as source:
        levels = [float(frame.image.mean()) for frame in source]
    assert (source.width, source.height) == (64, 48)
    assert source.fps == pytest.approx(29.97, rel=1e-4)
    assert levels == pytest.approx([40, 120, 200], abs=3)
    assert path.read_bytes().index(b"moov") < path.read_bytes().index(b"mdat")


def test_pictures_of_another_size_are_scaled_to_the_first(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "v.mp4", 10) as video:
        video.write(picture(100))
        video.write(picture(100, 128, 96))
    with open_source(tmp_path / "v.mp4") as source:
        assert [frame.image.shape for frame in source] == [(48, 64, 3)] * 2


def test_a_video_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DrawingError, match="can't be written"):
        VideoWriter(tmp_path / "no" / "v.mp4", 10)


def test_class_0_is_drawn_where_it_has_a_region() -> None:
    labels = np.zeros((24, 32), np.uint8)
    plain = result(1, labels=labels)
    assert plain.segmentation is not None
    region = Region(class_id=0, name=CLASSES[0].name, area=1.0)
    ordinary = plain.model_copy(update={"segmentation": plain.segmentation.model_copy(update={"regions": (region,)})})
    classes = (CLASSES[0].model_copy(update={"color": (0, 0, 250)}), *CLASSES[1:])
    for given, blue in ((plain, 128), (ordinary, 189)):
        drawn = Annotator(classes).annotate(picture(128, 640, 272), ProcessedFrame(given))
        assert drawn[136, 480, 2] == pytest.approx(blue, abs=2)


def test_an_objects_mask_is_tinted_and_outlined() -> None:
    mask = np.zeros((136, 320), np.bool_)  # at half the picture's resolution
    mask[60:80, 205:225] = True
    plain, drawn = draw(found(PERSON)), draw(found(PERSON).model_copy(update={"mask": run_lengths(mask)}))
    changed = (plain != drawn).any(axis=2)
    assert extent(changed) == (410, 120, 449, 159)
    inner = drawn[130:150, 420:440]
    assert (inner == inner[0, 0]).all()
    expected = 0.6 * 128 + 0.4 * np.array(CLASSES[PERSON].color)
    np.testing.assert_allclose(inner[0, 0], expected, atol=1)
    assert painted(drawn, PERSON)[120, 415:445].all()


def test_certain_keypoints_are_drawn_with_their_skeleton() -> None:
    points = ((410.0, 110.0, 0.9), (470.0, 110.0, 0.9), (440.0, 170.0, 0.4))
    info = KeypointsInfo(names=("a", "b", "c"), skeleton=((0, 1), (1, 2)))
    given = detected(found(PERSON).model_copy(update={"keypoints": points}))
    bare, joined = (Annotator(CLASSES, keypoints=k).annotate(picture(128, 640, 272), given) for k in (None, info))
    for drawn in (bare, joined):
        assert (drawn[110, 410] == INK).all()
        assert (drawn[110, 470] == INK).all()
        assert (drawn[170, 440] == 128).all()
    assert (bare[110, 440] == 128).all()
    assert painted(joined, PERSON)[110, 440]
    assert (joined[140, 455] == 128).all()


@pytest.mark.parametrize("size", [(1, 1), (1, 64), (4, 20000)])
def test_a_size_that_h264_cant_have_is_an_error_that_names_it(tmp_path: Path, size: tuple[int, int]) -> None:
    height, width = size
    video = VideoWriter(tmp_path / "v.mp4", 10)
    with pytest.raises(DrawingError, match=f"{width}x{height}"):
        video.write(np.zeros((height, width, 3), np.uint8))
    video.close()


def test_without_an_encoder_no_video_is_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "ENCODER", "libx264-of-another-build")
    with pytest.raises(DrawingError, match="has no libx264"):
        VideoWriter(tmp_path / "out.mp4", 25)
    assert not [*tmp_path.iterdir()]
