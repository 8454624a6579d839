"""A server that lets clients load and unload two models."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tritonclient.http import InferenceServerClient

from keywarp.server.models import replicas
from tests.server.conftest import Running, Starter
from tests.server.models.loading import HeldLoads
from tests.tiny_bundle import tiny_bundle


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the models `other`, which is the default, and `tiny`."""
    path = tmp_path / "models"
    tiny_bundle(path / "other", name="other")
    tiny_bundle(path / "tiny")
    return path


@pytest.fixture
def server(folder: Path, start: Starter) -> Running:
    return start(models=folder, model_control=True)


@pytest.fixture
def triton(server: Running) -> Iterator[InferenceServerClient]:
    with InferenceServerClient(server.url.removeprefix("http://")) as client:
        yield client


@pytest.fixture
def held_loads(server: Running, monkeypatch: pytest.MonkeyPatch) -> Iterator[HeldLoads]:  # noqa: ARG001 - it has started
    """Hold all loads after the server's start until the test releases them."""
    held = HeldLoads()
    monkeypatch.setattr(replicas, "open_engine", held.wrap(replicas.open_engine))
    yield held
    held.release()
