import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from keywarp.choices import Variant
from keywarp.experiments import curves, tables
from keywarp.experiments.curves import ages, figure3
from keywarp.experiments.errors import ExperimentError, OutOfTimeError
from keywarp.experiments.presets import PAPER_VARIANTS, TASKS, Preset, open_preset
from keywarp.experiments.runner import Run, Runner
from keywarp.experiments.tables import table4, table5
from keywarp.experiments.timing import FrameTimes, measure_frame_times, run_bundle, time_engines
from keywarp.networks import load_checkpoint
from keywarp.training.evaluation import Accuracy
from keywarp.training.pipeline import Trainer
from keywarp.training.process import TrainingProcess
from keywarp.training.recipe import FlowTraining, ImageRecipe
from keywarp.training.variants import METHODS
from tests.experiments.reproducing import Reproduced, Stages

SOURCES = {"flying_pieces": {"kind": "flying_pieces", "shift": 4}, "moving_scenes": {"kind": "moving_scenes"}}

Open = Callable[[], tuple[Runner, Stages]]


@pytest.fixture
def opened(reproduced: Reproduced, tmp_path: Path) -> Open:
    """Opens a runner where two runs are trained and nothing is measured."""
    work = tmp_path / "work"
    shutil.copytree(reproduced.work / "packages", work / "packages")
    for name in ("dff-seed1", "frame-seed1"):
        folder = work / "segmentation" / name
        folder.mkdir(parents=True)
        shutil.copy(reproduced.work / "segmentation" / name / "checkpoint.pt", folder)

    def open_runner() -> tuple[Runner, Stages]:
        stages = Stages()
        return Runner(open_preset("smoke"), work, TrainingProcess(), stages), stages

    return open_runner


def test_accuracy_is_measured_once_and_only_again_for_longer_intervals(opened: Open) -> None:
    run = Run("segmentation", seed=1)
    runner, stages = opened()
    first = runner.accuracy(run, ["dff", "copy"], 2)
    assert stages.names == ["evaluating segmentation/dff-seed1: dff, copy"]
    runner, stages = opened()
    assert runner.accuracy(run, ["dff", "copy"], 2) == first
    [shorter] = runner.accuracy(run, ["dff"], 1).values()
    assert stages.names == []
    assert shorter == first["dff"].until(1)
    assert (shorter.mean, shorter.worst) == (shorter.by_age[0], shorter.by_age[0])
    longer = runner.accuracy(run, ["dff", "copy"], 4)
    assert stages.names == ["evaluating segmentation/dff-seed1: dff, copy"]
    for way in ("dff", "copy"):
        assert len(longer[way].by_age) == 4
        assert longer[way].by_age[:2] == pytest.approx(first[way].by_age, abs=1e-3)
    assert runner.accuracy(run, ["frame", "dff"], 2)["dff"] == longer["dff"].until(2)
    assert stages.names[1:] == ["evaluating segmentation/dff-seed1: frame"]


def test_flows_are_saved_when_the_time_limit_ends_an_evaluation(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    runner, _ = opened()
    run, found = Run("segmentation", "frame", seed=1), runner.work / "sift-fast.npz"

    def end() -> None:
        raise OutOfTimeError

    monkeypatch.setattr(runner, "check_time", end)
    with pytest.raises(OutOfTimeError):
        runner.accuracy(run, ["sff_fast"], 3)
    assert found.exists()


def test_networks_are_timed_once_for_each_experiment(opened: Open) -> None:
    run = Run("segmentation", seed=1)
    runner, stages = opened()
    found = measure_frame_times(runner, "table0", {"a": (run, "network"), "b": (run, "none")})
    assert measure_frame_times(opened()[0], "table0", {"a": (run, "network"), "b": (run, "none")}) == found
    assert stages.names == ["timing segmentation: a, b"]
    assert measure_frame_times(runner, "table0", {"b": (run, "none")}).keys() == {"b"}
    assert measure_frame_times(runner, "figure0", {"b": (run, "none")}).keys() == {"b"}
    assert stages.names[1:] == ["timing segmentation: b"] * 2


class Slow:
    """An engine that takes a second for a key frame and half a second for a propagated frame."""

    backend = SimpleNamespace(name="none", precision="fp32")

    def __init__(self) -> None:
        self.frames = 0

    def key(self, _image: int) -> tuple[SimpleNamespace, None]:
        self.frames += 1
        return SimpleNamespace(inference=0.75, postprocess=0.25), None

    def propagate(self, _image: int, _state: None) -> SimpleNamespace:
        self.frames += 1
        return SimpleNamespace(inference=0.25, postprocess=0.25)


def test_a_slow_engine_is_timed_less_often() -> None:
    engines: Any = {"slow": Slow()}
    frames: Any = (0, 1)
    assert time_engines(engines, frames, 30, Stages(), max_seconds=8) == {"slow": FrameTimes(1.0, 0.5, "none fp32")}
    assert engines["slow"].frames == 2 * 6  # 9 s


def test_an_unfinished_bundle_is_exported_again(opened: Open) -> None:
    runner, _ = opened()
    folder = runner.work / "segmentation" / "dff-seed1" / "bundle"
    folder.mkdir()
    (folder / "flow.onnx").write_bytes(b"the beginning of ")
    assert run_bundle(runner, Run("segmentation", seed=1)).manifest.name == "scenes-segmentation"


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("variant", ["fix_n", "separate"])
def test_variants_with_a_fixed_recognition_network_have_that_of_frame_with_their_seed(
    reproduced: Reproduced, task: str, variant: Variant
) -> None:
    def recognition(name: str) -> dict[str, Any]:
        weights = load_checkpoint(reproduced.work / task / name / "checkpoint.pt").weights
        return {name: value for name, value in weights.items() if name.startswith("recognition.")}

    same, other, found = (recognition(name) for name in ("frame-seed1", "frame-seed0", f"{variant}-seed1"))
    assert found.keys() == same.keys()
    assert all(torch.equal(found[name], value) for name, value in same.items())
    assert not all(torch.equal(found[name], value) for name, value in other.items())


def test_all_runs_share_networks_that_are_pretrained_once(reproduced: Reproduced) -> None:
    assert {file.name for file in reproduced.work.glob("*.pt")} == {"flownet.pt", "flownet_inception.pt"}
    for task in TASKS:
        assert {file.name for file in (reproduced.work / task).glob("*.pt")} == {"features.pt", "features-lighter.pt"}
    assert not [*reproduced.work.rglob("joint.pt")]  # done, and large


@pytest.mark.parametrize(
    ("features", "source", "changes", "shared"),
    [
        ("segmentation", "flying_pieces", {}, {"features.pt", "flownet.pt"}),
        (None, "flying_pieces", {}, {"flownet.pt"}),
        ("segmentation", "flying_pieces", {"image": ImageRecipe(short_side=64, long_side=128)}, {"flownet.pt"}),
        ("segmentation", "moving_scenes", {"image": ImageRecipe(short_side=64, long_side=128)}, set()),
        ("segmentation", "flying_pieces", {"seed": 7}, set()),
    ],
)
def test_tasks_share_pretrained_networks_only_if_their_settings_agree(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    features: str | None,
    source: str,
    changes: dict[str, Any],
    shared: set[str],
) -> None:
    """Cityscapes and ImageNet don't share, since their images have different sizes."""
    recipes = {}
    for task, recipe in open_preset("smoke").recipes.items():
        assert recipe.features is not None
        assert recipe.flow is not None
        first = {
            "features": recipe.features.model_copy(update={"task": features}),
            "flow": FlowTraining.model_validate({**recipe.flow.model_dump(), "source": SOURCES[source]}),
        }
        recipes[task] = recipe.model_copy(update=first | (changes if task == "detection" else {}))
    asked: list[Path] = []
    for name in ("train_features", "train_flow"):
        monkeypatch.setattr(Trainer, name, lambda _, state: asked.append(state))
    monkeypatch.setattr("keywarp.training.pipeline.open_data", lambda *_: None)
    runner = Runner(replace(open_preset("smoke"), recipes=recipes), tmp_path, TrainingProcess(), Stages())
    for task in TASKS:
        runner.pretrained_weights(Run(task, "fix_f", seed=1, head_layers=0))
    assert asked == [
        (tmp_path if name in shared else tmp_path / task) / name
        for task in TASKS
        for name in ("features.pt", "flownet.pt")
    ]


class Recorded(Runner):
    """A runner without networks: seed s has 50 + 4 s % accuracy at key age 0, and 1 point less at each later age."""

    def __init__(self, preset: Preset, work: Path) -> None:
        super().__init__(preset, work, TrainingProcess(), Stages())
        self.runs: list[Run] = []

    def accuracy(self, run: Run, variants: Sequence[Variant], interval: int) -> dict[Variant, Accuracy]:
        self.runs.append(run)
        ages = tuple((50 + 4 * run.seed - age) / 100 for age in range(interval))
        return dict.fromkeys(variants, Accuracy("mIoU", sum(ages) / interval, min(ages), ages, ()))


@pytest.fixture
def recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recorded:
    for module in (tables, curves):
        monkeypatch.setattr(
            module, "measure_frame_times", lambda *args: dict.fromkeys(args[-1], FrameTimes(0.1, 0.02, "none fp32"))
        )
    return Recorded(open_preset("cpu"), tmp_path)


def test_figures_are_means_over_key_ages_and_sample_deviations_over_seeds_in_percent(recorded: Recorded) -> None:
    figures = table4(recorded).figures
    for task, mean, worst in (("segmentation", 52.0, 50.0), ("detection", 49.5, 45.0)):  # 5 and 10 ages
        for entry in figures[task].values():
            assert entry["seeds"] == pytest.approx([mean - 4, mean, mean + 4])
            assert (entry["mean"], entry["std"]) == (pytest.approx(mean), pytest.approx(4))
            assert entry["worst_age"] == pytest.approx(worst)
            assert entry["dff_leads_by"] == pytest.approx({"mean": 0, "std": 0})  # by seed, though seeds differ by 4
        assert figures[task]["frame"]["fps"] == pytest.approx(10)
    assert figures["detection"]["dff"]["fps"] == pytest.approx(10 / (0.1 + 9 * 0.02))
    assert ages(recorded).figures["segmentation"]["dff"] == pytest.approx([54, 53, 52, 51, 50])
    assert table5(recorded).figures["segmentation"]["0"]["value"] == pytest.approx(48)  # of the first seed
    points = figure3(recorded).figures["detection"]["flownet"]
    assert [(p["l"], p["accuracy"], p["fps"]) for p in (points[0], points[-1])] == [
        (1, pytest.approx(50), pytest.approx(10)),
        (20, pytest.approx(40.5), pytest.approx(20 / (0.1 + 19 * 0.02))),
    ]


def test_the_hard_preset_trains_the_papers_variants_and_both_feature_networks(recorded: Recorded) -> None:
    recorded.preset = open_preset("hard")
    assert set(table4(recorded).figures["detection"]) == {*PAPER_VARIANTS, "from_frame", "copy"}
    report = figure3(recorded)
    assert len(report.figures["segmentation"]) == 6
    assert "1, 1, 1, 1 blocks" in report.text[1]
    lighter = recorded.recipe(Run("segmentation", lighter=True))
    assert lighter.network.blocks == (1, 1, 1, 1)
    assert lighter.features
    assert lighter.features.task == "detection"


def test_every_run_has_a_folder_of_its_own(recorded: Recorded) -> None:
    for experiment in (table4, table5, figure3, ages):
        experiment(recorded)
    runs = set(recorded.runs)
    assert len({run.name for run in runs}) == len(runs) == 2 * (3 * 7 + 4 + 2)
    assert {run.variant for run in runs} == {v for v, method in METHODS.items() if method.trains or v == "separate"}


def test_a_preset_without_fully_labelled_video_has_no_adaptive_experiment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from keywarp.experiments.adaptive import adaptive

    runner = Runner(open_preset("paper"), tmp_path, TrainingProcess(), Stages())
    monkeypatch.setattr(runner, "evaluation", lambda _: ())
    with pytest.raises(
        ExperimentError, match="the preset paper has no videos with labels for every frame; use cpu or smoke"
    ):
        adaptive(runner)
