from pathlib import Path

import cv2
import numpy as np
import pytest

from keywarp.datasets import IGNORE, DataError
from keywarp.datasets.cityscapes import LABEL_IDS, Cityscapes
from keywarp.datasets.classes import CITYSCAPES

LABELS = np.zeros((8, 16), np.uint8)  # unlabelled, with some road, car and bicycle
LABELS[:, 4:8], LABELS[:, 8:12], LABELS[:, 12:] = 7, 26, 33


def write(path: Path, image: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), image)


def write_labels(root: Path, name: str = "ulm_000003_000019") -> Path:
    path = root / "gtFine" / "train" / name.partition("_")[0] / f"{name}_gtFine_labelIds.png"
    write(path, LABELS)
    return path


def write_snippet(root: Path, name: str = "ulm_000003_000019", before: int = 19, folder: str = "_sequence") -> None:
    """Write frames whose pixels hold their number in the snippet."""
    write_labels(root, name)
    sequence, _, last = name.rpartition("_")
    for number in range(int(last) - before, int(last) + (11 if folder else 1)):
        pixels = np.full((8, 16, 3), number % 100, np.uint8)
        file = f"{sequence}_{number:06d}_leftImg8bit.png"
        write(root / f"leftImg8bit{folder}" / "train" / name.partition("_")[0] / file, pixels)


def test_pairs_are_the_labelled_frame_and_one_up_to_nine_before_it(tmp_path: Path) -> None:
    write_snippet(tmp_path)
    random = np.random.default_rng(0)
    source = Cityscapes(tmp_path, "train", 8, 16)
    pairs = [source.pair(random) for _ in range(200)]
    assert {pair.gap for pair in pairs} == set(range(10))
    for pair in pairs:
        assert (pair.current == 19).all()
        assert (pair.key == 19 - pair.gap).all()
        assert (pair.key is pair.current) == (pair.gap == 0)


def test_label_ids_become_the_classes_of_the_same_names(tmp_path: Path) -> None:
    write_snippet(tmp_path)
    labels = Cityscapes(tmp_path, "train", 8, 16).pair(np.random.default_rng(0)).truth.labels
    assert labels is not None
    assert (labels[:, :4] == IGNORE).all()
    names = [CITYSCAPES[labels[0, column]][0] for column in (4, 8, 12)]
    assert names == ["road", "car", "bicycle"]
    assert len(LABEL_IDS) == len(CITYSCAPES) - 1


def test_snippets_end_with_the_labelled_frame_in_long_sequences_too(tmp_path: Path) -> None:
    write_snippet(tmp_path)
    write_snippet(tmp_path, "bochum_000000_031152")
    source = Cityscapes(tmp_path, "train", 8, 16)
    snippets = list(source.snippets(5))
    assert [snippet.name for snippet in snippets] == ["bochum_000000_031152", "ulm_000003_000019"]
    assert len(source) == 2
    assert [frame[0, 0, 0] for frame in snippets[0].frames] == [48, 49, 50, 51, 52]
    assert [frame[0, 0, 0] for frame in snippets[1].frames[-2:]] == [18, 19]


def test_frames_and_labels_are_resized_together(tmp_path: Path) -> None:
    write_snippet(tmp_path)
    pair = Cityscapes(tmp_path, "train", 4, 100).pair(np.random.default_rng(0))
    assert pair.truth.labels is not None
    assert pair.current.shape == pair.key.shape == (4, 8, 3)
    np.testing.assert_array_equal(pair.truth.labels[0], [255, 255, 1, 1, 14, 14, 19, 19])
    odd = Cityscapes(tmp_path, "train", 5, 100).pair(np.random.default_rng(0)).truth.labels
    assert odd is not None
    assert set(odd.ravel()) == {255, 1, 14, 19}  # not between two classes


def test_without_sequences_every_gap_is_zero(tmp_path: Path) -> None:
    write_snippet(tmp_path, before=0, folder="")
    source = Cityscapes(tmp_path, "train", 8, 16)
    assert {source.pair(np.random.default_rng(seed)).gap for seed in range(20)} == {0}
    assert [len(snippet.frames) for snippet in source.snippets(5)] == [1]


def test_equal_generators_draw_equal_pairs(tmp_path: Path) -> None:
    for name in ("ulm_000003_000019", "ulm_000004_000019", "ulm_000005_000019"):
        write_snippet(tmp_path, name, before=9)
    first, second = (Cityscapes(tmp_path, "train", 8, 16) for _ in "ab")
    one, other = np.random.default_rng(5), np.random.default_rng(5)
    for _ in range(10):
        a, b = first.pair(one), second.pair(other)
        assert a.gap == b.gap
        np.testing.assert_array_equal(a.key, b.key)


def test_a_folder_without_labels_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no \*_gtFine_labelIds.png in .*; unpack"):
        Cityscapes(tmp_path)


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    write_labels(tmp_path)
    with pytest.raises(DataError, match=r"neither .*leftImg8bit_sequence.* exists; unpack"):
        Cityscapes(tmp_path)


@pytest.mark.parametrize("number", [19, 12])
def test_the_error_of_a_missing_frame_names_it(tmp_path: Path, number: int) -> None:
    write_snippet(tmp_path)
    (tmp_path / f"leftImg8bit_sequence/train/ulm/ulm_000003_{number:06d}_leftImg8bit.png").unlink()
    with pytest.raises(DataError, match=rf"ulm_000003_{number:06d}_leftImg8bit.png is missing"):
        Cityscapes(tmp_path)


@pytest.mark.parametrize(
    "file",
    [
        "gtFine/train/ulm/ulm_000003_000019_gtFine_labelIds.png",
        "leftImg8bit/train/ulm/ulm_000003_000019_leftImg8bit.png",
    ],
)
def test_the_error_of_a_truncated_png_names_it(tmp_path: Path, file: str) -> None:
    write_snippet(tmp_path, before=0, folder="")
    path = tmp_path / file
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=rf"{path.name} is cut short"):
        Cityscapes(tmp_path).pair(np.random.default_rng(0))


def test_colour_images_are_refused_as_labels(tmp_path: Path) -> None:
    write_snippet(tmp_path, before=0, folder="")
    write(write_labels(tmp_path), np.zeros((8, 16, 3), np.uint8))
    with pytest.raises(DataError, match=r"not an 8-bit greyscale PNG"):
        Cityscapes(tmp_path).pair(np.random.default_rng(0))


def test_labels_of_another_size_are_refused_in_pairs_and_snippets(tmp_path: Path) -> None:
    write_snippet(tmp_path, before=0, folder="")
    write(write_labels(tmp_path), LABELS[:4])
    source = Cityscapes(tmp_path)
    with pytest.raises(DataError, match=r"a frame of 16x4 pixels, but ulm_000003_000019.* 16x8"):
        source.pair(np.random.default_rng(0))
    with pytest.raises(DataError, match=r"16x4"):
        next(source.snippets(1)).frames[0]
