"""`keywarp demo` on a tiny model. tests/e2e/test_street.py runs it on the shipped one."""

import json
from pathlib import Path

import pytest

from tests.commands.running import keywarp
from tests.tiny_bundle import tiny_bundle
from tests.videos.films import FRAMES, film, saved


@pytest.mark.parametrize(("options", "size"), [((), (48, 64)), (("--as-stored",), (64, 48))])
def test_frames_are_turned_upright_unless_they_are_wanted_as_stored(
    tmp_path: Path, options: tuple[str, ...], size: tuple[int, int]
) -> None:
    tiny_bundle(tmp_path / "models" / "tiny")
    video = saved(tmp_path / "turned.mp4", film(turn=90))
    common = "--model", "tiny", "--models", tmp_path / "models", "--out", tmp_path
    done = keywarp("demo", *common, "--video", video, "--json", *options)
    assert done.status == 0, done.stderr
    lines = [json.loads(line) for line in (tmp_path / "turned.ndjson").read_text().splitlines()]
    assert {(line["width"], line["height"]) for line in lines} == {size}
    assert len(lines) == FRAMES
