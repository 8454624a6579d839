"""Fixtures that several packages' tests share."""

from pathlib import Path

import pytest

from tests.tiny_bundle import tiny_bundle


@pytest.fixture
def bundle_path(tmp_path: Path) -> Path:
    """A folder with one tiny bundle."""
    return tiny_bundle(tmp_path / "models" / "tiny").path
