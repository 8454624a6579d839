"""`keywarp run` over a folder of videos, and the names of the files that it writes."""

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
from PIL import Image

from tests.commands.running import keywarp
from tests.e2e.running import write_clip
from tests.engines.scenes import scene
from tests.tiny_bundle import tiny_bundle

OPTIONS = ("--backend", "onnxruntime")
FRAMES = 6


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny").path


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    """A folder of three videos, the second of which is broken."""
    folder = tmp_path / "videos"
    folder.mkdir()
    write_clip(folder / "gate10.mp4", FRAMES)
    write_clip(folder / "gate9.mp4", FRAMES)
    (folder / "gate9b.mp4").write_bytes(b"this is no video" * 64)
    (folder / ".hidden.mp4").write_bytes(b"")
    (folder / "notes.txt").write_text("none")
    return folder


def run(*arguments: str | Path, model: Path) -> tuple[int, dict[str, Any], str]:
    """Run `keywarp run --json`; return its status, the figures and what it said on stderr."""
    ran = keywarp("run", *arguments, "--model", model, *OPTIONS, "--json")
    return ran.status, json.loads(ran.stdout) if ran.stdout else {}, ran.stderr


def statuses(figures: dict[str, Any]) -> dict[str, str]:
    return {Path(one["video"]).name: one["status"] for one in figures["videos"]}


def test_a_broken_video_does_not_stop_the_others_and_a_second_run_does_what_is_left(
    videos: Path, model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "results"
    arguments = (videos, "--ndjson", out, "--parquet", tmp_path / "tables")
    status, figures, said = run(*arguments, model=model)
    assert status == 1
    assert statuses(figures) == {"gate9.mp4": "done", "gate9b.mp4": "failed", "gate10.mp4": "done"}
    assert [*statuses(figures)] == ["gate9.mp4", "gate9b.mp4", "gate10.mp4"]  # in natural order
    assert (figures["done"], figures["skipped"], figures["failed"]) == (2, 0, 1)
    assert figures["videos"][0]["frames"] == FRAMES
    assert "keywarp: gate9b.mp4: " in said
    assert "1 of 3 videos could not be processed whole: gate9b.mp4. The same command tries only these again" in said
    assert sorted(file.name for file in out.iterdir()) == ["gate10.ndjson", "gate9.ndjson"]
    assert len((out / "gate10.ndjson").read_text().splitlines()) == FRAMES
    table = pyarrow.parquet.read_table(tmp_path / "tables" / "gate9.parquet")
    assert table.column("frame").to_pylist() == list(range(FRAMES))
    assert all(png.startswith(b"\x89PNG") for png in table.column("labels_png").to_pylist())

    written = (out / "gate9.ndjson").stat().st_mtime_ns
    shutil.copy(videos / "gate9.mp4", videos / "gate9b.mp4")  # somebody has mended it
    status, figures, _ = run(*arguments, model=model)
    assert status == 0
    assert statuses(figures) == {"gate9.mp4": "skipped", "gate9b.mp4": "done", "gate10.mp4": "skipped"}
    assert (out / "gate9.ndjson").stat().st_mtime_ns == written


def test_a_video_that_lacks_one_of_its_files_is_processed_again(videos: Path, model: Path, tmp_path: Path) -> None:
    (videos / "gate9b.mp4").unlink()
    assert run(videos, "--ndjson", tmp_path / "r", model=model)[0] == 0
    status, figures, _ = run(videos, "--ndjson", tmp_path / "r", "--coco", tmp_path / "c", model=model)
    assert status == 0
    assert set(statuses(figures).values()) == {"done"}
    assert sorted(file.name for file in (tmp_path / "c").iterdir()) == ["gate10.json", "gate9.json"]


def test_a_damaged_video_counts_as_failed_with_its_figures(videos: Path, model: Path, tmp_path: Path) -> None:
    (videos / "gate9b.mp4").unlink()
    whole = write_clip(tmp_path / "whole.ts", 60).read_bytes()
    (videos / "cut.ts").write_bytes(whole[: len(whole) // 2] + b"\0" * 40_000)
    status, figures, _ = run(videos, "--ndjson", tmp_path / "r", model=model)
    cut = figures["videos"][0]
    assert (status, cut["status"]) == (1, "failed")
    assert cut["frames"] > 0
    assert cut["damage"] == cut["error"]
    assert (tmp_path / "r" / "cut.ndjson.part").exists()
    status, figures, _ = run(videos, "--ndjson", tmp_path / "r", "--allow-damage", model=model)
    assert (status, statuses(figures)["cut.ts"]) == (0, "done")


def test_videos_that_differ_in_their_ending_keep_it(videos: Path, model: Path, tmp_path: Path) -> None:
    (videos / "gate9b.mp4").unlink()
    write_clip(videos / "gate9.mkv", FRAMES)
    assert run(videos, "--ndjson", tmp_path / "r", model=model)[0] == 0
    names = sorted(file.name for file in (tmp_path / "r").iterdir())
    assert names == ["gate10.ndjson", "gate9.mkv.ndjson", "gate9.mp4.ndjson"]


def test_a_folder_with_videos_and_images_is_refused(videos: Path, model: Path, tmp_path: Path) -> None:
    Image.fromarray(scene(0)).save(videos / "first.png")
    status, _, said = run(videos, "--ndjson", tmp_path / "r", model=model)
    assert status == 1
    assert "has 1 images and 3 videos, such as 'first.png' and 'gate9.mp4': put them into folders of their own" in said


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--out", "annotated.avi"], "'annotated.avi' can't be written, since an annotated video is MP4"),
        (["--out", "annotated"], "name it 'annotated.mp4'"),
        (["--parquet", "results.csv"], "name it 'results.parquet'"),
        (["--ndjson", "same", "--coco", "same"], "is the same file as --ndjson"),
        (["--ndjson", "."], "is a folder, which is for a folder of videos"),
    ],
)
def test_a_file_that_cannot_be_written_is_wrong_use(
    options: list[str], says: str, videos: Path, model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    status, _, said = run(videos / "gate9.mp4", *options, model=model)
    assert status == 2
    assert says in " ".join(said.replace("│", "").split())


def test_a_file_for_a_folder_of_videos_is_wrong_use(videos: Path, model: Path, tmp_path: Path) -> None:
    status, _, said = run(videos, "--out", tmp_path / "annotated.mp4", model=model)
    assert status == 2
    assert "name a folder" in " ".join(said.replace("│", "").split())
    assert not (tmp_path / "annotated.mp4").exists()
