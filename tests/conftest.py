"""Fixtures that several packages' tests share."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.e2e.running import Server, serving
from tests.tiny_bundle import tiny_bundle

if TYPE_CHECKING:
    from keywarp.datasets.middlebury import MiddleburyPair


@pytest.fixture
def bundle_path(tmp_path: Path) -> Path:
    """A folder with one tiny bundle."""
    return tiny_bundle(tmp_path / "models" / "tiny").path


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """A server process with the shipped bundle, for all tests that only stream through it."""
    with serving() as running:
        yield running


@pytest.fixture(scope="session")
def pair() -> "MiddleburyPair":
    """Two real frames, 480 x 640, whose flow is known."""
    from keywarp.datasets.middlebury import grove3  # imports torch, which most tests do without

    return grove3(Path(__file__).parents[1] / ".cache" / "keywarp" / "packages")
