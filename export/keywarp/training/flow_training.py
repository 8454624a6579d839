"""Training of a flow network by itself, from a flow recipe to a file of weights."""

import json
import time
from pathlib import Path

import cv2
import numpy as np
import torch

from keywarp.datasets import Clip, DataError, FlowSource, PackageFile, fetch, read_clip
from keywarp.datasets.batches import FlowDataset
from keywarp.datasets.flying_crowds import FlyingCrowds
from keywarp.datasets.photographs import photographs, split_photographs
from keywarp.datasets.taught_pairs import MixedPairs, TaughtClip, TaughtPairs, teach
from keywarp.networks import FeatureMap, FlowPyramid
from keywarp.networks.flow_weights import FlowWeights, save_flow_weights
from keywarp.networks.flownet import FLOW_STRIDE, INPUT_DOWNSCALE
from keywarp.training.errors import ProcessError
from keywarp.training.flow import PyramidLoss
from keywarp.training.flow_recipe import FlowClip, FlowRecipe
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
        keywarp.datasets.DataError: If a package or clip is missing or damaged.
    """
    for stage in recipe.stages:
        try:
            process.share.part_size(stage.batch)
        except ValueError as error:
            raise ProcessError(f"stages.batch: {error}") from error
    with process.leader_first():
        crowds = FlyingCrowds(split_photographs(photographs(work / "packages"))[0], recipe.height, recipe.width)
        clips = [_open_clip(clip, work / "packages") for clip in recipe.clips]
    torch.manual_seed(recipe.seed)
    network = FlowPyramid((FeatureMap(1, FLOW_STRIDE),), recipe.share)
    network.to(process.device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    moving = [parameter for name, parameter in network.named_parameters() if not name.startswith("scales.")]
    state, clock = work / "progress.pt", _Clock(work / "seconds.json")
    with TrainingLog(work / "logs", reporter) as log:

        def on_step(name: str, progress: Progress) -> None:
            log(name, progress)
            clock.tick(progress.step)

        for number, stage in enumerate(recipe.stages):
            source: FlowSource = crowds
            if stage.real_share:
                source = MixedPairs(crowds, TaughtPairs(clips, recipe.height, recipe.width), stage.real_share)
            reporter.stage(f"flow, stage {number + 1}", stage.until or stage.steps)
            train(
                Stage(
                    name=f"flow {number + 1}",
                    network=network,
                    groups=[ParameterGroup("flow", moving, stage.rate)],
                    batches=FlowDataset(source, None, stage.batch, recipe.seed, workers),
                    loss=PyramidLoss(network, process.device),
                    steps=stage.steps,
                    until=stage.until,
                    optimization=recipe.optimization,
                    settings=digest(recipe),
                ),
                state,
                process,
                on_step,
            )
    path = work / WEIGHTS
    if process.is_leader:
        description = {"recipe": recipe.model_dump(mode="json"), "seconds": round(clock.seconds)}
        save_flow_weights(FlowWeights(recipe.share, recipe.license, description, network.state_dict()), path)
    return path, clock.seconds


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
            self._file.write_text(json.dumps({"seconds": self.seconds, "step": step}))


def _open_clip(recipe: FlowClip, cache: Path) -> TaughtClip:
    """Fetch and decode a clip, in the half size that flow networks see, and estimate its motion."""
    path = fetch(recipe.source, cache) if isinstance(recipe.source, PackageFile) else recipe.source
    clip = read_clip(path, recipe.name, recipe.cuts, recipe.short_side, recipe.long_side)
    stop = len(clip.frames) if recipe.stop is None else recipe.stop
    if not recipe.first < stop <= len(clip.frames):
        raise DataError(f"{recipe.name} has {len(clip.frames)} frames, but the recipe uses {recipe.first} to {stop}")
    part = clip.part(recipe.name, recipe.first, stop)
    height, width = (side // INPUT_DOWNSCALE for side in part.frames.shape[1:3])
    half = [
        cv2.resize(
            frame[: height * INPUT_DOWNSCALE, : width * INPUT_DOWNSCALE], (width, height), interpolation=cv2.INTER_AREA
        )
        for frame in part.frames
    ]
    return teach(Clip(part.name, np.stack(half).astype(np.uint8), part.shots), recipe.still)
