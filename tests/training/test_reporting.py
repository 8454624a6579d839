from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]
from torch import nn

from keywarp.training.loop import Progress, train
from keywarp.training.process import TrainingProcess
from keywarp.training.reporting import SilentReporter, TrainingLog
from tests.training.test_loop import StoppedError, identity


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Return the curves that TensorBoard shows, as (step, value) by name."""
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_losses_and_rates_are_logged_at_their_steps_even_after_a_resume(tmp_path: Path) -> None:
    seen: dict[int, Progress] = {}

    def fit(stop_at: int | None = None) -> None:
        torch.manual_seed(0)
        with TrainingLog(tmp_path / "logs", SilentReporter()) as log:

            def on_step(stage: str, progress: Progress) -> None:
                log(stage, progress)
                seen[progress.step] = progress
                if progress.step == stop_at:
                    raise StoppedError

            train(identity(nn.Linear(2, 2), steps=65), tmp_path / "state.pt", TrainingProcess(), on_step, save_every=20)

    with pytest.raises(StoppedError):
        fit(stop_at=53)
    fit()  # resumes at step 40, so that step 50 is logged twice, but shown once
    found = scalars(tmp_path / "logs" / "identity")
    assert set(found) == {"loss", "mean loss", "rate of all"}
    steps = [10, 20, 30, 40, 50, 60, 65]
    assert [step for step, _ in found["loss"]] == steps
    for tag, values in {
        "loss": [seen[step].loss for step in steps],
        "mean loss": [seen[step].mean_loss for step in steps],
        "rate of all": [seen[step].rates["all"] for step in steps],
    }.items():
        assert [value for _, value in found[tag]] == pytest.approx(values)


def progress(step: int) -> Progress:
    return Progress(step, steps=100, loss=step / 100, mean_loss=0.5, rates={"flow": 1e-3})


def test_a_resumed_stage_leaves_the_curves_of_others_alone(tmp_path: Path) -> None:
    with TrainingLog(tmp_path, SilentReporter()) as log:
        for stage, last in (("features", 100), ("segmentation dff", 60)):
            for step in range(10, last + 1, 10):
                log(stage, progress(step))
    with TrainingLog(tmp_path, SilentReporter()) as log:
        log("segmentation dff", progress(30))
    assert [step for step, _ in scalars(tmp_path / "features")["loss"]] == list(range(10, 101, 10))
    assert [step for step, _ in scalars(tmp_path / "segmentation-dff")["loss"]] == [10, 20, 30]


def test_a_logged_step_is_on_the_disk_at_once(tmp_path: Path) -> None:
    with TrainingLog(tmp_path, SilentReporter()) as log:
        for step in (10, 20, 30):
            log("flow", progress(step))
            assert [logged for logged, _ in scalars(tmp_path / "flow")["loss"]][-1] == step


def test_a_log_without_steps_writes_no_file(tmp_path: Path) -> None:
    with TrainingLog(tmp_path / "logs", SilentReporter()) as log:
        log("flow", progress(9))
    assert not (tmp_path / "logs").exists()


def test_the_reporter_receives_every_step(tmp_path: Path) -> None:
    reported: list[tuple[int | None, str]] = []

    class Listener(SilentReporter):
        def step(self, done: int | None = None, note: str = "") -> None:
            reported.append((done, note))

    with TrainingLog(tmp_path, Listener()) as log:
        log("flow", progress(7))
    assert reported == [(7, "loss 0.500")]
