"""What error messages and docs tell a user to install exists."""

import re
import tomllib
from pathlib import Path

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


def test_nothing_is_installed_by_a_name_that_no_index_has() -> None:
    texts = [*SOURCES, *ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("clients/*/README.md")]
    wrong = re.compile(r"pip install [^\n]*[ '\"]keywarp(-client)?\[?")
    assert [str(text) for text in texts if wrong.search(text.read_text(encoding="utf-8"))] == []
