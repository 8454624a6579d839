"""`keywarp quantize`, and bundles with int8 in other commands."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from keywarp.engines import load_bundle
from keywarp.engines.bundle import save_bundle
from keywarp.engines.comparison import Clip
from keywarp.engines.manifest import MANIFEST
from tests.commands.running import keywarp
from tests.quantization.networks import drawn_clip, layered_bundle, with_int8
from tests.quantization.test_quantizing import give_times


@pytest.fixture
def film(tmp_path: Path) -> Path:
    folder = tmp_path / "film"
    folder.mkdir()
    write(drawn_clip(24), folder)
    return folder


def write(clip: Clip, folder: Path) -> None:
    for frame in clip.frames():
        Image.fromarray(frame.image).save(folder / f"{frame.index:03}.png")


def test_the_new_bundle_has_graphs_in_int8_and_its_folders_name(
    tmp_path: Path, film: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    give_times(monkeypatch, {"fp32": 3.0, "bf16": 2.0, "int8": 1.0})
    path = layered_bundle(tmp_path / "layered").path
    ran = keywarp("quantize", path, "--calibrate", film, "--out", tmp_path / "small", "--json")
    assert ran.status == 0, ran.stderr
    figures = json.loads(ran.stdout)
    assert figures["graphs"]["features.onnx"]["quantized"]
    assert figures["unquantized"] == {}
    assert [b["auto"] for b in figures["backends"]] == [True, True]
    assert figures["backends"][0]["ms"]["int8"] == {"key": 1.0, "propagated": 1.0}
    assert figures["backends"][0]["key_agreement"] >= 0.99
    small = load_bundle(tmp_path / "small")
    assert small.name == "small"
    assert small.manifest.precisions["int8"].data == "film"
    assert load_bundle(path).manifest.precisions == {}


def test_a_bundle_is_quantised_in_place(tmp_path: Path, film: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    give_times(monkeypatch, {"fp32": 3.0, "bf16": 2.0, "int8": 1.0})
    path = layered_bundle(tmp_path / "layered", outlier=True).path
    ran = keywarp("quantize", path, "--calibrate", film, "--backend", "onnxruntime")
    assert ran.status == 0, ran.stderr
    assert "Sensitive layers that stay in fp32" in ran.stdout
    assert "Conv" in ran.stdout
    assert load_bundle(path).name == "layered"
    assert load_bundle(path).manifest.precisions["int8"].unquantized


def test_nothing_is_written_if_int8_is_not_faster(tmp_path: Path, film: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    give_times(monkeypatch, {"fp32": 1.0, "bf16": 1.0, "int8": 1.5})
    path = layered_bundle(tmp_path / "layered").path
    ran = keywarp("quantize", path, "--calibrate", film)
    assert ran.status == 1
    assert "isn't faster in int8" in ran.stderr
    assert "Nothing was written" in ran.stderr
    assert load_bundle(path).manifest.precisions == {}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--backend", "tensorrt"), "isn't a backend for the CPU that is installed"),
        (("--range", "5"), "isn't a range of seconds"),
        (("--tolerance", "2"), "less than or equal to 1"),
    ],
)
def test_wrong_options_are_refused(tmp_path: Path, film: Path, arguments: tuple[str, ...], message: str) -> None:
    ran = keywarp("quantize", layered_bundle(tmp_path / "layered").path, "--calibrate", film, *arguments)
    assert ran.status == 2
    assert message in " ".join(ran.stderr.replace("│", " ").split())


def test_the_help_has_an_example() -> None:
    assert "Example: keywarp quantize" in keywarp("quantize", "--help").stdout


def test_verify_refuses_a_tampered_agreement(tmp_path: Path) -> None:
    path = save_bundle(with_int8(layered_bundle(tmp_path / "layered"))).path
    assert keywarp("models", "verify", path).status == 0
    manifest = json.loads((path / MANIFEST).read_text())
    manifest["precisions"]["int8"]["measurements"][0]["key_agreement"] = 0.5
    (path / MANIFEST).write_text(json.dumps(manifest))
    ran = keywarp("models", "verify", path)
    assert ran.status == 1
    assert "50.00 %" in ran.stderr
    assert "tolerance of 99.00 %" in ran.stderr


def test_verify_measures_the_agreement_on_a_video(tmp_path: Path, film: Path) -> None:
    good = save_bundle(with_int8(layered_bundle(tmp_path / "layered"))).path
    ran = keywarp("models", "verify", good, "--video", film)
    assert ran.status == 0, ran.stderr
    assert "declared for openvino" in ran.stdout
    assert "measured on openvino" in ran.stdout
    # A graph of another network in the place of the one in int8, with its hash and the same declared agreement.
    spoiled = with_int8(layered_bundle(tmp_path / "spoiled", outlier=True)).path
    path = save_bundle(with_int8(layered_bundle(spoiled, outlier=True))).path
    ran = keywarp("models", "verify", path, "--video", film, "--json")
    assert ran.status == 1
    assert json.loads(ran.stdout)["int8"]["openvino"]["key"] < 0.99
    assert "less than its tolerance" in ran.stderr


def test_verify_on_a_video_needs_int8(tmp_path: Path, film: Path) -> None:
    ran = keywarp("models", "verify", layered_bundle(tmp_path / "layered").path, "--video", film)
    assert ran.status == 1
    assert "has no graphs in int8" in ran.stderr


def test_list_and_show_name_the_precisions(tmp_path: Path) -> None:
    save_bundle(with_int8(layered_bundle(tmp_path / "layered")))
    listed = json.loads(keywarp("models", "list", "--models", tmp_path, "--json").stdout)
    assert listed[0]["precisions"] == ["int8"]
    shown = keywarp("models", "show", "layered", "--models", tmp_path)
    assert json.loads(shown.stdout)["precisions"]["int8"]["tolerance"] == 0.99
    assert "its precision auto is" in shown.stderr


def test_propagation_in_int8_is_compared_with_per_frame_results_in_fp32(tmp_path: Path, film: Path) -> None:
    path = save_bundle(with_int8(layered_bundle(tmp_path / "layered", outlier=True))).path
    options = ("--motion", "none", "--interval", "2", "--stride", "1", "--backend", "onnxruntime", "--json")
    same = json.loads(keywarp("compare", path, film, *options, "--precision", "int8").stdout)
    ran = keywarp("compare", path, film, *options, "--precision", "int8", "--reference", "fp32")
    assert ran.status == 0, ran.stderr
    against = json.loads(ran.stdout)
    assert (against["precision"], against["reference"]) == ("int8", "fp32")
    assert same["reference"] == "int8"
    agreements = [figures["sources"]["none"]["intervals"]["2"]["agreement"] for figures in (same, against)]
    assert agreements[1] < agreements[0]  # its key frames differ, too
    assert np.isfinite(against["per_frame_ms"])
