import pytest

from tests.client.twins import Twin


@pytest.fixture(params=["sync", "async"])
def twin(request: pytest.FixtureRequest) -> Twin:
    """Return the synchronous or the asynchronous client."""
    return Twin(request.param)
