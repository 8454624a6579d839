"""The page on security names tests that exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NAMED = re.compile(r"`(?:(tests/[\w/]+\.py)|(?=::))(?:::(\w+))?`")


def named() -> list[tuple[str, str]]:
    """Return the file and name of each test on the page. A name without a file is in the file before it."""
    found, file = [], ""
    for path, name in NAMED.findall((ROOT / "docs" / "security.md").read_text()):
        file = path or file
        found.append((file, name))
    return found


def test_the_page_names_tests() -> None:
    assert len(named()) > 50


@pytest.mark.parametrize(("file", "name"), named())
def test_a_named_test_exists(file: str, name: str) -> None:
    text = (ROOT / file).read_text()
    assert not name or f"def {name}(" in text
