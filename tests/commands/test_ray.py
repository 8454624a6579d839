"""`keywarp ray`: what it refuses before Ray starts. tests/cluster runs it."""

import pytest
from typer.testing import CliRunner

from keywarp.commands import ray as command


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretend that Ray is installed."""
    monkeypatch.setattr(command, "find_spec", lambda _: True)


def test_without_ray_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "find_spec", lambda _: None)
    done = CliRunner().invoke(command.app, ["serve"])
    assert done.exit_code == 1
    assert "install the extra `ray`" in str(done.exception)


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("replicas", ["0", "3:2", "a", "2:", "-1", "1:2:3"])
def test_numbers_of_replicas_that_cannot_be_are_refused(replicas: str) -> None:
    done = CliRunner().invoke(command.app, ["serve", "--replicas", replicas])
    assert done.exit_code == 2
    assert "--replicas" in done.stderr


def test_a_number_or_a_range_of_replicas_is_read() -> None:
    assert [command._read_range(text) for text in ("3", "2:8")] == [(3, 3), (2, 8)]
