"""Training and evaluation of the networks that experiments need. Results are kept in a folder and reused."""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from keywarp.choices import SIFTFlowName, Task, Variant
from keywarp.datasets.samples import SnippetSource
from keywarp.experiments.errors import ExperimentError, OutOfTimeError
from keywarp.experiments.presets import Preset
from keywarp.experiments.shallow_feature_flow import ShallowFeatureFlow
from keywarp.experiments.siftflow import open_siftflow
from keywarp.networks import DeepFeatureFlow, load_checkpoint, save_checkpoint
from keywarp.training.data import open_data
from keywarp.training.evaluation import (
    Accuracy,
    Propagation,
    copy_features,
    evaluate,
    recompute_features,
    warp_features,
)
from keywarp.training.pipeline import Trainer, Weights, features_digest, flow_digest
from keywarp.training.process import TrainingProcess
from keywarp.training.recipe import Recipe
from keywarp.training.reporting import Reporter, TrainingLog
from keywarp.training.variants import METHODS

RECIPES = "recipes.json"  # what a folder's results come from


@dataclass(frozen=True)
class Run:
    """One training run."""

    task: Task
    variant: Variant = "dff"
    seed: int = 0
    flow: str | None = None  # name of a flow network that replaces the recipe's
    head_layers: int | None = None  # number of the head's layers that replaces the recipe's
    lighter: bool = False  # whether the feature network is the preset's lighter one

    @property
    def name(self) -> str:
        """The run's folder, relative to the runner's folder."""
        head = None if self.head_layers is None else f"head{self.head_layers}"
        parts = [self.variant, self.flow, head, "lighter" if self.lighter else None]
        return f"{self.task}/{'-'.join(part for part in parts if part)}-seed{self.seed}"


class Runner:
    """Trains and evaluates networks for experiments."""

    def __init__(
        self, preset: Preset, work: Path, process: TrainingProcess, reporter: Reporter, seconds: float | None = None
    ) -> None:
        """Open the folder of results.

        Args:
            preset: The recipes and the size of the experiments.
            work: The folder for checkpoints, measurements and packages.
            process: The process that trains.
            reporter: The reporter that shows progress.
            seconds: The time after which work stops with `OutOfTimeError`, or None for no limit.

        Raises:
            ExperimentError: If the folder holds results of other recipes.
        """
        self.preset = preset
        self.work = work
        self.reporter = reporter
        self._process = process
        self._deadline = None if seconds is None else time.monotonic() + seconds
        self._shallow: dict[str, ShallowFeatureFlow] = {}
        self._pretrained_weights: dict[tuple[Task, str, bool], tuple[Weights | None, Weights | None]] = {}
        self._evaluation: dict[Task, SnippetSource] = {}
        self._check_recipes()

    def recipe(self, run: Run) -> Recipe:
        """Return a run's recipe."""
        recipe = self.preset.recipes[run.task]
        blocks = self.preset.lighter_blocks if run.lighter else None
        others = {"flow": run.flow, "head_layers": run.head_layers, "blocks": blocks}
        changes = {name: value for name, value in others.items() if value is not None}
        network = recipe.network.model_copy(update=changes)
        return recipe.model_copy(update={"variant": run.variant, "seed": run.seed, "network": network})

    def checkpoint(self, run: Run) -> Path:
        """Return the path of a run's checkpoint, which is trained if it doesn't exist."""
        path = self.work / run.name / "checkpoint.pt"
        if path.exists():
            return path
        method = METHODS[run.variant]
        frame = self.checkpoint(replace(run, variant="frame", flow=None)) if method.from_frame else None
        features, flow = self.pretrained_weights(run)
        with self._open_log(path.parent / "logs") as log:
            trainer = Trainer(self.recipe(run), self.work, self._process, log)
            network = trainer.build_network(features, flow, frame)
            trainer.train_jointly(network, path.parent / "joint.pt")
            save_checkpoint(trainer.checkpoint(network, self.preset.recipe_files[run.task], {}), path)
        (path.parent / "joint.pt").unlink(missing_ok=True)  # no longer needed, and three times as large
        return path

    def network(self, run: Run) -> DeepFeatureFlow[Any]:
        """Return a run's trained networks, on the CPU."""
        return load_checkpoint(self.checkpoint(run)).network()

    def accuracy(self, run: Run, variants: Sequence[Variant], interval: int) -> dict[Variant, Accuracy]:
        """Return the accuracy of a run's networks by the paper's protocol (see `keywarp.training.evaluation`).

        Args:
            run: The run.
            variants: The variants whose propagation the networks are evaluated with.
            interval: The key interval l in frames. All key ages below it are measured.

        Returns:
            The accuracy by variant.
        """
        files = {variant: self.work / run.name / f"{variant}.json" for variant in variants}
        kept = {variant: _read_accuracy(file) for variant, file in files.items() if file.exists()}
        kept = {variant: accuracy for variant, accuracy in kept.items() if len(accuracy.by_age) >= interval}
        missing: dict[str, Propagation] = {v: self._propagation(v) for v in variants if v not in kept}
        if missing:
            trained = load_checkpoint(self.checkpoint(run))
            network, classes = trained.network().to(self._process.device), trained.options.classes
            source = self.evaluation(run.task)
            self._note_recipes()
            self.reporter.stage(f"evaluating {run.name}: {', '.join(missing)}", len(source))
            try:
                measured = evaluate(
                    network, source, classes, interval, missing, self._process.device, self._count_frame
                )
            finally:  # also if the time has run out
                for flow in self._shallow.values():
                    flow.save()
            for variant in variants:
                if variant in measured:
                    kept[variant] = measured[variant]
                    write_json(asdict(kept[variant]), files[variant])
        return {variant: kept[variant].until(interval) for variant in variants}

    def evaluation(self, task: Task) -> SnippetSource:
        """Return the data for evaluating a task."""
        if task not in self._evaluation:
            data = open_data(self.preset.recipes[task], self.work, self.reporter)
            [self._evaluation[task]] = data.evaluation.values()
        return self._evaluation[task]

    def shallow_flow(self, name: SIFTFlowName) -> ShallowFeatureFlow:
        """Return the propagation along SIFT-Flow. Its flows are kept in the folder."""
        if name not in self._shallow:
            self._shallow[name] = ShallowFeatureFlow(open_siftflow(name), self.work / f"{name}.npz")
        return self._shallow[name]

    def check_time(self) -> None:
        """Check that there is time left.

        Raises:
            OutOfTimeError: If the time has run out.
        """
        if self._deadline is not None and time.monotonic() > self._deadline:
            raise OutOfTimeError

    def _check_recipes(self) -> None:
        """Refuse a folder with results of other recipes."""
        file = self.work / RECIPES
        if file.exists() and json.loads(file.read_text()) != self._recipes():
            raise ExperimentError(
                f"{self.work} holds results of recipes that differ from the preset {self.preset.name}'s present ones "
                f"({file}): delete it to start over, or choose another folder with --work"
            )

    def _note_recipes(self) -> None:
        """Note the recipes in the folder, before its first result."""
        if not (self.work / RECIPES).exists():
            write_json(self._recipes(), self.work / RECIPES)

    def _recipes(self) -> dict[Task, Any]:
        recipes = self.preset.recipes.items()
        return {task: recipe.model_dump(mode="json", exclude_defaults=True) for task, recipe in recipes}

    def pretrained_weights(self, run: Run) -> tuple[Weights | None, Weights | None]:
        """Return the pre-trained feature and flow network, shared by all variants, seeds and split points of a task."""
        base = replace(run, variant="dff", seed=self.preset.recipes[run.task].seed, head_layers=None)
        recipe = self.recipe(base)
        key = (run.task, recipe.network.flow, run.lighter)
        name = "features-lighter.pt" if run.lighter else "features.pt"
        if key not in self._pretrained_weights:
            features, flow = self._shared_folder(run.task, features_digest), self._shared_folder(run.task, flow_digest)
            with self._open_log(features / "logs") as log:
                trainer = Trainer(recipe, self.work, self._process, log)
                self._note_recipes()
                self._pretrained_weights[key] = (
                    trainer.train_features(features / name),
                    trainer.train_flow(flow / f"{recipe.network.flow}.pt"),
                )
        return self._pretrained_weights[key]

    def _shared_folder(self, task: Task, settings: Callable[[Recipe], str]) -> Path:
        """Return the folder of networks with these settings. Tasks with the same settings share one."""
        shared = len({settings(recipe) for recipe in self.preset.recipes.values()}) == 1
        return self.work if shared else self.work / task

    def _open_log(self, logs: Path) -> TrainingLog:
        return TrainingLog(logs, _TimeLimitedReporter(self.reporter, self.check_time))

    def _propagation(self, variant: Variant) -> Propagation:
        motion = METHODS[variant].motion
        match motion:
            case "network":
                return warp_features
            case "none":
                return copy_features
            case "every-frame":
                return recompute_features
        return self.shallow_flow(motion)

    def _count_frame(self) -> None:
        self.reporter.step()
        self.check_time()


@dataclass(frozen=True)
class _TimeLimitedReporter:
    """A reporter that stops the work when the time has run out."""

    reporter: Reporter
    check_time: Callable[[], None]

    def stage(self, name: str, total: int) -> None:
        self.reporter.stage(name, total)

    def step(self, done: int | None = None, note: str = "") -> None:
        self.reporter.step(done, note)
        self.check_time()


def _read_accuracy(file: Path) -> Accuracy:
    content: dict[str, Any] = json.loads(file.read_text())
    return Accuracy(**content | {name: tuple(content[name]) for name in ("by_age", "per_class")})


def write_json(content: Any, file: Path) -> None:
    """Write JSON. An interrupted write leaves the older file as it was."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial")
    partial.write_text(json.dumps(content, indent=2) + "\n")
    partial.replace(file)
