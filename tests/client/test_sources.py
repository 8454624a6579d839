from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from keywarp.client import Source, SourceError, SourceOptionError, open_source
from keywarp.client.videos import VideoSource
from tests.client.media import grey_level, picture, write_cut_video, write_video


def write_folder(folder: Path) -> Path:
    folder.mkdir()
    for name, level in (("b.png", 2), ("a.jpg", 1), ("c.webp", 3)):
        Image.fromarray(picture(level * 50)).save(folder / name)
    (folder / "notes.txt").write_text("not an image")
    return folder


@pytest.mark.parametrize("name", ["v.mp4", "v.ts", "v.mkv", "v.h264"])
def test_a_video_gives_its_frames_in_order(tmp_path: Path, name: str) -> None:
    with open_source(write_video(tmp_path / name)) as source:
        frames = list(source)
    assert (source.width, source.height) == (64, 48)
    assert len(frames) == 20
    for index, frame in enumerate(frames):
        assert frame.image.shape == (48, 64, 3)
        assert frame.image.dtype == np.uint8
        assert frame.image.flags.c_contiguous
        assert abs(float(frame.image.mean()) - grey_level(index)) < 3


def test_a_video_has_its_frame_rate_count_and_timestamps(tmp_path: Path) -> None:
    with open_source(str(write_video(tmp_path / "v.mp4"))) as source:
        assert (source.fps, source.count) == (10.0, 20)
        assert [frame.timestamp for frame in source] == pytest.approx([i / 10 for i in range(20)])


def test_a_folder_gives_its_images_by_name(tmp_path: Path) -> None:
    with open_source(write_folder(tmp_path / "images")) as source:
        assert (source.count, source.width, source.height) == (3, 64, 48)
        levels = [round(float(frame.image.mean()), -1) for frame in source]
    assert levels == [50, 100, 150]


def test_arrays_are_given_without_copying() -> None:
    arrays = [picture(1), picture(2)]
    source = open_source(arrays)
    assert source.count == 2
    for array, frame in zip(arrays, source, strict=True):
        assert frame.image is array
        assert frame.timestamp is None


def test_a_generator_is_read_one_by_one() -> None:
    read: list[int] = []

    def arrays() -> Iterator[NDArray[np.uint8]]:
        for index in range(5):
            read.append(index)
            yield picture(index)

    source = open_source(arrays())
    assert source.count is None
    next(iter(source))
    assert read == [0]


def test_a_strided_view_is_made_contiguous() -> None:
    (frame,) = open_source([picture(9)[:, ::2]])
    assert frame.image.flags.c_contiguous
    assert frame.image.shape == (48, 32, 3)


def write_text(path: Path) -> Path:
    path.write_text("This is not a video.\n" * 100)
    return path


def write_headless(folder: Path) -> Path:
    whole = write_video(folder / "whole.mp4").read_bytes()  # the index is at the end
    path = folder / "headless.mp4"
    path.write_bytes(whole[: len(whole) // 2])
    return path


def write_empty(folder: Path) -> Path:
    (folder / "empty").mkdir()
    return folder / "empty"


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda p: p / "missing.mp4", "there is no file"),
        (lambda p: write_text(p / "text.mp4"), "not a video"),
        (lambda p: write_text(p / "text.txt"), "is text, not a video"),
        (lambda p: write_headless(p), "truncated MP4 file"),
        (lambda p: write_empty(p), "no images"),
        (lambda _: "camera:first", "by its number"),
        (lambda _: "camera:99", "/dev/video99 can't be opened"),
        (lambda _: "/dev/video99", "can't be opened"),
        (lambda _: "http://127.0.0.1:9/v.mp4", "can't be opened"),
        (lambda _: "nonsense://x", "can't be opened"),
        (lambda _: [], "no frames"),
        (lambda _: [np.zeros((4, 4), np.uint8)], r"not uint8 \(4, 4\)"),
        (lambda _: [np.zeros((4, 4, 3), np.float32)], "not float32"),
        (lambda _: [np.zeros((0, 4, 3), np.uint8)], "4x0"),
    ],
)
def test_the_error_of_an_unsuitable_source_says_why(tmp_path: Path, make: Callable[[Path], Path], reason: str) -> None:
    with pytest.raises(SourceError, match=reason):
        open_source(make(tmp_path))


def read_all(source: Source) -> tuple[int, str]:
    count = 0
    with source:
        try:
            for _ in source:
                count += 1
        except SourceError as error:
            return count, str(error)
    raise AssertionError("the damage was not noticed")


def test_a_truncated_video_gives_its_frames_and_then_its_error(tmp_path: Path) -> None:
    count, said = read_all(open_source(write_cut_video(tmp_path)))
    assert 0 < count < 200
    assert f"{count} of 200 frames could be decoded" in said


def test_a_damaged_video_gives_its_sound_frames_and_then_its_error(tmp_path: Path) -> None:
    data = bytearray(write_video(tmp_path / "v.mp4", frames=200, options={"movflags": "+faststart"}).read_bytes())
    middle = (data.index(b"mdat") + len(data)) // 2
    data[middle : middle + 200] = b"\xa5" * 200
    path = tmp_path / "garbage.mp4"
    path.write_bytes(data)
    count, said = read_all(open_source(path))
    assert 0 < count < 200
    assert "is damaged" in said


def test_the_error_of_a_damaged_image_in_a_folder_names_it(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "images")
    (folder / "bb.png").write_bytes((folder / "b.png").read_bytes()[:40])
    count, said = read_all(open_source(folder))
    assert count == 3
    assert "1 of the 4 images" in said
    with open_source(folder) as source:
        frames = list(islice(source, 3))
        assert [frame.gap for frame in frames] == [False, False, True]  # nothing may be propagated across it
        assert source.missing == 1
    assert "bb.png" in said


def test_a_folder_without_a_readable_image_says_so(tmp_path: Path) -> None:
    # HEIC is what phones write: https://github.com/replicate/dreambooth/issues/23
    for number in range(5):
        (tmp_path / f"{number}.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(20))
    with pytest.raises(SourceError, match=r"5 of the 5 images in .* '0.heic' \(.*but HEIC\).* and 2 more"):
        open_source(tmp_path)


def test_a_folder_is_read_in_natural_order_without_hidden_files(tmp_path: Path) -> None:
    # Order: https://github.com/brainiak/brainiak/issues/354, https://github.com/HumanSignal/labelImg/pull/436
    # `._` files are what macOS leaves on other file systems: https://github.com/jurplel/qView/issues/651,
    # https://github.com/SanjaySoniLV/ProjectKestrel/pull/58
    for number in (1, 2, 9, 10, 11, 100):
        Image.fromarray(picture(number)).save(tmp_path / f"Img{number}.png")
    Image.fromarray(picture(50)).save(tmp_path / "img10b.png")
    (tmp_path / "._Img1.png").write_bytes(b"\0\5\26\7")
    (tmp_path / ".thumbnail.png").write_bytes((tmp_path / "Img1.png").read_bytes())
    with open_source(tmp_path) as source:
        assert source.count == 7
        assert [int(frame.image[0, 0, 0]) for frame in source] == [1, 2, 9, 10, 50, 11, 100]


@pytest.mark.parametrize("name", ["turned.jpg", "turned.png", "turned.webp"])
def test_images_are_turned_by_their_exif_orientation(tmp_path: Path, name: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "folder").mkdir()
    Image.fromarray(picture(9)).save(tmp_path / "folder" / name, exif=exif)
    for path in (tmp_path / "folder", tmp_path / "folder" / name):
        with open_source(path) as source:
            assert (source.width, source.height) == (48, 64)
            assert [frame.image.shape for frame in source] == [(64, 48, 3)]
        with open_source(path, upright=False) as source:
            assert [frame.image.shape for frame in source] == [(48, 64, 3)]


def test_an_animation_gives_its_pictures_with_their_times(tmp_path: Path) -> None:
    # https://github.com/mpv-player/mpv/issues/13789, https://github.com/stashapp/stash/pull/6342
    pictures = [Image.fromarray(picture(value)) for value in (40, 80, 120)]
    for name in ("animated.webp", "animated.png"):
        pictures[0].save(tmp_path / name, save_all=True, append_images=pictures[1:], duration=100, lossless=True)
        with open_source(tmp_path / name) as source:
            assert (source.width, source.height, source.fps) == (64, 48, 10)
            frames = list(source)
        assert [int(frame.image[0, 0, 0]) for frame in frames] == [40, 80, 120]
        assert [frame.timestamp for frame in frames] == pytest.approx([0, 0.1, 0.2])
    whole = (tmp_path / "animated.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: whole.rindex(b"fdAT") + 8])
    count, said = read_all(open_source(tmp_path / "cut.png"))
    assert count == 2
    assert "2 frames could be decoded" in said


def test_an_image_that_is_none_says_why(tmp_path: Path) -> None:
    (tmp_path / "page.jpg").write_text("<!DOCTYPE html><html>moved</html>")
    with pytest.raises(SourceError, match=r"page.jpg' can't be read: .*but HTML"):
        open_source(tmp_path / "page.jpg")


def test_a_video_gives_the_motion_vectors_of_its_codec_if_they_are_asked_for(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4")
    with open_source(path, vectors=True) as source:
        vectors = [frame.vectors for frame in source]
    assert all(v is not None and v.codec == "h264" for v in vectors)
    intra = [index for index, v in enumerate(vectors) if v is not None and v.blocks is None]
    assert intra == [0, 10]  # the key frames of the video
    with open_source(path) as source:
        assert all(frame.vectors is None for frame in source)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_frames_of_a_jpeg_camera_are_turned_by_their_exif_orientation(tmp_path: Path, orientation: int) -> None:
    # PyAV fails at side data of this kind: https://github.com/PyAV-Org/PyAV/pull/2392
    exif = Image.Exif()
    exif[0x0112] = orientation
    with (tmp_path / "camera.mjpeg").open("wb") as file:
        for _ in range(3):
            Image.fromarray(picture(90)).save(file, "JPEG", exif=exif)
    with VideoSource(tmp_path / "camera.mjpeg", vectors=True) as source:
        frames = list(source)
        assert source.orientation == orientation
    assert [frame.image.shape[:2] for frame in frames] == [(64, 48) if orientation > 4 else (48, 64)] * 3


def test_a_video_is_chosen_only_where_there_may_be_several(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    Image.fromarray(picture(9)).save(tmp_path / "folder" / "a.png")
    pictures: list[Any] = [tmp_path / "folder", tmp_path / "folder" / "a.png", "camera:0", "/dev/video0", [picture(9)]]
    for source in pictures:
        with pytest.raises(SourceOptionError, match=r"the option `video` can't be used: .*(camera|image|arrays)"):
            open_source(source, video=0)
    with open_source(write_video(tmp_path / "v.mp4"), video=0) as source:
        assert source.count == 20
