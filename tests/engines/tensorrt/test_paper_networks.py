"""The paper's networks as TensorRT plans: ResNet-101 with each flow network, R-FCN, 600x1000, fp16, for an A10.

TensorRT for RTX builds them on this CPU. None has run. `make check-gpu PYTEST="-s -k paper"` prints their sizes and the
seconds of processor time to build them.
"""

import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from keywarp.cli.main import app
from keywarp.engines import Bundle, load_bundle
from keywarp.engines.backends.tensorrt.builder import PlanBuilder, Target
from keywarp.engines.backends.tensorrt.library import open_library
from keywarp.engines.backends.tensorrt.plan import Plan
from keywarp.engines.backends.warping import WARP
from keywarp.engines.fusion import FusedGraph, fuse_all
from keywarp.engines.parity import fix_shapes
from keywarp.engines.preparation import input_size

pytestmark = pytest.mark.gpu_check

FRAME = (600, 1000)


@pytest.fixture(params=["flownet", "flownet_half", "flownet_inception"])
def bundle(request: pytest.FixtureRequest, tmp_path: Path) -> Bundle:
    """An untrained bundle, written by `keywarp init` and `keywarp export`."""
    name = request.param
    for command in (
        ["init", f"{tmp_path / name}.pt", "--task", "detection", "--features", "resnet101", "--flow", name],
        ["export", f"{tmp_path / name}.pt", "--out", f"{tmp_path / name}"],
    ):
        done = CliRunner().invoke(app, command, catch_exceptions=False)
        assert done.exit_code == 0, done.output
    return load_bundle(tmp_path / name)


def test_every_graph_becomes_a_plan_and_the_warp_a_plugin(bundle: Bundle) -> None:
    manifest = bundle.manifest
    size = input_size(*FRAME, manifest.image)
    assert size == FRAME
    [features] = manifest.features
    cells = -(-size[0] // features.stride), -(-size[1] // features.stride)
    small = (1, 3, size[0] // manifest.flow.downscale, size[1] // manifest.flow.downscale)
    shapes = {
        "features": {"image": (1, 3, *size)},
        "flow": {"current": small, "key": small},
        "head": {"features": (1, features.channels, *cells)},
    }
    graphs = {
        name: FusedGraph(fix_shapes(bundle.graph(f"{name}.onnx"), ends), frozenset()) for name, ends in shapes.items()
    }
    graphs |= fuse_all(bundle, *size)
    builder = PlanBuilder(open_library(), Target((8, 6)), "fp16")
    for name, graph in graphs.items():
        started = time.process_time()
        plan, _ = builder.plan(graph.model, graph.resident)
        seconds = time.process_time() - started  # processor time, since wall time depends on the machine's other load
        print(f"\n{bundle.name} {name}: {len(plan.content) / 1e6:.1f} MB, {seconds:.1f} s", end="")
        assert _plugins(plan) == (1 if name == "propagate" else 0)


def _plugins(plan: Plan) -> int:
    assert (WARP.encode() in plan.content) == bool(plan.header.warps)
    return plan.header.warps
