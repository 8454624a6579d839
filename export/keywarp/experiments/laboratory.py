"""Trains and evaluates what an experiment asks for, once: whatever is in its folder already isn't done again."""

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
from keywarp.experiments.shallow import ShallowFlow
from keywarp.experiments.siftflow import open_siftflow
from keywarp.networks import DeepFeatureFlow, load_checkpoint, save_checkpoint
from keywarp.training.compute import Compute
from keywarp.training.data import open_data
from keywarp.training.evaluation import Accuracy, Propagation, by_computing, by_copying, by_network, evaluate
from keywarp.training.pipeline import Trainer, Weights, features_settings, flow_settings
from keywarp.training.recipe import Recipe
from keywarp.training.reporting import Journal, Reporter
from keywarp.training.variants import METHODS


@dataclass(frozen=True)
class Run:
    """One training."""

    task: Task
    variant: Variant = "dff"
    seed: int = 0
    flow: str | None = None  # another flow network than the recipe's
    head_layers: int | None = None  # another split point than the recipe's

    @property
    def name(self) -> str:
        """Where it is kept."""
        parts = [self.variant, self.flow, None if self.head_layers is None else f"head{self.head_layers}"]
        return f"{self.task}/{'-'.join(part for part in parts if part)}-seed{self.seed}"


class Laboratory:
    """Where experiments run."""

    def __init__(
        self, preset: Preset, work: Path, compute: Compute, reporter: Reporter, seconds: float | None = None
    ) -> None:
        """Open it.

        Args:
            preset: At what size.
            work: Folder for all that is trained and measured, and for packages.
            compute: Where to train.
            reporter: Told about progress.
            seconds: After so long it stops with `OutOfTimeError`; None: never.

        Raises:
            ExperimentError: What is in the folder was made by other recipes.
        """
        self.preset = preset
        self.work = work
        self.reporter = reporter
        self._compute = compute
        self._deadline = None if seconds is None else time.monotonic() + seconds
        self._shallow: dict[str, ShallowFlow] = {}
        self._first_weights: dict[tuple[Task, str], tuple[Weights | None, Weights | None]] = {}
        self._evaluation: dict[Task, SnippetSource] = {}
        self._check_recipes()

    def recipe(self, run: Run) -> Recipe:
        """A run's."""
        recipe = self.preset.recipes[run.task]
        others = {"flow": run.flow, "head_layers": run.head_layers}
        changes = {name: value for name, value in others.items() if value is not None}
        network = recipe.network.model_copy(update=changes)
        return recipe.model_copy(update={"variant": run.variant, "seed": run.seed, "network": network})

    def checkpoint(self, run: Run) -> Path:
        """A run's trained networks; trains them if they aren't there yet."""
        path = self.work / run.name / "checkpoint.pt"
        if path.exists():
            return path
        method = METHODS[run.variant]
        frame = self.checkpoint(replace(run, variant="frame", flow=None)) if method.from_frame else None
        features, flow = self._pretrained(run)
        with self._journal(path.parent / "logs") as journal:
            trainer = Trainer(self.recipe(run), self.work, self._compute, journal)
            network = trainer.start(features, flow, frame)
            trainer.joint(network, path.parent / "joint.pt")
            save_checkpoint(trainer.checkpoint(network, self.preset.files[run.task], {}), path)
        (path.parent / "joint.pt").unlink(missing_ok=True)  # three times as large, and done
        return path

    def network(self, run: Run) -> DeepFeatureFlow[Any]:
        """A run's trained networks, on the CPU."""
        return load_checkpoint(self.checkpoint(run)).network()

    def accuracy(self, run: Run, ways: Sequence[Variant], longest: int) -> dict[Variant, Accuracy]:
        """What a run's networks reach, for all key ages below `longest`.

        Measured by the paper's protocol; see `keywarp.training.evaluation`.

        Args:
            run: Whose networks.
            ways: Where the features come from, as in these variants.
            longest: l, frames.
        """
        files = {way: self.work / run.name / f"{way}.json" for way in ways}
        kept = {way: _read_accuracy(file) for way, file in files.items() if file.exists()}
        kept = {way: found for way, found in kept.items() if len(found.by_age) >= longest}
        missing: dict[str, Propagation] = {way: self._propagation(way) for way in ways if way not in kept}
        if missing:
            trained = load_checkpoint(self.checkpoint(run))
            network, classes = trained.network().to(self._compute.device), trained.options.classes
            source = self.evaluation(run.task)
            self.reporter.stage(f"evaluating {run.name}: {', '.join(missing)}", len(source))
            try:
                measured = evaluate(network, source, classes, longest, missing, self._compute.device, self._tick)
            finally:  # also where the time is over
                for shallow in self._shallow.values():
                    shallow.save()
            for way in ways:
                if way in measured:
                    kept[way] = measured[way]
                    write_json(asdict(kept[way]), files[way])
        return {way: kept[way].until(longest) for way in ways}

    def evaluation(self, task: Task) -> SnippetSource:
        """What a task is evaluated on."""
        if task not in self._evaluation:
            data = open_data(self.preset.recipes[task], self.work, self.reporter)
            [self._evaluation[task]] = data.evaluation.values()
        return self._evaluation[task]

    def shallow(self, name: SIFTFlowName) -> ShallowFlow:
        """SIFT-Flow, which keeps what it found."""
        if name not in self._shallow:
            self._shallow[name] = ShallowFlow(open_siftflow(name), self.work / f"{name}.npz")
        return self._shallow[name]

    def check_time(self) -> None:
        """Stop if the time is over.

        Raises:
            OutOfTimeError: It is.
        """
        if self._deadline is not None and time.monotonic() > self._deadline:
            raise OutOfTimeError

    def _check_recipes(self) -> None:
        """Results of two recipes must not mix."""
        file = self.work / "recipes.json"
        recipes = {
            task: recipe.model_dump(mode="json", exclude_defaults=True) for task, recipe in self.preset.recipes.items()
        }
        if not file.exists():
            write_json(recipes, file)
        elif json.loads(file.read_text()) != recipes:
            raise ExperimentError(
                f"{self.work} holds what other recipes than those of the preset {self.preset.name} are now have made "
                f"({file}): delete it to start anew, or choose another folder with --work"
            )

    def _pretrained(self, run: Run) -> tuple[Weights | None, Weights | None]:
        """Feature and flow network that joint training starts from: trained once for all variants, seeds and cuts."""
        base = replace(run, variant="dff", seed=self.preset.recipes[run.task].seed, head_layers=None)
        recipe = self.recipe(base)
        key = (run.task, recipe.network.flow)
        if key not in self._first_weights:
            features, flow = self._shared(run.task, features_settings), self._shared(run.task, flow_settings)
            with self._journal(features / "logs") as journal:
                trainer = Trainer(recipe, self.work, self._compute, journal)
                self._first_weights[key] = (
                    trainer.features(features / "features.pt"),
                    trainer.flow(flow / f"{recipe.network.flow}.pt"),
                )
        return self._first_weights[key]

    def _shared(self, task: Task, settings: Callable[[Recipe], str]) -> Path:
        """The folder of what is trained by these settings: all tasks' if theirs are the same."""
        alike = len({settings(recipe) for recipe in self.preset.recipes.values()}) == 1
        return self.work if alike else self.work / task

    def _journal(self, logs: Path) -> Journal:
        return Journal(logs, _Timed(self.reporter, self.check_time))

    def _propagation(self, way: Variant) -> Propagation:
        motion = METHODS[way].motion
        match motion:
            case "network":
                return by_network
            case "none":
                return by_copying
            case "every-frame":
                return by_computing
        return self.shallow(motion)

    def _tick(self) -> None:
        self.reporter.step()
        self.check_time()


@dataclass(frozen=True)
class _Timed:
    """A reporter that stops when the time is over."""

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
    """Write it, whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial")
    partial.write_text(json.dumps(content, indent=2) + "\n")
    partial.replace(file)
