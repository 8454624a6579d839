"""The runtimes' telemetry is switched off."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from onnx import TensorProto, helper

SESSION = "import onnxruntime; onnxruntime.InferenceSession({graph!r}, providers=['CPUExecutionProvider'])"


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy")
    absolute = helper.make_graph([helper.make_node("Abs", ["x"], ["y"])], "abs", [x], [y])
    made = helper.make_model(absolute, ir_version=9, opset_imports=[helper.make_opsetid("", 17)])
    path = tmp_path / "abs.onnx"
    path.write_bytes(made.SerializeToString())
    return path


def files_left_in_home(home: Path, code: str) -> list[str]:
    """Return the names of the files that a process leaves in its home folder."""
    home.mkdir()
    environment = {"PATH": os.environ["PATH"], "HOME": str(home)}  # without CI's variables, which switch telemetry off
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=120)
    return [path.name for path in home.rglob("*") if path.is_file()]


@pytest.mark.parametrize("module", ["keywarp.engines.backends.onnxruntime", "keywarp.export.parity"])
def test_onnx_runtime_stores_no_device_id(graph: Path, tmp_path: Path, module: str) -> None:
    code = SESSION.format(graph=str(graph))
    if "deviceid" not in files_left_in_home(tmp_path / "without", code):
        pytest.skip("this ONNX Runtime has no telemetry")
    assert files_left_in_home(tmp_path / "with", f"import {module}; {code}") == []
