"""`keywarp adapt` as a user types it."""

import json
from pathlib import Path

import av
import pytest
import torch

from keywarp.engines import load_bundle
from tests.adaptation.moving import colour_bundle, moving_frame
from tests.command_line import keywarp
from tests.videos.films import FASTSTART

FRAMES = 30


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return colour_bundle(tmp_path_factory.mktemp("colours")).path


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("video") / "moving.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        first = moving_frame(0)
        stream.height, stream.width = first.shape[:2]
        stream.pix_fmt = "yuv420p"
        for number in range(FRAMES):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(moving_frame(number), format="rgb24")))
        container.mux(stream.encode())
    return path


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def test_a_bundle_is_adapted_and_all_sources_are_reported(bundle: Path, video: Path, tmp_path: Path) -> None:
    out, work = tmp_path / "out", tmp_path / "work"
    command = ("adapt", bundle, video, "--out", out, "--work", work, "--start", "own", "--steps", "3", "--batch", "2")
    done = keywarp(*command, "--json")
    assert done.returncode == 0, done.stderr
    assert "adapting: 3/3 step 3, features " in done.stderr
    result = json.loads(done.stdout)
    assert set(result["before"]) == {"none", "none+scale", "flow", "network"}
    assert {"dis", "dis+scale", "dis-chained", "dis-chained+scale"} < set(result["after"])
    assert result["held_out"] == [{"video": "moving.mp4", "first": 24, "end": 30, "learned": 24, "skipped": 0}]
    assert result["start"] == "own"
    assert load_bundle(out).manifest.motion == result["motion"]

    again = keywarp(*command)
    assert again.returncode == 0, again.stderr
    text = " ".join(again.stdout.split())
    assert "moving.mp4: learned from 24 frames, judged on frames 24 to 29." in text
    assert f"{result['motion']} " in text
    assert "The adapted flow network with its scale field reaches" in text
    assert "dis-chained after" in text
    assert "…" not in text


def test_what_cannot_be_done_is_said_in_a_sentence(bundle: Path, video: Path, tmp_path: Path) -> None:
    common = ("--out", tmp_path / "out", "--work", tmp_path / "work")
    done = keywarp("adapt", bundle, tmp_path / "missing.mp4", *common)
    assert done.returncode == 1
    assert "there is no file or folder" in done.stderr
    done = keywarp("adapt", bundle, video, *common, "--max-age", "9")
    assert done.returncode == 1
    assert done.stderr.startswith("keywarp: moving.mp4 has 30 frames: with 20% held out")
    done = keywarp("adapt", bundle, video, *common, "--max-age", "5", "--range", "1:2")
    assert done.returncode == 1
    assert done.stderr.startswith("keywarp: moving.mp4 has 10 frames: with 20% held out")
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_damaged_video_is_adapted_to_as_far_as_it_can_be_read_if_that_is_allowed(
    bundle: Path, video: Path, tmp_path: Path
) -> None:
    with av.open(str(video)) as whole, av.open(str(tmp_path / "index.mp4"), "w", options=FASTSTART) as copy:
        stream = copy.add_stream_from_template(whole.streams.video[0])
        for packet in whole.demux(video=0):
            if packet.size:
                packet.stream = stream
                copy.mux(packet)
    data = (tmp_path / "index.mp4").read_bytes()
    damaged = tmp_path / "damaged.mp4"
    damaged.write_bytes(data[: len(data) - 100])
    common = ("--out", tmp_path / "out", "--work", tmp_path / "work", "--start", "own", "--steps", "1", "--batch", "2")
    done = keywarp("adapt", bundle, damaged, *common)
    assert done.returncode == 1
    assert "--allow-damage uses what can be read" in done.stderr
    done = keywarp("adapt", bundle, damaged, *common, "--allow-damage", "--json")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("is damaged") == 1
    [part] = json.loads(done.stdout)["held_out"]
    assert part["end"] < FRAMES


@pytest.mark.parametrize(
    ("option", "text"),
    [
        (("--minutes", "1", "--steps", "5"), "either a time or a number of steps"),
        (("--range", "2:1"), "'2:1' isn't a range of seconds"),
        (("--motion", "sideways,network"), "there is no motion source 'sideways'"),
        (("--motion", "dis"), "must be judged, too: add `network` to dis"),
        (("--video", "0"), "is a folder of images"),
        (("--start", "nowhere"), "'nowhere' is neither a bundle nor one of auto, own, pretrained"),
    ],
)
def test_wrong_use_is_reported(bundle: Path, video: Path, tmp_path: Path, option: tuple[str, ...], text: str) -> None:
    source = video.parent if option[0] == "--video" else video
    done = keywarp("adapt", bundle, source, "--out", tmp_path / "out", "--work", tmp_path / "work", *option)
    assert done.returncode == 2
    assert text in " ".join(done.stderr.replace("│", " ").split())
