"""The training loop. It can be stopped or killed at any time, and goes on where it was.

With a number of steps, a run that was interrupted ends with the weights of one that wasn't. With a number of minutes,
the time before the interruption counts.
"""

import math
import os
import pickle
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from keywarp.adaptation.errors import AdaptationError, ProgressError
from keywarp.adaptation.loss import LossWeights, Parts, PropagationLoss, Units
from keywarp.adaptation.pairs import PairBatch, PairSampler
from keywarp.training.process import TrainingProcess
from keywarp.training.reporting import Reporter

WARM_UP = 0.03  # share of the training in which the learning rate rises
CALIBRATION_BATCHES = 4
FIRST_CALIBRATION = 10**9  # number of the first of them, beyond all steps
SMOOTHING = 0.98  # weight of the earlier steps in the running mean of the loss
SAVE_SECONDS = 30.0  # between two saves of the progress
CLIP_NORM = 1.0  # largest norm of the gradients


@dataclass(frozen=True)
class FitOptions:
    """How long and how to train."""

    seconds: float | None = None  # of training, or None to go by `steps`
    steps: int | None = None
    batch: int = 4  # pairs per step
    rate: float = 5e-4  # highest learning rate
    weight_decay: float = 1e-4
    seed: int = 0
    save_seconds: float = SAVE_SECONDS
    weights: LossWeights = field(default_factory=LossWeights)

    def __post_init__(self) -> None:
        if (self.seconds is None) == (self.steps is None):
            raise ValueError("a training needs either `seconds` or `steps`, and not both")


@dataclass(frozen=True)
class FitResult:
    """How a training went."""

    steps: int
    seconds: float  # of training, including earlier runs that were interrupted
    loss: dict[str, float]  # the parts, running means at the end; 1 is as bad as copying


class Fit:
    """A training of a flow network, and perhaps a head, on pairs of frames."""

    def __init__(
        self,
        trained: dict[str, nn.Module],
        loss: PropagationLoss,
        sampler: PairSampler,
        options: FitOptions,
        process: TrainingProcess,
        settings: str = "",
    ) -> None:
        """Prepare the training.

        Args:
            trained: The modules to train, by name. They are on the process's device already.
            loss: Computes the parts of the loss.
            sampler: Draws the pairs.
            options: How long and how to train.
            process: The device and precision.
            settings: A digest of all that the training depends on; progress saved with another one is refused.
        """
        self._trained, self._loss, self._sampler = trained, loss, sampler
        self._options, self._process, self._settings = options, process, settings
        parameters = [p for module in trained.values() for p in module.parameters() if p.requires_grad]
        self._parameters = parameters
        self._optimizer = torch.optim.AdamW(parameters, lr=options.rate, weight_decay=options.weight_decay)
        self._step, self._seconds = 0, 0.0
        self._mean: dict[str, float] = {}
        self._threads: int | None = None  # on the CPU, or None if that wasn't measured

    def run(self, state: Path, reporter: Reporter) -> FitResult:
        """Train, or do the rest of an interrupted training.

        Args:
            state: The file that keeps the progress.
            reporter: Shows the progress, in seconds or in steps.

        Raises:
            ProgressError: If `state` is damaged or belongs to another training.
            AdaptationError: If the loss became infinite or not a number.
        """
        if state.exists():
            self._resume(state)
        else:
            self._calibrate()
        options = self._options
        reporter.stage("adapting", options.steps or math.ceil(options.seconds or 0))
        if self._threads is None and options.steps is None:
            self._choose_threads()
        started, saved = time.monotonic() - self._seconds, time.monotonic()
        for batch in self._batches():
            share = self._share()
            for group in self._optimizer.param_groups:
                group["lr"] = options.rate * _rate_factor(share)
            parts = self._loss(batch.to(self._process.device), self._borrowed())
            total = self._total(parts, share)
            total.backward()  # type: ignore[no-untyped-call]
            if not math.isfinite(value := float(total.detach())):
                state.unlink(missing_ok=True)  # it would lead here again
                raise AdaptationError(f"the loss is {value} at step {self._step + 1}: try a smaller --rate")
            nn.utils.clip_grad_norm_(self._parameters, CLIP_NORM)
            self._optimizer.step()
            self._optimizer.zero_grad(set_to_none=True)
            self._step += 1
            self._seconds = time.monotonic() - started
            self._note(parts)
            done = self._step if options.steps else min(math.ceil(self._seconds), math.ceil(options.seconds or 0))
            reporter.step(done, self._describe())
            if time.monotonic() - saved > options.save_seconds or self._share() >= 1:
                self._save(state)
                saved = time.monotonic()
        return FitResult(self._step, self._seconds, dict(self._mean))

    def _calibrate(self) -> None:
        steps = range(FIRST_CALIBRATION, FIRST_CALIBRATION + CALIBRATION_BATCHES)
        batches = (self._sampler.draw(step, self._options.batch) for step in steps)
        self._loss.calibrate([batch.to(self._process.device) for batch in batches])

    def _choose_threads(self) -> None:
        """Leave out the cores that other work keeps busy, where threads would mostly wait for each other."""
        if self._process.device.type == "cpu":
            busy, _, _ = os.getloadavg()
            self._threads = max(1, torch.get_num_threads() - round(busy))
            torch.set_num_threads(self._threads)

    def _batches(self) -> Iterator[PairBatch]:
        """Yield the batches of the remaining steps. The next one is drawn while one is learned from."""
        with ThreadPoolExecutor(1) as pool:
            upcoming = pool.submit(self._sampler.draw, self._step, self._options.batch)
            while self._share() < 1:
                batch = upcoming.result()
                upcoming = pool.submit(self._sampler.draw, self._step + 1, self._options.batch)
                yield batch

    def _share(self) -> float:
        """Return how much of the training is done, 0..1."""
        if self._options.steps is not None:
            return self._step / self._options.steps
        return min(self._seconds / (self._options.seconds or 1.0), 1.0)

    def _borrowed(self) -> torch.Tensor:
        random = torch.Generator().manual_seed(self._options.seed * 1_000_003 + self._step)
        chosen = torch.rand(self._options.batch, generator=random) < self._options.weights.borrowed
        return chosen.to(self._process.device)

    def _total(self, parts: Parts, share: float) -> torch.Tensor:
        w = self._options.weights
        pull = w.least_pull + (w.pull - w.least_pull) * 0.5 * (1 + math.cos(math.pi * share))
        return w.features * parts.features + w.unscaled * parts.unscaled + w.head * parts.head + pull * parts.pull

    def _note(self, parts: Parts) -> None:
        for name, value in parts.as_dict().items():
            before = self._mean.get(name, value)
            self._mean[name] = SMOOTHING * before + (1 - SMOOTHING) * value

    def _describe(self) -> str:
        return f"step {self._step}, " + ", ".join(f"{name} {value:.3f}" for name, value in self._mean.items())

    def _save(self, state: Path) -> None:
        """Write the state. An interrupted write leaves the older file as it was."""
        state.parent.mkdir(parents=True, exist_ok=True)
        partial = state.with_suffix(".partial")
        units = self._loss.units
        content: dict[str, Any] = {
            "trained": {name: module.state_dict() for name, module in self._trained.items()},
            "optimizer": self._optimizer.state_dict(),
            "units": (units.features, units.head, units.pull),
            "step": self._step,
            "seconds": self._seconds,
            "mean": self._mean,
            "threads": self._threads,
            "settings": self._settings,
        }
        with partial.open("wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(state)

    def _resume(self, state: Path) -> None:
        try:
            content = torch.load(state, map_location=self._process.device, weights_only=True)
            if content["settings"] != self._settings:
                raise ProgressError(
                    f"{state} holds the progress of an adaptation with other settings: repeat the command as it was, "
                    "or delete the file to start over"
                )
            for name, module in self._trained.items():
                module.load_state_dict(content["trained"][name])
            self._optimizer.load_state_dict(content["optimizer"])
            self._loss.units = Units(*content["units"])
            self._step, self._seconds, self._mean = content["step"], content["seconds"], content["mean"]
            if (threads := content["threads"]) is not None:
                self._threads = threads
                torch.set_num_threads(threads)
        except (OSError, RuntimeError, LookupError, TypeError, ValueError, EOFError, pickle.UnpicklingError) as error:
            raise ProgressError(
                f"{state} is damaged, so nothing can resume from it: delete it to start over"
            ) from error


def _rate_factor(share: float) -> float:
    """Return the factor of the learning rate, which rises for a moment and then falls along a cosine to almost 0."""
    if share < WARM_UP:
        return max(share / WARM_UP, 0.02)
    return max(0.5 * (1 + math.cos(math.pi * (share - WARM_UP) / (1 - WARM_UP))), 0.005)
