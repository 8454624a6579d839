import struct
from pathlib import Path

import cv2
import numpy as np
import pytest

from keywarp.datasets import DataError
from keywarp.datasets.flying_chairs import FlyingChairs, read_flo, write_flo


def write_pair(root: Path, number: int, size: tuple[int, int] = (6, 8)) -> None:
    """Write images that hold the pair's number, the first in red and the second in blue, and a flow of (number,
    -number).
    """
    folder = root / "data"
    folder.mkdir(exist_ok=True)
    for image, channel in ((1, 2), (2, 0)):  # OpenCV writes BGR
        pixels = np.zeros((*size, 3), np.uint8)
        pixels[..., channel] = number
        cv2.imwrite(str(folder / f"{number:05d}_img{image}.ppm"), pixels)
    write_flo(folder / f"{number:05d}_flow.flo", np.full((*size, 2), (number, -number), np.float32))


def test_flo_files_are_as_middlebury_defines_them(tmp_path: Path) -> None:
    path = tmp_path / "a.flo"
    path.write_bytes(struct.pack("<4sii", b"PIEH", 3, 1) + struct.pack("<6f", 1, 2, 3, 4, 5.5, -6))
    flow = read_flo(path)
    np.testing.assert_array_equal(flow, np.array([[[1, 2], [3, 4], [5.5, -6]]], np.float32))
    assert flow.dtype == np.float32
    write_flo(tmp_path / "b.flo", flow)
    assert (tmp_path / "b.flo").read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"PIEH", "less than a .flo file's header"),
        (struct.pack("<fii", 1.5, 1, 1) + bytes(8), "not a .flo file"),
        (struct.pack(">fii", 202021.25, 1, 1) + bytes(8), "not a .flo file"),
        (struct.pack("<fii", 202021.25, 0, 1), "not a .flo file"),
        (struct.pack("<fii", 202021.25, 1, -1), "not a .flo file"),
        (struct.pack("<fii", 202021.25, 2, 2) + bytes(31), "43 bytes, but 2x2 flow has 44"),
        (struct.pack("<fii", 202021.25, 2, 2) + bytes(33), "45 bytes, but 2x2 flow has 44"),
    ],
)
def test_the_error_of_a_broken_flo_file_names_it(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "a.flo").write_bytes(content)
    with pytest.raises(DataError, match=rf"a.flo .*{reason}"):
        read_flo(tmp_path / "a.flo")


def test_flow_of_another_shape_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"\(H, W, 2\), not \(2, 3, 4\)"):
        write_flo(tmp_path / "a.flo", np.zeros((2, 3, 4), np.float32))


def test_the_first_image_is_the_current_frame(tmp_path: Path) -> None:
    write_pair(tmp_path, 7)
    pair = FlyingChairs(tmp_path).flow_pair(np.random.default_rng(0))
    assert pair.current[0, 0].tolist() == [7, 0, 0]
    assert pair.key[0, 0].tolist() == [0, 0, 7]
    assert pair.flow[0, 0].tolist() == [7, -7]


def test_the_list_splits_the_pairs(tmp_path: Path) -> None:
    for number in range(1, 6):
        write_pair(tmp_path, number)
    (tmp_path / "FlyingChairs_train_val.txt").write_text("1\n2\n1\n2\n1\n")
    drawn = {}
    for split in ("train", "val"):
        source, random = FlyingChairs(tmp_path, split), np.random.default_rng(0)
        drawn[split] = {int(source.flow_pair(random).flow[0, 0, 0]) for _ in range(50)}
    assert drawn == {"train": {1, 3, 5}, "val": {2, 4}}
    assert len(FlyingChairs(tmp_path, "train")) == 3


def test_without_a_list_everything_is_for_training(tmp_path: Path) -> None:
    write_pair(tmp_path, 1)
    assert len(FlyingChairs(tmp_path)) == 1
    with pytest.raises(DataError, match=r"FlyingChairs_train_val.txt is missing.*`val`"):
        FlyingChairs(tmp_path, "val")


@pytest.mark.parametrize(
    ("content", "reason"),
    [("1\n", "1 lines and none for pair 00002"), ("1\n3\n", "lines other than 1 and 2"), ("2\n2\n", "no pair")],
)
def test_the_error_of_a_list_that_does_not_fit_names_it(tmp_path: Path, content: str, reason: str) -> None:
    for number in (1, 2):
        write_pair(tmp_path, number)
    (tmp_path / "FlyingChairs_train_val.txt").write_text(content)
    with pytest.raises(DataError, match=rf"FlyingChairs_train_val.txt has {reason}"):
        FlyingChairs(tmp_path)


def test_a_folder_without_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no \*_flow.flo in .*data; unpack"):
        FlyingChairs(tmp_path)


def test_the_error_of_a_missing_image_names_it(tmp_path: Path) -> None:
    write_pair(tmp_path, 1)
    (tmp_path / "data/00001_img2.ppm").unlink()
    with pytest.raises(DataError, match=r"can't read .*00001_img2.ppm"):
        FlyingChairs(tmp_path).flow_pair(np.random.default_rng(0))


def test_the_error_of_a_truncated_ppm_names_it(tmp_path: Path) -> None:
    write_pair(tmp_path, 1)
    path = tmp_path / "data/00001_img2.ppm"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(DataError, match=r"00001_img2.ppm is cut short"):
        FlyingChairs(tmp_path).flow_pair(np.random.default_rng(0))


def test_flow_of_another_size_is_refused(tmp_path: Path) -> None:
    write_pair(tmp_path, 1)
    write_flo(tmp_path / "data/00001_flow.flo", np.zeros((8, 6, 2), np.float32))
    with pytest.raises(DataError, match=r"00001 differ in size"):
        FlyingChairs(tmp_path).flow_pair(np.random.default_rng(0))
