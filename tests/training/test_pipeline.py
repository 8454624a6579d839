import json
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from keywarp.choices import Variant
from keywarp.datasets import Image
from keywarp.datasets.batches import BatchShare
from keywarp.datasets.labelling import Evidence
from keywarp.networks import (
    Checkpoint,
    ResNetFeatures,
    SplitNetwork,
    load_checkpoint,
    save_checkpoint,
    unfreeze_batch_norms,
)
from keywarp.networks.checkpoint import build_recognition
from keywarp.training import pipeline
from keywarp.training.errors import ProcessError, ProgressError, RecipeError, TrainingError
from keywarp.training.joint import FrameLoss, PairLoss
from keywarp.training.pipeline import Trainer, run
from keywarp.training.process import TrainingProcess
from keywarp.training.recipe import Recipe, read_recipe
from keywarp.training.reporting import SilentReporter, TrainingLog
from keywarp.training.variants import METHODS
from tests.training.recipes import FEATURES, TAUGHT, VIDEOS, write_recipe
from tests.training.tiny import moved_parts

HERE = TrainingProcess()
Trained = Callable[..., Checkpoint]


def white(frame: Image) -> Evidence:
    """Return the evidence of a teacher that recognises the white square."""
    return np.asarray(frame.min(axis=2) > 200, np.float32)[None]


class Notes(SilentReporter):
    """A reporter that records the stages and counts the steps."""

    def __init__(self) -> None:
        self.stages: list[str] = []
        self.steps = 0

    def stage(self, name: str, total: int) -> None:
        self.stages.append(f"{name} {total}")

    def step(self, done: int | None = None, note: str = "") -> None:  # noqa: ARG002
        self.steps += 1


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("keywarp.training.pseudo_labels.make_teacher", lambda *_: white)
    return tmp_path


def trainer(recipe: Recipe, work: Path, process: TrainingProcess = HERE) -> Trainer:
    return Trainer(recipe, work, process, TrainingLog(work / "logs", SilentReporter()))


def videos(folder: Path, *parts: str, variant: Variant = "dff") -> Recipe:
    return read_recipe(write_recipe(folder, VIDEOS, *parts)).model_copy(update={"variant": variant})


def test_a_recipe_is_trained_in_stages_which_are_not_repeated(folder: Path) -> None:
    file = write_recipe(folder, TAUGHT, FEATURES)
    recipe, first, second = read_recipe(file), Notes(), Notes()
    path, accuracy = run(recipe, file.relative_to(folder), folder / "work", HERE, first)
    assert first.stages == [
        "labelling square 12", "training features 3", "training flow 2", "training segmentation dff 2",
        "evaluating square (held out) 6",
    ]  # fmt: skip
    assert first.steps == 12 + 3 + 2 + 2 + 6
    assert list(accuracy) == ["square (held out)"]
    assert list(accuracy["square (held out)"]) == ["per frame", "propagated", "copied"]
    assert len(accuracy["square (held out)"]["propagated"].by_age) == 4

    checkpoint = load_checkpoint(path)
    assert path == folder / "work" / "checkpoint.pt"
    assert (checkpoint.card.recipe, checkpoint.card.data) == ("square.toml", "v.mp4")
    assert list(checkpoint.card.accuracy["mIoU, square (held out), propagated"]["per_class"]) == [
        "background",
        "square",
    ]
    json.dumps(checkpoint.card.accuracy, allow_nan=False)
    checkpoint.network()

    _, again = run(recipe, file, folder / "work", HERE, second)
    assert again == accuracy
    assert second.steps == 6  # of evaluation
    weights = load_checkpoint(path).weights
    assert all(torch.equal(weights[name], value) for name, value in checkpoint.weights.items())


def test_the_model_card_contains_no_local_path(folder: Path) -> None:
    file = write_recipe(folder, VIDEOS)
    path, _ = run(read_recipe(file), file, folder / "work", HERE, SilentReporter())
    assert str(folder) not in json.dumps(load_checkpoint(path).card.__dict__)


def test_joint_training_starts_with_the_function_of_the_feature_network_trained_from_scratch(folder: Path) -> None:
    recipe = videos(folder, FEATURES)
    training = trainer(recipe, folder)
    weights = training.train_features(folder / "features.pt")
    assert weights is not None
    recognition = training.build_network(features=weights).recognition
    assert isinstance(recognition, SplitNetwork)
    trained = build_recognition(recipe.network.options(2, recipe.task))
    live = trained.backbone
    unfreeze_batch_norms(live)
    trained.load_state_dict(dict(weights))
    head = recognition.task_head.state_dict()
    assert all(torch.equal(head[name], value) for name, value in trained.task_head.state_dict().items())
    assert not torch.equal(live.bn1.running_mean, torch.zeros(16))
    image = 50 * torch.randn(2, 3, 64, 96)
    for network in (live, recognition.backbone):
        network.reduction.weight.data *= 100  # so that differences would be seen
    with torch.inference_mode():
        expected, found = live.eval()(image), recognition.backbone.eval()(image)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert expected.std() > 0.01


def test_only_the_feature_network_is_taken_from_a_network_for_another_task(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = videos(folder, FEATURES)
    assert recipe.features is not None
    other = recipe.model_copy(update={"features": recipe.features.model_copy(update={"task": "detection"})})
    training = trainer(other, folder)
    monkeypatch.setattr(pipeline, "train", lambda *_: None)  # there are no boxes
    weights = training.train_features(folder / "features.pt")
    assert weights is not None
    assert all(name.startswith("backbone.") for name in weights)
    backbone = training.build_network(features=weights).recognition.backbone
    assert isinstance(backbone, ResNetFeatures)
    torch.testing.assert_close(backbone.reduction.weight, weights["backbone.reduction.weight"])


CHANGED = {
    "frame": {"backbone", "task_head"},
    "dff": {"backbone", "task_head", "flow", "scales"},
    "no_scale": {"backbone", "task_head", "flow"},
    "from_frame": {"backbone", "task_head", "flow", "scales"},
    "fix_f": {"backbone", "task_head"},
    "fix_n": {"flow", "scales"},
    "separate": set(),
    "sff_slow": set(),
    "sff_fast": set(),
    "copy": set(),
}
FROM_FRAME = ["from_frame", "fix_n", "separate", "sff_slow", "sff_fast", "copy"]


@pytest.fixture(scope="module")
def frame(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the checkpoint of a recognition network that was trained on single frames."""
    folder = tmp_path_factory.mktemp("frame")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        training = trainer(videos(folder, variant="frame"), folder)
        network = training.build_network()
        training.train_jointly(network, folder / "joint.pt")
        save_checkpoint(training.checkpoint(network, Path("square.toml"), {}), folder / "frame.pt")
    return folder / "frame.pt"


@pytest.mark.parametrize("variant", METHODS)
def test_a_variant_trains_its_own_parts_and_no_other(variant: Variant, folder: Path, frame: Path) -> None:
    training = trainer(videos(folder, variant=variant), folder)
    network = training.build_network(checkpoint=frame if variant in FROM_FRAME else None)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    training.train_jointly(network, folder / "joint.pt")
    assert moved_parts(before, network) == CHANGED[variant]
    if "scales" not in CHANGED[variant]:
        [scale] = network.flow(*torch.randn(2, 1, 3, 32, 48)).scales
        assert torch.equal(scale, torch.ones_like(scale))


@pytest.mark.parametrize(("variant", "moving"), [("frame", False), ("dff", True), ("fix_f", True)])
def test_the_variant_frame_is_trained_on_single_frames(
    variant: Variant, moving: bool, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages: list[Any] = []
    monkeypatch.setattr(pipeline, "train", lambda stage, *_: stages.append(stage))
    training = trainer(videos(folder, variant=variant), folder)
    training.train_jointly(training.build_network(), folder / "joint.pt")
    [stage] = stages
    assert isinstance(stage.loss, PairLoss if moving else FrameLoss)
    propagated = [batch.propagated.any() for batch in stage.batches.batches(0, 2, BatchShare())]
    assert any(propagated) == moving


@pytest.mark.parametrize("variant", FROM_FRAME)
def test_variants_that_start_from_frame_need_a_checkpoint(variant: Variant, folder: Path) -> None:
    training = trainer(videos(folder, variant=variant), folder)
    with pytest.raises(TrainingError, match=rf"the variant {variant} starts from .*--variant frame.*--start"):
        training.build_network()


@pytest.mark.parametrize("variant", [*FROM_FRAME, "dff"])
def test_a_checkpoint_gives_the_recognition_network_to_start_from(variant: Variant, folder: Path, frame: Path) -> None:
    training = trainer(videos(folder, variant=variant), folder)
    found, random = (
        training.build_network(checkpoint=frame).state_dict(),
        trainer(videos(folder), folder).build_network().state_dict(),
    )
    for name, value in load_checkpoint(frame).weights.items():
        assert torch.equal(found[name], value if name.startswith("recognition.") else random[name]), name


def test_a_checkpoint_of_other_networks_is_refused(folder: Path, frame: Path) -> None:
    kept = load_checkpoint(frame)
    save_checkpoint(replace(kept, weights={"flow.conv1.0.weight": torch.zeros(1)}), folder / "other.pt")
    training = trainer(videos(folder, variant="fix_n"), folder)
    with pytest.raises(TrainingError, match=r"other\.pt holds other networks than the recipe's"):
        training.build_network(checkpoint=folder / "other.pt")


def test_the_flow_network_is_pretrained_without_scale_fields_and_independently_of_the_cut(folder: Path) -> None:
    recipe = read_recipe(write_recipe(folder, TAUGHT))
    weights = trainer(recipe, folder).train_flow(folder / "flow.pt")
    assert weights is not None
    assert not any(name.startswith("scales") for name in weights)
    for head_layers in (0, 1, 2):
        network = recipe.network.model_copy(update={"head_layers": head_layers})
        training = trainer(recipe.model_copy(update={"network": network}), folder)
        again = training.train_flow(folder / "flow.pt")  # trained already
        started = training.build_network(flow=again)
        assert all(torch.equal(started.flow.state_dict()[name], value) for name, value in weights.items())


@pytest.mark.parametrize("variant", ["frame", "copy", "sff_fast"])
def test_variants_without_a_flow_network_pretrain_none(variant: Variant, folder: Path) -> None:
    recipe = read_recipe(write_recipe(folder, TAUGHT)).model_copy(update={"variant": variant})
    assert trainer(recipe, folder).train_flow(folder / "flow.pt") is None


def test_progress_of_another_recipe_is_refused(folder: Path) -> None:
    recipe = videos(folder)
    training = trainer(recipe, folder)
    training.train_jointly(training.build_network(), folder / "joint.pt")
    other = trainer(recipe.model_copy(update={"seed": 1}), folder)
    with pytest.raises(ProgressError, match=r"joint\.pt holds progress with other settings.*delete it"):
        other.train_jointly(other.build_network(), folder / "joint.pt")


def test_seeds_start_from_different_weights(folder: Path) -> None:
    recipe = videos(folder)
    first, same, other = (trainer(recipe.model_copy(update={"seed": seed}), folder) for seed in (0, 0, 1))
    weights = [t.build_network().state_dict()["recognition.backbone.reduction.weight"] for t in (first, same, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize("stage", ["features", "flow", "joint"])
def test_batches_that_processes_cannot_share_are_refused_before_anything_is_trained(stage: str, folder: Path) -> None:
    recipe = read_recipe(write_recipe(folder, TAUGHT, FEATURES))
    training = getattr(recipe, stage).model_copy(update={"batch": 3})
    shared = TrainingProcess(share=BatchShare(0, 2))
    with pytest.raises(
        ProcessError, match=rf"{stage}\.batch: 3 samples can't be shared equally by 2 processes; use a multiple of 2$"
    ):
        trainer(recipe.model_copy(update={stage: training}), folder, shared)


def test_impossible_networks_are_refused_before_anything_is_trained(folder: Path) -> None:
    recipe = videos(folder)
    network = recipe.network.model_copy(update={"head_layers": 3})
    with pytest.raises(RecipeError, match="network: the head can't have 3 layers"):
        trainer(recipe.model_copy(update={"network": network}), folder)


def test_processes_other_than_the_leader_neither_measure_nor_write(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This runs in one process; `test_several_processes` and `test_train` start several."""
    file = write_recipe(folder, VIDEOS)
    monkeypatch.setattr(TrainingProcess, "average", lambda _, value: value)
    monkeypatch.setattr(TrainingProcess, "leader_first", lambda _: nullcontext())
    monkeypatch.setattr(pipeline, "measure_accuracy", None)
    path, accuracy = run(
        read_recipe(file), file, folder / "work", TrainingProcess(share=BatchShare(1, 2)), SilentReporter()
    )
    assert accuracy == {}
    assert not path.exists()
    assert not (folder / "work").exists()
