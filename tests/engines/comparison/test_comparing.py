"""Comparisons of tiny bundles on clips whose results can be predicted."""

from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest

from keywarp.engines import AdaptiveInterval, Bundle, Engine, FixedInterval, InvalidFrameError
from keywarp.engines.comparison import (
    Clip,
    ClipFrame,
    Comparison,
    Options,
    compare,
    moving_passages,
    replay,
    replay_passages,
    worst_passages,
)
from keywarp.engines.motion import MotionVectors
from tests.engines.comparison.film import FPS, clip, cut, walk
from tests.engines.scenes import scene
from tests.tiny_bundle import tiny_bundle

COMMON: dict[str, Any] = {"backend": "onnxruntime", "precision": "fp32", "stride": 1}


@pytest.fixture
def follower(tmp_path: Path) -> Bundle:
    """A detector whose flow network always answers that everything moved one cell to the right."""
    return tiny_bundle(tmp_path / "follower", detection=True, flow=(-1.0, 0.0))


def options(cache: Path, **further: Any) -> Options:
    chosen: dict[str, Any] = {"motions": ("none", "flow"), "intervals": (2, 3), "cache": cache}
    return Options(**chosen | COMMON | further)


def test_boxes_agree_as_far_as_the_flow_follows(follower: Bundle, tmp_path: Path) -> None:
    comparison = compare(follower, [walk()], options(tmp_path))
    copied, flow = comparison.sources["none"], comparison.sources["flow"]
    assert copied.by_age == {1: 0, 2: 0}
    assert flow.by_age == {1: 1, 2: 0}  # after two frames, one step isn't enough
    assert flow.mean == 0.5
    assert flow.by_seconds == {1 / FPS: 1, 2 / FPS: 0}
    assert flow.figures_by_age == {"precision": {1: 1, 2: 0}, "recall": {1: 1, 2: 0}}
    assert flow.by_video == {"walk": 0.5}


def test_an_interval_counts_its_key_frames(follower: Bundle, tmp_path: Path) -> None:
    sources = compare(follower, [walk()], options(tmp_path, keep=0.6)).sources
    assert [sources["none"].intervals[i].agreement for i in (2, 3)] == pytest.approx([1 / 2, 1 / 3])
    assert [sources["flow"].intervals[i].agreement for i in (2, 3)] == pytest.approx([1, 2 / 3])
    assert [sources["flow"].intervals[i].oldest for i in (2, 3)] == [1, 0]
    assert (sources["none"].longest, sources["flow"].longest) == (1, 3)


def test_labels_agree_as_when_they_are_computed_one_by_one(tmp_path: Path) -> None:
    bundle, film = tiny_bundle(tmp_path / "tiny"), walk()
    found = compare(bundle, [film], options(tmp_path, motions=("none",))).sources["none"].by_age
    engine = Engine(bundle, "onnxruntime", "fp32", cache=tmp_path)
    truth = np.stack([engine.key(frame.image)[0].labels for frame in film.frames()])
    starts = range(len(truth) - 2)  # from which both ages can be reached
    for age in (1, 2):
        copied, expected = truth[starts], truth[[start + age for start in starts]]
        ious = [((copied == c) & (expected == c)).sum() / ((copied == c) | (expected == c)).sum() for c in (0, 1)]
        assert found[age] == pytest.approx(np.mean(ious))


def test_the_error_of_features_is_relative_to_copied_ones(follower: Bundle, tmp_path: Path) -> None:
    sources = compare(follower, [walk()], options(tmp_path)).sources
    assert sources["none"].feature_error == pytest.approx(1)
    errors = sources["flow"].feature_error_by_age
    assert errors[1] < 0.6 < errors[2]  # at the border, where nothing is known, even the right flow is wrong
    unmeasured = compare(follower, [walk()], options(tmp_path, features=False)).sources["flow"]
    assert unmeasured.feature_error is None
    assert unmeasured.by_age == sources["flow"].by_age


def test_the_worst_frames_are_listed_and_can_be_replayed(follower: Bundle, tmp_path: Path) -> None:
    film, chosen = walk(20), options(tmp_path)
    comparison = compare(follower, [film], chosen)
    flow = comparison.sources["flow"]
    assert len(flow.worst) == 2  # 5 % of 2 x 18, rounded up
    for worst in flow.worst:
        assert (worst.age, worst.agreement, worst.frame - worst.key) == (2, 0, 2)
        assert (worst.age_seconds, worst.time) == pytest.approx((2 / FPS, worst.frame / FPS))
    [worst] = worst_passages(comparison, "flow", 4)  # the others are too near to it
    [again] = replay(follower, [film], chosen, [("flow", worst)])
    columns = {float(x) for x in again.per_frame.xyxy[:, 0]}  # type: ignore[union-attr]
    assert columns == {16.0 * (worst.frame + 2) - 1}
    assert {float(x) for x in again.propagated.xyxy[:, 0]} == {16.0 * (worst.key + 3) - 1}  # type: ignore[union-attr]


def test_a_passage_shows_all_sources_after_a_key_frame(follower: Bundle, tmp_path: Path) -> None:
    film, chosen = walk(20), options(tmp_path)
    [start] = moving_passages(compare(follower, [film], chosen), 1)
    [passage] = replay_passages(follower, [film], chosen, [start], ages=[0, 2])
    assert sorted(passage.images) == sorted(passage.per_frame) == [0, 2]
    assert passage.time == pytest.approx(start.key / FPS)
    columns = {"none": start.key + 2, "flow": start.key + 3}  # one step at most
    for source, column in columns.items():
        [shown] = passage.propagated[source].values()
        assert {float(x) for x in shown.xyxy[:, 0]} == {16.0 * column - 1}  # type: ignore[union-attr]


def test_motion_vectors_reach_the_engine_with_their_frame(tmp_path: Path) -> None:
    vectors = [MotionVectors.from_ffmpeg(None, 160, 80, 1, "h264") for _ in range(6)]
    frames = [ClipFrame(scene(0), n, n / FPS, vectors[n]) for n in range(6)]
    film = Clip("film", lambda: iter(frames), 6)
    chosen = options(tmp_path, motions=("none",), schedules={"fixed 6": FixedInterval(6)}, intervals=(6,), stride=9)
    with patch.object(Engine, "propagate", autospec=True, side_effect=Engine.propagate) as propagate:
        compare(tiny_bundle(tmp_path / "tiny"), [film], chosen)
    given = [call.args[3] for call in propagate.call_args_list]
    assert len(given) >= 3 * 5  # by ages, in a stream, and for the cost
    assert given == [[vectors[1 + n % 5]] for n in range(len(given))]


def test_results_over_a_cut_count_unless_they_are_left_out(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path / "tiny")
    with_cuts = compare(bundle, [cut()], options(tmp_path, motions=("none",)))
    assert with_cuts.videos[0].cuts == (10 / FPS,)
    source = with_cuts.sources["none"]
    assert source.by_age[2] < source.by_age[1] < 1
    assert source.mean_without_cuts == 1
    assert source.worst_mean == 1  # the worst are looked for elsewhere
    without = compare(bundle, [cut()], options(tmp_path, motions=("none",), cuts=False))
    assert without.sources["none"].by_age == {1: 1, 2: 1}


def test_an_adaptive_stream_sees_the_cut_that_a_fixed_one_misses(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path / "tiny")
    schedules = {"fixed 8": FixedInterval(8), "adaptive": AdaptiveInterval(threshold=1.0, maximum=30)}
    fixed, adaptive = compare(bundle, [cut()], options(tmp_path, motions=("none",), schedules=schedules)).schedules
    assert (fixed.schedule, adaptive.schedule) == ("fixed 8", "adaptive")
    assert fixed.interval == pytest.approx(20 / 3)
    assert adaptive.interval == 10
    assert fixed.agreement < adaptive.agreement == 1


def test_sampled_clips_run_the_network_on_few_frames(follower: Bundle, tmp_path: Path) -> None:
    runs: list[int] = []  # of the network, before each step of measuring costs
    with patch.object(Engine, "key", autospec=True, side_effect=Engine.key) as key:

        def progress(stage: str, done: int, total: int | None) -> None:
            del done, total
            if stage == "cost":
                runs.append(key.call_count)

        chosen = options(tmp_path, motions=("none",), max_frames=9)
        [video] = compare(follower, [walk(20)], chosen, progress=progress).videos
    assert video.frames == 20
    assert runs[0] - video.key_starts == video.evaluated <= 9  # moved by a pixel, key starts run once more


class _Interrupted(Exception):  # noqa: N818
    pass


def interrupt_at(stage: str, frame: int) -> Callable[[str, int, int | None], None]:
    def progress(current: str, done: int, total: int | None) -> None:
        del total
        if (current, done) == (stage, frame):
            raise _Interrupted

    return progress


def figures(comparison: Comparison) -> dict[str, Any]:
    """Everything but times, which are never the same."""
    found = comparison.as_dict()
    for name in ("per_frame_ms", "recommended"):
        del found[name]
    for source in found["sources"].values():
        for name in ("ms", "key_ms", "processor_ms", "key_processor_ms"):
            del source[name]
        source["intervals"] = {i: (f["agreement"], f["oldest"]) for i, f in source["intervals"].items()}
    found["schedules"] = [(s["source"], s["schedule"], s["agreement"], s["interval"]) for s in found["schedules"]]
    return found


@pytest.mark.parametrize(
    ("stage", "frame"), [("walk", 11), ("cut", 0), ("cut", 15), ("grow", 11), ("grow, flow, adaptive", 5), ("cost", 1)]
)
def test_an_interrupted_comparison_goes_on_where_it_was(
    stage: str, frame: int, follower: Bundle, tmp_path: Path
) -> None:
    grow = clip([scene(0)] * 6 + [scene(1, height=96)] * 8, "grow")  # has two sizes
    clips = [walk(20), cut(), grow]
    chosen = options(tmp_path, schedules={"adaptive": AdaptiveInterval(threshold=0.2)})
    uninterrupted = compare(follower, clips, chosen)
    work = tmp_path / "work"
    with pytest.raises(_Interrupted):
        compare(follower, clips, chosen, progress=interrupt_at(stage, frame), work=work, save_every=0)
    with patch.object(Engine, "key", autospec=True, side_effect=Engine.key) as key:
        resumed = compare(follower, clips, chosen, work=work, save_every=0)
        again = key.call_count
    assert figures(resumed) == figures(uninterrupted)
    with patch.object(Engine, "key", autospec=True, side_effect=Engine.key) as key:
        compare(follower, clips, chosen)
    assert again < key.call_count


def test_other_options_do_not_go_on_with_what_was_interrupted(follower: Bundle, tmp_path: Path) -> None:
    work = tmp_path / "work"
    first = compare(follower, [walk(20)], options(tmp_path), work=work)
    second = compare(follower, [walk(20)], options(tmp_path, confidence=0.99), work=work)
    assert first.sources["flow"].by_age[1] == second.sources["flow"].by_age[1] == 1
    assert len(list(work.glob("*.npz"))) == 2


def test_a_damaged_file_of_an_interrupted_comparison_is_begun_anew(follower: Bundle, tmp_path: Path) -> None:
    work = tmp_path / "work"
    first = compare(follower, [walk()], options(tmp_path), work=work)
    [file] = work.glob("*.npz")
    file.write_bytes(file.read_bytes()[:100])
    assert figures(compare(follower, [walk()], options(tmp_path), work=work)) == figures(first)


def test_nothing_is_propagated_to_another_size(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path / "tiny")
    film = clip([scene(0)] * 5 + [scene(1, height=96)] * 5)
    comparison = compare(bundle, [film], options(tmp_path, motions=("none",)))
    assert comparison.sources["none"].by_age == {1: 1, 2: 1}
    assert comparison.videos[0].key_starts == 6


def test_work_that_no_comparison_can_go_on_with_is_not_kept(follower: Bundle, tmp_path: Path) -> None:
    chosen = options(tmp_path, schedules={"adaptive": AdaptiveInterval(threshold=0.2)})
    with pytest.raises(InvalidFrameError, match="2 frames"):
        compare(follower, [walk(), clip([scene(0)] * 2, "short")], chosen, work=tmp_path / "work", save_every=0)
    assert not list((tmp_path / "work").iterdir())


@pytest.mark.parametrize("frames", [0, 2])
def test_a_clip_that_is_too_short_is_refused(frames: int, follower: Bundle, tmp_path: Path) -> None:
    short = clip([scene(0)] * frames, "short")
    with pytest.raises(InvalidFrameError, match=f"short has {frames} frames .* choose shorter intervals"):
        compare(follower, [short], options(tmp_path))


def test_no_clip_is_refused(follower: Bundle) -> None:
    nothing: list[Clip] = []
    with pytest.raises(ValueError, match="no clip"):
        compare(follower, nothing)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"motions": ()}, "name at least one"),
        ({"motions": ("raft",)}, "no motion source 'raft'"),
        ({"intervals": (1,)}, "at least 2 frames"),
        ({"keep": 0}, "above 0"),
        ({"stride": 0}, "at least 1 frame"),
        ({"max_frames": 5, "intervals": (10,)}, "at least 10 frames"),
    ],
)
def test_options_that_make_no_sense_are_refused(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Options(**wrong)
