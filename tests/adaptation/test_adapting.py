"""Whole adaptations of a tiny bundle to moving pictures."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from keywarp.adaptation import (
    Adaptation,
    AdaptationError,
    AdaptationOptions,
    FootageError,
    ProgressError,
    StartError,
    adapt,
    best_source,
)
from keywarp.engines import Bundle, load_bundle
from keywarp.engines.bundle import add_precision
from keywarp.engines.comparison import Clip, ClipFrame
from keywarp.training.process import TrainingProcess
from keywarp.training.reporting import SilentReporter
from tests.adaptation.moving import MAX_AGE, boxed_bundle, colour_bundle, moving_clip, shade_bundle
from tests.quantization.networks import measurement

OPTIONS = AdaptationOptions(minutes=None, steps=60, batch=4, rate=3e-3, start="own", backend="onnxruntime")
SHORT = replace(OPTIONS, steps=12, save_seconds=0.0, motions=("network",))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return colour_bundle(tmp_path_factory.mktemp("colours"))


def run(bundle: Bundle, clips: list[Clip], folder: Path, options: AdaptationOptions = OPTIONS) -> Adaptation:
    return adapt(bundle, clips, folder / "out", folder / "work", options, TrainingProcess(), SilentReporter())


@pytest.fixture(scope="module")
def adapted(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Adaptation:
    return run(bundle, [moving_clip()], tmp_path_factory.mktemp("adapted"))


def weights(bundle: Bundle, file: str = "flow.onnx") -> dict[str, np.ndarray]:
    return {i.name: numpy_helper.to_array(i) for i in bundle.graph(file).graph.initializer}


def test_propagation_agrees_better_on_frames_that_were_held_out(adapted: Adaptation) -> None:
    before, after = adapted.before.sources, adapted.after.sources
    assert after["network"].mean > before["network"].mean + 0.1
    errors = after["flow"].feature_error, before["flow"].feature_error
    assert errors[0] is not None
    assert errors[1] is not None
    assert errors[0] < 0.8 * errors[1]
    for name in ("none", "none+scale", "flow", "network", "dis", "dis+scale", "dis-chained", "dis-chained+scale"):
        assert set(after[name].by_age) == set(range(1, MAX_AGE + 1))


def test_a_bundle_without_a_flow_network_gets_one(bundle: Bundle, tmp_path: Path) -> None:
    """Its frames are letterboxed, too."""
    boxed = boxed_bundle(tmp_path / "boxed", bundle)
    with pytest.raises(AdaptationError, match=r"boxed has no flow network: start from pretrained or another bundle's"):
        run(boxed, [moving_clip()], tmp_path / "own", SHORT)
    found = run(boxed, [moving_clip()], tmp_path, replace(SHORT, start="auto", steps=4))
    assert found.start == "pretrained"
    assert set(found.before.sources) == {"none"}
    assert found.after.sources["network"].mean > found.before.sources["none"].mean
    assert found.bundle.manifest.motion == "network"
    assert found.bundle.manifest.image.fit == "letterbox"
    assert "network" in load_bundle(found.bundle.path).manifest.motions


def test_dense_maps_are_propagated_better(bundle: Bundle, tmp_path: Path) -> None:
    shades = shade_bundle(tmp_path / "shades", bundle)
    adapted = run(shades, [moving_clip()], tmp_path, replace(OPTIONS, motions=("none", "network")))
    assert adapted.after.measure == "within 5 %"
    before, after = adapted.before.sources["network"], adapted.after.sources["network"]
    assert after.mean > before.mean + 0.1
    assert adapted.bundle.manifest.dense == shades.manifest.dense


def test_the_best_source_becomes_the_default_motion(adapted: Adaptation) -> None:
    assert adapted.motion == best_source(adapted.after)
    assert load_bundle(adapted.bundle.path).manifest.motion == adapted.motion
    figures = adapted.after.sources
    assert figures[adapted.motion].mean >= max(f.mean for f in figures.values()) - 0.005


def test_the_new_bundle_has_only_other_weights_of_the_flow_network(bundle: Bundle, adapted: Adaptation) -> None:
    written = adapted.bundle.manifest
    for name in ("features.onnx", "warp.onnx", "head.onnx"):
        assert written.files[name] == bundle.manifest.files[name]
    assert written.files["flow.onnx"] != bundle.manifest.files["flow.onnx"]
    assert written.name == adapted.bundle.path.name != bundle.name  # so that a server takes both
    assert written.version == "1.2.4"
    told = written.provenance.accuracy["adaptation"]
    assert told["held_out"] == {"moving": "frames 48 to 59"}
    assert told["after"]["network"] == pytest.approx(adapted.after.sources["network"].mean, abs=1e-4)
    assert "adapted to moving" in written.provenance.data


def test_no_held_out_frame_is_read_before_judging(bundle: Bundle, tmp_path: Path) -> None:
    """An error in the held-out range comes up only when it is judged on; so nothing was learned from it."""

    def read() -> Iterator[ClipFrame]:
        for frame in moving_clip().frames():
            if frame.index >= 48:
                raise RuntimeError("a held-out frame")
            yield frame

    guarded = Clip("guarded", read, 60, "guarded")
    with pytest.raises(RuntimeError, match="a held-out frame"):
        run(bundle, [guarded], tmp_path, replace(OPTIONS, steps=2))
    assert (tmp_path / "work" / "progress.pt").exists()  # the training was over
    assert len(np.load(tmp_path / "work" / "video-0" / "frames.npy")) == 48


class Killed(Exception):  # noqa: N818 - not an error of the program
    pass


class KillingReporter(SilentReporter):
    """Stops the work at a step of a stage."""

    def __init__(self, stage: str, step: int) -> None:
        self._wanted, self._last = stage, step
        self._stage = ""

    def stage(self, name: str, total: int) -> None:  # noqa: ARG002
        self._stage = name

    def step(self, done: int | None = None, note: str = "") -> None:  # noqa: ARG002
        if self._wanted in self._stage and done == self._last:
            raise Killed


def interrupt(bundle: Bundle, clips: list[Clip], folder: Path, stage: str, step: int) -> None:
    """Run until a step of a stage."""
    reporter = KillingReporter(stage, step)
    with pytest.raises(Killed):
        adapt(bundle, clips, folder / "out", folder / "work", SHORT, TrainingProcess(), reporter)


@pytest.fixture(scope="module")
def uninterrupted(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Adaptation:
    return run(bundle, [moving_clip()], tmp_path_factory.mktemp("whole"), SHORT)


@pytest.mark.parametrize(("stage", "step"), [("features of", 20), ("adapting", 7)])
def test_an_interrupted_adaptation_ends_like_one_that_was_not(
    bundle: Bundle, uninterrupted: Adaptation, tmp_path: Path, stage: str, step: int
) -> None:
    interrupt(bundle, [moving_clip()], tmp_path, stage, step)
    resumed = run(bundle, [moving_clip()], tmp_path, SHORT)
    assert resumed.bundle.digest == uninterrupted.bundle.digest


def test_no_pair_spans_a_cut(bundle: Bundle, tmp_path: Path) -> None:
    from keywarp.adaptation.footage import Budget, Range, collect
    from keywarp.adaptation.pairs import PairSampler

    [footage] = collect(
        bundle, [moving_clip(30, cut_at=12)], [Range(0, 30)], tmp_path, 9, Budget(1 << 30), SilentReporter()
    )
    assert np.flatnonzero(np.diff(footage.scenes)).tolist() == [11]
    sampler = PairSampler([footage], bundle.manifest, MAX_AGE)
    assert len(sampler) == 2 * sum(12 - age + 18 - age for age in range(1, MAX_AGE + 1))


def test_a_small_cache_takes_runs_of_frames_from_the_whole_range(bundle: Bundle, tmp_path: Path) -> None:
    from keywarp.adaptation.footage import Budget, Range, collect

    frame = sum(np.load(file).nbytes for file in _record(bundle, tmp_path / "all", 1 << 30)) // 48
    [footage] = collect(
        bundle, [moving_clip()], [Range(0, 48)], tmp_path / "some", 9, Budget(20 * frame), SilentReporter()
    )
    assert len(footage) == 18
    assert footage.skipped == 30
    assert np.flatnonzero(np.diff(footage.scenes)).tolist() == [8]
    assert (footage.frames[17] == np.load(tmp_path / "all" / "video-0" / "frames.npy")[47]).all()


def _record(bundle: Bundle, folder: Path, size: int) -> list[Path]:
    from keywarp.adaptation.footage import Budget, Range, collect

    collect(bundle, [moving_clip()], [Range(0, 48)], folder, 9, Budget(size), SilentReporter())
    return list(folder.glob("video-0/*.npy"))


def test_the_head_is_trained_only_if_asked_for(bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(Exception, match="has no weights to train: leave out --head"):
        run(bundle, [moving_clip()], tmp_path, replace(OPTIONS, steps=2, head=True))


def test_another_bundles_flow_network_may_be_the_start(bundle: Bundle, adapted: Adaptation, tmp_path: Path) -> None:
    options = replace(OPTIONS, steps=1, rate=1e-7, start=adapted.bundle.path, motions=("flow", "network"))
    started = run(bundle, [moving_clip()], tmp_path, options)
    found = started.after.sources["flow"].mean
    assert found == pytest.approx(adapted.after.sources["flow"].mean, abs=0.02)
    assert found > started.before.sources["flow"].mean + 0.1


def test_what_is_no_flow_network_of_ours_is_refused_as_a_start(bundle: Bundle, tmp_path: Path) -> None:
    options = replace(OPTIONS, steps=1, start=bundle.path / "head.onnx")
    with pytest.raises(StartError, match=r"head\.onnx isn't one of Keywarp's flow networks"):
        run(bundle, [moving_clip()], tmp_path, options)
    (tmp_path / "text.onnx").write_text("nothing")
    options = replace(options, start=tmp_path / "text.onnx")
    with pytest.raises(StartError, match="neither a bundle nor an ONNX graph"):
        run(bundle, [moving_clip()], tmp_path / "second", options)


def test_the_bundle_itself_is_not_overwritten(bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(AdaptationError, match="is the bundle that is adapted: write the new one to another folder"):
        adapt(bundle, [moving_clip()], bundle.path, tmp_path, SHORT, TrainingProcess(), SilentReporter())


def test_short_videos_are_refused(bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(FootageError, match="moving has 10 frames: with 20% held out, both parts must be longer"):
        run(bundle, [moving_clip(10)], tmp_path)


def test_progress_of_another_adaptation_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    interrupt(bundle, [moving_clip()], tmp_path, "features of", 1)
    with pytest.raises(ProgressError, match="another bundle, other videos or other options"):
        run(bundle, [moving_clip(seed=1)], tmp_path, SHORT)


def without_weights(bundle: Bundle, clips: list[Clip], folder: Path) -> None:
    with pytest.raises(AdaptationError, match="has no weights to train: leave out --head"):
        run(bundle, clips, folder, replace(SHORT, head=True))


def without_room(bundle: Bundle, clips: list[Clip], folder: Path) -> None:
    with pytest.raises(FootageError, match="there is room or time for the features of 0 frames only"):
        run(bundle, clips, folder, replace(SHORT, cache_size=1))


def without_pairs(bundle: Bundle, clips: list[Clip], folder: Path) -> None:  # noqa: ARG001
    cuts = Clip("cuts", lambda: (replace(f, image=f.image * (f.index % 2)) for f in moving_clip().frames()), 60, "cuts")
    with pytest.raises(FootageError, match="no pair of frames without a cut"):
        run(bundle, [cuts], folder, SHORT)


def diverging(bundle: Bundle, clips: list[Clip], folder: Path) -> None:
    with pytest.raises(AdaptationError, match=r"the loss is (inf|nan) at step .*: try a smaller --rate$"):
        run(bundle, clips, folder, replace(SHORT, rate=1e30))


@pytest.mark.parametrize("fail", [without_weights, without_room, without_pairs, diverging])
def test_a_failed_adaptation_does_not_stand_in_the_way_of_another(
    bundle: Bundle, uninterrupted: Adaptation, tmp_path: Path, fail: Callable[[Bundle, list[Clip], Path], None]
) -> None:
    clips = [moving_clip()]
    fail(bundle, clips, tmp_path)
    assert not (tmp_path / "out").exists()
    assert run(bundle, clips, tmp_path, SHORT).bundle.digest == uninterrupted.bundle.digest


def test_a_refused_adaptation_leaves_nothing_behind(bundle: Bundle, tmp_path: Path) -> None:
    without_weights(bundle, [moving_clip()], tmp_path)
    without_room(bundle, [moving_clip()], tmp_path)
    assert not list(tmp_path.iterdir())


def test_damaged_progress_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    interrupt(bundle, [moving_clip()], tmp_path, "adapting", 2)
    (tmp_path / "work" / "progress.pt").write_bytes(b"nothing")
    with pytest.raises(ProgressError, match="is damaged, so nothing can resume from it: delete it to start over"):
        run(bundle, [moving_clip()], tmp_path, SHORT)


def test_16_bit_weights_stay_16_bit_weights(bundle: Bundle, adapted: Adaptation) -> None:
    def kinds(model: onnx.ModelProto) -> set[int]:
        return {i.data_type for i in model.graph.initializer if len(i.dims) == 4}

    assert kinds(adapted.bundle.graph("flow.onnx")) == kinds(bundle.graph("flow.onnx"))


def test_graphs_in_int8_are_left_out_since_they_are_of_the_old_networks(bundle: Bundle, tmp_path: Path) -> None:
    graphs = {"features.onnx": bundle.graph("features.onnx")}
    quantized = add_precision(bundle, "int8", graphs, tolerance=0.99, measure="pixels", measurements=[measurement()])
    adapted = run(quantized, [moving_clip()], tmp_path, SHORT)
    assert load_bundle(adapted.bundle.path).manifest.precisions == {}
    assert not list(adapted.bundle.path.glob("*.int8.onnx"))
    assert any("keywarp quantize" in note for note in adapted.notes)
