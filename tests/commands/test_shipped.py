"""The bundles that come with Keywarp are there without a folder of models."""

import json
from pathlib import Path

import pytest

from keywarp.engines import BundleError, load_bundle
from keywarp.engines.shipped import DEFAULT_MODELS, shipped_bundles
from keywarp.server.models.repository import list_folders, load_bundles
from tests.commands.running import keywarp
from tests.tiny_bundle import tiny_bundle

SHIPPED = ["street", "street-detect"]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("KEYWARP_MODELS", raising=False)
    return tmp_path


def test_commands_find_them_by_name_beside_those_of_the_default_folder(elsewhere: Path) -> None:
    assert [row["name"] for row in json.loads(keywarp("models", "list", "--json").stdout)] == SHIPPED
    tiny_bundle(elsewhere / "models" / "tiny")
    assert [row["name"] for row in json.loads(keywarp("models", "list", "--json").stdout)] == [*SHIPPED, "tiny"]
    assert json.loads(keywarp("models", "show", "street").stdout)["name"] == "street"


def test_an_own_bundle_takes_the_place_of_a_shipped_one(elsewhere: Path) -> None:
    tiny_bundle(elsewhere / "models" / "street")
    assert json.loads(keywarp("models", "show", "street").stdout)["name"] == "tiny"


def test_a_folder_that_is_named_stands_alone(elsewhere: Path) -> None:
    tiny_bundle(elsewhere / "mine" / "tiny")
    shown = keywarp("models", "show", "street", "--models", "mine")
    assert shown.status == 1
    assert "there are: tiny." in shown.stderr


def test_python_opens_them_by_name(elsewhere: Path) -> None:
    assert load_bundle("street-detect").path == shipped_bundles()["street-detect"]
    with pytest.raises(BundleError, match="yolo is not a bundle"):
        load_bundle("yolo")
    tiny_bundle(elsewhere / "street")
    assert load_bundle("street").name == "tiny"


def test_a_server_serves_them_only_if_there_is_no_default_folder(elsewhere: Path) -> None:
    assert [bundle.name for bundle in load_bundles(DEFAULT_MODELS)] == SHIPPED
    assert [*list_folders(DEFAULT_MODELS)] == SHIPPED
    tiny_bundle(elsewhere / "models" / "tiny")
    assert [bundle.name for bundle in load_bundles(DEFAULT_MODELS)] == ["tiny"]
    with pytest.raises(BundleError, match="`keywarp import` makes one"):
        load_bundles(elsewhere / "nothing")
