"""The soak test, in short, against a real server; and what it calls a leak."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from bench.soak.rude import WITH_STREAM, WITHOUT_STREAM
from bench.soak.samples import Sample, growth, kept
from bench.soak.steady import speed
from tests.tiny_bundle import tiny_bundle

FIRST = Sample(0.0, 500 * 2**20, 0, 0, 20, 4, 12, 0, 0.0)


def test_streams_that_are_dropped_rudely_and_busy_ones_leave_nothing(tmp_path: Path) -> None:
    tiny_bundle(tmp_path / "tiny")
    found = tmp_path / "soak.json"
    command = [sys.executable, "-m", "bench.soak", "--rude", "15", "--minutes", "0.05", "--settle", "1"]
    command += ["--models", str(tmp_path / "tiny"), "--json", str(found)]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False, timeout=300)
    assert done.returncode in (0, 1), done.stderr  # so short a test says nothing about memory and speed
    steady, rude = json.loads(found.read_text())["parts"]
    assert {fault.split()[0] for fault in steady["faults"] + rude["faults"]} <= {
        *("memory", "the", "threads", "threads:", "files:")
    }
    # Few streams come before the first sample, so that the server may open one more file of its own after it.
    assert steady["samples"][-1]["files"] <= steady["samples"][0]["files"] + 1
    assert not any(fault.startswith("files") for fault in rude["faults"])
    assert steady["figures"]["frames"] > 0
    assert rude["figures"]["refused"] == {}
    assert {client.__name__ for client in WITH_STREAM} <= set(rude["figures"]["clients"])
    assert set(rude["figures"]["clients"]) - {client.__name__ for client in WITH_STREAM + WITHOUT_STREAM} == set()
    assert (rude["samples"][-1]["streams"], rude["samples"][-1]["connections"]) == (0, 0)
    assert "soak: rude" in done.stdout


def test_steady_growth_is_found_and_noise_is_not() -> None:
    noise = [3, -2, 5, 0, -4, 1, 2, -1, 4, -3, 0, 2]
    level = [replace(FIRST, at=5.0 * n, memory=FIRST.memory + d * 2**20, files=20 + d % 3) for n, d in enumerate(noise)]
    grows = [replace(one, memory=one.memory + n * 4 * 2**20, files=20 + n) for n, one in enumerate(level)]
    assert growth(level, "memory")[1] < 0.005 * FIRST.memory
    assert growth(level, "files")[1] < 1
    assert growth(grows, "memory")[1] > 0.02 * FIRST.memory
    assert growth(grows, "files") == (11.0, 11.0)
    assert growth([replace(one, tasks=4) for one in level], "tasks") == (0.0, 0.0)


def test_what_is_left_is_named() -> None:
    assert kept(FIRST, replace(FIRST, memory=2 * FIRST.memory, files=19)) == []
    assert kept(FIRST, replace(FIRST, files=22, streams=1)) == [
        "streams: 0 before, 1 after",
        "files: 20 before, 22 after",
    ]


@pytest.mark.parametrize("slower", [0.0, 0.1])
def test_the_first_minute_is_compared_with_the_last(slower: float) -> None:
    samples, frames = [FIRST], 0.0
    for number in range(1, 121):
        frames += 500 * (1 if number < 100 else 1 - slower)
        samples.append(replace(FIRST, at=5.0 * number, frames=round(frames), processor=10.0 * number))
    found = speed(samples)
    assert found.first == 100
    assert found.change == pytest.approx(-slower)
