"""Networks that several tests cut, read from their files once."""

from pathlib import Path

import pytest

from keywarp.importing.model_file import ImportedModel, read_model
from tests.importing.networks import ChannelsLast, Segmenter, TokenNetwork, Yolo, export


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a folder for the networks' files."""
    return tmp_path_factory.mktemp("networks")


@pytest.fixture(scope="session")
def segmenter(files: Path) -> ImportedModel:
    """Read a segmenter."""
    return read_model(export(Segmenter(), files / "segmenter.onnx", 256, 320))


@pytest.fixture(scope="session")
def yolo(files: Path) -> ImportedModel:
    """Read a detector."""
    return read_model(export(Yolo(), files / "yolo.onnx", 256, 320))


@pytest.fixture(scope="session")
def token_network(files: Path) -> ImportedModel:
    """Read a vision transformer."""
    return read_model(export(TokenNetwork(), files / "tokens.onnx", 96, 128))


@pytest.fixture(scope="session")
def channels_last(files: Path) -> ImportedModel:
    """Read a network whose image and maps have their channels last."""
    return read_model(export(ChannelsLast(), files / "channels_last.onnx", 64, 96, nhwc=True))
