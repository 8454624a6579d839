"""`make gpu`'s runner: time limits, crashes, resuming, tables. `make gpu-dry` runs the checks themselves."""

import importlib
import json
import time
from pathlib import Path

import numpy as np
import onnx
import pytest

from bench.gpu import __main__ as runner
from bench.gpu.case import Case
from bench.gpu.checks import BY_NAME, CHECKS, Check
from bench.gpu.graphs import fill, write_skeleton
from bench.gpu.report import Outcome, cards_table, load_outcomes, table
from tests.tiny_bundle import tiny_bundle


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Check:
    """Make a check whose body is in a module that its process finds."""
    check = Check("fake", "a check of this test", "fake", 20)
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys\n"
        "from bench.gpu import checks\n"
        "checks.BY_NAME['fake'] = checks.Check('fake', '', 'fake', 20)\n"
        "module = sys.modules['bench.gpu.fake'] = type(sys)('bench.gpu.fake')\n"
        "exec(os.environ['FAKE_CHECK'], module.__dict__)\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{Path(__file__).parents[2]}")
    return check


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        ("pass", "passed", ""),
        ("raise case_module.SkippedError('no card')", "skipped", "no card"),
        ("raise case_module.FailedError('it is wrong')", "failed", "it is wrong"),
        ("raise ValueError('unexpected')", "crashed", "exit status 1: ValueError: unexpected"),
        ("os.kill(os.getpid(), 11)", "crashed", "exit status -11: "),
        ("time.sleep(60)", "out of time", "stopped after 3 s"),
    ],
)
def test_every_end_of_a_check_is_an_outcome_with_the_figures_so_far(
    fake: Check, body: str, status: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = (
        f"import os, time\nimport bench.gpu.case as case_module\ndef run(case):\n    case.record(found=7)\n    {body}\n"
    )
    monkeypatch.setenv("FAKE_CHECK", code)
    outcome = runner.run(fake, tmp_path, dry=True, seconds=3 if status == "out of time" else 20)
    assert (outcome.status, outcome.figures) == (status, {"found": 7})
    assert outcome.reason.startswith(reason)
    outcome.save(tmp_path)
    assert Outcome.load(tmp_path / "fake.json") == outcome


def test_what_a_check_has_started_ends_with_it(fake: Check, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    marker = tmp_path / "alive"
    body = f"import subprocess\ndef run(case):\n    subprocess.run(['sh', '-c', 'sleep 4; touch {marker}'])\n"
    monkeypatch.setenv("FAKE_CHECK", body)
    assert runner.run(fake, tmp_path, dry=True, seconds=2).status == "out of time"
    time.sleep(3)
    assert not marker.exists()


def test_what_has_passed_is_not_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ran: list[str] = []

    def run(check: Check, folder: Path, *, dry: bool, seconds: float) -> Outcome:  # noqa: ARG001
        ran.append(check.name)
        return Outcome(
            check.name, "failed" if check.name == "driver" else "passed", 1.0, figures={"summary": "a figure"}
        )

    monkeypatch.setattr(runner, "run", run)
    monkeypatch.setattr("sys.argv", ["gpu", "--folder", str(tmp_path)])
    for _ in range(2):
        with pytest.raises(SystemExit, match="True"):
            runner.main()
    assert ran == [*(check.name for check in CHECKS), "driver"]
    assert capsys.readouterr().out.count("| passed | 1 | a figure |") == 2 * (len(CHECKS) - 1)


def test_what_never_ran_is_marked(tmp_path: Path) -> None:
    Outcome("kernels", "passed", 3.2, figures={"summary": "9 cases"}).save(tmp_path)
    Outcome("driver", "failed", 1.0, "it is | wrong").save(tmp_path)
    rows = table(load_outcomes(tmp_path)).splitlines()[2:]
    assert len(rows) == len(CHECKS)
    assert sum("**never ran**" in row for row in rows) == len(CHECKS) - 2
    assert any("| **failed** | 1 | it is \\| wrong |" in row for row in rows)
    assert cards_table([]).count("**never ran**") == len(CHECKS)
    both = cards_table([("A10", load_outcomes(tmp_path)), ("H100", [])])
    assert both.count("**never ran**") == 2 * len(CHECKS) - 2


def test_results_of_a_dry_run_are_not_kept(tmp_path: Path) -> None:
    figures = {"gpu": "NVIDIA A10"}
    with pytest.raises(SystemExit, match="nothing to keep"):
        runner.keep([Outcome("machine", "passed", 1.0, figures=figures, dry=True)], tmp_path)
    file = runner.keep([Outcome("machine", "passed", 1.0, figures=figures)], tmp_path)
    assert file.name == "nvidia-a10.json"
    assert json.loads(file.read_text())[0]["figures"] == figures


def test_the_documented_table_is_that_of_the_results() -> None:
    """docs/gpu.md has the table of what ran where, which `python -m bench.gpu --document` writes."""
    assert runner.documented() == runner.read_documented()


def test_weights_from_a_seed_are_always_the_same(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path / "tiny")
    write_skeleton(bundle, tmp_path / "tiny.zip")
    text = """<ir_version: 8, opset_import: ["": 17]> g (float[1,8,9,9] x) => (float[1,16,9,9] y)
    { a = Conv <pads=[1,1,1,1]> (x, w)  b = Relu (a)  y = Conv <pads=[1,1,1,1]> (b, v) }"""
    model = onnx.parser.parse_model(text)
    for name, shape in (("w", (16, 8, 3, 3)), ("v", (16, 16, 3, 3))):
        tensor = onnx.TensorProto(
            name=name, dims=shape, data_type=onnx.TensorProto.FLOAT, doc_string="filled from a seed"
        )
        model.graph.initializer.append(tensor)
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    fill(model, 0.5)
    fill(copy, 0.5)
    assert model == copy
    first, second = (onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer)
    assert first.std() == pytest.approx(np.sqrt(2 / 72), rel=0.05)  # keeps the size of what passes through
    assert second.std() == pytest.approx(0.5 * np.sqrt(2 / 144), rel=0.05)


def test_every_check_is_a_module_and_its_time_is_limited(tmp_path: Path) -> None:
    for check in BY_NAME.values():
        assert callable(importlib.import_module(f"bench.gpu.{check.module}").run)
        assert 0 < check.seconds <= 180
    assert Case("machine", tmp_path, dry=True).gpu.name == "a stand-in on the CPU"
