"""`keywarp models`."""

import json
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.commands.running import keywarp
from tests.e2e.running import serving
from tests.tiny_bundle import tiny_bundle


@pytest.fixture
def models(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    tiny_bundle(folder / "tiny")
    return folder


def damage(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def test_list_prints_every_bundle(models: Path) -> None:
    tiny_bundle(models / "other", name="other")
    listed = keywarp("models", "list", "--models", models, "--json")
    assert listed.status == 0
    assert [row["name"] for row in json.loads(listed.stdout)] == ["other", "tiny"]
    assert "tiny" in keywarp("models", "list", "--models", models).stdout


def test_the_installed_command_lists_bundles(models: Path) -> None:
    command = [str(Path(sys.executable).with_name("keywarp")), "models", "list", "--models", str(models), "--json"]
    listed = subprocess.run(command, capture_output=True, encoding="utf-8", check=True, timeout=60)
    assert [row["name"] for row in json.loads(listed.stdout)] == ["tiny"]


def test_list_prints_a_damaged_bundle_among_the_others_and_fails(models: Path) -> None:
    damage(tiny_bundle(models / "other", name="other").path / "warp.onnx")
    listed = keywarp("models", "list", "--models", models, "--json")
    assert listed.status == 1
    other, tiny = json.loads(listed.stdout)
    assert "warp.onnx doesn't match its manifest" in other["error"]
    assert tiny["version"] == "1.0.0"
    assert listed.stderr == "keywarp: 1 of 2 bundles can't be used: other\n"


def test_list_of_an_empty_folder_says_what_to_do(tmp_path: Path) -> None:
    listed = keywarp("models", "list", "--models", tmp_path)
    assert listed.status == 1
    assert "name the folder with --models" in listed.stderr


def test_show_prints_the_manifest(models: Path) -> None:
    shown = keywarp("models", "show", "tiny", "--models", models)
    assert json.loads(shown.stdout)["classes"][1]["name"] == "red"


def test_show_accepts_the_path_of_a_bundle(models: Path) -> None:
    assert keywarp("models", "show", models / "tiny").status == 0


def test_an_unknown_model_is_an_error_that_names_the_known_ones(models: Path) -> None:
    shown = keywarp("models", "show", "nothing", "--models", models)
    assert shown.status == 1
    assert shown.stderr.startswith(f"keywarp: no model 'nothing' in {models}; there are: tiny. `keywarp import` makes")


def test_verify_compares_the_installed_backends(models: Path) -> None:
    verified = keywarp("models", "verify", "tiny", "--models", models, "--json")
    assert verified.status == 0, verified.stderr
    parity = json.loads(verified.stdout)["parity"]
    assert {row["graph"] for row in parity} == {"features", "flow", "warp", "head"}
    assert all(row["agrees"] for row in parity)


def test_verify_fails_for_a_changed_byte(models: Path) -> None:
    damage(models / "tiny" / "features.onnx")
    verified = keywarp("models", "verify", "tiny", "--models", models)
    assert verified.status == 1
    assert "features.onnx doesn't match its manifest" in verified.stderr


def test_a_running_server_loads_and_unloads(models: Path) -> None:
    with serving("--model-control", "--model-limit", "tiny=1", models=models) as server:
        streams = [httpx.post(f"{server.url}/v1/streams", json={"id": id_}).status_code for id_ in ("a", "b")]
        assert streams == [201, 429]
        assert httpx.delete(f"{server.url}/v1/streams/a").is_success
        unloaded = keywarp("models", "unload", "tiny", "--server", server.url)
        assert json.loads(unloaded.stdout)["state"] == "unloaded"
        again = keywarp("models", "unload", "tiny", "--force", "--server", server.url)
        assert (again.status, again.stderr) == (1, "keywarp: model 'tiny' is not loaded\n")
        loaded = keywarp("models", "load", "tiny", "--server", server.url)
        assert json.loads(loaded.stdout)["state"] == "ready"


def test_verify_fails_and_names_backends_that_differ(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("keywarp.engines.parity.TOLERANCE", -1.0)  # that not even equal outputs meet
    verified = keywarp("models", "verify", "tiny", "--models", models, "--backend", "openvino")
    assert verified.status == 1
    assert verified.stderr.startswith("keywarp: backends differ from the reference: openvino on features, ")


def test_wrong_use_is_status_two() -> None:
    assert keywarp("models", "show").status == 2


def test_a_bundle_without_a_flow_network_is_shown_and_verified(models: Path) -> None:
    tiny_bundle(models / "still", name="still", flow_network=False, motion="none", held=True)
    shown = json.loads(keywarp("models", "show", "still", "--models", models).stdout)
    assert "flow.onnx" not in shown["files"]
    verified = keywarp("models", "verify", "still", "--models", models, "--json")
    assert verified.status == 0, verified.stderr
    graphs = [row["graph"] for row in json.loads(verified.stdout)["parity"]]
    assert list(dict.fromkeys(graphs)) == ["features", "warp", "head"]
    assert keywarp("models", "list", "--models", models).status == 0
