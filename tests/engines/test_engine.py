"""What engine and executor promise beyond one stream."""

import gc
import resource
import subprocess
import sys
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import get_args

import numpy as np
import pytest

from keywarp.engines import (
    AVAILABLE,
    BackendError,
    Engine,
    Executor,
    FixedInterval,
    FrameOrderError,
    MotionName,
    StreamSession,
    load_bundle,
    open_backend,
)
from keywarp.engines import (
    engine as engine_module,
)
from tests.tiny_bundle import tiny_bundle

SHIPPED = Path(__file__).parents[2] / "models" / "street"
FRAME = np.full((64, 96, 3), 200, np.uint8)


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    return Engine(tiny_bundle(tmp_path / "tiny"), precision="fp32", cache=tmp_path / "cache")


def test_backends_agree_within_rounding(bundle_path: Path, tmp_path: Path) -> None:
    """fp32 sums in another order differ in the last bits: a pixel on the edge between two classes may flip."""
    frames = np.random.default_rng(0).integers(0, 256, (6, 64, 96, 3), np.uint8)
    results = []
    for backend in AVAILABLE:
        engine = Engine(load_bundle(bundle_path), backend, "fp32", cache=tmp_path)  # type: ignore[arg-type]
        session = StreamSession(engine, FixedInterval(3))
        results.append(np.stack([session.process(frame).labels for frame in frames]))
    for other in results[1:]:
        assert (results[0] == other).mean() > 0.999


def test_a_backend_that_cannot_be_opened_says_what_to_install() -> None:
    with pytest.raises(BackendError, match=r"the extras `rtx` or `gpu` \(README, Install\)"):
        open_backend("tensorrt")


def test_onnxruntime_refuses_a_precision_it_does_not_have() -> None:
    with pytest.raises(BackendError, match="fp32, not bf16"):
        open_backend("onnxruntime", "bf16")


def test_a_cache_that_cannot_be_written_is_done_without(bundle_path: Path, tmp_path: Path) -> None:
    blocked = tmp_path / "cache"
    blocked.write_text("a file where the cache's folder should be")
    engine = Engine(load_bundle(bundle_path), precision="fp32", cache=blocked)
    assert StreamSession(engine).process(FRAME).index == 0


def test_many_threads_asking_for_one_size_compile_it_once(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = []
    original = engine._compile

    def counted(height: int, width: int) -> engine_module._Programs:
        compiled.append((height, width))
        return original(height, width)

    monkeypatch.setattr(engine, "_compile", counted)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: engine.prepare(64, 96), range(8)))
    assert compiled == [(64, 96)]


def test_a_failed_compilation_is_tried_again(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(height: int, width: int) -> engine_module._Programs:
        raise BackendError(f"no memory for {height}x{width}")

    with monkeypatch.context() as patch:
        patch.setattr(engine, "_compile", fail)
        with pytest.raises(BackendError, match="no memory"):
            engine.prepare(64, 96)
    engine.prepare(64, 96)


def test_compiled_sizes_are_bounded_and_old_streams_go_on(engine: Engine) -> None:
    session = StreamSession(engine, FixedInterval(10))
    session.process(FRAME)
    for columns in range(engine_module.MAX_SIZES + 1):
        engine.prepare(64, 128 + 16 * columns)
    assert len(engine._programs) == engine_module.MAX_SIZES
    assert session.process(FRAME).key_age == 1


def test_a_closed_engine_frees_its_programs_and_refuses_frames(engine: Engine) -> None:
    session = StreamSession(engine)
    session.process(FRAME)
    [programs] = engine._programs.values()
    program = weakref.ref(programs.result().key)
    del programs
    engine.close()
    gc.collect()
    assert program() is None
    with pytest.raises(BackendError, match="model tiny is closed"):
        session.process(FRAME)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_what_a_closed_engine_held_goes_back_to_the_system(tmp_path: Path) -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

    engine = Engine(load_bundle(SHIPPED), "onnxruntime", cache=tmp_path)
    before = resident()
    engine.prepare(256, 256)
    prepared = resident()
    engine.close()
    assert prepared - resident() > (prepared - before) / 2


def test_the_executor_runs_in_order_and_counts_its_queue(engine: Engine) -> None:
    executor, session, gate = Executor(), StreamSession(engine, FixedInterval(4)), Event()
    blocker = executor._pool.submit(gate.wait)
    futures = [executor.submit(session, FRAME) for _ in range(8)]
    assert executor.depth == 8
    gate.set()
    results = [future.result() for future in futures]
    executor.close()
    assert blocker.result()
    assert [result.index for result in results] == list(range(8))
    assert all(result.queue >= 0 for result in results)
    assert executor.depth == 0


def test_a_turn_is_what_a_session_waits_for_others_and_not_for_itself(engine: Engine) -> None:
    executor, one, other, gate = Executor(), StreamSession(engine), StreamSession(engine), Event()
    executor._pool.submit(gate.wait)
    futures = [executor.submit(session, FRAME) for session in (one, one, one, other)]
    gate.set()
    first, second, third, last = (future.result() for future in futures)
    executor.close()
    assert first.turn == first.queue
    assert second.queue > second.turn < second.queue - second.inference
    assert third.queue > third.turn < third.queue - third.inference
    assert last.turn == last.queue
    assert last.turn > sum(result.inference for result in (first, second, third))


def test_the_executor_hands_errors_to_their_sender_alone(engine: Engine) -> None:
    executor, good, bad = Executor(), StreamSession(engine), StreamSession(engine)
    executor.submit(bad, FRAME, 7)
    wrong, right = executor.submit(bad, FRAME, 3), executor.submit(good, FRAME)
    with pytest.raises(FrameOrderError):
        wrong.result()
    assert right.result().index == 0
    executor.close()


def test_closing_the_executor_finishes_what_is_queued(engine: Engine) -> None:
    executor, session = Executor(), StreamSession(engine)
    futures = [executor.submit(session, FRAME) for _ in range(5)]
    executor.close()
    assert [f.result().index for f in futures] == list(range(5))
    with pytest.raises(RuntimeError):
        executor.submit(session, FRAME)


def test_serving_a_segmentation_bundle_imports_no_numba(bundle_path: Path, tmp_path: Path) -> None:
    script = """
import sys
from pathlib import Path
import numpy as np
import keywarp.server.app
from keywarp.engines import Engine, FixedInterval, StreamSession, load_bundle
engine = Engine(load_bundle(sys.argv[1]), motion=sys.argv[2], cache=Path(sys.argv[3]))
session = StreamSession(engine, FixedInterval(2))
for _ in range(2):
    result = session.process(np.zeros((64, 96, 3), np.uint8))
assert result.kind == "propagated", result
assert "numba" not in sys.modules
"""
    for motion in get_args(MotionName):
        arguments = [bundle_path, motion, tmp_path / "cache"]
        subprocess.run([sys.executable, "-c", script, *arguments], check=True, timeout=120)


def test_openvino_tells_its_maker_nothing() -> None:
    pytest.importorskip("openvino")
    script = """
from keywarp.engines.backends import open_backend
open_backend("openvino")
from openvino.tools.ovc import telemetry_utils
assert telemetry_utils.tm.__name__ == "openvino.tools.ovc.telemetry_stub", telemetry_utils.tm
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)
