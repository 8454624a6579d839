"""The smoke preset of all experiments, through the command."""

import json
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from statistics import mean, stdev
from typing import Any, get_args

import cv2
import pytest

from keywarp.choices import ExperimentName
from keywarp.experiments.catalog import EXPERIMENTS
from keywarp.experiments.presets import TASKS, open_preset
from keywarp.torch_commands.reproduce import OUT_OF_TIME
from keywarp.training.variants import METHODS
from tests.command_line import keywarp
from tests.experiments.reproducing import Reproduced, write_photographs

FIGURES = {"figure1", "figure3", "figure4", "figure5", "ages", "motion", "adaptive"}
DATA = {"table2", "table4", "table5", "figure3", "ages", "motion", "adaptive"}
TABLE_ROW = re.compile(r"^\|( [^|]+ \|)+$|^\|( ---:? \|)+$")


def read(reproduced: Reproduced, name: str) -> Any:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{name}: {constant} is no JSON")

    return json.loads((reproduced.results / f"{name}.json").read_text(), parse_constant=refuse)


def test_the_command_offers_every_experiment() -> None:
    assert set(get_args(ExperimentName)) == set(EXPERIMENTS)


def test_each_experiment_writes_its_files(reproduced: Reproduced) -> None:
    expected = {f"{name}.md" for name in EXPERIMENTS} | {f"{name}.png" for name in FIGURES}
    assert {file.name for file in reproduced.results.iterdir()} == expected | {f"{name}.json" for name in DATA}


def test_table_4_has_all_variants_with_mean_and_deviation_over_the_seeds(reproduced: Reproduced) -> None:
    figures = read(reproduced, "table4")
    assert list(figures) == list(TASKS)
    for task, variants in figures.items():
        assert set(variants) == set(METHODS)
        for name, entry in variants.items():
            keys = {"mean", "std", "seeds", "dff_leads_by", "paper", "worst_age", "fps", "paper_fps"}
            assert set(entry) == keys, name
            leads = [ours - other for ours, other in zip(variants["dff"]["seeds"], entry["seeds"], strict=True)]
            assert entry["dff_leads_by"] == pytest.approx({"mean": mean(leads), "std": stdev(leads)})
            assert len(entry["seeds"]) == len(open_preset("smoke").seeds) == 2
            assert entry["mean"] == pytest.approx(mean(entry["seeds"]))
            assert entry["std"] == pytest.approx(stdev(entry["seeds"]))
            assert 0 <= entry["worst_age"] <= entry["mean"] + 1e-9 <= 100
            assert entry["fps"] > 0
            assert (entry["paper"] is None) == (name in ("no_scale", "from_frame", "copy")), (task, name)
        assert variants["frame"]["worst_age"] == pytest.approx(variants["frame"]["mean"])
        assert variants["fix_f"]["fps"] == variants["dff"]["fps"] > variants["sff_slow"]["fps"]
    papers = {task: [figures[task][name]["paper"] for name in ("frame", "dff", "separate")] for task in TASKS}
    assert papers == {"segmentation": [71.1, 69.2, 66.9], "detection": [73.9, 73.1, 67.4]}


def test_the_other_figures_are_complete(reproduced: Reproduced) -> None:
    preset = open_preset("smoke")
    table2 = read(reproduced, "table2")
    assert set(table2) == {"resnet50", "resnet101", "preset"}
    assert table2["resnet101"]["flownet"]["ratio"] == pytest.approx(12.71, abs=0.05)
    ages, table4 = read(reproduced, "ages"), read(reproduced, "table4")
    for task in TASKS:
        interval = preset.recipes[task].key_interval
        for variant, values in ages[task].items():
            assert len(values) == interval
            assert mean(values) == pytest.approx(table4[task][variant]["mean"])
        table5 = read(reproduced, "table5")[task]
        assert list(table5) == [str(layers) for layers in preset.head_layers]
        assert table5["1"]["value"] == pytest.approx(table4[task]["dff"]["seeds"][0], abs=0.01)
        figure3 = read(reproduced, "figure3")[task]
        assert list(figure3) == [flow + lighter for lighter in ("", "-lighter") for flow in preset.flow_networks]
        assert [point["l"] for point in figure3["flownet"]] == list(range(1, preset.longest_intervals[task] + 1))
        assert figure3["flownet"][interval - 1]["accuracy"] == pytest.approx(table5["1"]["value"], abs=0.01)
        motion = read(reproduced, "motion")[task]
        assert all(len(entry["error_by_age"]) == interval - 1 for entry in motion.values())
        assert set(motion["exact motion"]["error_by_age"]) == {0}
        pretrained, trained = (motion[f"flow network, {how}"] for how in ("pre-trained only", "trained jointly"))
        assert pretrained["on_frame"] == pytest.approx(table4[task]["separate"]["seeds"][0])
        assert trained["on_dff"] == pytest.approx(table4[task]["dff"]["seeds"][0])
        assert pretrained["on_dff"] is trained["on_frame"] is None
        assert pretrained["scale_off_one"] == 0 < trained["scale_off_one"] < 0.01  # hardly trained
        for ours, theirs in (("SIFT-Flow, slow", "sff_slow"), ("SIFT-Flow, fast", "sff_fast"), ("no motion", "copy")):
            assert motion[ours]["on_frame"] == pytest.approx(table4[task][theirs]["seeds"][0])
        adaptive = read(reproduced, "adaptive")[task]
        assert adaptive["fixed"][0]["interval"] == 1
        assert [point["asked"] for point in adaptive["fixed"][1:-1]] == [p["asked"] for p in adaptive["adaptive"]]
        cheapest = max(point["interval"] for point in adaptive["fixed"])
        assert all(1 <= point["interval"] <= cheapest for point in adaptive["adaptive"])


@pytest.mark.parametrize(
    ("name", "figures"),
    [
        ("table2", ["12.71", "95.24"]),
        ("table4", ["71.1", "69.2", "73.9", "73.1", "20.25", *(method.title for method in METHODS.values())]),
        ("table5", ["69.5", "72.7", "20.40"]),
        ("figure3", ["71.1 % at 1.52 fps", "69.5 % at 41.26 fps"]),
        ("ages", [method.title for method in METHODS.values()]),
        ("motion", ["exact motion", "error at age 2"]),
        ("adaptive", ["with 2 cuts in all"]),
    ],
)
def test_markdown_names_the_papers_figures(reproduced: Reproduced, name: str, figures: list[str]) -> None:
    text = (reproduced.results / f"{name}.md").read_text()
    for figure in figures:
        assert figure in text
    assert str(reproduced.work) not in text


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_markdown_renders(reproduced: Reproduced, name: str) -> None:
    paragraphs = (reproduced.results / f"{name}.md").read_text().strip().split("\n\n")
    assert paragraphs[0].startswith("# ")
    for paragraph in paragraphs:
        if "|" in paragraph:
            lines = paragraph.splitlines()
            assert all(TABLE_ROW.match(line) for line in lines), paragraph
            assert len({line.count("|") for line in lines}) == 1
    if name in FIGURES:
        assert re.fullmatch(rf"!\[.+\]\({name}\.png\)", paragraphs[-1])


@pytest.mark.parametrize("name", sorted(FIGURES))
def test_pictures_are_readable(reproduced: Reproduced, name: str) -> None:
    picture = cv2.imread(str(reproduced.results / f"{name}.png"))
    assert picture is not None
    assert min(picture.shape[:2]) > 300
    assert picture.std() > 10


def test_kept_results_are_not_computed_again(reproduced: Reproduced, tmp_path: Path) -> None:
    before = {file: file.stat().st_mtime_ns for file in reproduced.work.rglob("*.*")}
    for name in ("table4", "figure3", "table5", "figure1"):
        done = keywarp("reproduce", name, "--preset", "smoke", "--work", reproduced.work, "--out", tmp_path)
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""  # no stage
    assert {file: file.stat().st_mtime_ns for file in reproduced.work.rglob("*.*")} == before
    for name in ("figure3", "table5"):
        assert json.loads((tmp_path / f"{name}.json").read_text()) == read(reproduced, name)


def test_it_stops_at_the_time_limit_and_resumes(tmp_path: Path) -> None:
    arguments = ("figure1", "--preset", "smoke", "--work", write_photographs(tmp_path / "work"), "--out", tmp_path)
    done = keywarp("reproduce", *arguments, "--minutes", "0")
    assert done.returncode == OUT_OF_TIME == 3
    assert "The time limit of 0 minutes is reached; run the same command to resume" in done.stderr
    assert not (tmp_path / "figure1.md").exists()
    done = keywarp("reproduce", *arguments)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "figure1.png").exists()


MEASURE = """
import sys
from pathlib import Path
from keywarp.experiments.runner import Runner, Run
from keywarp.experiments.presets import open_preset
from keywarp.experiments.tables import ON_FRAME
from keywarp.training.process import TrainingProcess
from keywarp.training.reporting import SilentReporter

runner = Runner(open_preset("smoke"), Path(sys.argv[1]), TrainingProcess(), SilentReporter())
runner.checkpoint(Run("segmentation", "frame"))
print("trained", flush=True)
runner.accuracy(Run("segmentation", "frame"), ON_FRAME, 3)
runner.accuracy(Run("segmentation", "fix_n"), ["fix_n"], 3)
"""


def test_a_killed_run_resumes_and_ends_with_the_same_figures(reproduced: Reproduced, tmp_path: Path) -> None:
    work = write_photographs(tmp_path / "work")
    frame, fixed = (work / "segmentation" / f"{name}-seed0" for name in ("frame", "fix_n"))
    with subprocess.Popen([sys.executable, "-c", MEASURE, work], stdout=subprocess.PIPE, encoding="utf-8") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "trained\n"
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert not (fixed / "fix_n.json").exists()
    trained = (frame / "checkpoint.pt").read_bytes()
    subprocess.run([sys.executable, "-c", MEASURE, work], check=True, timeout=300)
    assert (frame / "checkpoint.pt").read_bytes() == trained
    for folder in (frame, fixed):
        found = {file.name: json.loads(file.read_text()) for file in folder.glob("*.json")}
        straight = reproduced.work / "segmentation" / folder.name
        assert found == {file.name: json.loads(file.read_text()) for file in straight.glob("*.json")}
        assert len(found) == (4 if folder == frame else 1)


def test_a_folder_with_results_of_other_recipes_is_refused(reproduced: Reproduced, tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    shutil.copy(reproduced.work / "recipes.json", work)
    done = keywarp("reproduce", "table2", "--preset", "cpu", "--work", work, "--out", tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith(f"keywarp: {work} holds results of recipes that differ from the preset cpu's")


def test_a_refused_experiment_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # here are none of the paper's data sets
    done = keywarp("reproduce", "table4", "--preset", "paper", "--work", "work", "--out", "out")
    assert done.returncode == 1
    assert "gtFine_trainvaltest.zip" in done.stderr
    assert not list(tmp_path.iterdir())


def test_an_unwritable_folder_is_reported(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    work = tmp_path / "work"
    done = keywarp("reproduce", "table2", "--preset", "smoke", "--work", work, "--out", tmp_path / "taken")
    assert done.returncode == 1
    assert done.stderr == f"keywarp: '{tmp_path / 'taken'}' can't be written: Not a directory\n"
    assert not work.exists()
