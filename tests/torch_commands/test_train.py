import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from keywarp.networks import load_checkpoint
from tests.command_line import keywarp
from tests.training.recipes import FEATURES, VIDEOS, write_recipe
from tests.training.torchrun import torchrun

Invoke = Callable[..., tuple[int, str, str]]
KEPT = Path(".cache/keywarp/square/checkpoint.pt")


@pytest.fixture
def invoke(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Invoke:
    """Run `keywarp train` with the given arguments: exit status, stdout, stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str, str]:
        done = keywarp("train", *arguments)
        return done.returncode, done.stdout, done.stderr

    return run


def sentence(err: str) -> str:
    """The one line that an error is."""
    [line] = err.strip().splitlines()
    return line


def test_without_torch_the_error_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['torch'] = None; from keywarp.cli.main import main; "
        "sys.argv = ['keywarp', 'train', 'street.toml']; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("keywarp: training needs torch: install the extra `train` (README, Install)")


def test_a_recipe_is_trained_and_its_accuracy_is_printed(invoke: Invoke, tmp_path: Path) -> None:
    write_recipe(tmp_path, VIDEOS)
    status, out, err = invoke("square.toml", "--json")
    assert status == 0, err
    assert "training segmentation dff: 2/2" in err
    result = json.loads(out)
    assert result["checkpoint"] == str(KEPT)
    assert list(result["accuracy"]) == ["held-out"]
    assert len(result["accuracy"]["held-out"]["propagated"]["by_age"]) == 4

    status, again, err = invoke("square.toml", "--json")
    assert status == 0
    assert "training" not in err
    assert json.loads(again) == result

    status, out, _ = invoke("square.toml")
    assert status == 0
    assert "mean over key ages" in out
    assert out.rstrip().endswith(f"Checkpoint: {KEPT}")


def test_variants_have_folders_of_their_own(invoke: Invoke, tmp_path: Path) -> None:
    write_recipe(tmp_path, VIDEOS)
    status, _, err = invoke("square.toml", "--variant", "frame", "--work", "w")
    assert status == 0, err
    assert "training segmentation frame: 2/2" in err

    status, _, err = invoke("square.toml", "--variant", "fix_n", "--work", "w")
    assert status == 1
    assert sentence(err).startswith(
        "keywarp: the variant fix_n starts from networks that were trained on single frames"
    )

    frame = "w/frame/checkpoint.pt"
    status, _, err = invoke("square.toml", "--variant", "fix_n", "--start", frame, "--work", "w")
    assert status == 0, err
    first, second = (load_checkpoint(tmp_path / "w" / name / "checkpoint.pt").weights for name in ("frame", "fix_n"))
    assert all(torch.equal(second[name], first[name]) for name in first if name.startswith("recognition."))

    status, out, err = invoke("square.toml", "--variant", "copy", "--start", frame, "--work", "w", "--json")
    assert status == 0, err
    [ways] = json.loads(out)["accuracy"].values()
    assert list(ways) == ["per frame", "copied"]  # it has no flow network to propagate by

    status, _, err = invoke("square.toml", "--variant", "copy", "--start", "none.pt", "--work", "w")
    assert status == 1
    assert sentence(err) == "keywarp: can't read the checkpoint none.pt: No such file or directory"


def test_seeds_have_folders_of_their_own(invoke: Invoke, tmp_path: Path) -> None:
    write_recipe(tmp_path, VIDEOS)
    for seed in ("0", "1"):
        assert invoke("square.toml", "--seed", seed, "--work", "w")[0] == 0
    files = [tmp_path / "w" / f"seed{seed}" / "checkpoint.pt" for seed in (0, 1)]
    assert not torch.equal(*(load_checkpoint(file).weights["flow.flow.weight"] for file in files))


def test_progress_from_another_start_is_refused(invoke: Invoke, tmp_path: Path) -> None:
    write_recipe(tmp_path, VIDEOS)
    for seed in ("0", "1"):
        assert invoke("square.toml", "--variant", "frame", "--seed", seed, "--work", "w")[0] == 0
    arguments = ("square.toml", "--variant", "fix_n", "--work", "w", "--start")
    assert invoke(*arguments, "w/seed0/frame/checkpoint.pt")[0] == 0
    status, _, err = invoke(*arguments, "w/seed1/frame/checkpoint.pt")
    assert status == 1
    assert sentence(err).endswith("delete it to start over")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_without_a_cuda_device_is_refused_in_one_sentence(invoke: Invoke, tmp_path: Path) -> None:
    write_recipe(tmp_path, VIDEOS)
    status, _, err = invoke("square.toml", "--device", "cuda")
    assert status == 1
    assert sentence(err) == "keywarp: there is no CUDA device here: use --device cpu"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ('kind = "videos"\ntrain = "none"\nevaluate = "none"\nclasses = [["square", [255, 255, 255]]]', "none"),
        ('kind = "cityscapes"\nroot = "none"', "none"),
        ('kind = "imagenet"\nroot = "none"', "none"),
    ],
    ids=["videos", "cityscapes", "imagenet"],
)
def test_a_missing_data_set_is_reported_in_one_sentence(
    data: str, message: str, invoke: Invoke, tmp_path: Path
) -> None:
    path = write_recipe(tmp_path, f"[data]\n{data}\n")
    if "imagenet" in data:
        path.write_text(path.read_text().replace("seed = 0", 'seed = 0\ntask = "detection"'))
    status, _, err = invoke("square.toml")
    assert status == 1
    assert sentence(err).startswith("keywarp: ")
    assert message in err


def test_parts_that_do_not_divide_a_batch_are_refused_in_one_sentence(invoke: Invoke, tmp_path: Path) -> None:
    write_recipe(tmp_path, VIDEOS)
    status, _, err = invoke("square.toml", "--device", "cpu", "--parts", "7")
    assert status == 1
    assert sentence(err).endswith("samples can't be shared equally by 1 process in 7 parts each; use a multiple of 7")


def test_an_invalid_recipe_is_reported_in_one_sentence(invoke: Invoke, tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text("name = 1")
    status, _, err = invoke("r.toml")
    assert status == 1
    assert sentence(err).startswith("keywarp: r.toml is not a valid recipe: name: ")


def test_torchrun_trains_the_same_networks_in_two_processes(invoke: Invoke, tmp_path: Path) -> None:
    write_recipe(tmp_path, VIDEOS)
    assert invoke("square.toml", "--work", "alone", "--precision", "fp32")[0] == 0
    command = str(Path(sys.executable).with_name("keywarp"))
    options = ("--work", "shared", "--device", "cpu", "--precision", "fp32")
    told = torchrun("--no-python", command, "train", "square.toml", *options, folder=tmp_path)
    assert told.count("training segmentation dff: 2/2") == 1
    assert told.count("Checkpoint: shared/checkpoint.pt") == 1
    one, two = (load_checkpoint(tmp_path / work / "checkpoint.pt").weights for work in ("alone", "shared"))
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-5, atol=1e-6)


def test_a_feature_network_from_scratch_is_trained_by_the_command(invoke: Invoke, tmp_path: Path) -> None:
    write_recipe(tmp_path, VIDEOS, FEATURES)
    status, _, err = invoke("square.toml")
    assert status == 0, err
    assert "training features: 3/3" in err
