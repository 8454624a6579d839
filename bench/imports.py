"""Imports networks from their ONNX files, runs them on video, and prints what was found, what it costs and what fails.

The files are those of `bench/zoo.py`, which are made first, and any others that are named. For each of them, `keywarp
import` chooses a cut, measures it and checks the bundle; `keywarp run` and a server then run the bundle on a few frames
of the sample video. What was done is kept in the cache, so that a run that was stopped goes on where it was.

It needs the extra `zoo`. Example: python -m bench.imports segformer-b0 --published yolov8n.onnx --results docs/results
"""

import argparse
import json
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import av
import cv2
import onnx

from keywarp.commands.engine_bench.machine import describe_machine
from keywarp.commands.other_work import QUIET, OtherWork
from keywarp.commands.sample_video import sample_video
from keywarp.importing.checks import AGREEMENT, TOLERANCE

FRAMES = 7
INTERVAL = 3  # frames, so that there are several key frames
START_SECONDS = 300.0  # in which a server must start
ALL = "all"  # in place of the networks' names
COMMAND = (sys.executable, "-m", "keywarp.cli")
Figures = dict[str, Any]


@dataclass(frozen=True)
class Outcome:
    """What became of one file.

    Attributes:
        name: The network's name.
        library: Where it comes from.
        file_bytes: The size of its file.
        opset: The file's opset.
        figures: What `keywarp import --json` printed; None if it failed.
        failure: Why it can't be imported, or why its bundle doesn't run.
        ran: How many frames `keywarp run` gave results for.
        served: How many frames a server did.
        objects: How many objects or regions there were on them.
        published: Whether its weights are published ones; otherwise they are random.
        other_work: How many cores other programs took during the import, on average; None if that isn't known.
    """

    name: str
    library: str
    file_bytes: int
    opset: int
    figures: Figures | None = None
    failure: str = ""
    ran: int = 0
    served: int = 0
    objects: int = 0
    published: bool = False
    other_work: float | None = None


class StepError(Exception):
    """A command that failed; the message is its last line."""


def run_command(*arguments: str, seconds: float) -> str:
    """Run a `keywarp` command and return what it printed."""
    try:
        done = subprocess.run(
            [*COMMAND, *arguments], capture_output=True, encoding="utf-8", timeout=seconds, check=False
        )
    except subprocess.TimeoutExpired:
        raise StepError(f"keywarp {arguments[0]} took longer than {seconds:.0f} s") from None
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()] or [f"exit status {done.returncode}"]
        said = next((line for line in reversed(lines) if line.startswith("keywarp: ")), None)
        raise StepError(said.removeprefix("keywarp: ") if said else f"crash: {lines[-1]}")
    return done.stdout


def write_frames(folder: Path) -> None:
    """Write the first frames of the sample video as JPEG."""
    folder.mkdir(parents=True, exist_ok=True)
    with av.open(str(sample_video())) as video:
        for index, frame in zip(range(FRAMES), video.decode(video=0), strict=False):
            cv2.imwrite(str(folder / f"{index:03d}.jpg"), frame.to_ndarray(format="bgr24"))


def describe(name: str, library: str, path: Path) -> Outcome:
    """Return what a file says about itself."""
    model = onnx.load(path, load_external_data=False)
    opset = next((opset.version for opset in model.opset_import if opset.domain in ("", "ai.onnx")), 0)
    return Outcome(name, library, path.stat().st_size, opset)


def import_file(outcome: Outcome, path: Path, bundle: Path, seconds: float) -> Outcome:
    """Import a file and return its figures, or why it can't be imported."""
    others = OtherWork()
    try:
        printed = run_command("import", str(path), "--out", str(bundle), "--json", seconds=seconds)
    except StepError as failure:
        return replace(outcome, failure=str(failure))
    figures = json.loads(printed)
    del figures["bundle"]  # its folder, which is deleted
    return replace(outcome, figures=figures, other_work=others.cores())


def try_bundle(outcome: Outcome, bundle: Path, frames: Path, seconds: float) -> Outcome:
    """Run a bundle on frames, in one process and through a server."""
    results = bundle.parent / f"{bundle.name}.ndjson"
    options = "--interval", str(INTERVAL), "--ndjson", str(results)
    try:
        run_command("run", str(frames), "--model", str(bundle), *options, seconds=seconds)
        ran, objects = count_results(results)
        outcome = replace(outcome, ran=ran, objects=objects)
        with served(bundle, seconds) as address:
            run_command("stream", str(frames), "--server", address, *options, seconds=seconds)
        return replace(outcome, served=count_results(results)[0])
    except StepError as failure:
        return replace(outcome, failure=str(failure))


def count_results(path: Path) -> tuple[int, int]:
    """Return the number of results in a file, and of what is on them."""
    results = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    found = [
        (r.get("segmentation") or {}).get("regions") or r.get("objects") or r.get("detections") or [] for r in results
    ]
    maps = sum(bool(r.get("dense")) for r in results)
    return len(results), sum(map(len, found)) + maps


@contextmanager
def served(bundle: Path, seconds: float) -> Iterator[str]:
    """Serve a bundle in a process of its own, and give the server's address."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    command = [*COMMAND, "serve", "--models", str(bundle), "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            end = time.monotonic() + min(seconds, START_SECONDS)
            while not ready(address):
                if server.poll() is not None or time.monotonic() > end:
                    raise StepError("the server didn't start")
                time.sleep(0.5)
            yield address
        finally:
            server.terminate()


def ready(address: str) -> bool:
    """Return whether a server takes requests."""
    try:
        with urllib.request.urlopen(f"{address}/readyz", timeout=5) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def make_file(name: str, path: Path) -> None:
    """Make a network's file in a process of its own, which returns its memory.

    Raises:
        StepError: If this fails.
    """
    if path.exists():
        return
    partial = path.with_suffix(".partial.onnx")
    command = [sys.executable, "-m", "bench.zoo", name, "--out", str(partial)]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
    if done.returncode:
        raise StepError(f"the export failed: {(done.stderr.strip().splitlines() or ['?'])[-1]}")
    partial.rename(path)


def try_file(name: str, library: str, path: Path, cache: Path, seconds: float, *, published: bool) -> Outcome:
    """Import and run one file, or return what is kept of an earlier time."""
    kept = cache / f"{name}.json"
    if kept.exists():
        return replace(Outcome(**json.loads(kept.read_text(encoding="utf-8"))), published=published)
    try:
        if library != "file":
            make_file(name, path)
    except StepError as failure:
        outcome = Outcome(name, library, 0, 0, failure=str(failure))
    else:
        bundle = cache / "bundles" / name
        outcome = import_file(describe(name, library, path), path, bundle, seconds)
        if outcome.figures:
            outcome = try_bundle(outcome, bundle, cache / "frames", seconds)
        shutil.rmtree(bundle, ignore_errors=True)
    outcome = replace(outcome, published=published)
    kept.write_text(json.dumps(asdict(outcome), indent=1), encoding="utf-8")
    return outcome


def has_passed(check: Figures) -> bool:
    """Return whether the outputs are equal, or the results agree."""
    difference = check["difference"]
    return bool((difference is not None and difference <= TOLERANCE) or check["agreement"] >= AGREEMENT)


def table(outcomes: Sequence[Outcome]) -> str:
    """Return a table of what was imported, and a list of what wasn't."""
    lines = [
        "| network | from | weights | file | GFLOP | cut: channels at stride | head | checks | key | propagated "
        "| at 5 | at 10 | other work | run | served |",
        f"| --- | --- | --- |{' ---: |' * 2} --- |{' ---: |' * 9}",
    ]
    for outcome in outcomes:
        if figures := outcome.figures:
            best = figures["candidates"][figures["chosen"]]
            passed = sum(map(has_passed, figures["checks"]))
            cells = (
                f"{outcome.name}{' *' if figures['doubt'] else ''}",
                outcome.library,
                "published" if outcome.published else "random",
                f"{outcome.file_bytes / 1e6:.0f} MB",
                f"{figures['operations'] / 1e9:.0f}",
                ", ".join(f"{m['channels']} at {m['stride']}" for m in best["maps"]),
                f"{100 * best['head_share']:.1f} %",
                f"{passed} of {len(figures['checks'])}",
                f"{1000 * figures['key_frame']:.0f} ms",
                f"{1000 * figures['propagated_frame']:.0f} ms",
                *(f"{best['speedup'][interval]:.1f} x" for interval in ("5", "10")),
                "?" if outcome.other_work is None else f"{outcome.other_work:.1f} cores",
                *(f"{count} of {FRAMES}" for count in (outcome.ran, outcome.served)),
            )
            lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "\\* `keywarp import` says that propagation pays little.", ""]
    failures = [outcome for outcome in outcomes if outcome.failure]
    if failures:
        lines += ["What fails:", "", *(f"- {o.name} ({o.library}): {o.failure}" for o in failures), ""]
    return "\n".join(lines)


def machine() -> str:
    """Return the processor's name and number of cores."""
    described = describe_machine()
    return f"{described.cores} cores of {described.processor}"


def main() -> None:
    """Try the networks that are asked for."""
    from bench.zoo import NETWORKS  # takes seconds, so not before --help

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", metavar="NAME", help="networks of bench/zoo.py, or all (the default)")
    parser.add_argument("--file", type=Path, action="append", default=[], help="another ONNX file; may be repeated")
    parser.add_argument("--published", type=Path, action="append", default=[], help="the same, of published weights")
    parser.add_argument(
        "--cache", type=Path, default=Path(".cache/keywarp/zoo"), help="where files and figures are kept"
    )
    parser.add_argument("--timeout", type=float, default=900, help="seconds for each command (default: 900)")
    parser.add_argument("--results", type=Path, help="also write imports.md and imports.json into this folder")
    parser.add_argument("--json", action="store_true", help="print JSON in place of the table")
    arguments = parser.parse_args()
    if unknown := set(arguments.networks) - {*NETWORKS, ALL}:
        parser.error(f"unknown: {', '.join(sorted(unknown))}; bench/zoo.py has {', '.join(NETWORKS)}")
    arguments.cache.mkdir(parents=True, exist_ok=True)
    write_frames(arguments.cache / "frames")
    others = [*arguments.file, *arguments.published]
    names = arguments.networks or ([] if others else [ALL])
    names = list(NETWORKS) if ALL in names else names
    files = [(name, NETWORKS[name].library, arguments.cache / f"{name}.onnx") for name in names]
    files += [(path.stem, "file", path) for path in others]
    outcomes = []
    for number, (name, library, path) in enumerate(files, 1):
        print(f"{number}/{len(files)} {name}", file=sys.stderr, flush=True)
        published = path in arguments.published
        outcomes.append(try_file(name, library, path, arguments.cache, arguments.timeout, published=published))
    content = json.dumps({"machine": machine(), "networks": [asdict(outcome) for outcome in outcomes]}, indent=1)
    if arguments.results:
        (arguments.results / "imports.json").write_text(f"{content}\n", encoding="utf-8")
        left_out = [name for name in NETWORKS if name not in names]
        (arguments.results / "imports.md").write_text(report(outcomes, left_out), encoding="utf-8")
    print(content if arguments.json else f"{machine()}\n\n{table(outcomes)}")


def command(outcomes: Sequence[Outcome], left_out: Sequence[str]) -> str:
    """Return the command that prints the page. Names that the table lists stand for themselves."""
    kinds = {"published" if outcome.published else "file" for outcome in outcomes if outcome.library == "file"}
    files = [f"--{kind} FILE.onnx" for kind in sorted(kinds)]
    return " ".join(["python -m bench.imports", "NETWORK..." if left_out else ALL, *files, "--results docs/results"])


def report(outcomes: Sequence[Outcome], left_out: Sequence[str] = ()) -> str:
    """Return the page of the results.

    Args:
        outcomes: The results.
        left_out: The networks of `bench/zoo.py` that weren't tried.
    """
    runtimes = sorted({outcome.figures["runtime"] for outcome in outcomes if outcome.figures})
    quiet = all(outcome.other_work is not None and outcome.other_work <= QUIET for outcome in outcomes)
    warning = "" if quiet else "Times of lines with different or unknown (?) other work can't be compared. "
    missing = f"Not tried of `bench/zoo.py`: {', '.join(left_out)}.\n\n" if left_out else ""
    return (
        "# Networks from their files\n\n"
        f"What `keywarp import` makes of networks, on {machine()}, with {' or '.join(runtimes)}. "
        "The head's share is that of the network's operations; key and propagated frame are the times of the bundle "
        "with its default motion source, measured on frames of 640x272 in the size that the network takes. Other work "
        f"is how many cores other programs took meanwhile. {warning}`keywarp run` and a server ran each bundle on "
        f"{FRAMES} frames at interval {INTERVAL}.\n\n"
        f"Printed by `{command(outcomes, left_out)}`, with the networks of the table and a repeated option for each of "
        "its files. `make imports` does it for all of `bench/zoo.py`, without files.\n\n"
        f"{missing}"
        f"{table(outcomes)}"
    )


if __name__ == "__main__":
    main()
