"""Compares a heavy network per frame, the same network with Keywarp, and a nano detector per frame, in one run.

`keywarp import` makes a bundle of the heavy network's file. The nano detector's file is quantised to int8 as ONNX
Runtime's manual says, calibrated on frames of the video. Then everything takes turns on the same frames. A time is from
the decoded frame to the outputs; only Keywarp's includes the post-processing.

It needs the extra `zoo`. Example: python -m bench.heavy retinanet-resnet101 --nano ssdlite-mobilenet
"""

import argparse
import json
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import av
import numpy as np
import onnx
import onnxruntime as ort
import openvino as ov
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from bench.imports import machine, make_file, run_command
from keywarp.commands.sample_video import sample_video
from keywarp.engines import Engine, load_bundle
from keywarp.engines.manifest import ImagePreparation
from keywarp.importing.checks import prepare
from keywarp.importing.model_file import ImportedModel, read_model
from keywarp.importing.preparation import PreparationHints, guess_preparation

INTERVAL = 10  # frames of a window: a key frame and those that are propagated from it
INTERVALS = (5, 10)
HEAVY_FRAMES = 2  # of each window that the heavy network runs on per frame
CALIBRATION_FRAMES = 32
CONVOLUTIONS = ("Conv", "Gemm", "MatMul")  # operators that are quantised
COMPILATION = {"PERFORMANCE_HINT": "LATENCY"}  # of OpenVINO, which chooses the precision itself otherwise

Frame = NDArray[np.uint8]
Run = Callable[[Frame], Any]


@dataclass(frozen=True)
class NetworkFile:
    """A network's file, and what its frames become."""

    path: Path
    model: ImportedModel
    image: ImagePreparation

    @property
    def label(self) -> str:
        """Its name with the height and width of its image."""
        return f"{self.path.stem} {self.model.height}x{self.model.width}"


def open_file(name: str, cache: Path) -> NetworkFile:
    """Return a network of `bench/zoo.py`, whose file is made if it is missing, or that of a file."""
    path = Path(name)
    if not name.endswith(".onnx"):
        path = cache / f"{name}.onnx"
        make_file(name, path)
    model = read_model(path)
    return NetworkFile(path, model, guess_preparation(model, None, PreparationHints()).image)


class Frames(CalibrationDataReader):  # type: ignore[misc]
    """The frames that a quantised network is calibrated on."""

    def __init__(self, network: NetworkFile, frames: Sequence[Frame]) -> None:
        name = network.model.model.graph.input[0].name
        self._feeds = iter([{name: prepare(frame, network.image)} for frame in frames])

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        """Return the next frame, or None after the last."""
        return next(self._feeds, None)


def quantised(network: NetworkFile, frames: Sequence[Frame], folder: Path) -> onnx.ModelProto:
    """Return a network in int8, calibrated on frames."""
    plain, shaped, result = (folder / f"{name}.onnx" for name in ("plain", "shaped", "int8"))
    onnx.save(network.model.model, plain)
    quant_pre_process(str(plain), str(shaped), skip_symbolic_shape=True)
    quantize_static(
        shaped,
        result,
        Frames(network, frames),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=list(CONVOLUTIONS),
        per_channel=True,
    )
    return onnx.load(result)


def onnx_runtime(network: NetworkFile) -> Run:
    """Return the network in ONNX Runtime, in fp32."""
    session = ort.InferenceSession(network.model.model.SerializeToString(), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda frame: session.run(None, {name: prepare(frame, network.image)})


def openvino(network: NetworkFile, model: onnx.ModelProto | None = None) -> Run:
    """Return the network in OpenVINO, in its default precision, or a quantised form of it."""
    core = ov.Core()
    content = (model or network.model.model).SerializeToString()
    request = core.compile_model(core.read_model(content), "CPU", COMPILATION).create_infer_request()
    return lambda frame: request.infer([prepare(frame, network.image)])


def windows(video: Path, length: int) -> Iterator[list[Frame]]:
    """Yield consecutive frames of a video, `length` of them each time."""
    with av.open(str(video)) as container:
        frames = (np.asarray(f.to_ndarray(format="rgb24"), np.uint8) for f in container.decode(video=0))
        while len(window := list(islice(frames, length))) == length:
            yield window


class Clock:
    """The times of every contestant."""

    def __init__(self) -> None:
        self._seconds: defaultdict[str, list[float]] = defaultdict(list)

    def time(self, name: str, run: Callable[[], Any]) -> Any:
        """Run something and keep its time."""
        started = time.perf_counter()
        result = run()
        self._seconds[name].append(time.perf_counter() - started)
        return result

    def medians(self) -> dict[str, float]:
        """Return the median of each contestant's times in seconds."""
        return {name: statistics.median(times) for name, times in self._seconds.items()}


def compete(engine: Engine, heavy: dict[str, Run], light: dict[str, Run], video: Path, rounds: int) -> dict[str, float]:
    """Let everything take turns on windows of frames; the first window warms up.

    Returns:
        The median times in seconds: each contestant's by name, and `key` and `propagated` of Keywarp.
    """
    clock = Clock()
    for number, window in enumerate(islice(windows(video, INTERVAL), rounds + 1)):
        if number == 1:
            clock = Clock()
        _, state = clock.time("key", partial(engine.key, window[0]))
        for frame in window[1:]:
            clock.time("propagated", partial(engine.propagate, frame, state))
        for runs, frames in ((heavy, window[:HEAVY_FRAMES]), (light, window)):
            for name, run in runs.items():
                for frame in frames:
                    clock.time(name, partial(run, frame))
    return clock.medians()


def rows(times: dict[str, float]) -> dict[str, float]:
    """Return what a frame costs with each contestant, in seconds."""
    key, propagated = times["key"], times["propagated"]
    keywarp = {f"Keywarp, interval {n}": (key + (n - 1) * propagated) / n for n in INTERVALS}
    others = {name: seconds for name, seconds in times.items() if name not in ("key", "propagated")}
    return {**others, "Keywarp, per frame": key, **keywarp}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("heavy", nargs="?", default="retinanet-resnet101", help="a network of bench/zoo.py, or a file")
    parser.add_argument("--nano", default="ssdlite-mobilenet", help="likewise, the light detector")
    parser.add_argument("--video", type=Path, help="the video (default: the demo's)")
    parser.add_argument("--motion", help="the motion source (default: the bundle's)")
    parser.add_argument("--rounds", type=int, default=8, help=f"windows of {INTERVAL} frames (default: 8)")
    parser.add_argument("--cache", type=Path, default=Path(".cache/keywarp/zoo"), help="where files are kept")
    parser.add_argument("--json", action="store_true", help="print JSON in place of the table")
    arguments = parser.parse_args()
    video = arguments.video or sample_video()
    arguments.cache.mkdir(parents=True, exist_ok=True)
    heavy, nano = (open_file(name, arguments.cache) for name in (arguments.heavy, arguments.nano))
    with tempfile.TemporaryDirectory() as folder:
        figures = json.loads(run_command("import", str(heavy.path), "--out", f"{folder}/heavy", "--json", seconds=3600))
        frames = next(windows(video, CALIBRATION_FRAMES))
        engine = Engine(load_bundle(Path(folder) / "heavy"), motion=arguments.motion)
        light = {
            f"{nano.label}, OpenVINO int8": openvino(nano, quantised(nano, frames, Path(folder))),
            f"{nano.label}, OpenVINO": openvino(nano),
        }
        per_frame = {
            f"{heavy.label}, ONNX Runtime fp32": onnx_runtime(heavy),
            f"{heavy.label}, OpenVINO": openvino(heavy),
        }
        times = compete(engine, per_frame, light, video, arguments.rounds)
    costs = rows(times)
    if arguments.json:
        print(json.dumps({"machine": machine(), "operations": figures["operations"], "times": times, "costs": costs}))
        return
    first = next(iter(costs.values()))
    print(f"{machine()}; {heavy.label}: {figures['operations'] / 1e9:.0f} GFLOP; motion {engine.motion}; medians\n")
    print("| per frame | ms | times as fast as the first |\n| --- | ---: | ---: |")
    for label, seconds in costs.items():
        print(f"| {label} | {1000 * seconds:.1f} | {first / seconds:.1f} |")
    print(
        f"\nKeywarp's key frame takes {1000 * times['key']:.0f} ms, a propagated one {1000 * times['propagated']:.0f}."
    )


if __name__ == "__main__":
    main()
