"""The functions that CONTRIBUTING.md leads through exist."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
SERVER = ROOT / "server" / "keywarp" / "server"


def definitions(file: Path) -> set[str]:
    """Names of the functions and classes of a file, and of the classes' methods and attributes."""
    found: set[str] = set()
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            for inner in ast.walk(node):
                if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef):
                    found.add(f"{node.name}.{inner.name}")
                elif isinstance(inner, ast.Attribute) and ast.unparse(inner.value) == "self":
                    found.add(f"{node.name}.{inner.attr}")
    return found


def test_every_step_of_the_ways_through_the_code_exists() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    section = text.split("\n## Three paths through the code\n")[1].split("\n## ")[0]
    steps = re.findall(r"`([\w/]+\.py):([\w.]+)`", section)
    assert len(steps) > 30
    missing = []
    for path, name in steps:
        file = SERVER / path if (SERVER / path).is_file() else ROOT / path
        if not file.is_file() or name not in definitions(file):
            missing.append(f"{path}:{name}")
    assert missing == []
