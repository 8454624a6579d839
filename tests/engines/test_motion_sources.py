"""Streams with another motion source than the bundle's flow network."""

from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from numpy.typing import NDArray

from keywarp.engines import (
    AVAILABLE,
    BackendError,
    BackendName,
    Engine,
    FixedInterval,
    FrameKind,
    FrameResult,
    MotionError,
    OpticalFlow,
    StreamSession,
)
from keywarp.engines.fusion import fuse_all
from keywarp.engines.manifest import FlowInput
from keywarp.engines.motion import MotionName, MotionSource
from tests.coloured import assert_follows_a_moving_picture, coloured
from tests.shift import Shift
from tests.tiny_bundle import tiny_bundle

OWN_SOURCES: tuple[MotionName, ...] = (  # those that need no flow network
    "none",
    "none-repaired",
    "dis",
    "dis-repaired",
    "dis-chained",
    "dis-chained-repaired",
    "codec",
    "codec-repaired",
)


class ConstantFlow:
    """A motion source with a constant flow, which records its inputs."""

    name = "constant"

    def __init__(self, dx: float, dy: float) -> None:
        self.flow = (dx, dy)
        self.seen: list[tuple[NDArray[np.uint8], NDArray[np.uint8]]] = []

    def estimate(self, current: NDArray[np.uint8], key: NDArray[np.uint8]) -> NDArray[np.float32]:
        self.seen.append((current, key))
        return np.tile(np.array(self.flow, np.float32), (*current.shape[:2], 1))


@pytest.fixture(params=AVAILABLE)
def backend(request: pytest.FixtureRequest) -> BackendName:
    name: BackendName = request.param
    return name


def session(
    tmp_path: Path, motion: MotionName | OpticalFlow, backend: BackendName = "auto", multiple: int = 16
) -> StreamSession:
    bundle = tiny_bundle(tmp_path / "tiny", flow=(7.0, 7.0), multiple=multiple, short_side=128, long_side=1024)
    engine = Engine(bundle, backend, "fp32", cache=tmp_path / "cache", motion=motion)
    return StreamSession(engine, FixedInterval(10))


def test_copied_features_repeat_the_key_frames_result(tmp_path: Path) -> None:
    stream = session(tmp_path, "none")
    key = stream.process(coloured(128, 192))
    copy = stream.process(coloured(128, 192, seed=1))
    assert copy.kind is FrameKind.PROPAGATED
    np.testing.assert_array_equal(copy.labels, key.labels)


def test_a_flow_in_half_size_pixels_moves_features_by_cells(backend: BackendName, tmp_path: Path) -> None:
    """16 half-size pixels are 32 pixels of the frame, or two cells. The bundle's own flow and scale aren't used."""
    stream = session(tmp_path, ConstantFlow(-16, 8), backend)
    labels = stream.process(coloured(128, 192)).labels
    moved = stream.process(coloured(128, 192)).labels
    np.testing.assert_array_equal(moved[8:104, 40:184], labels[24:120, 8:152])


def test_the_source_sees_both_frames_at_half_size_the_current_one_first(tmp_path: Path) -> None:
    source = ConstantFlow(0, 0)
    stream = session(tmp_path, source, multiple=1)
    frames = [coloured(128, 191, seed) for seed in range(3)]
    for image in frames:
        stream.process(image)
    assert len(source.seen) == 2  # none for the key frame
    current, key = source.seen[1]
    for half, image in ((current, frames[2]), (key, frames[0])):
        assert half.shape == (64, 96, 3)
        mean = image[:, :190].reshape(64, 2, 95, 2, 3).mean((1, 3))
        np.testing.assert_allclose(half[:, :95], mean, atol=1)


def test_dis_follows_a_moving_picture(tmp_path: Path) -> None:
    assert_follows_a_moving_picture(session(tmp_path, "dis"))


class NoFlow:
    """A motion source that returns an invalid flow."""

    name = "no-flow"

    def __init__(self, flow: object) -> None:
        self.flow = flow

    def estimate(self, current: NDArray[np.uint8], key: NDArray[np.uint8]) -> NDArray[np.float32]:  # noqa: ARG002
        return self.flow  # type: ignore[return-value]


@pytest.mark.parametrize(
    "flow", [np.zeros((2, 64, 96)), np.zeros((32, 48, 2)), np.full((64, 96, 2), np.nan), None], ids=repr
)
def test_an_invalid_flow_is_refused_and_the_next_frame_becomes_a_key_frame(flow: object, tmp_path: Path) -> None:
    stream = session(tmp_path, NoFlow(flow))
    stream.process(coloured(128, 192))
    with pytest.raises(MotionError, match="no-flow should give a finite flow"):
        stream.process(coloured(128, 192))
    assert stream.process(coloured(128, 192)).kind is FrameKind.KEY


def test_changing_a_copied_result_does_not_change_another(tmp_path: Path) -> None:
    stream = session(tmp_path, "none")
    key = stream.process(coloured(128, 192)).labels
    copy = stream.process(coloured(128, 192)).labels
    copy[:] = 7
    assert not (key == 7).any()
    key[:] = 7
    assert not (stream.process(coloured(128, 192)).labels == 7).any()


def test_strides_that_are_no_multiple_of_the_downscale_are_refused(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path / "tiny")
    manifest = bundle.manifest.model_copy(update={"flow": FlowInput(downscale=3)})
    with pytest.raises(MotionError, match="1/3 the size, where cells of 16"):
        Engine(replace(bundle, manifest=manifest), cache=tmp_path / "cache", motion="dis")


@pytest.mark.parametrize("motion", ["network", "flow", "none"])
def test_motion_that_needs_no_whole_cells_works_with_any_downscale(motion: MotionName, tmp_path: Path) -> None:
    """There is no reliability then, since no pixels of the small images belong to a cell."""
    bundle = tiny_bundle(tmp_path / "tiny", flow=(1.0, 0.0), short_side=144, multiple=48, thirds=True)
    engine = Engine(bundle, "onnxruntime", "fp32", cache=tmp_path / "cache", motion=motion)
    stream = StreamSession(engine, FixedInterval(10))
    before, after = (stream.process(coloured(144, 192)) for _ in range(2))
    moved = 0 if motion == "none" else 16
    np.testing.assert_array_equal(after.labels[8:136, 8:168], before.labels[8:136, 8 + moved : 168 + moved])
    assert after.motion == motion
    assert after.reliability is None
    assert after.reliability_map is None


@pytest.mark.parametrize("motion", ["none", "network", "dis-chained", "codec"])
def test_a_closed_engine_propagates_nothing(motion: MotionName, tmp_path: Path) -> None:
    engine = Engine(tiny_bundle(tmp_path / "tiny"), "onnxruntime", cache=tmp_path / "cache", motion=motion)
    _, key = engine.key(coloured(64, 64))
    engine.close()
    with pytest.raises(BackendError, match="is closed"):
        engine.propagate(coloured(64, 64), key)


def steps(tmp_path: Path, motion: MotionName, frames: int = 2, **bundle: Any) -> list[FrameResult]:
    """Process equal frames with a bundle whose network moves everything by one cell and inverts the features."""
    tiny = tiny_bundle(tmp_path / "tiny", flow=(1.0, 0.0), scale=-1.0, short_side=128, **bundle)
    engine = Engine(tiny, "onnxruntime", "fp32", cache=tmp_path / "cache", motion=motion, keep_features=True)
    stream = StreamSession(engine, FixedInterval(10))
    return [stream.process(coloured(128, 192)) for _ in range(frames)]


def features(result: FrameResult) -> NDArray[np.float32]:
    assert result.features is not None
    return result.features[0]


@pytest.mark.parametrize(
    ("motion", "moved", "scaled"),
    [
        ("none", 0, 1),
        ("none+scale", 0, -1),
        ("flow", 1, 1),
        ("network", 1, -1),
        ("flow-chained", 1, 1),
        ("network-chained", 1, -1),
        ("dis", 0, 1),
        ("dis+scale", 0, -1),
        ("dis-chained+scale", 0, -1),
    ],
)
def test_flow_and_scale_field_can_be_used_separately(
    motion: MotionName, moved: int, scaled: int, tmp_path: Path
) -> None:
    key, propagated = steps(tmp_path, motion)
    before, after = features(key), features(propagated)
    np.testing.assert_allclose(after[:, :, : 12 - moved], scaled * before[:, :, moved:], rtol=1e-3, atol=0.1)
    assert (key.motion, propagated.motion) == (None, motion)
    if motion != "none":
        assert propagated.flow is not None
        inside = propagated.flow[:, :, : 12 - moved]  # what comes from outside is taken from the border
        np.testing.assert_allclose(inside[0], moved, atol=0.01)
        np.testing.assert_allclose(inside[1], 0, atol=0.01)


@pytest.mark.parametrize("motion", ["network-repaired", "network-chained-repaired"])
def test_a_repaired_flow_under_a_scale_field_yields_to_copying_where_that_explains_the_frame_better(
    motion: MotionName, tmp_path: Path
) -> None:
    """The network moves everything by one cell, but nothing has moved."""
    _, propagated = steps(tmp_path, motion)
    assert propagated.flow is not None
    np.testing.assert_array_equal(propagated.flow, 0)


@pytest.mark.parametrize("motion", ["flow", "network"])
def test_repairing_a_flow_that_is_right_changes_nothing(
    motion: MotionName, backend: BackendName, tmp_path: Path
) -> None:
    """Everything moves to the left by a cell, as the network says; the scale field gets from one graph to another."""
    tiny = tiny_bundle(tmp_path / "tiny", flow=(1.0, 0.0), scale=-1.0, short_side=128)
    key = coloured(128, 192)
    found: list[FrameResult] = []
    for source in (motion, f"{motion}-repaired"):
        engine = Engine(tiny, backend, "fp32", cache=tmp_path / "cache", motion=source, keep_features=True)  # type: ignore[arg-type]
        found.append(engine.propagate(np.roll(key, -16, axis=1), engine.key(key)[1]))
    plain, repaired = found
    np.testing.assert_allclose(features(repaired)[:, :, :10], features(plain)[:, :, :10], rtol=1e-3, atol=0.1)
    assert repaired.flow is not None
    np.testing.assert_array_equal(repaired.flow[0, :, :10], 1)


@pytest.mark.parametrize(("motion", "searches"), [("flow-repaired", True), ("network-repaired", False)])
def test_a_scale_field_gets_no_features_of_places_that_look_alike(
    motion: MotionName, searches: bool, tmp_path: Path
) -> None:
    tiny = tiny_bundle(tmp_path / "tiny", flow=(1.0, 0.0), short_side=128)
    engine = Engine(tiny, "onnxruntime", "fp32", cache=tmp_path / "cache", motion=motion)
    key = coloured(128, 192)
    flow = engine.propagate(np.roll(key, 64, axis=1), engine.key(key)[1]).flow
    assert flow is not None
    assert (flow[0] == -4).any() == searches
    assert set(np.unique(flow[0])) <= {0, 1} or searches


def test_a_chained_flow_network_adds_up_its_steps(tmp_path: Path) -> None:
    """The network finds one cell between any two frames, so three frames after the key frame it is three cells."""
    key, *_, last = steps(tmp_path, "flow-chained", 4)
    np.testing.assert_allclose(features(last)[:, :, :9], features(key)[:, :, 3:], rtol=1e-3, atol=0.1)


def test_without_a_choice_the_bundles_own_motion_source_is_used(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path / "tiny")
    assert Engine(bundle, cache=tmp_path / "cache").motion == "network"
    manifest = bundle.manifest.model_copy(update={"motion": "dis-chained"})
    assert Engine(replace(bundle, manifest=manifest), cache=tmp_path / "cache").motion == "dis-chained"


def test_features_are_kept_only_if_asked_for(tmp_path: Path) -> None:
    stream = session(tmp_path, "network")
    assert stream.process(coloured(128, 192)).features is None
    assert stream.process(coloured(128, 192)).features is None


def test_an_unknown_motion_source_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no motion source 'raft'"):
        session(tmp_path, "raft")  # type: ignore[arg-type]


def test_a_bundle_without_a_flow_network_has_the_other_sources(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path / "tiny", flow_network=False, motion="dis-chained")
    assert bundle.manifest.motions == OWN_SOURCES
    frame = coloured(64, 96)
    for motion in (None, *OWN_SOURCES):
        session = StreamSession(Engine(bundle, "onnxruntime", cache=tmp_path, motion=motion), FixedInterval(2))
        assert [session.process(frame).kind.value for _ in range(2)] == ["key", "propagated"]
    moved = Engine(bundle, "onnxruntime", cache=tmp_path, motion=Shift(16))
    _, key = moved.key(frame)
    assert moved.propagate(frame, key).motion == "shift"


@pytest.mark.parametrize("motion", sorted(set(get_args(MotionName)) - set(OWN_SOURCES)))
def test_sources_that_need_a_flow_network_say_which_ones_there_are(tmp_path: Path, motion: MotionName) -> None:
    bundle = tiny_bundle(tmp_path / "tiny", flow_network=False, motion="none")
    with pytest.raises(MotionError, match=r"tiny has no flow network, which the motion source .* use one of none, .*c"):
        Engine(bundle, "onnxruntime", motion=motion)
    with pytest.raises(MotionError, match="has no flow network"):
        fuse_all(bundle, 64, 96, MotionSource.parse(motion))
