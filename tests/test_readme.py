"""The Python code in the README and in docs runs unchanged, against a real server and a real video."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from base64 import b64decode
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import simplejpeg
import torch

from keywarp.client import open_source
from keywarp.engines import Engine, StreamSession, load_bundle
from keywarp.engines.detection import DenseDetector
from keywarp.engines.manifest import DenseDetection
from keywarp.importing.model_file import read_model
from keywarp.networks import cut
from tests.datasets.synthetic import moving_square, write_frames
from tests.datasets.test_imagenet import CAR, STILL, TRAIN, write_lists, write_snippet, write_still
from tests.e2e.running import Server, serving, street_video
from tests.shift import Shift

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
CACHE = ROOT / ".cache"
OWN_NETWORK = "docs/own-network.md"


def blocks(document: str, language: str = "python") -> list[str]:
    """Return a document's code blocks in one language; "" finds the blocks that name none."""
    return [code for found, code in BLOCK.findall((ROOT / document).read_text(encoding="utf-8")) if found == language]


def run(code: str, folder: Path, *arguments: str, video: Path) -> str:
    """Run code as a user's script, in a folder with `street.mp4`, `models` and the cache of downloaded packages."""
    if not (folder / "models").exists():
        (folder / "models").symlink_to(ROOT / "models")
    (folder / "street.mp4").symlink_to(video)
    CACHE.mkdir(parents=True, exist_ok=True)
    (folder / ".cache").symlink_to(CACHE)
    script = folder / "script.py"
    script.write_text(code)
    return command([sys.executable, script, *arguments], folder)


def command(arguments: list[str | Path], folder: Path) -> str:
    """Run a program in a folder and return its output. It must succeed without warnings but that it saves little."""
    done = subprocess.run(
        arguments,
        cwd=folder,
        env=os.environ | {"PYTHONWARNINGS": "error,ignore:propagation pays little"},
        capture_output=True,
        encoding="utf-8",
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_tritons_client_gets_a_key_frame_and_then_propagated_frames(server: Server, clip: Path, tmp_path: Path) -> None:
    code, *_ = blocks("docs/open-inference.md")
    names = write_images(tmp_path, clip)
    code = code.replace("127.0.0.1:8080", server.url.removeprefix("http://"))
    lines = run(code, tmp_path, *names, video=clip).splitlines()
    assert [line.split()[:2] for line in lines] == [["0.jpg", "key"], ["1.jpg", "propagated"], ["2.jpg", "propagated"]]


def test_tritons_client_loads_and_unloads_a_model(clip: Path, tmp_path: Path) -> None:
    *_, code = blocks("docs/open-inference.md")
    with serving("--model-control") as server:
        printed = run(code.replace("127.0.0.1:8080", server.url.removeprefix("http://")), tmp_path, video=clip)
        assert "'name': 'street'" in printed
        assert "'state': 'READY', 'reason': ''" in printed
        assert [model["name"] for model in httpx.get(f"{server.url}/v1/models").json()] == ["street-detect"]


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
def test_curl_uploads_a_video_and_gets_every_result(server: Server, clip: Path, tmp_path: Path) -> None:
    line = next(line for line in "".join(blocks("docs/protocol.md", "")).splitlines() if "-T street.mp4" in line)
    (tmp_path / "street.mp4").symlink_to(clip)
    arguments = shlex.split(line.replace("localhost:8080", server.url))
    *results, done = map(json.loads, command([*arguments], tmp_path).splitlines())
    assert [result["frame"] for result in results] == list(range(50))
    assert done == {"type": "done", "frames": 50, "key_frames": 5, "errors": 0, "dropped": 0, "notes": []}


@pytest.mark.parametrize(("number", "first"), [(0, "0 key 0 "), (1, "0 key 0 ")], ids=["client", "engine"])
def test_the_readmes_code_prints_a_line_for_each_frame(
    server: Server, clip: Path, tmp_path: Path, number: int, first: str
) -> None:
    code = blocks("README.md")[number].replace("http://127.0.0.1:8080", server.url)
    lines = run(code, tmp_path, video=clip).splitlines()
    assert len(lines) == 50
    assert lines[0].startswith(first)
    assert lines[9].startswith("9 propagated 9 ")
    assert lines[10].startswith("10 key 0 ")


def write_images(folder: Path, video: Path, count: int = 3) -> list[str]:
    """Write the video's first frames as JPEG files, and return their names."""
    names = []
    for index, frame in zip(range(count), open_source(video), strict=False):
        names.append(f"{index}.jpg")
        (folder / names[-1]).write_bytes(simplejpeg.encode_jpeg(frame.image))
    return names


def test_the_code_for_perf_analyzer_writes_its_input_data(clip: Path, tmp_path: Path) -> None:
    (tmp_path / "frames").mkdir()
    write_images(tmp_path / "frames", clip)
    _, code, _ = blocks("docs/open-inference.md")
    run(code, tmp_path, video=clip)
    [steps] = json.loads((tmp_path / "frames.json").read_text())["data"]
    content = b64decode(steps[0]["image"]["b64"])
    assert len(steps) == 3
    assert content[4:] == (tmp_path / "frames/0.jpg").read_bytes()
    assert int.from_bytes(content[:4], "little") == len(content) - 4


def test_the_plain_client_of_the_protocol_gets_every_result(server: Server, clip: Path, tmp_path: Path) -> None:
    names = write_images(tmp_path, clip)
    url = server.url.replace("http", "ws") + "/v1/streams/plain/ws"
    lines = run(blocks("docs/protocol.md")[0], tmp_path, url, *names, video=clip).splitlines()
    assert lines[0].startswith("street [")
    assert [line.split()[:3] for line in lines[1:4]] == [
        ["0.jpg", "key", "0"],
        ["1.jpg", "propagated", "1"],
        ["2.jpg", "propagated", "2"],
    ]
    assert "'type': 'done', 'frames': 3, 'key_frames': 1, 'errors': 0" in lines[4]


@pytest.mark.parametrize("number", [0, 1], ids=["session", "schedule"])
def test_the_code_for_adaptive_schedules_explains_each_key_frame(tmp_path: Path, number: int) -> None:
    lines = run(blocks("docs/adaptive.md")[number], tmp_path, video=street_video()).splitlines()
    if number == 0:
        assert len(lines) == 250
        assert lines[0] == "0 key start None"
        assert re.fullmatch(r"1 propagated None 0\.\d+", lines[1])
        keys = [line for line in lines if " key " in line]
        assert len(keys) <= 250 / 10 + 8
    else:
        keys = lines
        assert keys[0] == "0 start"
    assert len(keys) >= 250 / 30
    reasons = [line.split()[-2] if number == 0 else line.split()[-1] for line in keys[1:]]
    assert set(reasons) <= {"change", "cut", "interval"}


def test_the_code_for_comparisons_prints_each_source(clip: Path, tmp_path: Path) -> None:
    [code] = blocks("docs/compare.md")
    none, network, recommended = run(code, tmp_path, video=clip).splitlines()
    assert re.fullmatch(r"none 0\.\d+ \{1: 0\.\d+, .*4: 0\.\d+\} (1\.0|0\.99)\d* \d", none)
    assert re.fullmatch(r"network 0\.\d+ \{1: 0\.\d+, .*\} \d\.\d+ \d", network)
    assert recommended.startswith("Recommended(source=")


def test_the_code_for_codec_motion_follows_the_videos_vectors(clip: Path, tmp_path: Path) -> None:
    [code] = blocks("docs/motion.md")
    lines = [line.split() for line in run(code, tmp_path, video=clip).splitlines()]
    assert lines[0] == ["0", "key", "None"]
    assert {source for _, kind, source in lines if kind == "propagated"} == {"codec"}


def test_the_code_for_moving_scenes_gives_pairs_of_frames(clip: Path, tmp_path: Path) -> None:
    """The first run downloads 44 MB from Debian."""
    [code] = blocks("docs/moving-scenes.md")
    line = "print(len(training), len(evaluation), pair.gap, first.shape, labels.shape, motion.flow.shape, flow.shape)"
    shapes = "(192, 256, 3) (192, 256) (192, 256, 2) (192, 256, 2)"
    assert re.fullmatch(rf"84 28 \d {re.escape(shapes)}\n", run(f"{code}\n{line}", tmp_path, video=clip))


def test_the_code_for_data_sets_reads_pairs_and_videos(clip: Path, tmp_path: Path) -> None:
    imagenet, videos = blocks("docs/datasets.md")
    car = [(CAR, (2, 3, 5, 7))]
    write_snippet(tmp_path / "ILSVRC2015", TRAIN, 3, car)
    write_still(tmp_path / "ILSVRC2015", STILL, car)
    write_lists(tmp_path / "ILSVRC2015", {CAR: f"{STILL} 1\n"})
    write_frames(tmp_path / "cameras", moving_square(frames=3), range(1, 3))
    line = "print(pair.current.shape, pair.truth.boxes.corners.shape, len(source))"
    code = imagenet.replace("/data/ILSVRC2015", "ILSVRC2015").replace("source =", "both =").replace("source.", "both.")
    assert code.count("both") == 2
    assert run(f"{code}\n{videos}\n{line}", tmp_path, video=clip) == "(600, 900, 3) (1, 4) 2\n"


@dataclass(frozen=True)
class Tutorial:
    """What the tutorial's script leaves behind."""

    folder: Path  # with the bundles in `models`
    printed: str


@pytest.fixture(scope="module")
def tutorial(tmp_path_factory: pytest.TempPathFactory, clip: Path) -> Tutorial:
    """All Python code of the tutorial, run as one script."""
    folder = tmp_path_factory.mktemp("tutorial")
    (folder / "models").mkdir()  # the script writes there, so `run` must not link the repository's models
    seed = "import torch\n\ntorch.manual_seed(0)\n"  # the networks have random weights
    return Tutorial(folder, run(seed + "\n".join(blocks(OWN_NETWORK)), folder, video=clip))


def test_the_tutorial_prints_the_output_that_it_shows(tutorial: Tutorial) -> None:
    shown = [block for block in blocks(OWN_NETWORK, "") if "keywarp" not in block]
    assert len(shown) == 4
    for block in shown:
        assert block in tutorial.printed


def test_the_tutorials_networks_propagate_four_of_five_frames(tutorial: Tutorial) -> None:
    kinds = [(str(n), "propagated" if n % 5 else "key") for n in range(10)]
    assert re.findall(r"^(\d) (\w+) \(96, 256\) \d+ ms$", tutorial.printed, re.MULTILINE) == kinds
    assert re.findall(r"^(\d) (\w+) 0 objects$", tutorial.printed, re.MULTILINE) == kinds


def test_the_tutorials_command_draws_a_video(tutorial: Tutorial) -> None:
    lines = [line for block in blocks(OWN_NETWORK, "") for line in block.splitlines()]
    [line] = [line for line in lines if "keywarp run" in line and "--model deeplab" in line]
    keywarp, *arguments = shlex.split(line)
    assert keywarp == ".venv/bin/keywarp"
    command([Path(sys.executable).with_name("keywarp"), *arguments], tutorial.folder)
    with open_source(tutorial.folder / "annotated.mp4") as annotated:
        assert sum(1 for _ in annotated) == 50


def test_the_tutorials_labels_move_with_the_frame(tutorial: Tutorial, tmp_path: Path) -> None:
    """Motion by whole cells moves the labels by whole cells, because the head looks at single cells.

    The first columns aren't compared, because their features come from outside the key frame.
    """
    bundle = load_bundle(tutorial.folder / "models" / "deeplab")
    session = StreamSession(Engine(bundle, "onnxruntime", "fp32", cache=tmp_path, motion=Shift(16)))
    key = np.random.default_rng(0).integers(0, 256, (16, 32, 3), np.uint8).repeat(8, axis=0).repeat(8, axis=1)
    before = session.process(key).labels
    after = session.process(np.zeros_like(key)).labels
    assert len(np.unique(before)) > 1
    assert (before[:, 16:] != before[:, :-16]).mean() > 0.1
    np.testing.assert_array_equal(after[:, 24:-8], before[:, 8:-24])


def test_the_tutorials_detector_finds_the_same_objects_as_torchvisions() -> None:
    [code] = [block for block in blocks(OWN_NETWORK) if "def ssd_head" in block]
    tutorial: dict[str, Any] = {"torch": torch, "cut": cut}
    torch.manual_seed(0)
    exec(compile(code, OWN_NETWORK, "exec"), tutorial)
    model, network, image = tutorial["detector"], tutorial["network"], torch.rand(1, 3, 320, 320)
    with torch.inference_mode():
        for head, spread in ((model.head.classification_head, 3.0), (model.head.regression_head, 1.0)):
            raw = head(list(model.backbone(image * 2 - 1).values()))
            for block in head.module_list:
                block[-1].weight *= spread / raw.std()  # with random weights, no score would be high
        boxes, scores = network.predict(network(image * 2 - 1))
        best = scores[..., 1:].flatten().sort(descending=True).values
        model.score_thresh = threshold = float(best[100:102].mean())
        [expected] = model([image[0]])
    settings = DenseDetection(threshold=threshold, iou=model.nms_thresh)
    found = DenseDetector(settings, 91, 320, 320).detect({"boxes": boxes.numpy(), "scores": scores.numpy()})
    assert 20 < len(found.xyxy) <= 101
    np.testing.assert_array_equal(found.class_id, expected["labels"])
    np.testing.assert_allclose(found.xyxy, expected["boxes"], atol=1e-3)
    np.testing.assert_allclose(found.confidence, expected["scores"], atol=1e-5)


def test_torchvisions_segmentation_becomes_a_file_that_can_be_imported(clip: Path, tmp_path: Path) -> None:
    code = blocks("docs/import-from.md")[1]
    assert 'weights="DEFAULT"' in code
    run(
        code.replace('weights="DEFAULT"', "weights=None, weights_backbone=None").replace("512, 512", "64, 64"),
        tmp_path,
        video=clip,
    )
    outputs = read_model(tmp_path / "lraspp.onnx").outputs
    assert [(output.name, output.shape) for output in outputs] == [("out", (1, 21, 64, 64))]
