"""A training loop that can be stopped and goes on where it was."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from keywarp.training.errors import ResumeError

WARM_UP = 0.05  # share of the steps over which the learning rate rises
SAVE_EVERY = 100  # steps
CLIP_NORM = 5.0  # of the gradient

Rate = tuple[Iterable[nn.Parameter], float]


@dataclass
class Progress:
    """What the loop reports."""

    step: int
    steps: int
    loss: float  # running mean


def train(
    network: nn.Module,
    rates: list[Rate],
    loss: Callable[[int], Tensor],
    steps: int,
    state: Path,
    report: Callable[[Progress], None],
    weight_decay: float = 1e-4,
) -> None:
    """Run AdamW with a warm-up and a cosine decay to zero, in bfloat16 autocast.

    Args:
        network: What is trained; saved in `state` from time to time.
        rates: Groups of parameters with their peak learning rate.
        loss: Step number -> the loss of one batch.
        steps: How many.
        state: File that progress is kept in; if it exists, training goes on from it.
        report: Called after every step.
        weight_decay: AdamW's.

    Raises:
        ResumeError: `state` belongs to other networks.
    """
    optimizer = torch.optim.AdamW(
        [{"params": list(group), "lr": rate} for group, rate in rates], weight_decay=weight_decay
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, steps))
    first, mean = 0, 0.0
    if state.exists():
        first, mean = _resume(state, network, optimizer, schedule)
    for step in range(first, steps):
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16):
            value = loss(step)
        value.backward()  # type: ignore[no-untyped-call]
        for group in optimizer.param_groups:
            nn.utils.clip_grad_norm_(group["params"], CLIP_NORM)
        optimizer.step()
        schedule.step()
        mean = value.item() if step == 0 else 0.98 * mean + 0.02 * value.item()
        report(Progress(step + 1, steps, mean))
        if (step + 1) % SAVE_EVERY == 0 or step + 1 == steps:
            _save(state, network, optimizer, schedule, step + 1, mean)


def _rate(step: int, steps: int) -> float:
    warm = max(1, round(WARM_UP * steps))
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + float(torch.cos(torch.tensor(torch.pi * (step - warm) / max(1, steps - warm)))))


def _save(
    state: Path,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    step: int,
    mean: float,
) -> None:
    state.parent.mkdir(parents=True, exist_ok=True)
    partial = state.with_suffix(".partial")
    content = {
        "network": network.state_dict(),
        "optimizer": optimizer.state_dict(),
        "schedule": schedule.state_dict(),
        "step": step,
        "loss": mean,
    }
    torch.save(content, partial)
    partial.replace(state)


def _resume(
    state: Path,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
) -> tuple[int, float]:
    try:
        content = torch.load(state, weights_only=True)
        network.load_state_dict(content["network"])
        optimizer.load_state_dict(content["optimizer"])
        schedule.load_state_dict(content["schedule"])
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        raise ResumeError(f"can't go on from {state}: {error}; delete it to start anew") from error
    return int(content["step"]), float(content["loss"])
