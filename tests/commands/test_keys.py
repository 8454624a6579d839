"""`keywarp keys`."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from keywarp.cli import CommandError
from keywarp.commands.keys import app
from keywarp.server.errors import UnauthorizedError
from keywarp.server.security.keys import ApiKeys


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_a_key_is_printed_once_and_the_file_keeps_its_hash(tmp_path: Path) -> None:
    file = tmp_path / "keys.txt"
    gate = run("add", "gate", "--file", str(file)).strip()
    both = run("add", "ops", "--scopes", "stream,metrics", "--file", str(file)).strip()
    assert gate not in file.read_text()
    api_keys = ApiKeys.read(file)
    assert api_keys.authorize(gate, "stream").name == "gate"
    assert api_keys.authorize(both, "metrics").name == "ops"
    guest = run("add", "guest", "--streams", "4", "--file", str(file)).strip()
    assert ApiKeys.read(file).authorize(guest, "stream").limits.streams == 4
    assert run("list", "--file", str(file)) == "gate\tstream\nops\tmetrics,stream\nguest\tstream\tstreams=4\n"


def test_a_key_is_added_on_its_own_line_if_the_last_one_has_no_newline(tmp_path: Path) -> None:
    file = tmp_path / "keys.txt"
    first = run("add", "first", "--file", str(file)).strip()
    file.write_text(file.read_text().rstrip("\n"))
    second = run("add", "second", "--file", str(file)).strip()
    api_keys = ApiKeys.read(file)
    assert [api_keys.authorize(secret, "stream").name for secret in (first, second)] == ["first", "second"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [(("gate",), "already"), (("a b",), "not `NAME"), (("x", "--scopes", "root"), "no such scope")],
)
def test_a_key_that_cannot_be_added_leaves_the_file_unchanged(
    tmp_path: Path, arguments: tuple[str, ...], says: str
) -> None:
    file = tmp_path / "keys.txt"
    run("add", "gate", "--file", str(file))
    before = file.read_text()
    with pytest.raises(CommandError, match=says):
        run("add", *arguments, "--file", str(file))
    assert file.read_text() == before


def test_a_key_is_rotated_and_removed_and_the_rest_of_the_file_stays(tmp_path: Path) -> None:
    file = tmp_path / "keys.txt"
    old = run("add", "gate", "--scopes", "stream,models", "--rate", "30", "--file", str(file)).strip()
    stays = run("add", "stays", "--file", str(file)).strip()
    file.write_text("# gate is the camera at the gate\n" + file.read_text())
    file.chmod(0o640)
    new = run("rotate", "gate", "--file", str(file)).strip()
    api_keys = ApiKeys.read(file)
    key = api_keys.authorize(new, "models")
    assert (key.name, key.limits.rate) == ("gate", 30)
    with pytest.raises(UnauthorizedError):
        api_keys.authorize(old, "stream")
    run("remove", "gate", "--file", str(file))
    assert run("list", "--file", str(file)) == "stays\tstream\n"
    assert ApiKeys.read(file).authorize(stays, "stream").name == "stays"
    assert file.read_text().startswith("# gate is the camera at the gate\nstays ")
    assert file.stat().st_mode & 0o777 == 0o640
    assert [path.name for path in tmp_path.iterdir()] == ["keys.txt"]


@pytest.mark.parametrize("command", ["rotate", "remove"])
def test_a_key_that_does_not_exist_is_neither_rotated_nor_removed(tmp_path: Path, command: str) -> None:
    file = tmp_path / "keys.txt"
    run("add", "gate", "--file", str(file))
    with pytest.raises(CommandError, match="no key named door; there are: gate"):
        run(command, "door", "--file", str(file))
