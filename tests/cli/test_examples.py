"""Every command has examples at the end of its help, which parse, and `--json` and `--out` mean one thing."""

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import typer

from keywarp.cli.main import EXAMPLE, app

ROOT = typer.main.get_command(app)


def commands(group: Any = ROOT, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield every command that isn't a group, with the words that call it."""
    context = click.Context(group)
    if not hasattr(group, "list_commands"):
        yield path, group
        return
    for name in group.list_commands(context):
        yield from commands(group.get_command(context, name), (*path, name))


COMMANDS = dict(commands())


def find(words: list[str]) -> tuple[Any, list[str]]:
    """Return the command that a line calls, and its arguments."""
    for length in (2, 1):
        if command := COMMANDS.get(tuple(words[:length])):
            return command, words[length:]
    raise AssertionError(f"there is no command {words}")


def test_the_commands_are_known() -> None:
    assert {("run",), ("streams", "list"), ("bench", "engine"), ("keys", "rotate"), ("train",)} <= set(COMMANDS)
    assert len(COMMANDS) > 30


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_the_examples_of_a_command_parse(
    words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    command = COMMANDS[words]
    assert EXAMPLE not in (command.help or "")
    examples = [text.removeprefix(EXAMPLE) for text in (command.epilog or "").split("\n\n")]
    assert all(examples), "there is no example"
    (tmp_path / "videos").mkdir()
    for example in examples:
        lines = [shlex.split(line) for line in example.split("&&")]
        assert lines[0][: len(words) + 1] == ["keywarp", *words]
        for line in lines:
            if line[0] == "keywarp":
                called, arguments = find(line[1:])
                for file in [word for word in arguments if word.endswith((".toml", ".pt", ".onnx", ".mp4", ".txt"))]:
                    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)  # some must exist
                    (tmp_path / file).touch()
                called.make_context(" ".join(words), [*arguments])  # raises if it doesn't parse


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_json_always_prints_and_never_names_a_file(words: tuple[str, ...]) -> None:
    options = {name: parameter for parameter in COMMANDS[words].params for name in parameter.opts}
    if json := options.get("--json"):
        assert json.is_flag
    if out := options.get("--out"):
        assert not out.is_flag
