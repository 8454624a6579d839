"""Fixtures that several packages' tests share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.running import Server, serving
from tests.tiny_bundle import tiny_bundle


@pytest.fixture
def bundle_path(tmp_path: Path) -> Path:
    """A folder with one tiny bundle."""
    return tiny_bundle(tmp_path / "models" / "tiny").path


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """A server process with the shipped bundle, for all tests that only stream through it."""
    with serving() as running:
        yield running
