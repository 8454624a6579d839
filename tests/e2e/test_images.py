"""Images as people have them, through the real commands and a real server process."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from tests.e2e.running import Server, keywarp, serving
from tests.server.media import GREEN, RED, plain
from tests.tiny_bundle import tiny_bundle

HALVES = np.concatenate([plain(RED, 64, 64), plain(GREEN, 64, 64)], axis=1)  # 128x64


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    models = tmp_path_factory.mktemp("models")
    tiny_bundle(models / "tiny")
    return models


@pytest.fixture(scope="module")
def server(models: Path) -> Iterator[Server]:
    with serving(models=models) as server:
        yield server


@pytest.fixture(scope="module", params=["run", "stream"])
def command(request: pytest.FixtureRequest, models: Path) -> list[str]:
    """A command and its options, before those of a test."""
    if request.param == "run":
        return ["run", "--models", str(models), "--model", "tiny", "--interval", "1"]
    server: Server = request.getfixturevalue("server")
    return ["stream", "--server", server.url, "--interval", "1"]


def write_turned(path: Path) -> Path:
    """Write the halves as a phone that is held upright stores them."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(HALVES).transpose(Image.Transpose.ROTATE_90).save(path, exif=exif, lossless=True)
    return path


def results(command: list[str], source: Path, tmp_path: Path, *options: str) -> tuple[int, list[dict[str, Any]], str]:
    """Run the command, and return its exit status, the results that it wrote, and its message."""
    file = tmp_path / "results.ndjson"
    done = keywarp(*command, str(source), "--ndjson", str(file), *options)
    written = file if file.exists() else file.with_name(f"{file.name}.part")
    lines = written.read_text().splitlines() if written.exists() else []
    return done.returncode, [json.loads(line) for line in lines], done.stderr


def greens(result: dict[str, Any]) -> float:
    return sum(float(region["area"]) for region in result["segmentation"]["regions"] if region["name"] == "green")


def test_a_photograph_is_upright_in_each_command(command: list[str], tmp_path: Path) -> None:
    turned = write_turned(tmp_path / "turned.webp")
    status, [found], _ = results(command, turned, tmp_path)
    assert (status, found["width"], found["height"]) == (0, 128, 64)
    _, [stored], _ = results(command, turned, tmp_path, "--as-stored")
    assert (stored["width"], stored["height"]) == (64, 128)


def test_a_folder_is_read_in_order_and_what_cant_be_read_is_said_at_the_end(command: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    for number in range(1, 13):  # each has more green
        pixels = plain(RED, 128, 64)
        pixels[:, : 8 * number] = GREEN
        Image.fromarray(pixels).save(folder / f"img{number}.jpg", quality=95)
    (folder / "._img1.jpg").write_bytes(b"\0\5\26\7")
    whole = (folder / "img3.jpg").read_bytes()
    (folder / "img3.jpg").write_bytes(whole[: len(whole) // 2])
    status, found, said = results(command, folder, tmp_path)
    assert status == 1
    assert "1 of the 12 images" in said
    assert "'img3.jpg' (the JPEG image is damaged" in said
    areas = [greens(one) for one in found]
    assert len(areas) == 11
    assert areas == sorted(areas)


def test_one_pixel_has_a_result_but_no_video(command: list[str], tmp_path: Path) -> None:
    Image.new("RGB", (1, 1), GREEN).save(tmp_path / "one.png")
    status, _, said = results(command, tmp_path / "one.png", tmp_path, "--out", str(tmp_path / "12:30.mp4"))
    assert status == 1
    assert said.splitlines()[-1] == "keywarp: a video needs pictures of at least 2x2 pixels, not 1x1"


def test_the_server_takes_a_photograph_upright(server: Server, tmp_path: Path) -> None:
    with httpx.Client(base_url=server.url, timeout=60) as http:
        http.post("/v1/streams", json={"id": "photos"}).raise_for_status()
        for name in ("turned.jpg", "turned.png", "turned.webp"):
            data = write_turned(tmp_path / name).read_bytes()
            found = http.post("/v1/streams/photos/frames", content=data).json()
            assert (found["width"], found["height"]) == (128, 64)
