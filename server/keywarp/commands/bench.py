"""`keywarp bench`: measure the engine and the server on this machine."""

import math
import statistics
import time
from typing import Annotated

import httpx
import numpy as np
import typer

from keywarp.cli.errors import CommandError
from keywarp.cli.options import IntervalOption
from keywarp.client import open_source
from keywarp.commands.bench_tables import describe_setting, print_json, print_table
from keywarp.commands.bundles import find_bundle
from keywarp.commands.engine_bench.command import engine
from keywarp.commands.load_bench.command import load
from keywarp.commands.load_generator import (
    BenchCodec,
    StreamMeasurement,
    closed_loop,
    make_payloads,
    open_loop,
    run_in_process,
)
from keywarp.commands.local_server import local_server
from keywarp.commands.options import (
    MODELS,
    BundleOption,
    InputVideoOption,
    JsonOption,
    ModelsOption,
)
from keywarp.commands.sample_video import sample_video
from keywarp.engines import Engine, EngineError, FixedInterval, StreamSession
from keywarp.protocol import Hello

app = typer.Typer(
    no_args_is_help=True, help="Measure the engine and the server on this machine.", pretty_exceptions_enable=False
)

CODECS: tuple[BenchCodec, ...] = ("image", "h264")
PROCESSOR_TIME = "process_cpu_seconds_total "  # a metric of servers


app.command()(engine)
app.command()(load)


@app.command()
def server(
    model: BundleOption = "street",
    models: ModelsOption = MODELS,
    video: InputVideoOption = None,
    interval: IntervalOption = None,
    rounds: Annotated[int, typer.Option(min=1, help="The number of measurements of each figure.")] = 5,
    frames: Annotated[int, typer.Option(min=1, help="The number of frames in each run.")] = 100,
    as_json: JsonOption = False,
) -> None:
    """Measure the server's overhead: a stream through it, against the same decoding and engine in one process.

    The throughput is that of a stream that is sent as fast as the server takes
    it, in JPEG and in H.264 (which needs a video in H.264): the median over the
    rounds. The latency is that of JPEG frames at half of that rate, counted from
    when each frame is due: the 50th and 99th percentiles of all rounds' frames.
    Frames stay as they are stored, so that they have the same size in both codecs.
    Runs alternate. Client and server share this machine; the processor time of
    each, per frame, includes threads of the networks that look for work.

    Example: keywarp bench server --model street
    """
    path = video or sample_video()
    bundle = find_bundle(model, models)
    classes, length = bundle.manifest.classes, interval or bundle.manifest.key_interval
    try:
        compiled = Engine(bundle)
    except EngineError as error:
        raise CommandError(str(error)) from error
    payloads = {codec: make_payloads(path, codec, frames) for codec in CODECS}

    def run_alone(codec: BenchCodec, fps: float | None = None) -> StreamMeasurement:
        session = StreamSession(compiled, FixedInterval(length))
        try:
            return run_in_process(session, classes, payloads[codec], codec, fps)
        finally:
            session.close()

    throughputs: dict[str, list[float]] = {f"{codec} {where}": [] for codec in CODECS for where in ("alone", "served")}
    latencies: dict[str, list[float]] = {"alone": [], "served": []}
    processor = {codec: dict.fromkeys(("alone", "server", "client"), 0.0) for codec in CODECS}  # seconds
    with local_server(models) as url:
        for turn in range(rounds + 1):
            for codec in CODECS:
                hello = Hello(model=bundle.name, interval=length, codec=codec)
                started = time.process_time()
                alone = run_alone(codec)
                alone_time, before = time.process_time() - started, _processor_time(url)
                started = time.process_time()
                served = closed_loop(url, f"bench-{turn}-{codec}", hello, payloads[codec])
                client_time, server_time = time.process_time() - started, _processor_time(url) - before
                if turn:  # the first round warms up
                    throughputs[f"{codec} alone"].append(alone.fps)
                    throughputs[f"{codec} served"].append(served.fps)
                    processor[codec]["alone"] += alone_time / alone.frames / rounds
                    processor[codec]["server"] += server_time / served.frames / rounds
                    processor[codec]["client"] += client_time / served.frames / rounds
        medians = {name: statistics.median(values) for name, values in throughputs.items()}
        rate = medians["image alone"] / 2
        hello = Hello(model=bundle.name, interval=length)
        for turn in range(rounds):
            latencies["alone"] += run_alone("image", rate).latencies.values()
            paced = open_loop(url, f"bench-paced-{turn}", hello, payloads["image"], rate, frames / rate)
            latencies["served"] += paced.latencies.values()
    percentiles = {
        f"p{p}": {where: float(np.percentile(values, p)) for where, values in latencies.items()} for p in (50, 99)
    }
    shares = {codec: medians[f"{codec} served"] / medians[f"{codec} alone"] for codec in CODECS}
    with open_source(path, upright=False) as source:
        setting = describe_setting(bundle, compiled.backend, source.width, source.height, length)
    if as_json:
        figures = {
            "fps": medians,
            "share": shares,
            "processor": {codec: times for codec, times in processor.items() if not math.isnan(times["server"])},
            "latency": percentiles,
            "latency_at_fps": rate,
        }
        print_json({"setting": setting, **figures})
        return
    rows = [
        (
            "JPEG" if codec == "image" else "H.264",
            f"{medians[f'{codec} served']:.1f} fps served, {medians[f'{codec} alone']:.1f} alone: {100 * share:.0f} %",
        )
        for codec, share in shares.items()
    ]
    rows += [
        (
            f"processor time of a frame, {'JPEG' if codec == 'image' else 'H.264'}",
            f"{1000 * times['server']:.2f} ms server, {1000 * times['client']:.2f} client, "
            f"{1000 * times['alone']:.2f} alone",
        )
        for codec, times in processor.items()
        if not math.isnan(times["server"])
    ]
    rows += [
        (
            f"{name} of latency at {rate:.1f} fps",
            f"{1000 * found['served']:.1f} ms served, {1000 * found['alone']:.1f} alone: "
            f"{1000 * (found['served'] - found['alone']):+.1f} ms ({len(latencies['served'])} frames)",
        )
        for name, found in percentiles.items()
    ]
    print_table("server", rows, setting)


def _processor_time(url: str) -> float:
    """Return the seconds of processor time that a server has used, or NaN if its system doesn't say."""
    metrics = httpx.get(f"{url}/metrics").raise_for_status().text
    found = (float(line.split()[1]) for line in metrics.splitlines() if line.startswith(PROCESSOR_TIME))
    return next(found, math.nan)
