"""A training loop that can be stopped, or killed, at any time and resumes where it was.

On the CPU a resumed training ends with exactly the weights of one that was never stopped.
"""

import math
import os
import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor, nn

from keywarp.datasets.batches import BatchSource
from keywarp.training.errors import DivergedError, ProgressError
from keywarp.training.process import TrainingProcess
from keywarp.training.recipe import Optimization

SAVE_EVERY = 100  # steps between two saves of the progress
SMOOTHING = 0.98  # weight of the earlier steps in the running mean of the loss

Batch = TypeVar("Batch")


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that share a learning rate."""

    name: str
    parameters: Sequence[nn.Parameter]
    rate: float  # peak learning rate


@dataclass(frozen=True)
class Stage(Generic[Batch]):
    """One training of one network."""

    name: str
    network: nn.Module
    groups: list[ParameterGroup]
    batches: BatchSource[Batch]
    loss: Callable[[Batch], Tensor]  # a mean over the batch's samples
    steps: int
    optimization: Optimization
    settings: str = ""  # a digest of all settings; progress that was saved with another digest is refused


@dataclass(frozen=True)
class Progress:
    """The state of the loop after a step."""

    step: int  # steps done
    steps: int  # steps in all
    loss: float  # this step's loss
    mean_loss: float  # running mean of the loss
    rates: dict[str, float]  # learning rates by parameter group


class StepCallback(Protocol):
    """A function that is called after every step."""

    def __call__(self, stage: str, progress: Progress) -> None:
        """Take note of a step.

        Args:
            stage: The stage's name.
            progress: The state after the step.
        """
        ...


def train(
    stage: Stage[Batch], state: Path, process: TrainingProcess, on_step: StepCallback, save_every: int = SAVE_EVERY
) -> None:
    """Run a stage, or the rest of it.

    Args:
        stage: The training. Its network is on the process's device already.
        state: The file that keeps the progress. If it exists, training resumes from it.
        process: The process that trains. Only the leader writes `state` and calls `on_step`.
        on_step: Called after every step.
        save_every: Steps between two saves of the progress.

    Raises:
        ProgressError: If `state` is damaged, or belongs to other networks or settings.
        DivergedError: If the loss became infinite or not a number.
    """
    trained = [(group, [p for p in group.parameters if p.requires_grad]) for group in stage.groups]
    groups = [{"params": params, "lr": group.rate, "name": group.name} for group, params in trained if params]
    run = _ResumableRun(stage, groups, process)
    if state.exists():
        run.resume(state)
    parameters = [p for _, params in trained for p in params]
    batches = stage.batches.batches(run.step, stage.steps, process.share)
    for step in range(run.step, stage.steps):
        losses = [_add_gradients(stage, run, process, batch) for batch in islice(batches, process.share.parts)]
        process.average_gradients(parameters)  # before unscaling: all processes then skip the same steps
        run.scaler.unscale_(run.optimizer)
        value = float(process.average(torch.stack(losses).sum()))
        if not math.isfinite(value):
            raise DivergedError(
                f"{stage.name}: the loss is {value} at step {step + 1}; lower the learning rates of the recipe, "
                f"and delete {state} to start over"
            )
        if stage.optimization.clip_norm:
            for group in run.optimizer.param_groups:
                nn.utils.clip_grad_norm_(group["params"], stage.optimization.clip_norm)
        rates = {group["name"]: group["lr"] for group in run.optimizer.param_groups}
        run.scaler.step(run.optimizer)
        run.scaler.update()
        run.schedule.step()
        run.optimizer.zero_grad(set_to_none=True)
        run.step = step + 1
        run.mean_loss = value if step == 0 else SMOOTHING * run.mean_loss + (1 - SMOOTHING) * value
        if process.is_leader:
            on_step(stage.name, Progress(run.step, stage.steps, value, run.mean_loss, rates))
        if run.step % save_every == 0 or run.step == stage.steps:
            process.average_buffers(stage.network)
            if process.is_leader:
                run.save(state)


def _add_gradients(stage: Stage[Batch], run: "_ResumableRun", process: TrainingProcess, batch: Batch) -> Tensor:
    """Compute one part's share of the loss, and add its gradients to those of the earlier parts."""
    with process.autocast():
        loss = stage.loss(batch) / process.share.parts
    run.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
    return loss.detach()


class _ResumableRun:
    """The state of a stage that is saved and restored."""

    def __init__(self, stage: Stage[Any], groups: list[dict[str, Any]], process: TrainingProcess) -> None:
        self._network = stage.network
        self._settings = stage.settings
        self._device = process.device
        self.optimizer = _optimizer(groups, stage.optimization)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda step: learning_rate_factor(step, stage.steps, stage.optimization)
        )
        self.scaler = torch.amp.GradScaler(process.device.type, enabled=process.precision == "fp16")
        self.step = 0
        self.mean_loss = 0.0

    def save(self, state: Path) -> None:
        """Write the state. An interrupted write leaves the older file as it was."""
        state.parent.mkdir(parents=True, exist_ok=True)
        partial = state.with_suffix(".partial")
        content = {name: part.state_dict() for name, part in self._parts().items()}
        with partial.open("wb") as file:
            torch.save({**content, "step": self.step, "loss": self.mean_loss, "settings": self._settings}, file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(state)

    def resume(self, state: Path) -> None:
        """Restore the state from a file."""
        try:
            content = torch.load(state, map_location=self._device, weights_only=True)
            if content["settings"] != self._settings:
                raise ProgressError(
                    f"{state} holds progress with other settings than the recipe's; delete it to start over"
                )
            for name, part in self._parts().items():
                part.load_state_dict(content[name])
            self.step, self.mean_loss = int(content["step"]), float(content["loss"])
        except (OSError, RuntimeError, LookupError, TypeError, ValueError, EOFError, pickle.UnpicklingError) as error:
            raise ProgressError(f"can't resume from {state}: {error}; delete it to start over") from error

    def _parts(self) -> dict[str, Any]:
        return {
            "network": self._network,
            "optimizer": self.optimizer,
            "schedule": self.schedule,
            "scaler": self.scaler,
        }


def learning_rate_factor(step: int, steps: int, optimization: Optimization) -> float:
    """Return the factor of the peak learning rates at a step, between 0 and 1."""
    warm = round(optimization.warm_up * steps)
    if step < warm:
        return (step + 1) / warm
    if optimization.drops:  # each to a tenth, as in the paper (section 5.1)
        return float(0.1 ** sum(step >= round(drop * steps) for drop in optimization.drops))
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


def _optimizer(groups: list[dict[str, Any]], optimization: Optimization) -> torch.optim.Optimizer:
    if optimization.algorithm == "sgd":
        return torch.optim.SGD(groups, momentum=optimization.momentum, weight_decay=optimization.weight_decay)
    return torch.optim.AdamW(groups, weight_decay=optimization.weight_decay)
