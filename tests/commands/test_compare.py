"""`keywarp compare`."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from keywarp.cli.errors import CommandError
from keywarp.clips.opening import open_clip
from tests.client.media import write_cut_video, write_video
from tests.commands.running import keywarp
from tests.engines.comparison.film import cut, walk
from tests.tiny_bundle import tiny_bundle
from tests.videos.films import film as encoded
from tests.videos.films import number_of, saved, two_videos

SMALL = ("--backend", "onnxruntime", "--precision", "fp32", "--interval", "2,3", "--stride", "1")


@pytest.fixture
def film(tmp_path: Path) -> Path:
    """A folder of twelve frames, in which a red column moves one cell to the right with each frame."""
    folder = tmp_path / "film"
    folder.mkdir()
    for frame in walk().frames():
        Image.fromarray(frame.image).save(folder / f"{frame.index:02}.png")
    return folder


@pytest.fixture
def follower(tmp_path: Path) -> Path:
    """A detector whose flow network always answers that everything moved one cell to the right."""
    return tiny_bundle(tmp_path / "follower", detection=True, flow=(-1.0, 0.0)).path


def test_the_json_names_each_source_and_the_recommendation(follower: Path, film: Path) -> None:
    ran = keywarp("compare", follower, film, "--motion", "none,flow", "--motion", "network", *SMALL, "--json")
    assert ran.status == 0, ran.stderr
    found = json.loads(ran.stdout)
    assert list(found["sources"]) == ["none", "flow", "network"]
    flow = found["sources"]["flow"]
    assert flow["by_age"] == {"1": 1, "2": 0}
    assert flow["mean"] == 0.5
    assert flow["feature_error"] < 1
    assert flow["ms"] > 0
    assert flow["longest"] == 2
    assert found["per_frame_ms"] > 0
    assert set(found["recommended"]) >= {"source", "interval", "agreement"}
    assert found["recommended"]["agreement"] >= 0.95


def test_the_report_has_pictures_of_each_source(follower: Path, film: Path, tmp_path: Path) -> None:
    out, work = tmp_path / "out", tmp_path / "work"
    arguments = ("--motion", "none,flow", "--schedule", "adaptive", *SMALL, "--out", out, "--work", work)
    ran = keywarp("compare", follower, film, *arguments)
    assert ran.status == 0, ran.stderr
    assert {path.name for path in out.iterdir()} == {
        "agreement.png",
        "passage-1.jpg",
        "report.json",
        "report.md",
        "worst-flow.jpg",
        "worst-none.jpg",
    }
    report = (out / "report.md").read_text()
    assert "| flow | 1.000 | .000 | .500 |" in report
    assert "| F1 (mean interval) | adaptive 2 | adaptive 3 |" in report
    for picture in ("agreement.png", "passage-1.jpg", "worst-flow.jpg", "worst-none.jpg"):
        assert f"({picture})" in report
        with Image.open(out / picture) as image:
            assert len(np.unique(np.asarray(image).reshape(-1, 3), axis=0)) > 50
    assert not list(work.iterdir())  # nothing is left to go on with


def test_tables_spell_out_long_names_of_sources(follower: Path, film: Path) -> None:
    sources = "none,dis-chained-repaired+scale"
    ran = keywarp("compare", follower, film, "--motion", sources, *SMALL, "--interval", "2,3,5,9")
    assert ran.status == 0, ran.stderr
    assert "…" not in ran.stdout  # 80 columns are too few, so the name goes on in the next line


def test_a_segmentation_is_compared_in_a_range_of_a_video(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path / "tiny")
    video = write_video(tmp_path / "v.mp4", frames=20, fps=10)
    out = tmp_path / "out"
    ran = keywarp("compare", bundle.path, video, "--range", "0.5:1.5", "--motion", "none", *SMALL, "--out", out)
    assert ran.status == 0, ran.stderr
    assert "mIoU at key age" in ran.stdout
    assert "The network agrees with itself to" in ran.stdout
    found = json.loads((out / "report.json").read_text())
    assert found["videos"][0]["frames"] == 10
    assert all(0.5 <= worst["time"] < 1.5 for worst in found["sources"]["none"]["worst"])
    assert (out / "worst-none.jpg").exists()


@pytest.mark.parametrize(("height", "width"), [(300, 1), (1, 2000)])
def test_pictures_of_very_narrow_and_very_flat_videos_can_be_drawn(height: int, width: int, tmp_path: Path) -> None:
    folder = tmp_path / "thin"
    folder.mkdir()
    for number in range(6):
        Image.new("RGB", (width, height), (95 + 15 * (number % 2), 95, 0)).save(folder / f"{number}.png")
    bundle = tiny_bundle(tmp_path / "tiny", multiple=1)
    out = tmp_path / "out"
    ran = keywarp("compare", bundle.path, folder, "--motion", "none", *SMALL, "--out", out)
    assert ran.status == 0, ran.stderr
    pictures = list(out.glob("*.jpg"))
    assert pictures
    for path in pictures:
        with Image.open(path) as image:
            assert image.height < 10_000


@pytest.mark.parametrize("option", ["--out", "--work"])
def test_a_folder_that_cannot_be_written_is_refused_before_the_work(option: str, follower: Path, film: Path) -> None:
    ran = keywarp("compare", follower, film, "--range", "0:0.01", *SMALL, option, "/proc/self")
    assert ran.status == 1
    assert "'/proc/self' can't be written" in ran.stderr


def test_a_refused_comparison_leaves_nothing_behind(follower: Path, film: Path, tmp_path: Path) -> None:
    out, work = tmp_path / "reports" / "out", tmp_path / "works" / "work"
    arguments = ("--range", "0:0.05", "--schedule", "adaptive", "--out", out, "--work", work)
    ran = keywarp("compare", follower, film, "--motion", "none", *SMALL, *arguments)
    assert ran.status == 1
    assert "choose shorter intervals" in ran.stderr
    assert not out.parent.exists()
    assert not work.parent.exists()


def test_results_over_cuts_can_be_left_out(tmp_path: Path) -> None:
    folder = tmp_path / "cut"
    folder.mkdir()
    for frame in cut().frames():
        Image.fromarray(frame.image).save(folder / f"{frame.index:02}.png")
    bundle = tiny_bundle(tmp_path / "tiny")
    means = []
    for choice in ("--cuts", "--no-cuts"):
        ran = keywarp("compare", bundle.path, folder, "--motion", "none", *SMALL, choice, "--json")
        assert ran.status == 0, ran.stderr
        means.append(json.loads(ran.stdout)["sources"]["none"]["mean"])
    assert means[0] < means[1] == 1


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (["{bundle}", "missing.mp4"], 1, "there is no file or folder 'missing.mp4'"),
        (["nothing", "{film}"], 1, "no model 'nothing'"),
        (["{bundle}", "{film}", "--range", "100:"], 1, "film has 0 frames to compare"),
        (["{bundle}", "{film}", "--range", "0:0.1"], 1, "needs at least 10 of one size"),
        (["{bundle}", "{film}", "--range", "3:3"], 2, "isn't a range of seconds"),
        (["{bundle}", "{film}", "--range", "nan:"], 2, "isn't a range of seconds"),
        (["{bundle}", "{film}", "--range", "inf:"], 2, "isn't a range of seconds"),
        (["{bundle}", "{film}", "--range", ":1e400"], 2, "isn't a range of seconds"),
        (["{bundle}", "{film}", "--range", "3"], 2, "isn't a range of seconds"),
        (["{bundle}", "{film}", "--motion", "none,raft"], 2, "there is no motion source 'raft'"),
        (["{bundle}", "{film}", "--interval", "1"], 2, "'1' isn't a key interval"),
        (["{bundle}", "{film}", "--schedule", "daily"], 2, "there is no schedule 'daily'"),
        (["{bundle}", "{film}", "--keep", "2"], 2, "above 0 and at most 1"),
        (["{bundle}", "{film}", "--out", "{file}"], 2, "is a file"),
    ],
)
def test_wrong_use_is_explained(
    arguments: list[str], status: int, says: str, follower: Path, film: Path, tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.write_text("")
    ran = keywarp("compare", *(a.format(bundle=follower, film=film, file=file) for a in arguments))
    assert ran.status == status
    assert says in " ".join(ran.stderr.replace("│", " ").split())


def test_sources_that_a_bundle_lacks_are_left_out(film: Path, tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path / "tiny", flow_network=False, motion="dis-repaired", background=False).path
    ran = keywarp("compare", bundle, film, *SMALL, "--json", "--out", tmp_path / "out")
    assert ran.status == 0, ran.stderr
    expected = ["none", "dis", "dis-chained", "dis-chained-repaired", "codec", "codec-repaired", "dis-repaired"]
    assert list(json.loads(ran.stdout)["sources"]) == expected
    failed = keywarp("compare", bundle, film, *SMALL, "--motion", "none,network")
    assert failed.status == 1
    assert "has no flow network, which the motion source network needs: use one of none," in failed.stderr


def test_letterboxed_frames_are_compared_without_their_padding(film: Path, tmp_path: Path) -> None:
    """The column of red is a tenth of the picture, and would be less of the whole input."""
    image = {"fit": "letterbox", "height": 384, "width": 384}
    sides = {"short_side": 64, "long_side": 384}
    found = []
    for name, fields in (("boxed", {"image": image}), ("alone", sides)):
        bundle = tiny_bundle(tmp_path / name, **fields).path
        ran = keywarp("compare", bundle, film, *SMALL, "--json", "--motion", "none,dis")
        assert ran.status == 0, ran.stderr
        found.append(json.loads(ran.stdout)["sources"])
    for source in ("none", "dis"):
        assert found[0][source]["mean"] == pytest.approx(found[1][source]["mean"], abs=0.02)
        errors = [sources[source]["feature_error"] for sources in found]
        assert errors[0] == pytest.approx(errors[1], abs=0.02)


def test_clips_are_read_as_the_options_say(
    tmp_path: Path, follower: Path, film: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    several, turned = saved(tmp_path / "v.mkv", two_videos()), saved(tmp_path / "v.mp4", encoded(turn=90))
    clips = [open_clip(str(several), (0, None), number=number) for number in (0, 1)]
    assert [[number_of(frame.image) for frame in clip.frames()] for clip in clips] == [[*range(5)], [*range(10, 15)]]
    assert clips[0].identity != clips[1].identity
    shapes = [
        next(open_clip(str(turned), (0, None), as_stored=stored).frames()).image.shape for stored in (False, True)
    ]
    assert shapes == [(64, 48, 3), (48, 64, 3)]
    assert capfd.readouterr().err.count("there are 2 videos") == 2
    ran = keywarp("compare", follower, film, "--video", "0")
    assert (ran.status, "a folder of images" in " ".join(ran.stderr.replace("│", " ").split())) == (2, True)


@pytest.mark.parametrize("command", ["compare", "quantize", "models verify"])
def test_a_damaged_video_is_an_error_unless_it_is_allowed(tmp_path: Path, follower: Path, command: str) -> None:
    damaged = write_cut_video(tmp_path)
    small = {
        "compare": ("compare", follower, damaged, *SMALL, "--motion", "none", "--json"),
        "quantize": ("quantize", follower, "--calibrate", damaged, "--out", tmp_path / "int8", "--json"),
        "models verify": ("models", "verify", follower, "--video", damaged, "--json"),
    }[command]
    refused = keywarp(*small)
    assert refused.status == 1
    said = "is damaged: 83 of 200 frames could be decoded"
    if command == "compare":
        assert said in refused.stderr
        assert "--allow-damage uses what can be read" in refused.stderr
    allowed = keywarp(*small, "--allow-damage")
    assert allowed.stderr.count(said) == 1
    if command == "compare":
        assert allowed.status == 0, allowed.stderr
        assert json.loads(allowed.stdout)["videos"]


def test_an_allowed_damage_is_no_part_of_the_clip(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    damaged = str(write_cut_video(tmp_path))
    clip = open_clip(damaged, allow_damage=True)
    assert (clip.count, len(list(clip.frames())), len(list(clip.frames()))) == (83, 83, 83)
    assert capfd.readouterr().err.count("is damaged") == 1
    assert open_clip(damaged, (2.0, 5.0), allow_damage=True).count == 30
    with pytest.raises(CommandError, match="--allow-damage"):
        list(open_clip(damaged).frames())
