"""Videos as people have them, through `keywarp run`."""

import io
import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from keywarp.videos import open_container
from tests.commands.running import Completed, keywarp
from tests.tiny_bundle import tiny_bundle
from tests.videos.films import (
    B_FRAMES,
    FASTSTART,
    FRAMES,
    copied,
    film,
    red_and_green,
    saved,
    spoiled,
    textured,
    two_videos,
    with_cover,
    without,
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle(tmp_path_factory.mktemp("models") / "tiny").path


class Ran:
    """A run with its results, complete or not."""

    def __init__(self, folder: Path, model: Path, film: Path, *options: str | Path) -> None:
        results = folder / "r.ndjson"
        arguments = ["--model", model, "--backend", "onnxruntime", "--ndjson", results, "--json", *options]
        self.ran: Completed = keywarp("run", film, *arguments)
        self.complete = results.exists()
        part = results if self.complete else results.with_name("r.ndjson.part")
        lines = part.read_text().splitlines() if part.exists() else []
        self.results: list[dict[str, Any]] = [json.loads(line) for line in lines]
        self.times = [result["timestamp"] for result in self.results]
        self.summary = json.loads(self.ran.stdout) if self.ran.stdout else {}
        assert "Traceback" not in self.ran.stderr


def test_a_phone_s_film_is_upright_unless_it_is_to_be_left_as_stored(tmp_path: Path, model: Path) -> None:
    path = saved(tmp_path / "v.mp4", film(turn=90))
    assert {(r["width"], r["height"]) for r in Ran(tmp_path, model, path).results} == {(48, 64)}
    assert {(r["width"], r["height"]) for r in Ran(tmp_path, model, path, "--as-stored").results} == {(64, 48)}


def test_the_film_is_taken_and_not_its_cover(tmp_path: Path, model: Path) -> None:
    assert len(Ran(tmp_path, model, saved(tmp_path / "v.mp4", with_cover(film_too=True))).results) == FRAMES
    song = Ran(tmp_path, model, saved(tmp_path / "song.m4a", with_cover(film_too=False)))
    assert (song.ran.status, "has no video in it" in song.ran.stderr) == (1, True)


# https://github.com/jellyfin/jellyfin-web/issues/1421
def test_another_video_can_be_chosen_but_not_of_what_has_none_to_choose_from(tmp_path: Path, model: Path) -> None:
    path = saved(tmp_path / "v.mkv", two_videos())
    assert [Ran(tmp_path, model, path, "--video", n).results[0]["width"] for n in ("0", "1")] == [64, 128]
    (tmp_path / "folder").mkdir()
    Image.new("RGB", (64, 48)).save(tmp_path / "folder" / "a.png")
    for source, kind in (("folder", "a folder of images"), ("folder/a.png", "an image"), ("camera:0", "a camera")):
        name = source if source == "camera:0" else tmp_path / source
        ran = Ran(tmp_path, model, Path(name), "--video", "0").ran
        said = " ".join(ran.stderr.replace("│", " ").split())
        assert (ran.status, "--video" in said, kind in said) == (2, True, True)


def test_images_can_be_left_as_stored(tmp_path: Path, model: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "folder").mkdir()
    Image.new("RGB", (64, 48)).save(tmp_path / "folder" / "a.png", exif=exif)
    for name in ("folder", "folder/a.png"):
        assert Ran(tmp_path, model, tmp_path / name).results[0]["width"] == 48
        assert Ran(tmp_path, model, tmp_path / name, "--as-stored").results[0]["width"] == 64


def test_damage_is_counted_and_fails_unless_it_is_allowed(tmp_path: Path, model: Path) -> None:
    path = saved(tmp_path / "v.mp4", spoiled(film(), 5))
    strict = Ran(tmp_path, model, path)
    assert (strict.ran.status, strict.complete, len(strict.results)) == (1, False, FRAMES - 1)
    assert f"{FRAMES - 1} of {FRAMES} frames could be decoded" in strict.ran.stderr
    assert strict.results[5]["reason"] == "gap"
    assert (strict.summary["frames"], strict.summary["missing"]) == (FRAMES - 1, 1)
    assert "is damaged" in strict.summary["damage"]
    allowed = Ran(tmp_path, model, path, "--allow-damage")
    assert (allowed.ran.status, allowed.complete, allowed.summary["missing"]) == (0, True, 1)
    assert "is damaged" in allowed.ran.stderr
    assert allowed.summary["damage"] == strict.summary["damage"]
    sound = Ran(tmp_path, model, saved(tmp_path / "v.mp4", film())).summary
    assert (sound["missing"], sound["damage"], sound["notes"]) == (0, None, [])


@pytest.mark.parametrize("form", ["mp4", "matroska", "avi", "flv"])
def test_a_film_that_was_cut_off_fails_after_what_was_there(tmp_path: Path, model: Path, form: str) -> None:
    whole = film(form, [textured(n) for n in range(12)], muxing=FASTSTART if form == "mp4" else {})
    cut = Ran(tmp_path, model, saved(tmp_path / "cut", whole[: len(whole) // 2]))
    assert (cut.ran.status, cut.complete) == (1, False)
    assert 3 < len(cut.results) < 9
    assert cut.summary["missing"] == (12 - len(cut.results) if form == "mp4" else 1)  # only MP4 says how many it had
    assert "is damaged" in cut.ran.stderr


def test_a_recording_may_begin_in_the_middle_but_not_without_a_key_frame(tmp_path: Path, model: Path) -> None:
    whole = film("mpegts", [textured(n) for n in range(20)], gop=10)
    middle = Ran(tmp_path, model, saved(tmp_path / "v.ts", without(whole, 0, len(whole) // 188 // 4)))
    assert (middle.ran.status, len(middle.results)) == (0, 10)
    assert "packets before the first key frame were left out" in middle.ran.stderr
    assert "packets before the first key frame were left out" in middle.summary["notes"][0]
    endless = film("mpegts", [textured(n) for n in range(12)], gop=100)
    bare = Ran(tmp_path, model, saved(tmp_path / "v.ts", endless[:564] + endless[len(endless) // 188 // 3 * 188 :]))
    assert (bare.ran.status, "no key frame" in bare.ran.stderr) == (1, True)


def test_an_empty_file_is_said_to_be_empty(tmp_path: Path, model: Path) -> None:
    assert "is empty" in Ran(tmp_path, model, saved(tmp_path / "v.mp4", b"")).ran.stderr


def test_times_rise_and_an_edit_list_is_followed(tmp_path: Path, model: Path) -> None:
    times = Ran(tmp_path, model, saved(tmp_path / "v.avi", film("avi", options=B_FRAMES))).times
    assert np.diff(times) == pytest.approx([0.04] * (FRAMES - 1))
    edited = Ran(tmp_path, model, saved(tmp_path / "v.mp4", copied(film(), "mp4", 8)))
    assert edited.times == pytest.approx([n / 25 for n in range(16)])


# FFmpeg takes what is before a colon for a protocol.
def test_a_file_with_a_colon_in_its_name_is_a_file(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    saved(tmp_path / "2026-11-29T10:00:00.mp4", film())
    assert len(Ran(tmp_path, model, Path("2026-11-29T10:00:00.mp4")).results) == FRAMES


# https://github.com/ultralytics/yolov5/issues/12372, https://github.com/DeepLabCut/DeepLabCut/issues/475
def test_an_annotated_film_keeps_times_gaps_aspect_and_orientation(tmp_path: Path, model: Path) -> None:
    pytest.importorskip("supervision", reason="the extra `draw` is not installed")
    times = [*range(0, 48, 4), *range(48, 48 + 240, 40)]
    frames = [red_and_green()] * len(times)
    path = saved(tmp_path / "v.mp4", film(frames=frames, times=times, aspect=Fraction(2), turn=90))
    out = tmp_path / "12:30.mp4"
    assert Ran(tmp_path, model, path, "--out", out).ran.status == 0
    with open_container(io.BytesIO(out.read_bytes())) as container:
        [stream] = container.streams.video
        assert (stream.width, stream.height, stream.sample_aspect_ratio) == (64, 128, Fraction(1, 2))
        assert [frame.time for frame in container.decode(stream)] == pytest.approx([t / 100 for t in times], abs=1e-3)
        assert container.duration
        assert container.duration / av.time_base > times[-1] / 100


def test_a_picture_too_small_for_a_film_gets_a_sentence(tmp_path: Path, model: Path) -> None:
    pytest.importorskip("supervision", reason="the extra `draw` is not installed")
    Image.new("RGB", (1, 1)).save(tmp_path / "dot.png")
    ran = Ran(tmp_path, model, tmp_path / "dot.png", "--out", tmp_path / "o.mp4").ran
    assert (ran.status, len(ran.stderr.splitlines())) == (1, 1) or "at least 2x2" in ran.stderr
