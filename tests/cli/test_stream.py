import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image

from keywarp.cli.main import main
from keywarp.client import open_source
from keywarp.protocol import CloseCode, Hello
from tests.client.media import write_cut_video, write_video
from tests.client.scripted import Peer, ScriptedPeer, answer_all

COMMAND = [sys.executable, "-c", "from keywarp.cli.main import main; main()", "stream"]


@dataclass(frozen=True)
class Shown:
    """A command's exit status and its output."""

    status: int
    out: str
    err: str


Stream = Callable[..., Shown]


@pytest.fixture
def stream(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Stream:
    """The command, called with the server's address and its arguments."""

    def call(address: str, *arguments: str | Path) -> Shown:
        monkeypatch.setenv("KEYWARP_SERVER", address)
        monkeypatch.setenv("COLUMNS", "80")
        monkeypatch.setattr(sys, "argv", ["keywarp", "stream", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        assert isinstance(ended.value.code, int)
        return Shown(ended.value.code, *capsys.readouterr())

    return call


def test_a_video_is_streamed_and_its_results_are_written_and_summarised(tmp_path: Path, stream: Stream) -> None:
    pytest.importorskip("supervision", reason="the extra `draw` is not installed")
    video = write_video(tmp_path / "v.mp4")
    out, lines = tmp_path / "out.mp4", tmp_path / "out.ndjson"
    with ScriptedPeer() as server:
        shown = stream(server.address, video, "--out", out, "--ndjson", lines, "--interval", "10", "--in-flight", "1")
    assert (shown.status, shown.err) == (0, "")
    assert "street, interval 10" in shown.out
    assert [json.loads(line)["frame"] for line in lines.read_text().splitlines()] == list(range(20))
    with open_source(out) as source:
        assert len(list(source)) == 20


def test_the_schedule_is_sent_and_named_in_the_summary(tmp_path: Path, stream: Stream) -> None:
    heard: list[Hello | None] = []

    def script(peer: Peer) -> None:
        heard.append(peer.greet())
        peer.fail(CloseCode.INTERNAL_ERROR, "enough")

    options = ["--schedule", "adaptive", "--interval", "8", "--max-interval", "40", "--max-age", "2.5"]
    with ScriptedPeer(script) as server:
        stream(server.address, write_video(tmp_path / "v.mp4"), *options)
    assert heard == [Hello(schedule="adaptive", interval=8, max_interval=40, max_age=2.5)]
    with ScriptedPeer() as server:
        shown = stream(server.address, tmp_path / "v.mp4", *options, "--json")
    assert json.loads(shown.out)["title"] == "street, adaptive interval 8"  # which a narrow table may wrap


def test_regions_the_rate_and_a_table_are_options_of_the_command(tmp_path: Path, stream: Stream) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="the extra `parquet` is not installed")
    heard: list[Hello | None] = []

    def script(peer: Peer) -> None:
        heard.append(peer.greet())
        peer.fail(CloseCode.INTERNAL_ERROR, "enough")

    video = write_video(tmp_path / "v.mp4")
    upper, corner = "0,0 1,0 1,0.2 0,0.2", "0.5,0.5 1,0.5 1,1"
    with ScriptedPeer(script) as server:
        stream(server.address, video, "--max-fps", "5", "--hidden", upper, "--hidden", corner)
    regions = (((0, 0), (1, 0), (1, 0.2), (0, 0.2)), ((0.5, 0.5), (1, 0.5), (1, 1)))
    assert heard == [Hello(max_fps=5, hidden=regions)]
    with ScriptedPeer() as server:
        refused = stream(server.address, video, "--hidden", "0,0 1,1")
        assert refused.status == 2
        assert "three or more corners" in " ".join(refused.err.replace("│", "").split())
        assert stream(server.address, video, "--parquet", tmp_path / "v.parquet").status == 0
    assert parquet.read_table(tmp_path / "v.parquet").column("frame").to_pylist() == list(range(20))


def test_options_that_mean_nothing_for_the_source_are_refused(tmp_path: Path, stream: Stream) -> None:
    video = write_video(tmp_path / "v.mp4")
    (tmp_path / "images").mkdir()
    Image.new("RGB", (64, 48)).save(tmp_path / "images" / "a.png")
    with ScriptedPeer() as server:
        for arguments, said in (
            ([tmp_path / "images" / "a.png", "--video", "0"], "an image"),
            ([tmp_path / "images", "--video", "0"], "a folder of images"),
            ([video, "--codec", "h264", "--quality", "50"], "no JPEG images"),
            ([video, "--codec", "mp4", "--in-flight", "3"], "no JPEG images"),
        ):
            shown = stream(server.address, *arguments)
            assert (shown.status, said in " ".join(shown.err.replace("│", " ").split())) == (2, True)
        assert server.paths == []


def test_figures_are_printed_as_json(tmp_path: Path, stream: Stream) -> None:
    video = write_video(tmp_path / "v.mp4")
    with ScriptedPeer() as server:
        shown = stream("http://127.0.0.1:9", video, "--server", server.address, "--json")
    figures = json.loads(shown.out)
    assert (figures["frames"], figures["key_frames"]) == (20, 2)
    assert figures["fps"] == pytest.approx(20 / figures["seconds"])
    assert figures["key"]["p50"] > 0
    assert (figures["missing"], figures["damage"], figures["notes"]) == (0, None, [])


def test_a_break_is_reported_and_counted_and_ends_the_stream_without_reconnect(tmp_path: Path, stream: Stream) -> None:
    video = write_video(tmp_path / "v.mp4")

    def restart_once(peer: Peer) -> None:
        if len(server.paths) > 1:
            answer_all(peer)
            return
        peer.greet()
        peer.take()
        peer.connection.close(CloseCode.SERVICE_RESTART, "the server stops")

    with ScriptedPeer(restart_once) as server:
        shown = stream(server.address, video, "--json")
    figures = json.loads(shown.out)
    assert (shown.status, figures["frames"], figures["reconnects"]) == (0, 20, 1)
    assert shown.err.startswith("keywarp: stream s: the server ended the stream: the server stops (close code 1012); ")
    with ScriptedPeer(restart_once) as server:
        shown = stream(server.address, video, "--reconnect", "0")
    assert (shown.status, "close code 1012" in shown.err) == (1, True)
    assert "connecting again" not in shown.err


def refuse_model(peer: Peer) -> None:
    peer.connection.recv()
    peer.fail(CloseCode.NOT_FOUND, "there is no model 'x'")


def test_errors_are_one_sentence_and_status_1(tmp_path: Path, stream: Stream) -> None:
    video = write_video(tmp_path / "v.mp4")
    text = tmp_path / "text.mp4"
    text.write_text("not a video")
    with ScriptedPeer(refuse_model) as server:
        for arguments, said in (
            ([video], "there is no model 'x'"),
            ([text], "not a video"),
            ([tmp_path / "missing.mp4"], "there is no file"),
            ([video, "--server", "http://127.0.0.1:9"], "keywarp serve"),
            ([video, "--codec", "mpegts"], "not mpegts"),
        ):
            shown = stream(server.address, *arguments)
            assert shown.status == 1
            assert said in shown.err
            assert shown.err.startswith("keywarp: ")
            assert len(shown.err.splitlines()) == 1


def test_a_damaged_video_fails_but_leaves_its_results_so_far(tmp_path: Path, stream: Stream) -> None:
    cut = write_cut_video(tmp_path)
    with ScriptedPeer() as server:
        shown = stream(server.address, cut, "--ndjson", tmp_path / "r.ndjson", "--json")
    assert shown.status == 1
    assert "is damaged" in shown.err
    assert not (tmp_path / "r.ndjson").exists()
    lines = (tmp_path / "r.ndjson.part").read_text().count("\n")
    assert lines > 10
    figures = json.loads(shown.out)
    assert (figures["frames"], figures["missing"]) == (lines, 200 - lines)
    assert "is damaged" in figures["damage"]


def test_what_the_server_misses_of_a_container_is_said_and_can_be_allowed(tmp_path: Path, stream: Stream) -> None:
    def script(peer: Peer) -> None:
        peer.greet()
        taken = peer.take()
        assert taken
        peer.answer(0, taken[0])
        peer.fail(CloseCode.BAD_MEDIA, "the video ends too early")

    video, results = write_video(tmp_path / "v.mp4", frames=20), tmp_path / "r.ndjson"
    for options, status in (([], 1), (["--allow-damage"], 0)):
        with ScriptedPeer(script) as server:
            shown = stream(server.address, video, "--codec", "mp4", "--ndjson", results, "--json", *options)
        figures = json.loads(shown.out)
        assert (shown.status, figures["frames"], results.exists()) == (status, 1, not status)
        assert figures["missing"] == 19  # by the index
        assert "ends too early" in figures["damage"]
        assert "ends too early" in shown.err


def test_an_interrupt_ends_with_status_130_and_leaves_valid_part_files(tmp_path: Path) -> None:
    pytest.importorskip("supervision", reason="the extra `draw` is not installed")
    video = write_video(tmp_path / "v.mp4", frames=50)
    stuck = threading.Event()

    def stop_in_the_middle(peer: Peer) -> None:
        peer.greet()
        for frame in range(20):
            taken = peer.take()
            assert taken
            peer.answer(frame, taken[0])
        peer.take()  # comes only after the client took the results before
        peer.take()
        stuck.set()
        answer_all(peer)

    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    with ScriptedPeer(stop_in_the_middle) as server:
        command = [*COMMAND, str(video), "--server", server.address]
        command += ["--out", str(tmp_path / "o.mp4"), "--ndjson", str(tmp_path / "r.ndjson")]
        with subprocess.Popen(command, stderr=subprocess.PIPE, encoding="utf-8", env=environment) as process:
            assert stuck.wait(30)
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=30)
        assert server.left.wait(10)
    assert process.returncode == 130
    assert "Traceback" not in said
    lines = (tmp_path / "r.ndjson.part").read_text().splitlines()
    assert [json.loads(line)["frame"] for line in lines] == list(range(len(lines)))
    with open_source(tmp_path / "o.mp4.part") as source:
        assert len(list(source)) == len(lines) >= 19
