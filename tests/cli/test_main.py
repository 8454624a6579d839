import subprocess
import sys
from importlib.metadata import EntryPoint, EntryPoints
from types import ModuleType

import av.error
import pytest
import typer
from typer.testing import CliRunner

from keywarp.cli import CommandError, main
from tests.command_line import keywarp

runner = CliRunner()


@pytest.fixture
def added(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A package that adds commands: a plain function, an application, and two that can't be imported."""
    package = ModuleType("added")
    application = typer.Typer(help="An application.")

    def hello(name: str) -> None:
        """Greet."""
        typer.echo(f"hello {name}")

    def fail() -> None:
        """Fail."""
        raise CommandError("it can't be done")

    @application.command()
    def first() -> None:
        """Be first."""
        typer.echo("first")

    @application.command()
    def second() -> None:
        """Be second."""
        typer.echo("second")

    package.__dict__.update(hello=hello, fail=fail, application=application)
    monkeypatch.setitem(sys.modules, "added", package)
    points = EntryPoints(
        EntryPoint(name, value, main.GROUP)
        for name, value in {
            "hello": "added:hello",
            "fail": "added:fail",
            "several": "added:application",
            "broken": "no_such_package.module:command",
        }.items()
    )
    monkeypatch.setattr(main, "entry_points", lambda **wanted: points.select(**wanted))
    return package


@pytest.mark.usefixtures("added")
class TestAddedCommands:
    def test_help_lists_all_commands_even_those_that_cannot_run(self) -> None:
        shown = runner.invoke(main.app, ["--help"])
        assert shown.exit_code == 0
        for text in ("stream", "hello", "several", "An application.", "broken", "can't run"):
            assert text in shown.output

    def test_a_function_is_a_command(self) -> None:
        assert runner.invoke(main.app, ["hello", "you"]).output == "hello you\n"

    def test_an_application_is_a_group_of_commands(self) -> None:
        assert runner.invoke(main.app, ["several", "second"]).output == "second\n"

    def test_a_command_that_cannot_be_imported_says_why(self) -> None:
        shown = runner.invoke(main.app, ["broken", "--any", "thing"])
        assert isinstance(shown.exception, CommandError)
        assert "no_such_package" in str(shown.exception)

    def test_an_error_for_the_user_is_one_sentence_and_status_1(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(sys, "argv", ["keywarp", "fail"])
        with pytest.raises(SystemExit) as exit_:
            main.main()
        assert exit_.value.code == 1
        assert capsys.readouterr().err == "keywarp: it can't be done\n"


def test_stream_has_help_with_an_example() -> None:
    shown = runner.invoke(main.app, ["stream", "--help"])
    assert shown.exit_code == 0
    assert "Example: keywarp stream" in shown.output


@pytest.mark.parametrize(
    "arguments", [["nonsense"], ["stream"], ["stream", "v", "--interval", "0"], ["stream", "--server", "x", "v"]]
)
def test_wrong_use_has_status_2(arguments: list[str]) -> None:
    assert runner.invoke(main.app, arguments).exit_code == 2


def test_the_version_is_shown() -> None:
    assert runner.invoke(main.app, ["--version"]).output.startswith("keywarp ")


def test_stream_imports_neither_torch_nor_a_server_nor_drawing() -> None:
    command = (
        "import sys; from keywarp.cli.main import main; sys.argv[:] = ['keywarp', 'stream', 'missing.mp4']\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'fastapi', 'openvino', 'onnxruntime', 'supervision'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", command], check=True, capture_output=True)


def test_a_fault_of_ffmpeg_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **_options: object) -> None:
        raise av.error.ArgumentError(22, "Invalid argument", "http://user:SECRET@h/x")

    monkeypatch.setattr("keywarp.cli.stream.open_frames", fail)
    done = keywarp("stream", "x.mp4")
    assert done.returncode == 1
    assert done.stderr == "keywarp: FFmpeg can't read or write a video: Invalid argument\n"
