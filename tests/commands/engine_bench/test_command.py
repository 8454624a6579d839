"""`keywarp bench engine --config` on a tiny model: what it prints, draws and refuses."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from keywarp.commands.engine_bench import networks
from keywarp.commands.engine_bench.peak import PEAK_SHAPES
from tests.commands.running import keywarp
from tests.tiny_bundle import tiny_bundle

LIGHT = "pytorch,nano"  # what takes seconds to open


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models")
    tiny_bundle(path / "tiny", motion="network")
    return path


@pytest.fixture(autouse=True)
def small(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEYWARP_CACHE", str(tmp_path_factory.getbasetemp() / "bench-cache"))
    for shape, (_, kernel, *_) in PEAK_SHAPES.items():
        monkeypatch.setitem(PEAK_SHAPES, shape, (16, kernel, 8, 8))


def bench(models: Path, *arguments: str | Path) -> str:
    done = keywarp("bench", "engine", "--config", "tiny", "--models", models, "--rounds", "2", *arguments)
    assert done.status == 0, done.stderr
    return done.stdout


def test_everything_is_compared_on_the_same_frames(models: Path, tmp_path: Path) -> None:
    picture = tmp_path / "bars.png"
    found: dict[str, Any] = json.loads(bench(models, "--without", LIGHT, "--json", "--picture", picture))
    assert found["config"] == "tiny"
    assert found["size"] == [272, 640]
    assert (found["rounds"], found["interrupted"], found["left_out"]) == (2, False, {})
    assert found["other_work"] >= 0
    assert {"processor", "cores", "instructions", "int8", "system", "runtimes"} == set(found["machine"])
    assert found["machine"]["runtimes"]["openvino"]
    motions = {"network", "dis-chained-repaired", "codec"}
    assert set(found["speedups"]) == set(found["operations"]) == motions
    assert {row["name"] for row in found["per_frame"]} >= {"onnxruntime fp32", "openvino fp32", "openvino int8"}
    assert {(row["motion"], row["precision"]) for row in found["keywarp"]} >= {
        (motion, precision) for motion in motions for precision in ("fp32", "int8")
    }
    assert {row["name"] for row in found["parts"]} >= {"features alone, fp32", "flow alone, int8"}
    assert found["peaks"]["fp32"] > 0
    assert all(row["profile"]["host"] >= 0 for row in found["keywarp"])
    with Image.open(picture) as drawn:
        assert drawn.format == "PNG"
        assert drawn.width == 1000


def test_speed_ups_are_those_of_the_fastest_precision(models: Path) -> None:
    found = json.loads(bench(models, "--only", "onnxruntime,network", "--json"))
    [reference] = [row for row in found["per_frame"] if row["name"] == "onnxruntime fp32"]
    rows = [row for row in found["keywarp"] if row["motion"] == "network"]
    assert reference["speed_up"] == pytest.approx(1)
    for length in ("5", "10", "20"):
        fastest = min(row["intervals"][length]["ms"] for row in rows)
        assert found["speedups"]["network"][length] == pytest.approx(reference["ms"]["median"] / fastest)
    for row in rows:
        assert row["key"]["count"] == 2
        assert row["propagated"]["count"] == 2 * 9
        assert {length: figures["measured"] for length, figures in row["intervals"].items()} == {
            "5": False,
            "10": True,
            "20": False,
        }
    assert found["peaks"] == {}
    assert found["parts"] == []
    assert {row["profile"] for row in found["keywarp"]} == {None}


def test_the_figures_are_printed_as_tables(models: Path) -> None:
    printed = bench(models, "--only", "onnxruntime,codec,peak", "--precision", "fp32")
    for title in ("On every frame", "Keywarp's frames", "Keywarp at key intervals"):
        assert title in printed
    assert "codec fp32" in printed
    assert "int8" not in printed.partition("tiny, 272x640")[0]
    assert "tiny, 272x640, one stream, batch 1; medians of 2 rounds in turns" in printed


def test_graphs_in_int8_that_are_made_for_times_only_are_said_to_be(models: Path) -> None:
    found = json.loads(bench(models, "--only", "codec", "--precision", "int8", "--json"))
    assert any("made for these times only" in note for note in found["notes"])


def test_an_unknown_configuration_is_an_error_that_lists_all(models: Path) -> None:
    failed = keywarp("bench", "engine", "--config", "paper", "--models", models)
    assert failed.status == 1
    assert failed.stderr == (
        f"keywarp: there is no configuration and no model 'paper' in {models}; there are: paper-detection, "
        "paper-segmentation, tiny\n"
    )


def test_the_papers_networks_need_torch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KEYWARP_CACHE", str(tmp_path))
    monkeypatch.setattr(networks, "find_spec", lambda _: None)
    failed = keywarp("bench", "engine", "--config", "paper-detection")
    assert failed.status == 1
    assert failed.stderr == (
        "keywarp: making the paper's networks needs torch: install the extra `train` (README, Install)\n"
    )


def test_a_light_network_that_is_missing_is_refused(models: Path) -> None:
    failed = keywarp("bench", "engine", "--config", "tiny", "--models", models, "--nano", models / "nano.onnx")
    assert failed.status == 2
    assert "nano.onnx" in failed.stderr


def test_a_precision_that_the_device_lacks_is_an_error(models: Path) -> None:
    failed = keywarp("bench", "engine", "--config", "tiny", "--models", models, "--precision", "fp16")
    assert failed.status == 1
    assert failed.stderr.startswith("keywarp: OpenVINO on the CPU computes in fp32, bf16 or int8, not fp16")


def test_an_unknown_row_is_an_error_that_lists_all(models: Path) -> None:
    failed = keywarp("bench", "engine", "--config", "tiny", "--models", models, "--only", "tensorflow")
    assert failed.status == 1
    assert failed.stderr == (
        "keywarp: there is nothing called 'tensorflow' to compare; there are: onnxruntime, openvino, pytorch, nano, "
        "network, dis-chained-repaired, codec, parts, peak\n"
    )


@pytest.mark.parametrize(
    "options",
    [
        ("--model", "tiny", "--only", "codec"),
        ("--model", "tiny", "--picture", "bars.png"),
        ("--config", "tiny", "--model", "tiny"),
        ("--config", "tiny", "--interval", "5"),
        ("--config", "tiny", "--picture", "bars.jpg"),
        ("--config", "tiny", "--rounds", "0"),
    ],
)
def test_options_that_mean_nothing_are_refused(models: Path, options: tuple[str, ...]) -> None:
    assert keywarp("bench", "engine", "--models", models, *options).status == 2
