"""Quantising a bundle: what is written, what stays in fp32, and what is refused."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from keywarp.engines import Engine, load_bundle
from keywarp.engines.bundle import save_bundle
from keywarp.engines.processor import int8_instructions
from keywarp.quantization import Options, QuantizationError, RefusedError, quantize, quantizing
from keywarp.quantization.footage import read_passages
from keywarp.quantization.quantizing import GraphTimes
from keywarp.quantization.timing import FrameTimes
from tests.quantization.networks import drawn_clip, layered_bundle


@pytest.fixture
def faster(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make int8 faster than anything else: which one really is doesn't show on such small networks."""
    give_times(monkeypatch, {"fp32": 3.0, "bf16": 2.0, "int8": 1.0})


def give_times(monkeypatch: pytest.MonkeyPatch, times: Mapping[str, float]) -> None:
    def time_frames(engines: Mapping[str, Engine], passages: Sequence[object]) -> dict[str, FrameTimes]:
        assert passages
        return {name: FrameTimes(times[name], times[name]) for name in engines}

    monkeypatch.setattr(quantizing, "time_frames", time_frames)
    monkeypatch.setattr(GraphTimes, "pays", property(lambda _: True))


@pytest.mark.usefixtures("faster")
def test_a_quantised_bundle_runs_in_int8_and_says_how_far_it_agrees(tmp_path: Path) -> None:
    bundle = layered_bundle(tmp_path / "layered", half=True)
    quantized = quantize(bundle, [drawn_clip()], folder=tmp_path / "int8", name="int8")
    save_bundle(quantized.bundle)
    loaded = load_bundle(tmp_path / "int8")
    assert loaded.name == "int8"
    record = loaded.manifest.precisions["int8"]
    assert {file.name for file in (tmp_path / "int8").glob("*.int8.onnx")} == set(record.files)
    assert "features.int8.onnx" in record.files
    assert record.unquantized == ()
    assert [m.backend for m in record.measurements] == ["openvino", "onnxruntime"]
    for m in record.measurements:
        assert m.agreement >= record.tolerance == 0.99
        assert m.size == (64, 96)
        assert m.instructions == int8_instructions()
    [frame] = [f.image for f in drawn_clip(1, seed=5).frames()]
    for backend in ("openvino", "onnxruntime"):
        expected, _ = Engine(bundle, backend, "fp32", cache=tmp_path / "cache").key(frame)
        engine = Engine(loaded, backend, "int8", cache=tmp_path / "cache")
        result, _ = engine.key(frame)
        assert engine.backend.precision == "int8"
        assert result.labels is not None
        assert expected.labels is not None
        assert (result.labels == expected.labels).mean() > 0.97


@pytest.mark.usefixtures("faster")
def test_the_sensitive_layer_stays_in_fp32(tmp_path: Path) -> None:
    bundle = layered_bundle(tmp_path / "layered", outlier=True)
    quantized = quantize(bundle, [drawn_clip()], Options(backends=("onnxruntime",)))
    narrow = next(node.name for node in bundle.graph("features.onnx").graph.node if "narrow" in node.output)
    name = narrow or "Conv_4"
    assert list(quantized.unquantized) == [f"features.onnx/{name}"]
    assert quantized.complete
    assert quantized.bundle.manifest.precisions["int8"].unquantized == (f"features.onnx/{name}",)
    assert quantized.trials[0].judgement.agreement >= 0.99
    assert all(cost is not None for cost in quantized.unquantized.values())


@pytest.mark.usefixtures("faster")
def test_when_time_runs_out_nothing_outside_of_the_tolerance_is_written(tmp_path: Path) -> None:
    bundle = layered_bundle(tmp_path / "layered", outlier=True)
    options = Options(backends=("onnxruntime",), tolerance=1.0, max_seconds=0.0)
    started = time.monotonic()
    with pytest.raises(RefusedError, match=r"agrees with fp32 to .* %.*--max-seconds"):
        quantize(bundle, [drawn_clip()], options)
    assert time.monotonic() - started < 60
    assert load_bundle(bundle.path).manifest.precisions == {}


def test_a_precision_that_is_not_faster_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    give_times(monkeypatch, {"fp32": 2.0, "bf16": 2.0, "int8": 2.5})
    with pytest.raises(RefusedError, match=r"isn't faster in int8 than in (fp32|bf16).*2\.5 instead of 2\.0 ms"):
        quantize(layered_bundle(tmp_path / "layered"), [drawn_clip()])


def test_graphs_that_are_no_faster_in_int8_are_not_quantised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantizing, "time_graphs", lambda *_: {"before": 1.0, "quantized": 0.99})
    with pytest.raises(RefusedError, match=r"no graph .* is faster in int8.*features\.onnx 1\.0 ms"):
        quantize(layered_bundle(tmp_path / "layered"), [drawn_clip()])


@pytest.mark.parametrize(("frame_ms", "pays"), [(1.9, True), (1.99, False)])
def test_a_graph_that_gains_little_by_itself_is_quantised_if_frames_gain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, frame_ms: float, pays: bool
) -> None:
    alone = iter([{"before": 1.0, "quantized": 0.5}, {"before": 1.0, "quantized": 0.95}])
    monkeypatch.setattr(quantizing, "time_graphs", lambda *_: next(alone))
    taken = {"before": 2.0, "quantized": frame_ms, "fp32": 3.0, "bf16": 3.0, "int8": 1.0}
    monkeypatch.setattr(
        quantizing, "time_frames", lambda engines, _: {name: FrameTimes(taken[name], taken[name]) for name in engines}
    )
    quantized = quantize(layered_bundle(tmp_path / "layered"), [drawn_clip()], Options(backends=("onnxruntime",)))
    assert [times.pays for times in quantized.graphs.values()] == [True, pays]
    first, second = quantized.graphs
    assert quantized.graphs[second].frame_quantized == frame_ms
    assert quantized.graphs[first].frame_quantized is None
    assert (len(quantized.bundle.manifest.precisions["int8"].files) == 2) == pays


@pytest.mark.usefixtures("faster")
def test_a_backend_on_which_it_is_not_within_the_tolerance_is_not_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = layered_bundle(tmp_path / "layered")
    kept = quantizing.Trial.is_kept
    monkeypatch.setattr(
        quantizing.Trial, "is_kept", lambda t, tolerance: t.backend == "openvino" and kept(t, tolerance)
    )
    quantized = quantize(bundle, [drawn_clip()])
    assert [m.backend for m in quantized.bundle.manifest.precisions["int8"].measurements] == ["openvino"]
    assert [trial.backend for trial in quantized.trials] == ["openvino", "onnxruntime"]


def test_frames_to_judge_on_are_in_other_ranges_of_time_than_those_to_calibrate_on() -> None:
    passages = list(read_passages([drawn_clip(100)], 3))
    assert [passage.held_out for passage in passages] == [False, True] * (len(passages) // 2)
    assert len(passages) >= 16
    ranges = [[frame.index for frame in passage.frames] for passage in passages]
    assert all(len(r) == 3 and np.diff(r).tolist() == [1, 1] for r in ranges)
    assert ranges[0][0] == 0
    assert ranges[-1][-1] > 90
    assert len({index for r in ranges for index in r}) == 3 * len(ranges)


def test_a_clip_that_is_too_short_is_refused() -> None:
    with pytest.raises(QuantizationError, match="drawn has 5 frames, but 6 are needed"):
        list(read_passages([drawn_clip(5)], 3))
