import json
import resource
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from keywarp.cli import CommandError, Summary, part_file, record
from keywarp.client import DrawingError, ProcessedFrame, open_source
from keywarp.protocol import Detection
from tests.client.media import CLASSES, frame_result, result

CAR = Detection(class_id=2, name="car", confidence=0.6, xyxy=(20.0, 10.0, 64.0, 40.0))


def run(results: Iterator[ProcessedFrame], **options: Path) -> Summary:
    return record(results, classes=CLASSES, fps=10, title="test", **options)  # type: ignore[arg-type]


def some(count: int) -> Iterator[ProcessedFrame]:
    return (frame_result(frame) for frame in range(count))


def test_each_result_is_a_line_with_its_latency(tmp_path: Path) -> None:
    path = tmp_path / "r.ndjson"
    summary = run(some(12), json=path)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["frame"] for line in lines] == list(range(12))
    assert lines[3]["kind"] == "propagated"
    assert lines[3]["key_age"] == 3
    assert lines[3]["latency"] == 0.02
    assert lines[3]["timings"]["inference"] == 0.01
    assert (summary.frames, summary.key_frames) == (12, 2)
    assert list(tmp_path.iterdir()) == [path]


def test_results_are_written_for_other_tools(tmp_path: Path) -> None:
    run(some(3), coco=tmp_path / "coco.json")
    coco = json.loads((tmp_path / "coco.json").read_text())
    assert [image["id"] for image in coco["images"]] == [0, 1, 2]
    assert {annotation["category_id"] for annotation in coco["annotations"]} == {1}
    boxes = [ProcessedFrame(result(frame).model_copy(update={"detections": (CAR,)})) for frame in range(3)]
    run(iter(boxes), mot=tmp_path / "boxes.txt")
    assert len((tmp_path / "boxes.txt").read_text().splitlines()) == 3
    with pytest.raises(CommandError, match="don't have"):
        run(some(3), mot=tmp_path / "none.txt")
    assert not (tmp_path / "none.txt").exists()


def test_each_result_is_a_frame_of_the_video(tmp_path: Path) -> None:
    pytest.importorskip("supervision", reason="the extra `draw` is not installed")
    path = tmp_path / "v.mp4"
    run(some(12), out=path)
    with open_source(path) as source:
        assert (source.count, source.fps) == (12, 10.0)
        assert len(list(source)) == 12
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [KeyboardInterrupt, CommandError("stop")])
def test_an_interrupted_run_leaves_valid_part_files(
    tmp_path: Path, error: BaseException, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("supervision", reason="the extra `draw` is not installed")

    def broken() -> Iterator[ProcessedFrame]:
        yield from some(5)
        raise error

    with pytest.raises(type(error) if isinstance(error, Exception) else KeyboardInterrupt):
        run(broken(), out=tmp_path / "v.mp4", json=tmp_path / "r.ndjson")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["r.ndjson.part", "v.mp4.part"]
    assert len((tmp_path / "r.ndjson.part").read_text().splitlines()) == 5
    with open_source(tmp_path / "v.mp4.part") as source:
        assert len(list(source)) == 5
    assert f"the unfinished output is in {tmp_path / 'r.ndjson.part'}" in capsys.readouterr().err


@pytest.fixture
def small_files() -> Iterator[None]:
    """Files can't grow beyond 64 KiB, as if the disk were full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.usefixtures("small_files")
def test_the_error_of_a_full_disk_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match=r"r\.ndjson' can't be written: File too large"):
        run(some(2000), json=tmp_path / "r.ndjson", coco=tmp_path / "coco.json")
    assert not (tmp_path / "r.ndjson").exists()


def test_an_older_file_stays_until_the_new_one_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "r.ndjson"
    path.write_text("old")
    with part_file(path) as part:
        part.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"


def test_a_run_without_results_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="no frame of the source could be processed"):
        run(some(0), json=tmp_path / "r.ndjson")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_is_reported(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="can't be written"):
        run(some(1), json=tmp_path / "no" / "r.ndjson")


def test_results_without_images_cannot_be_drawn(tmp_path: Path) -> None:
    pytest.importorskip("supervision", reason="the extra `draw` is not installed")
    with pytest.raises(DrawingError, match="never decoded"):
        run(iter([ProcessedFrame(result(0))]), out=tmp_path / "v.mp4")


class Clock:
    """Time that passes only when a test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", clock)
    return clock


Timed = Callable[[Iterator[ProcessedFrame]], Summary]


@pytest.fixture
def timed(clock: Clock, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Timed:
    """Records results to a file, which takes 5 s for each frame."""

    def write_slowly(_: ProcessedFrame, **_options: object) -> list[str]:
        clock.now += 5.0
        return []

    monkeypatch.setattr("keywarp.cli.report.to_mot", write_slowly)
    return lambda results: run(results, mot=tmp_path / "boxes.txt")


def one_by_one(clock: Clock, latency: float | None) -> Iterator[ProcessedFrame]:
    """Ten results, each of which takes 1 s from when it is asked for."""
    for frame in range(10):
        clock.now += 1.0
        yield ProcessedFrame(result(frame), None, latency, clock.now)


def test_time_in_which_only_writing_takes_place_does_not_count(clock: Clock, timed: Timed) -> None:
    # As in one process, where a frame is begun when its result is asked for.
    summary = timed(one_by_one(clock, latency=1.0))
    assert summary.seconds == pytest.approx(10)
    assert summary.fps == pytest.approx(1)


def test_time_with_a_frame_under_way_counts_even_during_writing(clock: Clock, timed: Timed) -> None:
    # As with a server: while one result is written, the next frame is under way, and done before it is asked for.
    def ahead() -> Iterator[ProcessedFrame]:
        for frame in range(10):
            sent = clock.now
            clock.now += 1.0 if frame == 0 else 0.0
            yield ProcessedFrame(result(frame), None, 1.0, sent + 1.0 if frame == 0 else sent - 3.0)

    summary = timed(ahead())
    assert summary.seconds == pytest.approx(10)


def test_all_time_counts_if_the_latency_is_unknown(clock: Clock, timed: Timed) -> None:
    summary = timed(one_by_one(clock, latency=None))
    assert summary.seconds == pytest.approx(60)
    assert summary.key is None
