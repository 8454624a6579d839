"""The table of imported networks says with which weights and beside what work they were measured."""

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from bench.imports import Outcome, report, try_file
from keywarp.commands import other_work
from keywarp.commands.other_work import OtherWork

FIGURES = {
    "candidates": [
        {"maps": [{"channels": 64, "stride": 8}], "head_share": 0.1, "speedup": {"5": 2.0, "10": 3.0}},
    ],
    "chosen": 0,
    "doubt": None,
    "operations": 5e9,
    "checks": [{"difference": 0.0, "agreement": 1.0}],
    "key_frame": 0.2,
    "propagated_frame": 0.05,
    "runtime": "openvino in fp32 on a machine",
}


def outcome(name: str, **fields: object) -> Outcome:
    return Outcome(name, "file", 10_000_000, 17, FIGURES, ran=7, served=7, **fields)  # type: ignore[arg-type]


def row(page: str, name: str) -> list[str]:
    line = next(line for line in page.splitlines() if line.startswith(f"| {name} "))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_each_line_has_its_weights_and_the_work_beside_it() -> None:
    page = report([outcome("busy", published=True, other_work=1.62), outcome("old"), outcome("quiet", other_work=0.04)])
    assert "published" in row(page, "busy")
    assert "1.6 cores" in row(page, "busy")
    assert "random" in row(page, "old")
    assert "?" in row(page, "old")
    assert "0.0 cores" in row(page, "quiet")
    assert len(row(page, "busy")) == len(row(page, "network"))
    assert "can't be compared" in page


def test_networks_that_were_left_out_are_named() -> None:
    assert "Not tried of `bench/zoo.py`: one, two." in report([outcome("old")], ["one", "two"])
    assert "Not tried" not in report([outcome("old")])


def test_the_page_says_which_command_prints_it() -> None:
    page = report([outcome("own"), outcome("theirs", published=True), replace(outcome("zoo"), library="timm")])
    assert "`python -m bench.imports all --file FILE.onnx --published FILE.onnx --results docs/results`" in page


def test_there_is_no_warning_about_a_quiet_machine() -> None:
    assert "can't be compared" not in report([outcome("quiet", other_work=0.04)])


def test_what_was_measured_before_is_kept(tmp_path: Path) -> None:
    kept = {"name": "old", "library": "file", "file_bytes": 1, "opset": 17}  # of a version that had no more fields
    (tmp_path / "old.json").write_text(json.dumps(kept))
    found = try_file("old", "file", tmp_path / "old.onnx", tmp_path, 1.0, published=True)
    assert found == Outcome("old", "file", 1, 17, published=True)


def test_work_of_children_is_not_other_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stat = tmp_path / "stat"
    monkeypatch.setattr(other_work, "STAT", stat)
    stat.write_text("cpu  1000 100 100 5000 70 0 0 0 0 0\ncpu0 1000\n")
    began, measured = other_work.seconds_of_own(), OtherWork()
    burn = "import time\nwhile time.process_time() < 0.3: pass"
    subprocess.run([sys.executable, "-c", burn], check=True)
    stat.write_text("cpu  2000 300 400 9000 90 0 0 500 0 0\ncpu0 2000\n")  # 20 s more, besides idle ones
    before = time.monotonic() - measured.started
    cores = measured.cores()
    after = time.monotonic() - measured.started
    assert cores is not None
    assert cores * before <= 20 - 0.3
    assert cores * after >= 20 - (other_work.seconds_of_own() - began)


def test_other_work_is_unknown_where_nothing_counts_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(other_work, "STAT", tmp_path / "nothing")
    assert OtherWork().cores() is None
