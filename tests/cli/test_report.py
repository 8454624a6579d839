import json
import resource
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from keywarp.cli import CommandError, Summary, partial, record
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


def test_results_for_other_tools(tmp_path: Path) -> None:
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
def test_a_broken_off_run_leaves_valid_parts(
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
    assert "r.ndjson.part" in capsys.readouterr().err


@pytest.fixture
def small_files() -> Iterator[None]:
    """No file can grow beyond 64 KiB: as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.usefixtures("small_files")
def test_a_file_that_cannot_grow_is_named(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match=r"r\.ndjson' can't be written: File too large"):
        run(some(2000), json=tmp_path / "r.ndjson", coco=tmp_path / "coco.json")
    assert not (tmp_path / "r.ndjson").exists()


def test_an_older_file_stays_until_the_new_one_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "r.ndjson"
    path.write_text("old")
    with partial(path) as part:
        part.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"


def test_a_run_that_fails_at_once_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="no frame"):
        run(some(0), json=tmp_path / "r.ndjson")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_is_said_so(tmp_path: Path) -> None:
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


def timed(clock: Clock, monkeypatch: pytest.MonkeyPatch, results: Iterator[ProcessedFrame], drawing: float) -> Summary:
    """Record results with drawing that takes this long a frame."""

    def sink(_: ProcessedFrame) -> None:
        clock.now += drawing

    from contextlib import nullcontext

    monkeypatch.setattr("keywarp.cli.report._bar", lambda *_: nullcontext(sink))
    return run(results)


def waited(clock: Clock, waits: float, latency: Callable[[int], float | None]) -> Iterator[ProcessedFrame]:
    for frame in range(10):
        clock.now += waits
        yield ProcessedFrame(result(frame), None, latency(frame), clock.now)


def test_time_that_only_drawing_takes_does_not_count(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    # As in one process: a frame is begun when its result is asked for.
    summary = timed(clock, monkeypatch, waited(clock, 1.0, lambda _: 1.0), drawing=5.0)
    assert summary.seconds == pytest.approx(10)
    assert summary.fps == pytest.approx(1)


def test_time_under_way_counts_even_while_drawing(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    # As with a server: while one frame is drawn the next is under way, and done before it is asked for.
    def ahead() -> Iterator[ProcessedFrame]:
        for frame in range(10):
            sent = clock.now
            clock.now += 1.0 if frame == 0 else 0.0
            yield ProcessedFrame(result(frame), None, 1.0, sent + 1.0 if frame == 0 else sent - 3.0)

    summary = timed(clock, monkeypatch, ahead(), drawing=5.0)
    assert summary.seconds == pytest.approx(10)


def test_where_latency_is_unknown_all_time_counts(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    summary = timed(clock, monkeypatch, waited(clock, 1.0, lambda _: None), drawing=5.0)
    assert summary.seconds == pytest.approx(60)
    assert summary.key is None
