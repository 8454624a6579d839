"""`keywarp models` through the command a user types."""

import json
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.e2e.running import serving
from tests.tiny_bundle import tiny_bundle


def keywarp(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [Path(sys.executable).with_name("keywarp"), *arguments]
    return subprocess.run(command, capture_output=True, encoding="utf-8", check=False, timeout=60)


@pytest.fixture
def models(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    tiny_bundle(folder / "tiny")
    return folder


def damage(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def test_list_names_every_bundle(models: Path) -> None:
    tiny_bundle(models / "other", name="other")
    listed = keywarp("models", "list", "--models", models, "--json")
    assert listed.returncode == 0
    assert [row["name"] for row in json.loads(listed.stdout)] == ["other", "tiny"]
    assert "tiny" in keywarp("models", "list", "--models", models).stdout


def test_list_shows_a_damaged_bundle_beside_the_sound_ones(models: Path) -> None:
    damage(tiny_bundle(models / "other", name="other").path / "warp.onnx")
    listed = keywarp("models", "list", "--models", models, "--json")
    assert listed.returncode == 1
    other, tiny = json.loads(listed.stdout)
    assert "warp.onnx doesn't match its manifest" in other["error"]
    assert tiny["version"] == "1.0.0"


def test_list_of_an_empty_folder_says_what_to_do(tmp_path: Path) -> None:
    listed = keywarp("models", "list", "--models", tmp_path)
    assert listed.returncode == 1
    assert "name the folder with --models" in listed.stderr


def test_show_prints_the_manifest(models: Path) -> None:
    shown = keywarp("models", "show", "tiny", "--models", models)
    assert json.loads(shown.stdout)["classes"][1]["name"] == "red"


def test_show_takes_a_path(models: Path) -> None:
    assert keywarp("models", "show", models / "tiny").returncode == 0


def test_an_unknown_model_is_one_sentence_that_names_the_known(models: Path) -> None:
    shown = keywarp("models", "show", "nothing", "--models", models)
    assert shown.returncode == 1
    assert "no model 'nothing'" in shown.stderr
    assert "there are: tiny" in shown.stderr
    assert "Traceback" not in shown.stderr


def test_verify_compares_the_installed_backends(models: Path) -> None:
    verified = keywarp("models", "verify", "tiny", "--models", models, "--json")
    assert verified.returncode == 0, verified.stderr
    parity = json.loads(verified.stdout)["parity"]
    assert {row["graph"] for row in parity} == {"features", "flow", "warp", "head"}
    assert all(row["agrees"] for row in parity)


def test_verify_refuses_a_changed_byte(models: Path) -> None:
    damage(models / "tiny" / "features.onnx")
    verified = keywarp("models", "verify", "tiny", "--models", models)
    assert verified.returncode == 1
    assert "features.onnx doesn't match its manifest" in verified.stderr


def test_a_running_server_loads_and_unloads(models: Path) -> None:
    with serving("--model-control", "--model-limit", "tiny=1", models=models) as server:
        streams = [httpx.post(f"{server.url}/v1/streams", json={"id": id_}).status_code for id_ in ("a", "b")]
        assert streams == [201, 429]
        assert httpx.delete(f"{server.url}/v1/streams/a").is_success
        unloaded = keywarp("models", "unload", "tiny", "--server", server.url)
        assert json.loads(unloaded.stdout)["state"] == "unloaded"
        again = keywarp("models", "unload", "tiny", "--force", "--server", server.url)
        assert (again.returncode, again.stderr) == (1, "keywarp: model 'tiny' is not loaded\n")
        loaded = keywarp("models", "load", "tiny", "--server", server.url)
        assert json.loads(loaded.stdout)["state"] == "ready"


@pytest.mark.parametrize("limit", ["tiny", "=2", "tiny=x", "tiny=-1"])
def test_a_limit_is_a_model_and_a_number(models: Path, limit: str) -> None:
    refused = keywarp("serve", "--models", models, "--port", "0", "--model-limit", limit)
    assert refused.returncode == 2
    assert "is not like street=8" in refused.stderr


def test_wrong_use_is_status_two() -> None:
    assert keywarp("models", "show").returncode == 2
