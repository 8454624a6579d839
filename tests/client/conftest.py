import pytest

from tests.client.twins import Twin


@pytest.fixture(params=["sync", "async"])
def twin(request: pytest.FixtureRequest) -> Twin:
    """One of the two clients."""
    return Twin(request.param)
