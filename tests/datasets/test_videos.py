import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from av.video.frame import PictureType
from PIL import Image

from keywarp.datasets import IGNORE, DataError
from keywarp.datasets.video_file import VideoFile
from keywarp.datasets.videos import LabelledVideos

CLASSES = (("background", (0, 0, 0)), ("person", (255, 0, 0)), ("car", (0, 0, 255)))
FRAMES = 40
SIZE = (32, 48)
X264 = "keyint=12:min-keyint=12:scenecut=0:bframes=3:b-adapt=0"


def write_video(path: Path, x264: str = "") -> None:
    """Write frames whose brightness is 6 times their number, with several key frames and B-frames in between."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(25), options={"x264-params": f"{X264}:{x264}"})
        stream.height, stream.width = SIZE
        stream.pix_fmt = "yuv420p"
        for number in range(FRAMES):
            frame = np.full((*SIZE, 3), 6 * number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def write_frames(folder: Path, numbers: range, name: str = "{:06d}.png") -> None:
    folder.mkdir()
    for number in numbers:
        cv2.imwrite(str(folder / name.format(number)), np.full((*SIZE, 3), 6 * number, np.uint8))


def write_labels(path: Path, value: int = 1, size: tuple[int, int] = SIZE) -> None:
    path.parent.mkdir(exist_ok=True)
    cv2.imwrite(str(path), np.full(size, value, np.uint8))


def write_boxes(path: Path, frames: dict[str, Any]) -> None:
    path.write_text(json.dumps(frames))


def number_of(image: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> int:
    return round(float(image.mean()) / 6)


def videos(root: Path, short_side: int = 32, long_side: int = 100) -> LabelledVideos:
    return LabelledVideos(root, CLASSES, short_side, long_side)


@pytest.mark.parametrize(
    ("name", "x264"), [("closed.mp4", ""), ("open.mp4", "open-gop=1"), ("closed.mkv", ""), ("closed.ts", "")]
)
def test_random_access_gives_the_same_frames_as_decoding_from_the_start(tmp_path: Path, name: str, x264: str) -> None:
    write_video(tmp_path / name, x264)
    with av.open(str(tmp_path / name)) as container:
        shown = list(container.decode(video=0))
    assert PictureType.B in [picture.pict_type for picture in shown]
    frames = [picture.to_ndarray(format="rgb24") for picture in shown]
    video = VideoFile(tmp_path / name)
    assert len(video.index.starts) > 1
    reader = video.open()
    for number in np.random.default_rng(0).permutation(FRAMES):
        np.testing.assert_array_equal(reader.frame(int(number)), frames[number])


def test_reading_forwards_decodes_each_frame_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_video(tmp_path / "v.mp4")
    reader = VideoFile(tmp_path / "v.mp4").open()
    open_, opened = av.open, list[str]()

    def count(path: str, *arguments: Any, **options: Any) -> Any:
        opened.append(path)
        return open_(path, *arguments, **options)

    monkeypatch.setattr(av, "open", count)
    assert [number_of(reader.frame(number)) for number in range(14, 24)] == list(range(14, 24))
    assert len(opened) == 1


# https://github.com/PyAV-Org/PyAV/issues/534, https://github.com/xbmc/xbmc/pull/2057
@pytest.mark.parametrize("name", ["v.avi", "v.h264"])
def test_frames_without_right_time_stamps_are_counted_from_the_beginning(tmp_path: Path, name: str) -> None:
    write_video(tmp_path / name)
    reader = VideoFile(tmp_path / name).open()
    assert reader.last == FRAMES - 1
    assert [number_of(reader.frame(number)) for number in (5, 6, 20, 3, FRAMES - 1)] == [5, 6, 20, 3, FRAMES - 1]


@pytest.mark.parametrize("kind", ["video", "folder"])
def test_pairs_consist_of_a_labelled_frame_and_one_before_it(tmp_path: Path, kind: str) -> None:
    if kind == "video":
        write_video(tmp_path / "gate.mp4")
    else:
        write_frames(tmp_path / "gate", range(FRAMES))
    write_labels(tmp_path / "gate.labels/000004.png", 1)
    write_labels(tmp_path / "gate.labels/30.png", 2)
    source, random = videos(tmp_path), np.random.default_rng(0)
    pairs = [source.pair(random) for _ in range(120)]
    gaps: dict[int, set[int]] = {4: set(), 30: set()}
    for pair in pairs:
        current = number_of(pair.current)
        gaps[current].add(pair.gap)
        assert number_of(pair.key) == current - pair.gap
        assert pair.truth.boxes is None
        assert pair.truth.labels is not None
        assert (pair.truth.labels == {4: 1, 30: 2}[current]).all()
    assert gaps == {4: set(range(5)), 30: set(range(10))}


def test_boxes_are_resized_with_the_frame_and_clipped_to_it(tmp_path: Path) -> None:
    write_video(tmp_path / "gate.mp4")
    objects = [{"class": "car", "box": [4, 6, 20.5, 30]}, {"class": "person", "box": [40, -3, 60, 8]}]
    write_boxes(tmp_path / "gate.boxes.json", {"20": objects, "000021": []})
    snippets = list(videos(tmp_path, short_side=16).snippets(3))
    assert [snippet.name for snippet in snippets] == ["gate/000020", "gate/000021"]
    first, second = (snippet.truth.boxes for snippet in snippets)
    assert first is not None
    assert second is not None
    np.testing.assert_array_equal(first.corners, [[2, 3, 10.25, 15], [20, 0, 24, 4]])
    assert first.classes.tolist() == [2, 1]
    assert len(second.classes) == 0
    assert [number_of(frame) for frame in snippets[0].frames] == [18, 19, 20]
    assert snippets[0].frames[0].shape == (16, 24, 3)


def test_frames_of_a_folder_are_turned_as_programs_for_labelling_show_them(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "yard").mkdir()
    Image.fromarray(np.full((48, 32, 3), 60, np.uint8)).save(tmp_path / "yard/000000.png", exif=exif)
    (tmp_path / "yard/._000000.png").write_bytes(b"\0\5\26\7")  # which macOS leaves
    write_labels(tmp_path / "yard.labels/0.png")  # of 48x32 pixels
    assert videos(tmp_path).pair(np.random.default_rng(0)).current.shape == (32, 48, 3)
    stored = LabelledVideos(tmp_path, CLASSES, 32, 100, upright=False)
    with pytest.raises(DataError, match="48x32 pixels"):
        stored.pair(np.random.default_rng(0))


def test_a_frame_may_have_labels_and_boxes(tmp_path: Path) -> None:
    write_frames(tmp_path / "yard", range(3))
    write_labels(tmp_path / "yard.labels/2.png", IGNORE)
    write_boxes(tmp_path / "yard.boxes.json", {"2": [{"class": "car", "box": [0, 0, 9, 9]}]})
    source = videos(tmp_path)
    truth = source.pair(np.random.default_rng(0)).truth
    assert len(source) == 1
    assert truth.labels is not None
    assert (truth.labels == IGNORE).all()
    assert truth.boxes is not None


def test_frames_of_a_folder_have_the_numbers_of_their_files(tmp_path: Path) -> None:
    write_frames(tmp_path / "yard", range(5, 9), "cam2_{:04d}.png")
    write_labels(tmp_path / "yard.labels/0006.png")
    snippet = next(videos(tmp_path).snippets(5))
    assert [number_of(frame) for frame in snippet.frames] == [5, 6]
    pairs = [videos(tmp_path).pair(np.random.default_rng(seed)) for seed in range(20)]
    assert {pair.gap for pair in pairs} == {0, 1}


def test_only_frames_with_the_requested_kind_of_labels_are_used(tmp_path: Path) -> None:
    for name in ("gate", "yard"):
        write_frames(tmp_path / name, range(4))
    write_labels(tmp_path / "gate.labels" / "000002.png")
    write_boxes(tmp_path / "yard.boxes.json", {"3": [{"class": "car", "box": [1, 1, 9, 9]}]})
    found = {
        wanted: [(s.truth.labels is not None, s.truth.boxes is not None) for s in source.snippets(1)]
        for wanted in ("labels", "boxes")
        for source in [LabelledVideos(tmp_path, CLASSES, *SIZE, truth=wanted)]
    }
    assert found == {"labels": [(True, False)], "boxes": [(False, True)]}


def test_videos_without_labels_are_not_read(tmp_path: Path) -> None:
    write_frames(tmp_path / "yard", range(2))
    (tmp_path / "other.mp4").write_text("not read")
    write_labels(tmp_path / "yard.labels/1.png")
    assert len(videos(tmp_path)) == 1


def test_a_folder_without_labels_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no labelled frames in .*; put NAME.labels"):
        videos(tmp_path)
    with pytest.raises(DataError, match=r"nowhere is not a folder"):
        videos(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        ([], "no video; put a video or folder of frames of that name there"),
        (["gate.mov", "gate.mp4"], "gate.mov and gate.mp4 match them; keep one"),
    ],
)
def test_labels_without_exactly_one_video_are_refused(tmp_path: Path, files: list[str], problem: str) -> None:
    write_labels(tmp_path / "gate.labels/1.png")
    for file in files:
        (tmp_path / file).touch()
    with pytest.raises(DataError, match=rf"gate, but {problem}$"):
        videos(tmp_path)


@pytest.mark.parametrize(("first", "label"), [(0, 40), (3, 2)])
def test_the_error_of_a_label_without_a_frame_names_it(tmp_path: Path, first: int, label: int) -> None:
    if first:
        write_frames(tmp_path / "gate", range(first, FRAMES))
    else:
        write_video(tmp_path / "gate.mp4")
    write_labels(tmp_path / f"gate.labels/{label}.png")
    with pytest.raises(DataError, match=rf"{label}.png labels frame {label}, but gate has frames {first} to 39"):
        videos(tmp_path).pair(np.random.default_rng(0))


def test_the_error_of_a_gap_in_a_folder_names_the_missing_frame(tmp_path: Path) -> None:
    write_frames(tmp_path / "yard", range(4))
    (tmp_path / "yard/000002.png").unlink()
    write_labels(tmp_path / "yard.labels/3.png")
    with pytest.raises(DataError, match=r"yard has no frame 2"):
        videos(tmp_path)


@pytest.mark.parametrize(("name", "reason"), [("first.png", "has no number"), ("1.png", "have the same number")])
def test_file_names_without_a_unique_number_are_refused(tmp_path: Path, name: str, reason: str) -> None:
    write_frames(tmp_path / "yard", range(2))
    write_labels(tmp_path / "yard.labels/001.png")
    write_labels(tmp_path / f"yard.labels/{name}")
    with pytest.raises(DataError, match=reason):
        videos(tmp_path)


def test_the_error_of_an_unknown_class_id_names_it(tmp_path: Path) -> None:
    write_frames(tmp_path / "yard", range(1))
    write_labels(tmp_path / "yard.labels/0.png", 3)
    with pytest.raises(DataError, match=r"0.png holds class id 3; use 0 to 2"):
        videos(tmp_path).pair(np.random.default_rng(0))


@pytest.mark.parametrize(
    ("frames", "reason"),
    [
        (
            {"1": [{"class": "dog", "box": [0, 0, 1, 1]}]},
            "has an unknown class `dog` on frame 1; use one of person, car",
        ),
        ({"1": [{"class": "background", "box": [0, 0, 1, 1]}]}, "has an unknown class `background`"),
        ({"1": [{"class": "car", "box": [5, 0, 5, 1]}]}, "empty box"),
        ({"1": [{"class": "car", "box": [0, 0, 1]}]}, "malformed at 1 / 0 / box"),
        ({"1": [{"class": "car", "bbox": [0, 0, 1, 1]}]}, "malformed at 1 / 0 / b"),
        ({"one": []}, "malformed at one"),
        ({"-1": []}, "malformed at -1"),
        ([], "malformed: "),
    ],
)
def test_the_error_of_malformed_boxes_gives_the_reason(tmp_path: Path, frames: dict[str, Any], reason: str) -> None:
    write_frames(tmp_path / "yard", range(2))
    write_boxes(tmp_path / "yard.boxes.json", frames)
    with pytest.raises(DataError, match=rf"yard.boxes.json .*{reason}"):
        videos(tmp_path)


def test_the_error_of_a_box_outside_its_frame_names_it(tmp_path: Path) -> None:
    write_frames(tmp_path / "yard", range(2))
    write_boxes(tmp_path / "yard.boxes.json", {"1": [{"class": "car", "box": [100, 2, 120, 9]}]})
    with pytest.raises(DataError, match=r"frame 1 of .*yard.boxes.json has a box \[100.0, .* outside its 48x32 pixels"):
        videos(tmp_path).pair(np.random.default_rng(0))


def test_labels_of_another_size_are_refused(tmp_path: Path) -> None:
    write_video(tmp_path / "gate.mp4")
    write_labels(tmp_path / "gate.labels/5.png", size=(16, 24))
    with pytest.raises(DataError, match=r"5.png is for a frame of 24x16 pixels, but gate/000005, .* has 48x32"):
        videos(tmp_path).pair(np.random.default_rng(0))


def test_the_error_of_a_truncated_video_names_it(tmp_path: Path) -> None:
    write_video(tmp_path / "gate.mp4")
    content = (tmp_path / "gate.mp4").read_bytes()
    (tmp_path / "gate.mp4").write_bytes(content[: len(content) // 2])
    write_labels(tmp_path / "gate.labels/5.png")
    with pytest.raises(DataError, match=r"gate.mp4 is not a readable video"):
        videos(tmp_path).pair(np.random.default_rng(0))
