"""The networks of each configuration. Those that nobody has trained are made once, and kept in the user's cache."""

import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal, get_args

import numpy as np
import onnx
from numpy.typing import NDArray

from keywarp.cli.errors import CommandError
from keywarp.commands.bundles import find_bundle, list_bundle_folders
from keywarp.engines import Bundle, BundleError, load_bundle
from keywarp.engines.backends import BackendName
from keywarp.engines.bundle import draft_precision
from keywarp.engines.engine import default_cache
from keywarp.engines.motion import MotionSource
from keywarp.engines.processor import int8_instructions
from keywarp.quantization import quantize_unjudged

PaperConfig = Literal["paper-detection", "paper-segmentation"]
PAPER_CONFIGS: tuple[PaperConfig, ...] = get_args(PaperConfig)
PAPER_SIZE = (600, 1000)  # height and width of the frames, pixels
FLOW_NETWORKS = ("flownet", "flownet_inception")
OTHER_MOTIONS = ("dis-chained-repaired", "codec")  # which need no flow network
NANO = {"detection": "ssdlite", "segmentation": "lr-aspp"}  # of torchvision, see `keywarp.export.light_networks`
INSTALL_TRAIN = "install the extra `train` (README, Install)"

Say = Callable[[str], None]  # is told what is being done


@dataclass(frozen=True, slots=True)
class Candidate:
    """One way of propagating: a bundle and where its motion comes from."""

    label: str  # the flow network's name, or the motion source
    bundle: Bundle
    motion: MotionSource


@dataclass(frozen=True, slots=True)
class Networks:
    """What a configuration measures."""

    config: str
    size: tuple[int, int] | None  # height and width of the frames in pixels, or None for the video's own
    candidates: tuple[Candidate, ...]
    trained: bool  # whether results mean anything

    @property
    def bundle(self) -> Bundle:
        """The bundle whose networks the others run on every frame."""
        return self.candidates[0].bundle


def open_networks(config: str, models: Path, say: Say) -> Networks:
    """Open the networks of a configuration, and make those that are missing.

    Args:
        config: One of `PAPER_CONFIGS`, or a bundle's name in the models folder, or its own folder.
        models: The models folder.
        say: Is told what is being made.

    Raises:
        CommandError: If there is no such configuration or bundle, or it can't be made.
    """
    if config in PAPER_CONFIGS:
        task = config.removeprefix("paper-")
        bundles = {flow: paper_bundle(task, flow, say) for flow in FLOW_NETWORKS}
        candidates = [Candidate(flow, bundle, MotionSource.parse("network")) for flow, bundle in bundles.items()]
        last = bundles[FLOW_NETWORKS[-1]]
        candidates += [Candidate(motion, last, MotionSource.parse(motion)) for motion in OTHER_MOTIONS]
        return Networks(config, PAPER_SIZE, tuple(candidates), trained=False)
    if not (models / config / "bundle.json").exists() and not Path(config).is_dir():
        known = ", ".join((*PAPER_CONFIGS, *(folder.name for folder in list_bundle_folders(models))))
        raise CommandError(f"there is no configuration and no model {config!r} in {models}; there are: {known}")
    bundle = find_bundle(config, models)
    own = MotionSource.parse(bundle.manifest.motion)
    motions = [own, *(MotionSource.parse(motion) for motion in OTHER_MOTIONS)]
    if bundle.manifest.has_flow_network:
        motions.insert(1, MotionSource.parse("network"))
    found = tuple(Candidate(str(motion), bundle, motion) for motion in dict.fromkeys(motions) if not motion.copies)
    return Networks(config, None, found, trained=True)


def with_int8(
    bundle: Bundle, frames: Sequence[NDArray[np.uint8]], backend: BackendName, threads: int, say: Say
) -> tuple[Bundle, bool]:
    """Return a bundle that has graphs in int8.

    Those that it lacks are made for their times only, and kept in the cache.

    Args:
        bundle: The bundle.
        frames: Two or more frames to find the ranges of activations.
        backend: See `quantize_unjudged`.
        threads: See `quantize_unjudged`.
        say: Is told what is being made.

    Returns:
        The bundle, and whether it had them.

    Raises:
        keywarp.quantization.QuantizationError: If a graph can't be quantised.
    """
    if "int8" in bundle.manifest.precisions:
        return bundle, True
    height, width = frames[0].shape[:2]
    measured_on = f"{backend}-{int8_instructions() or 'none'}-{height}x{width}"  # what decides which graphs int8 is for
    folder = cache_folder() / "int8" / f"{bundle.manifest.digest[:20]}-{measured_on}"
    if not folder.is_dir():
        say(f"quantising {bundle.name} (once)")
        graphs = quantize_unjudged(bundle, frames, backend=backend, threads=threads)
        with _made(folder) as partial:
            for name, model in graphs.items():
                onnx.save(model, partial / name)
    models = {path.name: onnx.load(path) for path in sorted(folder.glob("*.onnx"))}
    return draft_precision(bundle, "int8", models), False


def nano_network(task: str, height: int, width: int, say: Say) -> Path | None:
    """Return the file of torchvision's light network for a task, or None if torchvision isn't installed.

    Args:
        task: The bundle's task.
        height: The height of the image in pixels.
        width: Its width.
        say: Is told what is being made.

    Raises:
        CommandError: If it can't be made.
    """
    name = NANO.get(task)
    if name is None or find_spec("torchvision") is None:
        return None
    folder = cache_folder() / "nano" / f"{name}-{height}x{width}"
    if not folder.is_dir():
        say(f"making {name} (once)")
        with _made(folder) as partial:
            _run("keywarp.export.light_networks", name, str(height), str(width), str(partial / f"{name}.onnx"))
    return folder / f"{name}.onnx"


def cache_folder() -> Path:
    """Return the folder of all that is made here. Deleting it makes everything anew."""
    return default_cache().parent / "bench"


def paper_bundle(task: str, flow: str, say: Say) -> Bundle:
    """Return the paper's networks with random weights as a bundle, which is made if it isn't in the cache.

    Args:
        task: `detection` or `segmentation`.
        flow: The flow network's name.
        say: Is told what is being made.

    Raises:
        CommandError: If it can't be made.
    """
    folder = cache_folder() / f"{task}-{flow}"
    if folder.is_dir():
        try:
            return load_bundle(folder)
        except BundleError:  # of another version, or damaged
            shutil.rmtree(folder)
    if find_spec("torch") is None:
        raise CommandError(f"making the paper's networks needs torch: {INSTALL_TRAIN}")
    height, width = PAPER_SIZE
    say(f"making ResNet-101 and {flow} for {task} (once)")
    with TemporaryDirectory(prefix="keywarp-bench-") as work, _made(folder) as partial:
        checkpoint = f"{work}/{task}-{flow}.pt"
        sides = "--short-side", str(height), "--long-side", str(width)
        _run("keywarp.cli", "init", checkpoint, "--task", task, "--flow", flow, *sides)
        _run("keywarp.cli", "export", checkpoint, "--out", str(partial))
    return load_bundle(folder)


class _made:  # noqa: N801 - reads as a function in `with`
    """A folder that appears under its name only when it is complete."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._partial = folder.with_name(f".{folder.name}.partial")

    def __enter__(self) -> Path:
        shutil.rmtree(self._partial, ignore_errors=True)
        self._partial.mkdir(parents=True)
        return self._partial

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self._partial.rename(self._folder)
        else:
            shutil.rmtree(self._partial, ignore_errors=True)


def _run(module: str, *arguments: str) -> None:
    """Run a module in a process of its own, which returns its memory."""
    done = subprocess.run([sys.executable, "-m", module, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()] or [f"exit status {done.returncode}"]
        raise CommandError(f"{module} {arguments[0]} failed: {lines[-1].removeprefix('keywarp: ')}")
