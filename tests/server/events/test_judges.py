"""Rules are judged frame by frame."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from keywarp.engines import Detections, LabelMap
from keywarp.protocol.events import Rule, Rules
from keywarp.server.events.geometry import crossing, inside
from keywarp.server.events.judges import LINGER, Judge, Scene, Spell, open_judge

PERSON, CAR = 1, 2
LEFT_HALF = ((0.0, 0.0), (0.5, 0.0), (0.5, 1.0), (0.0, 1.0))
MIDDLE = ((0.5, 0.0), (0.5, 1.0))  # downwards, so that its right side is on the left
START = datetime(2026, 11, 30, 21, 59, 30, tzinfo=UTC)  # a Monday

Object = tuple[float, float, int]  # where it stands, in shares of the frame, and its track id


def judge(class_ids: Sequence[int] = (PERSON,), **rule: Any) -> Judge:
    given = Rule.model_validate(rule)
    rules = Rules.model_validate(
        {"zones": {"left": LEFT_HALF}, "lines": {"middle": MIDDLE}, "timezone": "Europe/Berlin", "rules": {"r": rule}}
    )
    return open_judge(given, rules, frozenset(class_ids))


def scene(seconds: float, *objects: Object, confidence: float = 0.9, kind: int = PERSON, size: float = 20) -> Scene:
    """Return a scene of 200x100 pixels."""
    boxes = [[200 * x - size / 2, 100 * y - size, 200 * x + size / 2, 100 * y] for x, y, _ in objects]
    found = Detections(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.full(len(objects), confidence, np.float32),
        np.full(len(objects), kind, np.intp),
        track_id=np.array([track for *_, track in objects], np.int64),
    )
    return Scene(seconds, START + timedelta(seconds=seconds), found, 100, 200)


def run(one: Judge, scenes: Sequence[Scene]) -> list[tuple[float, Spell, bool]]:
    """Return when spells started and ended."""
    return [(each.seconds, spell, spell.over) for each in scenes for spell in one.see(each)]


def times(one: Judge, scenes: Sequence[Scene]) -> list[tuple[float, bool]]:
    return [(seconds, over) for seconds, _, over in run(one, scenes)]


def test_an_object_in_a_zone_is_one_spell_until_it_has_left() -> None:
    scenes = [scene(i, (0.2 if 2 <= i < 6 else 0.8, 0.9, 7)) for i in range(12)]
    (began, spell, _), (ended, same, over) = run(judge(zone="left"), scenes)
    assert (began, ended, over) == (2, 5 + LINGER + 1, True)
    assert same is spell
    assert spell.start == START + timedelta(seconds=2)
    assert spell.end == START + timedelta(seconds=5)
    assert (spell.seen.objects, spell.seen.count, [*spell.seen.class_ids]) == ((7,), 1, [PERSON])


def test_an_object_that_every_frame_shows_has_not_left_however_few_there_are() -> None:
    scenes = [scene(10 * i, (0.2 if i < 4 else 0.8, 0.9, 7)) for i in range(6)]
    assert times(judge(zone="left", min_seconds=15), scenes) == [(20, False), (40, True)]


def test_an_object_that_is_missed_for_a_moment_has_not_left() -> None:
    scenes = [scene(0.5 * i, *([] if i in (5, 6) else [(0.2, 0.9, 7)])) for i in range(12)]
    assert times(judge(zone="left", min_seconds=2), scenes) == [(2.0, False)]


@pytest.mark.parametrize(
    ("rule", "given"),
    [
        ({"min_confidence": 0.95}, {}),
        ({"min_area": 0.05}, {}),  # the box has 400 of 20,000 pixels
        ({"min_count": 2}, {}),
        ({"min_seconds": 60}, {}),
        ({}, {"kind": CAR}),
        ({"times": ["06:00-22:00"]}, {}),  # it is 22:59 in Berlin
        ({"days": ["tue"]}, {}),
    ],
)
def test_what_does_not_meet_a_rule_is_no_spell(rule: dict[str, Any], given: dict[str, Any]) -> None:
    assert times(judge(**rule), [scene(i, (0.2, 0.9, 7), **given) for i in range(20)]) == []


def test_objects_without_an_id_do_not_count() -> None:
    assert times(judge(), [scene(i, (0.2, 0.9, -1)) for i in range(5)]) == []


def test_each_object_must_stay_for_as_long_as_the_rule_says() -> None:
    """Two that follow each other don't make one that stays."""
    scenes = [scene(i, (0.2, 0.9, 7 if i < 4 else 8)) for i in range(12)]
    [(seconds, spell, _)] = run(judge(zone="left", min_seconds=5), scenes)
    assert seconds == 9
    assert spell.seen.objects == (8,)


def test_a_spell_knows_all_objects_and_the_most_at_a_time() -> None:
    scenes = [
        scene(i, (0.1, 0.9, 7), *([(0.2, 0.9, 8)] if i == 3 else []), *([(0.3, 0.9, 9)] if i > 4 else []))
        for i in range(8)
    ]
    [(_, spell, _)] = run(judge(), scenes)
    assert (spell.seen.objects, spell.seen.count) == ((7, 8, 9), 2)


def test_after_a_spell_no_other_starts_in_the_cooldown() -> None:
    scenes = [scene(i, *([(0.2, 0.9, 7)] if i % 5 == 0 else [])) for i in range(40)]
    starts = [seconds for seconds, over in times(judge(cooldown=12), scenes) if not over]
    assert starts == [0, 15, 30]


def test_a_rule_for_the_night_begins_in_the_evening_of_its_day() -> None:
    overnight = judge(times=["23:00-06:00"], days=["mon"])  # it is 22:59:30 on a Monday in Berlin
    present = [scene(seconds, (0.2, 0.9, 7)) for seconds in (0, 60, 6 * 3600, 8 * 3600, 25 * 3600)]
    assert times(overnight, present) == [(60, False), (6 * 3600, True), (6 * 3600, False), (8 * 3600, True)]


@pytest.mark.parametrize(
    ("direction", "expected"), [("both", ["left", "right"]), ("left", ["left"]), ("right", ["right"])]
)
def test_each_crossing_of_a_line_is_a_spell_without_length(direction: str, expected: list[str]) -> None:
    xs = [0.3, 0.4, 0.499, 0.501, 0.499, 0.501, 0.6, 0.6, 0.4, 0.3]  # it hesitates on the line
    found = run(judge(line="middle", direction=direction), [scene(i, (x, 0.9, 7)) for i, x in enumerate(xs)])
    assert [spell.seen.direction for _, spell, _ in found] == expected
    assert all(over and spell.start == spell.end for _, spell, over in found)


def test_who_passes_beyond_the_end_of_a_line_does_not_cross_it() -> None:
    assert crossing(((0.5, 0.0), (0.5, 0.5)), (0.4, 0.8), (0.6, 0.8)) is None
    assert crossing(((0.5, 0.0), (0.5, 0.5)), (0.4, 0.3), (0.6, 0.3)) == "left"
    assert (
        crossing(((0.0, 0.5), (1.0, 0.5)), (0.4, 0.3), (0.4, 0.8)) == "right"
    )  # a line to the right, crossed downwards


def test_a_zone_may_have_any_shape() -> None:
    hollow = ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.8, 1.0), (0.8, 0.2), (0.2, 0.2), (0.2, 1.0), (0.0, 1.0))
    points = np.array([[0.1, 0.5], [0.5, 0.5], [0.9, 0.9], [0.5, 0.1]])
    assert inside(hollow, points).tolist() == [True, False, True, True]


def test_a_class_must_cover_enough_of_the_zone() -> None:
    labels = np.zeros((10, 20), np.uint8)
    labels[:, 8:16] = CAR  # 20 of the left half's 100 pixels
    seen = [Scene(i, START + timedelta(seconds=i), LabelMap(labels), 100, 200) for i in range(5)]
    assert times(judge([CAR], zone="left", min_area=0.25), seen) == []
    [(seconds, spell, _)] = run(judge([CAR], zone="left", min_area=0.15, min_seconds=2), seen)
    assert seconds == 2
    assert spell.seen.area == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("rules", "says"),
    [
        ({"rules": {"r": {"zone": "garden"}}}, "there is no zone 'garden'; there are: none"),
        ({"rules": {"r": {"line": "door"}}}, "there is no line 'door'"),
        ({"rules": {"r": {"direction": "left"}}}, "`direction` needs a `line`"),
        ({"lines": {"d": MIDDLE}, "rules": {"r": {"line": "d", "min_seconds": 3}}}, "can't have `zone`"),
        ({"timezone": "Mars/Base"}, "there is no time zone 'Mars/Base'"),
        ({"zones": {"z": [[0, 0], [1, 1]]}}, "at least 3"),
        ({"zones": {"z": [[0, 0], [1, 1], [640, 2]]}}, "less than or equal to 1"),
        ({"zones": {"z": [[0, 0], [0.5, 0.5], [1, 1]]}}, "nothing can be in this zone"),
        ({"lines": {"l": [[0.5, 0.5], [0.5, 0.5]]}}, "nothing can cross this line"),
        ({"rules": {"r": {"times": ["9-17"]}}}, "write a time such as `22:00-06:00`.*, not '9-17'"),
        ({"rules": {"a/b": {}}}, "a name has 1 to 64 letters, .* not 'a/b'"),
    ],
)
def test_rules_that_make_no_sense_are_refused(rules: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        Rules.model_validate(rules)
