"""The extras that errors and docs name exist, and an image gets all that the packages are built from."""

import re
import shlex
import tomllib
from pathlib import Path, PurePosixPath

import pytest

import hatch_build

ROOT = Path(__file__).parents[1]
SOURCES = [*ROOT.glob("*/keywarp/**/*.py"), *ROOT.glob("clients/python/keywarp/**/*.py")]


def extras(project: str) -> set[str]:
    return set(tomllib.loads((ROOT / project).read_text())["project"]["optional-dependencies"])


def test_the_extras_that_errors_name_are_in_the_readme() -> None:
    assert len(SOURCES) > 100
    named = {
        extra
        for source in SOURCES
        for text in re.findall(r"extras? (`.*) \(README, Install\)", source.read_text(encoding="utf-8"))
        for extra in re.findall(r"`(\w+)`", text)
    }
    assert {"cpu", "train", "mqtt", "otel", "parquet", "draw"} <= named
    assert named <= extras("pyproject.toml") | extras("clients/python/pyproject.toml")
    section = (ROOT / "README.md").read_text(encoding="utf-8").split("\n## Install\n")[1].split("\n## ")[0]
    assert {extra for extra in named if f"`{extra}`" not in section} == set()


@pytest.mark.parametrize("dockerfile", ["Dockerfile.cpu", "Dockerfile.gpu", "Dockerfile.k40"])
def test_an_image_gets_every_folder_that_a_wheel_is_built_from(dockerfile: str) -> None:
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    folders = {*wheel["packages"], *hatch_build.COPIES, "clients/python/keywarp"}
    [made] = re.findall(r"^RUN mkdir -p ([^\\&]+)", (ROOT / "docker" / dockerfile).read_text(), re.MULTILINE)
    assert set(shlex.split(made)) == folders  # without them the first build stage fails
    sent = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    for folder in folders:
        assert {str(path) for path in (PurePosixPath(folder), *PurePosixPath(folder).parents)} & sent, folder


def test_nothing_is_installed_by_a_name_that_no_index_has() -> None:
    texts = [*SOURCES, *ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("clients/*/README.md")]
    wrong = re.compile(r"pip install [^\n]*[ '\"]keywarp(-client)?\[?")
    assert [str(text) for text in texts if wrong.search(text.read_text(encoding="utf-8"))] == []
