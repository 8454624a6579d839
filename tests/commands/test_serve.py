"""`keywarp serve`: how it is told what to do. What it does is tested in tests/server and tests/e2e."""

import sys

import pytest
import typer
from typer.testing import CliRunner

from keywarp.commands.serve import serve


@pytest.fixture
def app() -> typer.Typer:
    app = typer.Typer(add_completion=False)
    app.command()(serve)
    return app


def test_every_option_has_a_variable_of_its_name(app: typer.Typer) -> None:
    options = [option for option in typer.main.get_command(app).params if option.name != "help"]
    assert len(options) > 10
    assert {option.name: option.envvar for option in options} == {
        option.name: f"KEYWARP_{(option.name or '').upper()}" for option in options
    }


def test_a_variable_is_read_and_the_command_line_wins(app: typer.Typer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEYWARP_MODELS", "no-such-folder")
    monkeypatch.setenv("KEYWARP_PORT", "")  # none
    refused = CliRunner().invoke(app)
    assert refused.exit_code == 1
    assert "no-such-folder holds no bundle" in refused.stderr
    assert "nor-this holds no bundle" in CliRunner().invoke(app, ["--models", "nor-this"]).stderr


def test_a_wrong_variable_is_named(app: typer.Typer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEYWARP_PORT", "tcp://10.0.0.1:8080")
    refused = CliRunner().invoke(app)
    assert refused.exit_code == 2
    assert "KEYWARP_PORT" in refused.stderr


def test_a_gpu_that_cannot_decode_is_told_in_a_sentence(app: typer.Typer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PyNvVideoCodec", None)
    monkeypatch.setenv("KEYWARP_DECODER", "nvdec")
    refused = CliRunner().invoke(app)
    assert refused.exit_code == 1
    assert "keywarp serve: decoding on a GPU needs PyNvVideoCodec: install the extra `nvdec`" in refused.stderr
    assert CliRunner().invoke(app, ["--decoder", "cuda"]).exit_code == 2
