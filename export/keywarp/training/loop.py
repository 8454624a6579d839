"""A training loop that can be stopped, killed even, and goes on where it was: on the CPU to the very bit."""

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
from keywarp.training.compute import Compute
from keywarp.training.errors import DivergedError, ResumeError
from keywarp.training.recipe import Optimization

SAVE_EVERY = 100  # steps
SMOOTHING = 0.98  # of the running mean of the loss, per step

Batch = TypeVar("Batch")


@dataclass(frozen=True)
class Rate:
    """Parameters that are trained alike."""

    name: str
    parameters: Sequence[nn.Parameter]
    rate: float  # peak learning rate


@dataclass(frozen=True)
class Stage(Generic[Batch]):
    """One training."""

    name: str
    network: nn.Module
    rates: list[Rate]
    batches: BatchSource[Batch]
    loss: Callable[[Batch], Tensor]  # mean over the batch's samples
    steps: int
    optimization: Optimization
    settings: str = ""  # digest of all that makes it what it is: progress of other settings isn't gone on with


@dataclass(frozen=True)
class Progress:
    """What the loop reports after every step."""

    step: int  # steps done
    steps: int
    loss: float  # of this step
    mean_loss: float  # running mean
    rates: dict[str, float]  # learning rates


class Watcher(Protocol):
    """Is told about progress."""

    def __call__(self, stage: str, progress: Progress) -> None:
        """A step is done."""
        ...


def train(stage: Stage[Batch], state: Path, compute: Compute, watch: Watcher) -> None:
    """Run a stage, or what is left of it.

    Args:
        stage: What is trained and how; its network is on the device already.
        state: File that progress is kept in; if it exists, training goes on from it.
        compute: Where; only the leading process writes `state` and is watched.
        watch: Called after every step.

    Raises:
        ResumeError: `state` is damaged, or belongs to other networks or settings.
        DivergedError: The loss became infinite or not a number.
    """
    trained = [(rate, [p for p in rate.parameters if p.requires_grad]) for rate in stage.rates]
    groups = [{"params": parameters, "lr": rate.rate, "name": rate.name} for rate, parameters in trained if parameters]
    run = _Run(stage, groups, compute)
    if state.exists():
        run.resume(state)
    parameters = [p for _, group in trained for p in group]
    batches = stage.batches.batches(run.step, stage.steps, compute.share)
    for step in range(run.step, stage.steps):
        losses = [_add_gradients(stage, run, compute, batch) for batch in islice(batches, compute.share.parts)]
        compute.average_gradients(parameters)  # before unscaling: all processes then skip the same steps
        run.scaler.unscale_(run.optimizer)
        value = float(compute.average(torch.stack(losses).sum()))
        if not math.isfinite(value):
            raise DivergedError(
                f"{stage.name}: the loss is {value} at step {step + 1}: lower the learning rates of the recipe, "
                f"and delete {state} to start anew"
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
        if compute.leads:
            watch(stage.name, Progress(run.step, stage.steps, value, run.mean_loss, rates))
        if run.step % SAVE_EVERY == 0 or run.step == stage.steps:
            compute.average_buffers(stage.network)
            if compute.leads:
                run.save(state)


def _add_gradients(stage: Stage[Batch], run: "_Run", compute: Compute, batch: Batch) -> Tensor:
    """Compute a part's share of the loss, and add its gradients to those of the parts before it."""
    with compute.autocast():
        loss = stage.loss(batch) / compute.share.parts
    run.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
    return loss.detach()


class _Run:
    """What a stopped stage needs to go on."""

    def __init__(self, stage: Stage[Any], groups: list[dict[str, Any]], compute: Compute) -> None:
        self._network = stage.network
        self._settings = stage.settings
        self._device = compute.device
        self.optimizer = _optimizer(groups, stage.optimization)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda step: rate_factor(step, stage.steps, stage.optimization)
        )
        self.scaler = torch.amp.GradScaler(compute.device.type, enabled=compute.precision == "fp16")
        self.step = 0
        self.mean_loss = 0.0

    def save(self, state: Path) -> None:
        """Write it, whole or not at all."""
        state.parent.mkdir(parents=True, exist_ok=True)
        partial = state.with_suffix(".partial")
        content = {name: part.state_dict() for name, part in self._parts().items()}
        with partial.open("wb") as file:
            torch.save({**content, "step": self.step, "loss": self.mean_loss, "settings": self._settings}, file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(state)

    def resume(self, state: Path) -> None:
        """Read it."""
        try:
            content = torch.load(state, map_location=self._device, weights_only=True)
            if content["settings"] != self._settings:
                raise ResumeError(f"{state} was begun with other settings than the recipe's; delete it to start anew")
            for name, part in self._parts().items():
                part.load_state_dict(content[name])
            self.step, self.mean_loss = int(content["step"]), float(content["loss"])
        except (OSError, RuntimeError, LookupError, TypeError, ValueError, EOFError, pickle.UnpicklingError) as error:
            raise ResumeError(f"can't go on from {state}: {error}; delete it to start anew") from error

    def _parts(self) -> dict[str, Any]:
        return {
            "network": self._network,
            "optimizer": self.optimizer,
            "schedule": self.schedule,
            "scaler": self.scaler,
        }


def rate_factor(step: int, steps: int, optimization: Optimization) -> float:
    """What the peak learning rates are multiplied by at a step."""
    warm = round(optimization.warm_up * steps)
    if step < warm:
        return (step + 1) / warm
    if optimization.drops:  # to a tenth each, as in the paper (section 5.1)
        return float(0.1 ** sum(step >= round(drop * steps) for drop in optimization.drops))
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


def _optimizer(groups: list[dict[str, Any]], optimization: Optimization) -> torch.optim.Optimizer:
    if optimization.algorithm == "sgd":
        return torch.optim.SGD(groups, momentum=optimization.momentum, weight_decay=optimization.weight_decay)
    return torch.optim.AdamW(groups, weight_decay=optimization.weight_decay)
