"""`keywarp serve`: where its settings come from. What they do is tested in tests/server and tests/e2e."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from keywarp.cli import CommandError
from keywarp.commands import serve as command
from keywarp.server.settings import Settings

SettingsOf = Callable[..., Settings]


@pytest.fixture
def app() -> typer.Typer:
    app = typer.Typer(add_completion=False)
    app.command()(command.serve)
    return app


@pytest.fixture
def settings(app: typer.Typer, monkeypatch: pytest.MonkeyPatch) -> SettingsOf:
    """A function that runs the command with the given options and returns the settings that reach the server."""
    served: list[Settings] = []
    monkeypatch.setattr("keywarp.server.process.run", served.append)

    def run(*options: str | Path) -> Settings:
        done = CliRunner().invoke(app, list(map(str, options)), catch_exceptions=False)
        assert done.exit_code == 0, done.stderr
        return served[-1]

    return run


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """The path of a file of settings, which a test writes."""
    return tmp_path / "serve.toml"


def rejected(app: typer.Typer, *options: str | Path) -> str:
    """Run the command, check that it rejects the options, and return its error without Rich's box and line breaks."""
    done = CliRunner().invoke(app, list(map(str, options)))
    assert done.exit_code == 2
    return " ".join(done.stderr.replace("│", " ").split())


def test_every_option_has_a_variable_of_its_name(app: typer.Typer) -> None:
    options = [option for option in typer.main.get_command(app).params if option.name != "help"]
    assert len(options) > 10
    assert {option.name: option.envvar for option in options} == {
        option.name: f"KEYWARP_{(option.name or '').upper()}" for option in options
    }


def test_without_options_the_settings_are_the_defaults(settings: SettingsOf) -> None:
    assert settings().model_dump(exclude={"log_level"}) == Settings().model_dump()


@pytest.mark.parametrize(
    ("option", "variable", "field", "value"),
    [
        (["--models", "bundles"], "bundles", "models", Path("bundles")),
        (["--port", "0"], "0", "port", 0),
        (["--cpu-fallback"], "yes", "cpu_fallback", True),
        (["--motion", "dis"], "dis", "motion", "dis"),
        (["--max-message", "2"], "2", "max_message_bytes", 2 * 2**20),
        (["--max-video", "3"], "3", "max_video_bytes", 3 * 2**20),
        (["--max-wait", "0.5"], "0.5", "max_wait", 0.5),
        (["--allow-pull", "10.0.0.5", "--allow-pull", "*.a"], "10.0.0.5 *.a", "allow_pull", ("10.0.0.5", "*.a")),
        (["--model-limit", "a=1", "--model-limit", "b=2"], "a=1 b=2", "model_limit", {"a": 1, "b": 2}),
        (["--log-level", "debug"], "debug", "log_level", "DEBUG"),
    ],
)
def test_an_option_and_its_variable_give_the_same_setting(
    option: list[str], variable: str, field: str, value: Any, settings: SettingsOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert getattr(settings(*option), field) == value
    monkeypatch.setenv(f"KEYWARP_{option[0].removeprefix('--').replace('-', '_').upper()}", variable)
    assert getattr(settings(), field) == value


@pytest.mark.parametrize(("value", "on"), [("1", True), ("true", True), ("0", False), ("off", False), ("", False)])
def test_a_switch_is_set_by_a_truth_value_in_its_variable(
    value: str, on: bool, settings: SettingsOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEYWARP_MODEL_CONTROL", value)
    assert settings().model_control == on


def test_the_command_line_precedes_the_environment_which_precedes_the_file_which_precedes_the_default(
    settings: SettingsOf, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config.write_text("port = 1\ncredit = 1\nmax_streams = 1\n")
    monkeypatch.setenv("KEYWARP_CONFIG", str(config))
    monkeypatch.setenv("KEYWARP_PORT", "2")
    monkeypatch.setenv("KEYWARP_CREDIT", "2")
    monkeypatch.setenv("KEYWARP_MAX_STREAMS", "")  # as if it weren't set
    chosen = settings("--port", "3")
    assert (chosen.port, chosen.credit, chosen.max_streams, chosen.host) == (3, 2, 1, "127.0.0.1")


def test_a_default_value_on_the_command_line_precedes_the_file(settings: SettingsOf, config: Path) -> None:
    config.write_text("port = 1")
    assert settings("--config", config, "--port", "8080").port == 8080


def test_a_file_has_the_names_and_units_of_the_options(settings: SettingsOf, config: Path) -> None:
    config.write_text(
        'backend = "onnxruntime"\nmax_message = 2\nallow_origin = ["https://a.example"]\ncpu_fallback = true\n'
        'log_level = "warning"\n[model_limit]\nstreet = 8\n'
    )
    chosen = settings("--config", config)
    assert chosen.backend == "onnxruntime"
    assert chosen.max_message_bytes == 2 * 2**20
    assert chosen.allow_origin == ("https://a.example",)
    assert chosen.cpu_fallback
    assert chosen.model_limit == {"street": 8}


def test_a_setting_of_the_file_may_need_one_of_the_command_line(settings: SettingsOf, config: Path) -> None:
    config.write_text("key_rate = 30")
    assert settings("--config", config, "--keys", "keys.txt").key_rate == 30


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("prot = 1", "there is no setting 'prot'"),
        ("max_message_bytes = 4096", "there is no setting 'max_message_bytes'"),
        ("port = 99999", "port: Input should be less than or equal to 65535"),
        ('max_message = "2"', "max_message: '2' isn't a whole number of MiB"),
        ("max_video = 0", "max_video: 0 isn't a whole number of MiB"),
        ("event_days = inf", "event_days: Input should be less than or equal to 36500"),
        ("model_limit = [1]", "'1' is not like street=8"),
        ("model_limit = {street = -1}", "model_limit.street: Input should be greater than or equal to 0"),
        ('motion = "raft"', "motion: Input should be 'network'"),
        ("key_rate = 30", "key_rate: a limit of each API key needs `keys`"),
        ("port = ", "can't be read: "),
    ],
)
def test_an_error_in_the_file_names_file_and_setting(
    text: str, says: str, app: typer.Typer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("serve.toml").write_text(text)
    error = rejected(app, "--config", "serve.toml")
    assert "Invalid value for --config" in error
    assert "serve.toml" in error
    assert says in error


def test_a_file_that_is_missing_is_wrong_use(app: typer.Typer, config: Path) -> None:
    assert "does not exist" in rejected(app, "--config", config)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--allow-origin", "a.example"], "'a.example' isn't an origin such as https://cameras.example"),
        (["--key-rate", "30"], "a limit of each API key needs `keys`"),
        (["--log-level", "loud"], "no such level: 'loud'"),
        (["--model-limit", "tiny"], "'tiny' is not like street=8"),
        (["--model-limit", "=2"], "'=2' is not like street=8"),
        (["--model-limit", "tiny=x"], "'tiny=x' is not like street=8"),
        (["--model-limit", "tiny=-1"], "'tiny=-1' is not like street=8"),
        (["--backend", "cuda"], "'cuda' is not one of 'auto', 'tensorrt'"),
    ],
)
def test_a_wrong_option_is_named(options: list[str], says: str, app: typer.Typer) -> None:
    error = rejected(app, *options)
    assert f"Invalid value for '{options[0]}'" in error
    assert says in error


@pytest.mark.parametrize(
    ("variable", "value"), [("KEYWARP_PORT", "tcp://10.0.0.1:8080"), ("KEYWARP_ALLOW_ORIGIN", "a.example")]
)
def test_a_wrong_variable_is_named(
    variable: str, value: str, app: typer.Typer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    assert variable in rejected(app)


def test_settings_made_in_code_ignore_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEYWARP_PORT", "1")
    assert Settings().port == 8080


def test_a_folder_without_bundles_is_an_error(app: typer.Typer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEYWARP_MODELS", "no-such-folder")
    with pytest.raises(CommandError, match=r"there is no bundle in no-such-folder: a bundle is a folder"):
        CliRunner().invoke(app, catch_exceptions=False)


def test_a_decoder_that_cannot_be_used_is_an_error(app: typer.Typer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PyNvVideoCodec", None)
    monkeypatch.setenv("KEYWARP_DECODER", "nvdec")
    with pytest.raises(CommandError, match="decoding on a GPU needs PyNvVideoCodec: install the extra `nvdec`"):
        CliRunner().invoke(app, catch_exceptions=False)
    assert "Invalid value for '--decoder'" in rejected(app, "--decoder", "cuda")
