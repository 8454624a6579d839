import json
from pathlib import Path

import cv2
import numpy as np
import PIL.Image
import pytest

from keywarp.datasets import DataError
from keywarp.datasets.classes import IMAGENET_VID
from keywarp.datasets.imagenet import DET_NUMBERS, WORDNET_IDS, ImageNetDet, ImageNetVid
from keywarp.datasets.images import read_image
from keywarp.datasets.types import Image

CAR, WHALE, PERSON = "n02958343", "n02062744", "n00007846"
Objects = list[tuple[str, tuple[int, int, int, int]]]


def write_image(path: Path, value: int, size: tuple[int, int] = (20, 30)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(f"{path}.jpg", np.full((*size, 3), value, np.uint8))
    Path(f"{path}.jpg").rename(path)


def write_xml(path: Path, objects: Objects, size: tuple[int, int] = (20, 30)) -> None:
    items = "".join(
        f"<object><trackid>0</trackid><name>{name}</name><bndbox><xmax>{x2}</xmax><xmin>{x1}</xmin><ymax>{y2}</ymax>"
        f"<ymin>{y1}</ymin></bndbox><occluded>0</occluded><generated>1</generated></object>"
        for name, (x1, y1, x2, y2) in objects
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = size
    path.write_text(
        f"<annotation><folder>f</folder><source><database>ILSVRC_2015</database></source>"
        f"<size><width>{width}</width><height>{height}</height></size>{items}</annotation>"
    )


def write_snippet(root: Path, name: str, frames: int, objects: Objects | None = None) -> None:
    """Write frames whose pixels hold 10 times their number."""
    for number in range(frames):
        write_image(root / "Data/VID" / name / f"{number:06d}.JPEG", 10 * number)
        write_xml(root / "Annotations/VID" / name / f"{number:06d}.xml", objects or [])


def write_still(root: Path, name: str, objects: Objects, value: int = 0) -> None:
    write_image(root / "Data/DET/train" / f"{name}.JPEG", value)
    write_xml(root / "Annotations/DET/train" / f"{name}.xml", objects)


def write_lists(root: Path, lines: dict[str, str]) -> None:
    folder = root / "ImageSets/DET"
    folder.mkdir(parents=True, exist_ok=True)
    for wordnet_id, number in zip(WORDNET_IDS, DET_NUMBERS, strict=True):
        (folder / f"train_{number}.txt").write_text(lines.get(wordnet_id, ""))


TRAIN = "train/ILSVRC2015_VID_train_0000/ILSVRC2015_train_00000000"
OTHER = "train/ILSVRC2015_VID_train_0001/ILSVRC2015_train_00131000"
STILL = "ILSVRC2014_train_0000/ILSVRC2014_train_00000663"
AIRPLANE_STILL = "ILSVRC2013_train/n02691156/n02691156_10153"


def test_ids_and_names_are_in_the_same_order() -> None:
    names = [name for name, _ in IMAGENET_VID[1:]]
    assert len(WORDNET_IDS) == len(DET_NUMBERS) == len(names)
    assert (names[WORDNET_IDS.index(CAR)], names[WORDNET_IDS.index(WHALE)]) == ("car", "whale")
    assert list(DET_NUMBERS) == sorted(DET_NUMBERS)  # as the names are, in both sets
    assert names == sorted(names)


def test_vid_pairs_stay_in_their_snippet_and_reach_as_far_as_it_does(tmp_path: Path) -> None:
    write_snippet(tmp_path, TRAIN, 12)
    write_snippet(tmp_path, OTHER, 1)
    source, random = ImageNetVid(tmp_path, "train", 20, 100), np.random.default_rng(0)
    pairs = [source.pair(random) for _ in range(400)]
    frames = [round(pair.current.mean() / 10) for pair in pairs]
    assert {pair.gap for pair in pairs} == set(range(10))
    for pair, frame in zip(pairs, frames, strict=True):
        assert round(pair.key.mean() / 10) == frame - pair.gap
    assert set(frames) == set(range(12))
    assert 0.4 < np.mean(np.array(frames) > 0) < 0.6  # half the draws are of the snippet of one frame
    assert len(source) == 13


def test_boxes_are_of_the_30_classes_and_end_after_their_last_pixel(tmp_path: Path) -> None:
    objects: Objects = [(CAR, (0, 5, 9, 14)), (PERSON, (1, 1, 5, 5)), (WHALE, (20, 10, 30, 25)), (CAR, (40, 0, 50, 9))]
    write_snippet(tmp_path, TRAIN, 1, objects)
    boxes = ImageNetVid(tmp_path, "train", 40, 100).pair(np.random.default_rng(0)).truth.boxes
    assert boxes is not None
    np.testing.assert_array_equal(boxes.corners, [[0, 10, 20, 30], [40, 20, 60, 40]])  # twice as large
    assert [IMAGENET_VID[number][0] for number in boxes.classes] == ["car", "whale"]


def test_frames_without_objects_have_no_boxes(tmp_path: Path) -> None:
    write_snippet(tmp_path, TRAIN, 1)
    boxes = ImageNetVid(tmp_path).pair(np.random.default_rng(0)).truth.boxes
    assert boxes is not None
    assert boxes.corners.shape == (0, 4)
    assert boxes.classes.shape == (0,)


def test_every_frame_of_val_ends_a_snippet(tmp_path: Path) -> None:
    write_snippet(tmp_path, "val/ILSVRC2015_val_00000001", 4)
    write_snippet(tmp_path, "val/ILSVRC2015_val_00000000", 2)
    source = ImageNetVid(tmp_path, "val", 20, 100)
    snippets = list(source.snippets(3))
    assert len(source) == len(snippets) == 6
    assert snippets[5].name == "ILSVRC2015_val_00000001/000003"
    assert [round(frame.mean() / 10) for frame in snippets[5].frames] == [1, 2, 3]
    assert [len(snippet.frames) for snippet in snippets] == [1, 2, 1, 2, 3, 3]


def test_iterating_over_snippets_reads_each_frame_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_snippet(tmp_path, "val/ILSVRC2015_val_00000000", 6)
    read = list[Path]()

    def count(path: Path, *, upright: bool) -> Image:
        read.append(path)
        return read_image(path, upright=upright)

    monkeypatch.setattr("keywarp.datasets.imagenet.read_image", count)
    for snippet in ImageNetVid(tmp_path, "val").snippets(3):
        assert len(list(snippet.frames)) == len(snippet.frames)
    assert len(read) == 6


def test_images_are_read_as_they_are_stored_since_their_boxes_are_for_that(tmp_path: Path) -> None:
    write_snippet(tmp_path, TRAIN, 1)
    [path] = (tmp_path / "Data").rglob("*.JPEG")
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    with PIL.Image.open(path) as image:
        image.save(path, "JPEG", exif=exif)
    assert ImageNetVid(tmp_path, "train", 20, 100).pair(np.random.default_rng(0)).current.shape == (20, 30, 3)


def test_lists_choose_the_snippets(tmp_path: Path) -> None:
    for name in (TRAIN, OTHER):
        write_snippet(tmp_path, name, 2)
    (tmp_path / "ImageSets/VID").mkdir(parents=True)
    (tmp_path / "ImageSets/VID/train_7.txt").write_text(f"{OTHER.removeprefix('train/')} 1\n")
    (tmp_path / "ImageSets/VID/train_8.txt").write_text(f"{OTHER.removeprefix('train/')} 1\n")
    assert len(ImageNetVid(tmp_path)) == 2
    (tmp_path / "ImageSets/VID/val.txt").write_text(
        "ILSVRC2015_val_00000000/000000 1\nILSVRC2015_val_00000000/000001 2\n"
    )
    write_snippet(tmp_path, "val/ILSVRC2015_val_00000000", 2)
    write_snippet(tmp_path, "val/ILSVRC2015_val_00000001", 1)
    assert len(ImageNetVid(tmp_path, "val")) == 2


def test_the_error_of_a_missing_listed_snippet_names_it(tmp_path: Path) -> None:
    (tmp_path / "ImageSets/VID").mkdir(parents=True)
    (tmp_path / "ImageSets/VID/train_7.txt").write_text("ILSVRC2015_VID_train_0000/ILSVRC2015_train_00000000 1\n")
    with pytest.raises(DataError, match=r"ILSVRC2015_train_00000000 is missing; unpack it"):
        ImageNetVid(tmp_path)


def test_a_folder_without_snippets_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no snippets in"):
        ImageNetVid(tmp_path)


def test_the_error_of_a_missing_frame_names_it(tmp_path: Path) -> None:
    write_snippet(tmp_path, TRAIN, 3)
    (tmp_path / "Data/VID" / TRAIN / "000001.JPEG").unlink()
    with pytest.raises(DataError, match=r"has 000002.JPEG where 000001.JPEG is expected"):
        len(ImageNetVid(tmp_path))


@pytest.mark.parametrize(
    "content",
    [
        "<annotation><size>",
        "<annotation/>",
        "<annotation><size><width>30</width><height>2O</height></size></annotation>",
    ],
)
def test_the_error_of_a_malformed_xml_names_it(tmp_path: Path, content: str) -> None:
    write_snippet(tmp_path, TRAIN, 1)
    (tmp_path / "Annotations/VID" / TRAIN / "000000.xml").write_text(content)
    with pytest.raises(DataError, match=r"000000.xml is not an annotation"):
        ImageNetVid(tmp_path).pair(np.random.default_rng(0))


def test_an_object_without_a_box_is_refused(tmp_path: Path) -> None:
    write_snippet(tmp_path, TRAIN, 1, [(CAR, (1, 2, 3, 4))])
    path = tmp_path / "Annotations/VID" / TRAIN / "000000.xml"
    path.write_text(path.read_text().replace("xmax", "x"))
    with pytest.raises(DataError, match=r"000000.xml is not an annotation"):
        ImageNetVid(tmp_path).pair(np.random.default_rng(0))


def test_the_error_of_a_missing_annotation_names_it(tmp_path: Path) -> None:
    write_snippet(tmp_path, TRAIN, 1)
    (tmp_path / "Annotations/VID" / TRAIN / "000000.xml").unlink()
    with pytest.raises(DataError, match=r"can't read .*000000.xml: No such file"):
        ImageNetVid(tmp_path).pair(np.random.default_rng(0))


def test_an_annotation_of_another_size_is_refused(tmp_path: Path) -> None:
    write_snippet(tmp_path, TRAIN, 1)
    write_xml(tmp_path / "Annotations/VID" / TRAIN / "000000.xml", [], (30, 20))
    with pytest.raises(DataError, match=r"000000.xml is for a frame of 20x30 pixels, .* has 30x20"):
        ImageNetVid(tmp_path).pair(np.random.default_rng(0))


def test_the_error_of_a_truncated_jpeg_names_it(tmp_path: Path) -> None:
    write_snippet(tmp_path, TRAIN, 1)
    path = tmp_path / "Data/VID" / TRAIN / "000000.JPEG"
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(DataError, match=r"000000.JPEG is cut short"):
        ImageNetVid(tmp_path).pair(np.random.default_rng(0))


def test_det_draws_classes_evenly_out_of_the_lists_positive_images(tmp_path: Path) -> None:
    cars = [f"ILSVRC2013_train/n02958343/n02958343_{number}" for number in range(9)]
    for number, name in enumerate(cars):
        write_still(tmp_path, name, [(CAR, (0, 0, 9, 9))], 10 * number)
    write_still(tmp_path, STILL, [(PERSON, (0, 0, 9, 9)), (WHALE, (10, 10, 19, 19))], 200)
    write_lists(
        tmp_path, {CAR: "".join(f"{name} 1\n" for name in cars[:8]) + f"{cars[8]} 0\nx -1\n", WHALE: f"{STILL} 1\n"}
    )
    source, random = ImageNetDet(tmp_path, 20, 100), np.random.default_rng(0)
    pairs = [source.pair(random) for _ in range(200)]
    assert {pair.gap for pair in pairs} == {0}
    assert all(pair.key is pair.current for pair in pairs)
    values = [round(pair.current.mean() / 10) for pair in pairs]
    assert set(values) == {*range(8), 20}
    assert 70 < values.count(20) < 130
    whale = pairs[values.index(20)].truth.boxes
    assert whale is not None
    np.testing.assert_array_equal(whale.corners, [[10, 10, 20, 20]])


def test_det_skips_images_without_the_classes(tmp_path: Path) -> None:
    write_still(tmp_path, STILL, [(PERSON, (0, 0, 9, 9))])
    write_still(tmp_path, AIRPLANE_STILL, [(WORDNET_IDS[0], (0, 0, 9, 9))])
    write_lists(tmp_path, {WORDNET_IDS[0]: f"{STILL} 1\n{AIRPLANE_STILL} 1\n"})
    source, random = ImageNetDet(tmp_path), np.random.default_rng(0)
    for _ in range(20):
        boxes = source.pair(random).truth.boxes
        assert boxes is not None
        assert boxes.classes.tolist() == [1]


def test_det_lists_of_images_without_the_classes_are_refused(tmp_path: Path) -> None:
    write_still(tmp_path, STILL, [(PERSON, (0, 0, 9, 9))])
    write_lists(tmp_path, {CAR: f"{STILL} 1\n"})
    with pytest.raises(DataError, match=r"have no objects of the 30 classes"):
        ImageNetDet(tmp_path).pair(np.random.default_rng(0))


def test_without_lists_det_searches_once_and_keeps_what_it_found(tmp_path: Path) -> None:
    write_still(tmp_path, STILL, [(WHALE, (0, 0, 9, 9)), (WHALE, (5, 5, 9, 9))])
    write_still(tmp_path, AIRPLANE_STILL, [(PERSON, (0, 0, 9, 9))])
    cache, seen = tmp_path / "cache/det.json", list[tuple[int, int]]()
    ImageNetDet(tmp_path, cache=cache, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 2), (2, 2)]
    assert {key: names for key, names in json.loads(cache.read_text()).items() if names} == {WHALE: [STILL]}
    again = ImageNetDet(tmp_path, cache=cache, progress=lambda *_: pytest.fail("searched again"))
    assert again.pair(np.random.default_rng(0)).gap == 0


def test_without_lists_and_cache_det_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"train_2.txt is missing; unpack ImageSets, or name a cache file"):
        ImageNetDet(tmp_path)


def test_a_damaged_cache_is_refused(tmp_path: Path) -> None:
    (tmp_path / "det.json").write_text("{")
    with pytest.raises(DataError, match=r"det.json is not a list of images; delete it"):
        ImageNetDet(tmp_path, cache=tmp_path / "det.json")


def test_the_error_of_a_malformed_list_names_it(tmp_path: Path) -> None:
    write_lists(tmp_path, {CAR: "a 1\nb\n"})
    with pytest.raises(DataError, match=r"line 2 of .*train_37.txt is `b`"):
        ImageNetDet(tmp_path)


def test_det_without_images_is_refused(tmp_path: Path) -> None:
    write_lists(tmp_path, {})
    with pytest.raises(DataError, match=r"no images of the 30 classes"):
        ImageNetDet(tmp_path)
