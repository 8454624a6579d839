"""The engine beyond a single stream."""

import gc
import resource
import subprocess
import sys
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest

from keywarp.engines import (
    AVAILABLE,
    AdaptiveInterval,
    BackendError,
    BackendName,
    Engine,
    FixedInterval,
    MotionName,
    StreamSession,
    load_bundle,
    open_backend,
)
from keywarp.engines.backends import Program
from tests.tiny_bundle import tiny_bundle

SHIPPED = Path(__file__).parents[2] / "models" / "street"
FRAME = np.full((64, 96, 3), 200, np.uint8)
PROGRAMS = 2  # programs of each input size: `key` and `propagate`


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    return Engine(tiny_bundle(tmp_path / "tiny"), precision="fp32", cache=tmp_path / "cache")


def test_backends_agree_within_rounding(bundle_path: Path, tmp_path: Path) -> None:
    """The order of fp32 sums changes their last bits, so a pixel on the edge between two classes may differ."""
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
    with pytest.raises(BackendError, match="fp32 or int8, not bf16"):
        open_backend("onnxruntime", "bf16")


def test_a_cache_that_cannot_be_written_is_no_error(bundle_path: Path, tmp_path: Path) -> None:
    blocked = tmp_path / "cache"
    blocked.write_text("a file where the cache's folder should be")
    engine = Engine(load_bundle(bundle_path), precision="fp32", cache=blocked)
    assert StreamSession(engine).process(FRAME).index == 0


class CompiledPrograms:
    """Records the programs that an engine's backend compiles, without keeping them alive."""

    def __init__(self, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
        self.references: list[weakref.ref[Program]] = []
        self._compile = engine.backend.compile
        monkeypatch.setattr(engine.backend, "compile", self._record)

    @property
    def alive(self) -> int:
        gc.collect()
        return sum(reference() is not None for reference in self.references)

    def _record(self, model: onnx.ModelProto, resident: frozenset[str] = frozenset()) -> Program:
        program = self._compile(model, resident)
        self.references.append(weakref.ref(program))
        return program


def test_threads_that_need_the_same_size_compile_it_once(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = CompiledPrograms(engine, monkeypatch)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: engine.prepare(64, 96), range(8)))
    assert len(compiled.references) == PROGRAMS


def test_a_failed_compilation_is_tried_again(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> Program:
        raise BackendError("no memory")

    with monkeypatch.context() as patch:
        patch.setattr(engine.backend, "compile", fail)
        with pytest.raises(BackendError, match="no memory"):
            engine.prepare(64, 96)
    engine.prepare(64, 96)


def test_the_number_of_compiled_sizes_is_limited_and_old_streams_continue(
    bundle_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine(load_bundle(bundle_path), precision="fp32", cache=tmp_path / "cache", max_sizes=2)
    compiled = CompiledPrograms(engine, monkeypatch)
    session = StreamSession(engine, FixedInterval(10))
    session.process(FRAME)
    for width in (128, 144, 160):
        engine.prepare(64, width)
    assert len(compiled.references) == 4 * PROGRAMS
    assert compiled.alive == 2 * PROGRAMS
    assert session.process(FRAME).key_age == 1


def test_a_closed_engine_frees_its_programs_and_refuses_frames(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = CompiledPrograms(engine, monkeypatch)
    session = StreamSession(engine)
    session.process(FRAME)
    assert compiled.alive == PROGRAMS
    engine.close()
    assert compiled.alive == 0
    with pytest.raises(BackendError, match="model tiny is closed"):
        session.process(FRAME)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_closed_engine_returns_its_memory_to_the_system(tmp_path: Path) -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

    engine = Engine(load_bundle(SHIPPED), "onnxruntime", cache=tmp_path)
    before = resident()
    engine.prepare(256, 256)
    prepared = resident()
    engine.close()
    assert prepared - resident() > (prepared - before) / 2


def test_numba_is_imported_when_an_engine_is_prepared(bundle_path: Path, tmp_path: Path) -> None:
    """It takes a while, which commands that run no network needn't wait for."""
    script = """
import sys
from pathlib import Path
import keywarp.server.app
from keywarp.engines import Engine, load_bundle
engine = Engine(load_bundle(sys.argv[1]), cache=Path(sys.argv[2]))
assert "numba" not in sys.modules
engine.prepare(64, 96)
assert "numba" in sys.modules
"""
    subprocess.run([sys.executable, "-c", script, bundle_path, tmp_path / "cache"], check=True, timeout=120)


def test_openvino_sends_no_telemetry() -> None:
    pytest.importorskip("openvino")
    script = """
from keywarp.engines.backends import open_backend
open_backend("openvino")
from openvino.tools.ovc import telemetry_utils
assert telemetry_utils.tm.__name__ == "openvino.tools.ovc.telemetry_stub", telemetry_utils.tm
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)


def test_signals_overwrite_no_memory_after_engines_were_closed() -> None:
    pytest.importorskip("openvino")
    script = """
import mmap, os, signal
from keywarp.engines.backends import open_backend
first, second = open_backend("openvino"), open_backend("openvino")
del first
del second
signal.signal(signal.SIGCHLD, lambda *_: None)
fresh = [mmap.mmap(-1, 4 * mmap.PAGESIZE) for _ in range(100)]  # takes all space that became free
for _ in range(10):
    os.kill(os.getpid(), signal.SIGCHLD)
assert not any(any(memory[:]) for memory in fresh)
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)


@pytest.mark.parametrize("backend", AVAILABLE)
@pytest.mark.parametrize("motion", ["network", "dis-chained-repaired", "none"])
@pytest.mark.parametrize("height", [64, 70])  # of the network's input, and another
def test_read_only_frames_are_taken(tmp_path: Path, backend: BackendName, motion: MotionName, height: int) -> None:
    engine = Engine(tiny_bundle(tmp_path / "tiny"), backend, "fp32", cache=tmp_path, motion=motion)
    session = StreamSession(engine, AdaptiveInterval(threshold=0.5))
    pixels = np.random.default_rng(0).integers(0, 256, (height, 96, 3), np.uint8)
    np.save(tmp_path / "frame.npy", pixels)
    mapped = np.load(tmp_path / "frame.npy", mmap_mode="r")
    for frame in (np.frombuffer(pixels.tobytes(), np.uint8).reshape(pixels.shape), mapped):
        found = [session.process(frame).labels for _ in range(2)]
        np.testing.assert_array_equal(found[0], engine.key(pixels)[0].labels)
        np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(mapped, pixels)
