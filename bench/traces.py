"""Measure the cost of traces per frame: `python -m bench.traces`.

The cost is the processor time of one frame's spans, including those of its stages: first that of the thread that sends
responses, then that of the whole process, which includes the exporter's thread. A collector in another process receives
the spans and discards them.
"""

import json
import os
import subprocess
import sys
import time
from typing import Annotated

import numpy as np
import typer
from rich.table import Table

COLLECTOR = """
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
class Collector(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()
    def log_message(self, *_): pass
server = ThreadingHTTPServer(("127.0.0.1", 0), Collector)
print(server.server_port, flush=True)
server.serve_forever()
"""
SAMPLERS = {"all": "parentbased_always_on", "1 %": "parentbased_traceidratio", "none": "parentbased_always_off"}


def measure(sampled: str, frames: int, fps: float) -> dict[str, float | str]:
    """Measure the processor time of traces.

    Args:
        sampled: The share of frames to sample, a key of `SAMPLERS`.
        frames: The number of frames.
        fps: Frames per second.

    Returns:
        Processor seconds per frame of the thread that sends responses (`answering`) and of the process (`all`).
    """
    from keywarp.engines import FrameKind, FrameResult
    from keywarp.engines.result import LabelMap
    from keywarp.protocol import Timings
    from keywarp.server.telemetry.traces import open_tracer

    os.environ["OTEL_TRACES_SAMPLER"] = SAMPLERS[sampled]
    os.environ["OTEL_TRACES_SAMPLER_ARG"] = "0.01"
    tracer = open_tracer()
    labels = LabelMap(np.zeros((1, 1), np.uint8))
    timings = Timings(decode=0.003, queue=0.001, inference=0.02, postprocess=0.001)
    threads, start = 0.0, time.process_time()
    for index in range(frames):
        found = FrameResult(index, FrameKind.PROPAGATED, index % 10, 720, 1280, labels, 0.02, 0.001)
        before = time.thread_time()
        tracer.record_frame("gate", "street", found, timings, linked=True)
        threads += time.thread_time() - before
        time.sleep(1 / fps)
    idle = time.process_time()
    for _ in range(frames):
        time.sleep(1 / fps)
    idle = time.process_time() - idle
    tracer.close()
    return {"sampled": sampled, "answering": threads / frames, "all": (time.process_time() - start - 2 * idle) / frames}


def main(
    frames: Annotated[int, typer.Option(help="The number of frames for each row.")] = 3000,
    fps: Annotated[float, typer.Option(help="Frames per second.")] = 300.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure the processor time of traces, per frame, for each sampler."""
    with subprocess.Popen([sys.executable, "-c", COLLECTOR], stdout=subprocess.PIPE, text=True) as collector:
        assert collector.stdout
        os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = f"http://127.0.0.1:{collector.stdout.readline().strip()}"
        rows = [measure(sampled, frames, fps) for sampled in SAMPLERS]
        collector.kill()
    if as_json:
        typer.echo(json.dumps(rows))
        return
    from rich.console import Console

    table = Table("frames sampled", "responding, us", "with export, us")
    for row in rows:
        table.add_row(str(row["sampled"]), *(f"{float(row[name]) * 1e6:.0f}" for name in ("answering", "all")))
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
