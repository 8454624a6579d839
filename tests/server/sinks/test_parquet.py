"""Parquet files of responses, read back as an analyst does."""

import asyncio
import resource
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pytest
from pyarrow import dataset, ipc, parquet

from keywarp.protocol import (
    Detection,
    Dropped,
    Error,
    Hello,
    Problem,
    Region,
    Result,
    RunLengths,
    Segmentation,
    Timings,
)
from keywarp.server.errors import SinkError, SiteError
from keywarp.server.sinks.parquet import ParquetSink
from keywarp.server.site import read_site
from keywarp.server.streams.subscribers import FrameResponse
from tests.server.conftest import Starter, eventually
from tests.server.media import GREEN, RED, jpeg
from tests.server.sinks.test_sinks import sink_count, write_site
from tests.server.test_process import process


def rows(folder: Path) -> list[dict[str, Any]]:
    """All rows of a folder's Parquet files, in the order of frames."""
    found: list[dict[str, Any]] = dataset.dataset(folder).to_table().to_pylist()
    return sorted(found, key=lambda row: row["frame"])


def files(folder: Path, kind: str = "parquet") -> list[Path]:
    return sorted(folder.glob(f"*.{kind}"))


def dropped(frames: Iterable[int]) -> list[FrameResponse]:
    return [Dropped(frame=frame, reason="newer") for frame in frames]


@contextmanager
def sink(folder: str, **options: Any) -> Iterator[Callable[[list[FrameResponse]], None]]:
    """Deliver to a sink as the server does, on one event loop, and close it at the end."""
    with asyncio.Runner() as runner:
        made = ParquetSink(folder, **({"max_bytes": 10**9, "max_rows": 10**6, "max_seconds": 1e6} | options))
        yield lambda answers: runner.run(made.deliver("door", answers))
        runner.run(made.close())


TIME = datetime(2026, 11, 30, 17, 25, 31, 42318, UTC)


def result(frame: int, **content: Any) -> Result:
    timings = Timings(decode=0.003, queue=0.001, inference=0.02, postprocess=0.002)
    return Result(
        stream="door", frame=frame, width=640, height=480, kind="propagated", key_age=3, timings=timings, **content
    )


def test_every_response_of_a_stream_is_a_row_in_its_folder(start: Starter, tmp_path: Path) -> None:
    server = start(site=write_site(tmp_path, f'[sinks.table]\nparquet = "{tmp_path}/{{stream}}"\nmax_seconds = 0.2'))
    with server.connect("door", Hello(interval=10, sinks=("table",))) as talk:
        answers, _ = talk.stream([*((i, jpeg((GREEN, RED)[i % 2])) for i in range(30)), (30, b"no image")])
    eventually(lambda: sink_count(server, "table", "delivered") == 31)
    eventually(lambda: not files(tmp_path / "door", "arrows"))  # although no more responses come
    found = rows(tmp_path / "door")
    assert [(row["type"], row["frame"], row["id"]) for row in found] == [
        *(("result", i, str(i)) for i in range(30)),
        ("error", 30, "30"),
    ]
    assert [row["key_age"] for row in found[:30]] == [i % 10 for i in range(30)]
    first = answers[0]
    assert isinstance(first, Result)
    assert found[0]["inference"] == first.timings.inference
    assert [row["time"] for row in found] == [answer.time for answer in answers]
    assert None not in [row["time"] for row in found]
    assert (found[30]["status"], found[30]["inference"]) == (415, None)


def test_masks_and_keypoints_of_objects_have_columns(tmp_path: Path) -> None:
    mask = RunLengths(size=(3, 4), counts=(5, 2, 5))
    points = ((1.5, 2.0, 0.75), (-1.0, 0.0, 0.0))
    one = Detection(class_id=1, name="person", confidence=0.5, xyxy=(1, 2, 3, 4), mask=mask, keypoints=points)
    with sink(str(tmp_path)) as deliver:
        deliver([result(0, detections=(one,))])
    [row] = rows(tmp_path)
    assert (row["mask_height"], row["mask_width"]) == (3, 4)
    [found] = row["detections"]
    assert found["mask"] == [5, 2, 5]
    assert found["keypoints"] == [dict(zip(("x", "y", "confidence"), point, strict=True)) for point in points]


def test_each_part_of_a_response_has_a_column(tmp_path: Path) -> None:
    box = Detection(class_id=2, name="car", confidence=0.5, xyxy=(1.0, 2.0, 30.5, 40.25), reliability=0.75, track_id=7)
    rated = {"motion": "dis", "reliability": 0.5, "reliability_png": "aW1hZ2U="}
    road = Region(class_id=1, name="road", area=0.25)
    segmentation = Segmentation(width=64, height=48, labels_png="aW1hZ2U=", regions=(road,))
    problem = Problem(title="Gone", status=410, detail="it went")
    with sink(str(tmp_path)) as deliver:
        deliver([result(0, id="a", time=TIME, timestamp=1.5, detections=(box,), reason="cut", change=0.5)])
        deliver([result(1, segmentation=segmentation, **rated), result(2, detections=())])
        deliver([Error(problem=problem, fatal=False, frame=3, id=7), *dropped([4])])
    detected, segmented, empty, error, drop = rows(tmp_path)
    assert detected["detections"] == [
        {"class_id": 2, "name": "car", "confidence": 0.5, "x1": 1.0, "y1": 2.0, "x2": 30.5, "y2": 40.25}
        | {"reliability": 0.75, "track_id": 7, "mask": None, "keypoints": None}
    ]
    assert (detected["timestamp"], detected["reason"], detected["change"]) == (1.5, "cut", 0.5)
    assert segmented["regions"] == [{"class_id": 1, "name": "road", "pixels": 768, "rle": None}]
    assert (segmented["mask_width"], segmented["mask_height"], segmented["labels_png"]) == (64, 48, b"image")
    assert (segmented["motion"], segmented["reliability"], segmented["reliability_png"]) == ("dis", 0.5, b"image")
    assert (segmented["detections"], empty["detections"]) == (None, [])
    assert (error["status"], error["problem"], error["id"]) == (410, "it went", "7")
    assert drop["reason"] == "newer"
    assert detected["time"] == TIME


def test_masks_are_run_lengths_if_the_stream_asks_for_them(start: Starter, tmp_path: Path) -> None:
    server = start(site=write_site(tmp_path, f'[sinks.table]\nparquet = "{tmp_path}/out"\nmax_seconds = 0.1'))
    server.http.post("/v1/streams", json={"id": "door", "masks": "rle", "sinks": ["table"]})
    answer = Result.model_validate_json(server.frame("door", jpeg(RED)).content)
    eventually(lambda: bool(files(tmp_path / "out")))
    assert answer.segmentation is not None
    ((region,), (told,)) = rows(tmp_path / "out")[0]["regions"], answer.segmentation.regions
    assert told.rle is not None
    assert region["rle"] == list(told.rle.counts)
    assert region["pixels"] == sum(told.rle.counts[1::2])


def test_a_full_file_is_followed_by_another_and_the_oldest_are_deleted(tmp_path: Path) -> None:
    (tmp_path / "mine.parquet").write_text("somebody else's")
    with sink(str(tmp_path), max_rows=10, max_bytes=1) as deliver:
        for part in range(7):
            deliver(dropped(range(5 * part, 5 * part + 5)))
        (newest,) = (file for file in files(tmp_path) if file.name != "mine.parquet")
        assert parquet.read_table(newest)["frame"].to_pylist() == list(range(20, 30))
    (newest,) = (file for file in files(tmp_path) if file.name != "mine.parquet")
    assert parquet.read_table(newest)["frame"].to_pylist() == list(range(30, 35))


def test_a_journal_can_be_read_while_it_is_written(tmp_path: Path) -> None:
    with sink(str(tmp_path)) as deliver:
        deliver(dropped(range(3)))
        deliver(dropped(range(3, 5)))
        (journal,) = files(tmp_path, "arrows")
        assert ipc.open_stream(journal.read_bytes()).read_all()["frame"].to_pylist() == [0, 1, 2, 3, 4]


def _is_ready(http: httpx.Client) -> bool:
    return http.get("/readyz").is_success


def _has_delivered(http: httpx.Client, answers: int) -> bool:
    return f'outcome="delivered",sink="table"}} {answers}.0' in http.get("/metrics").text


def test_a_killed_server_loses_no_delivered_response(models: Path, tmp_path: Path) -> None:
    config = write_site(tmp_path, f'[sinks.table]\nparquet = "{tmp_path}/{{stream}}"')
    for stop in (signal.SIGKILL, signal.SIGTERM):
        with process("--models", str(models), "--site", str(config)) as running:
            assert running.stdout
            http = httpx.Client(base_url=running.stdout.readline().split()[-1])
            eventually(partial(_is_ready, http))
            stream = f"gate-{stop.name}"
            http.post("/v1/streams", json={"id": stream, "sinks": ["table"]})
            for _ in range(5):
                assert http.post(f"/v1/streams/{stream}/frames", content=jpeg()).is_success
            eventually(partial(_has_delivered, http, 5))
            running.send_signal(stop)
            running.wait(20)
            http.close()
    for stream in ("gate-SIGKILL", "gate-SIGTERM"):
        assert [row["frame"] for row in rows(tmp_path / stream)] == list(range(5))
        assert not files(tmp_path / stream, "arrows")


@pytest.mark.parametrize("torn", [1, 100])
def test_the_whole_batches_of_a_torn_journal_are_kept(tmp_path: Path, torn: int) -> None:
    journal = tmp_path / "_20260101T000000000000Z.arrows"
    (tmp_path / "_notes.arrows").write_text("not ours")
    with sink(str(tmp_path)) as deliver:
        deliver(dropped(range(3)))
        deliver(dropped(range(3, 6)))
        (written,) = files(tmp_path, "arrows")[:1]
        content = written.read_bytes()
    for file in files(tmp_path):
        file.unlink()
    journal.write_bytes(content[:-torn])
    with sink(str(tmp_path)) as deliver:
        deliver(dropped([9]))
    assert [row["frame"] for row in rows(tmp_path)] == [0, 1, 2, 9]
    assert files(tmp_path, "arrows") == [tmp_path / "_notes.arrows"]


@contextmanager
def full_disk(limit: int) -> Iterator[None]:
    """Keep all files from growing beyond `limit` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_journal_that_a_full_disk_cuts_off_is_restored(tmp_path: Path) -> None:
    with sink(str(tmp_path)) as deliver:
        deliver(dropped(range(3)))
        (journal,) = files(tmp_path, "arrows")
        before = journal.read_bytes()
        with full_disk(len(before) + 10), pytest.raises(SinkError, match="File too large"):
            deliver(dropped(range(3, 6)))
        assert journal.read_bytes() == before
        deliver(dropped(range(3, 6)))
    assert [row["frame"] for row in rows(tmp_path)] == list(range(6))


def test_a_disk_too_full_for_the_parquet_file_keeps_the_journal(tmp_path: Path) -> None:
    with sink(str(tmp_path), max_rows=3) as deliver:
        deliver(dropped(range(3)))
        with full_disk(100), pytest.raises(SinkError, match="File too large"):
            deliver(dropped(range(3, 6)))
        assert len([*tmp_path.iterdir()]) == len(files(tmp_path, "arrows")) == 1
        deliver(dropped(range(3, 6)))
        assert len(files(tmp_path)) == 1
    assert [row["frame"] for row in rows(tmp_path)] == list(range(6))


def test_a_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "keywarp.server.sinks.parquet")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    planned = read_site(write_site(tmp_path, f'[sinks.table]\nparquet = "{tmp_path}"'))
    with pytest.raises(SiteError, match="Parquet files need pyarrow: install the extra `parquet`"):
        planned.open_sinks()


def test_all_columns_are_documented() -> None:
    from keywarp.protocol.columns import SCHEMA

    text = (Path(__file__).parents[3] / "docs" / "cameras.md").read_text()
    assert isinstance(SCHEMA, pa.Schema)
    assert [name for name in SCHEMA.names if f"`{name}`" not in text] == []
