"""Runs all checks of an NVIDIA GPU, each in a process of its own, and prints a table (docs/gpu.md).

What has passed isn't repeated when the command is run again with the same folder. It needs no video and no network:

  python -m bench.gpu                          all checks; results in out/gpu
  python -m bench.gpu kernels training --again  two of them, once more
  python -m bench.gpu --dry                    on the CPU, with stand-ins for the GPU
  python -m bench.gpu --keep                   afterwards: keep what was measured in docs/results/gpu
  python -m bench.gpu --document               write the table of all that was kept into docs/gpu.md
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Final

from bench.gpu.checks import BY_NAME, CHECKS, Check
from bench.gpu.one import FAILED, SKIPPED
from bench.gpu.report import Outcome, Status, cards_table, load_outcomes, table

BUDGET: Final = 400.0  # seconds of all checks together
LINES: Final = 30  # of a log that are kept
DOCS: Final = Path(__file__).parents[2] / "docs"
PAGE, KEPT = DOCS / "gpu.md", DOCS / "results" / "gpu"
BEGIN, END = "<!-- what ran where: python -m bench.gpu --document -->\n", "\n<!-- end -->"


def main() -> None:
    """Run checks, and print the table or JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "checks", nargs="*", metavar="CHECK", help=f"some of {', '.join(BY_NAME)}; or all (the default)"
    )
    parser.add_argument("--folder", type=Path, help="where results are kept (default: out/gpu, or out/gpu-dry)")
    parser.add_argument("--again", action="store_true", help="repeat checks that passed")
    parser.add_argument("--dry", action="store_true", help="run on the CPU, with stand-ins for what only a GPU has")
    parser.add_argument("--budget", type=float, default=BUDGET, help="seconds of all checks together (default: 400)")
    parser.add_argument("--keep", action="store_true", help="only keep what was measured in docs/results/gpu")
    parser.add_argument("--document", action="store_true", help="only write the table of all that was kept to the docs")
    parser.add_argument("--json", action="store_true", help="print JSON in place of the table")
    arguments = parser.parse_args()
    if unknown := set(arguments.checks) - BY_NAME.keys():
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(BY_NAME)}")
    folder = (arguments.folder or Path("out", "gpu-dry" if arguments.dry else "gpu")).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    if arguments.keep or arguments.document:
        if arguments.keep:
            print(keep(load_outcomes(folder), KEPT))
        before, _, after = PAGE.read_text("utf-8").partition(BEGIN)
        PAGE.write_text(f"{before}{BEGIN}{documented()}{END}{after.partition(END)[2]}", "utf-8")
        return
    ends = time.monotonic() + arguments.budget
    for check in CHECKS:
        if arguments.checks and check.name not in arguments.checks:
            continue
        outcome = _earlier(folder, check)
        if outcome is None or arguments.again:
            print(f"{check.name} ...", end="", file=sys.stderr, flush=True)
            outcome = run(check, folder, dry=arguments.dry, seconds=min(check.seconds, ends - time.monotonic()))
            outcome.save(folder)
            print(f" {outcome.status}, {outcome.seconds:.0f} s", file=sys.stderr)
    outcomes = load_outcomes(folder)
    if arguments.json:
        print(json.dumps([asdict(outcome) for outcome in outcomes], indent=1))
    else:
        print(table(outcomes))
    sys.exit(any(outcome.status not in ("passed", "skipped") for outcome in outcomes))


def run(check: Check, folder: Path, *, dry: bool, seconds: float) -> Outcome:
    """Run one check in a process of its own.

    Args:
        check: The check.
        folder: The folder of all results.
        dry: Whether it runs on the CPU.
        seconds: Its time limit.
    """
    if seconds <= 1:
        return Outcome(check.name, "out of time", 0.0, "no time was left for it", dry=dry)
    command = [sys.executable, "-m", "bench.gpu.one", check.name, str(folder), *(["--dry"] if dry else [])]
    log, partial = folder / f"{check.name}.log", folder / f"{check.name}.partial"
    partial.unlink(missing_ok=True)
    began = time.monotonic()
    with log.open("w", encoding="utf-8") as output:
        # With a session of its own, so that what the check itself starts ends with it.
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            status = process.wait(seconds)
        except BaseException as error:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
            status = None
    took = time.monotonic() - began
    figures = json.loads(partial.read_text("utf-8")) if partial.is_file() else {}
    partial.unlink(missing_ok=True)
    reason = str(figures.pop("reason", ""))
    lines = tuple(log.read_text("utf-8", "replace").splitlines()[-LINES:])
    known: dict[int | None, Status] = {0: "passed", SKIPPED: "skipped", FAILED: "failed", None: "out of time"}
    found = known.get(status, "crashed")
    if found == "crashed":
        reason = f"exit status {status}: {lines[-1] if lines else 'it printed nothing'}"
    elif found == "out of time":
        reason = f"stopped after {seconds:.0f} s"
    return Outcome(check.name, found, took, reason, figures, () if found == "passed" else lines, dry)


def keep(outcomes: list[Outcome], folder: Path) -> Path:
    """Write what was measured on a card as one file, named after the card, and return its path.

    Raises:
        SystemExit: If there is nothing to keep, or it is of a dry run.
    """
    card = next((str(o.figures["gpu"]) for o in outcomes if o.check == "machine" and "gpu" in o.figures), None)
    if card is None or any(outcome.dry for outcome in outcomes):
        raise SystemExit("there is nothing to keep: no card was described by the check `machine`")
    folder.mkdir(parents=True, exist_ok=True)
    name = "".join(c if c.isalnum() else "-" for c in card.lower())
    file = folder / f"{name}.json"
    file.write_text(json.dumps([asdict(outcome) for outcome in outcomes], indent=1) + "\n", "utf-8")
    return file


def documented() -> str:
    """Return the table of all that was kept."""
    cards: list[tuple[str, list[Outcome]]] = []
    for file in sorted(KEPT.glob("*.json")):
        found = json.loads(file.read_text("utf-8"))
        outcomes = [Outcome(**{**values, "log": tuple(values["log"])}) for values in found]
        machine = next(outcome.figures for outcome in outcomes if outcome.check == "machine")
        cards.append((f"{machine['gpu']}, driver {machine['driver']}", outcomes))
    return cards_table(cards)


def read_documented() -> str:
    """Return the table that docs/gpu.md has."""
    return PAGE.read_text("utf-8").partition(BEGIN)[2].partition(END)[0]


def _earlier(folder: Path, check: Check) -> Outcome | None:
    """Return what a check found before, if it needn't run again."""
    try:
        outcome = Outcome.load(folder / f"{check.name}.json")
    except (OSError, ValueError):
        return None
    return outcome if outcome.status == "passed" else None


if __name__ == "__main__":
    main()
