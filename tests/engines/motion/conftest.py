from pathlib import Path

import pytest

from keywarp.datasets.middlebury import MiddleburyPair, grove3


@pytest.fixture(scope="session")
def pair() -> MiddleburyPair:
    """Two real frames, 480 x 640, whose flow is known."""
    return grove3(Path(__file__).parents[3] / ".cache" / "keywarp" / "packages")
