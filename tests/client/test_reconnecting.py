import random
from collections.abc import Callable

import pytest

from keywarp.client import (
    ApiError,
    ConnectError,
    KeywarpError,
    MediaError,
    ModelNotFoundError,
    Reconnect,
    ResumeError,
    StreamBusyError,
    StreamError,
    StreamGoneError,
    StreamTakenOverError,
    UnavailableError,
)
from keywarp.client.connecting import retry_after
from keywarp.client.reconnecting import Backoff, is_temporary
from keywarp.protocol import Problem

BROKE = ConnectError("it broke")


def refusal(status: int, asked: float | None = None) -> ApiError:
    return ApiError(Problem(title="no", status=status), asked)


@pytest.fixture(autouse=True)
def _no_jitter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random, "uniform", lambda _low, high: high)


def test_each_wait_is_twice_as_long_up_to_the_longest() -> None:
    backoff = Backoff(Reconnect(seconds=100, first=0.25, longest=3))
    assert [backoff.next_wait(BROKE, 0) for _ in range(6)] == [0.25, 0.5, 1, 2, 3, 3]
    backoff.reset()
    assert backoff.next_wait(BROKE, 0) == 0.25


def test_the_time_limit_runs_from_the_first_break_until_a_new_response() -> None:
    backoff = Backoff(Reconnect(seconds=10))
    backoff.next_wait(BROKE, 100)
    backoff.next_wait(BROKE, 109)
    with pytest.raises(ConnectError, match="it broke"):
        backoff.next_wait(BROKE, 110)
    backoff.reset()
    backoff.next_wait(BROKE, 111)


def test_the_last_attempt_is_made_at_the_time_limit() -> None:
    backoff = Backoff(Reconnect(seconds=10, first=4, longest=4))
    assert [backoff.next_wait(BROKE, now) for now in (0, 4, 8)] == [4, 4, 2]


@pytest.mark.parametrize(
    "error", [refusal(503, 7), UnavailableError(1013, problem=Problem(title="full", status=503, retry_after=7))]
)
def test_the_wait_that_the_server_asks_for_is_kept_if_there_is_time(error: ApiError | StreamError) -> None:
    backoff = Backoff(Reconnect(seconds=10))
    assert backoff.next_wait(error, 0) == 7
    with pytest.raises(type(error)):
        backoff.next_wait(error, 7)


@pytest.mark.parametrize(
    ("error", "temporary"),
    [
        (ConnectError(""), True),
        (UnavailableError(1012), True),
        (UnavailableError(1013), True),
        (StreamBusyError(4409), True),
        (refusal(429), True),
        (refusal(502), True),
        (refusal(503), True),
        (refusal(401), False),
        (refusal(404), False),
        (ModelNotFoundError(4404), False),
        (MediaError(1003), False),
        (MediaError(4422), False),
        (StreamError(1008), False),
        (StreamError(1011), False),
        (StreamError(4400), False),
        (StreamGoneError(4410), False),
        (StreamTakenOverError(4423), False),
        (StreamGoneError(4410, problem=Problem(title="Gone", status=410, retry_after=1)), True),
        (ResumeError(""), False),
        (KeywarpError(""), False),
    ],
)
def test_only_temporary_errors_are_tried_again(error: KeywarpError, temporary: bool) -> None:
    assert is_temporary(error) is temporary


@pytest.mark.parametrize(
    ("value", "valid"),
    [
        (None, lambda s: s is None),
        ("12", lambda s: s == 12),
        ("soon", lambda s: s is None),
        ("Wed, 21 Oct 2015 07:28:00 GMT", lambda s: s == 0),
        ("Wed, 21 Oct 2999 07:28:00 GMT", lambda s: s > 1e9),
    ],
)
def test_retry_after_is_seconds_or_a_date(value: str | None, valid: Callable[[float | None], bool]) -> None:
    assert valid(retry_after(value))


def test_the_option_reconnect_is_seconds_or_a_reconnect() -> None:
    more = Reconnect(seconds=5, at_start=True)
    assert Reconnect.of(more) is more
    assert Reconnect.of(300) == Reconnect(seconds=300)
    assert Reconnect.of(0) == Reconnect.of(None) == Reconnect(seconds=0)
    for wrong in ({"seconds": -1}, {"first": 0}, {"first": 9}, {"memory": -1}, {"seconds": float("nan")}):
        with pytest.raises(ValueError, match="at least 0"):
            Reconnect(**wrong)
