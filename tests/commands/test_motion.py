"""The option `--motion`."""

import json
from pathlib import Path
from typing import get_args

import pytest

from keywarp.engines import MotionName
from tests.client.media import write_video
from tests.commands.running import keywarp
from tests.tiny_bundle import tiny_bundle


@pytest.mark.parametrize(("motion", "same"), [("network", False), ("none", True)])
def test_without_motion_a_propagated_result_is_that_of_its_key_frame(motion: str, same: bool, tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path / "tiny", flow=(100.0, 0.0))  # everything comes from outside
    video = write_video(tmp_path / "v.mp4", frames=14)  # from dark to bright
    results = tmp_path / "r.ndjson"
    ran = keywarp("run", video, "--model", bundle.path, "--motion", motion, "--interval", "12", "--ndjson", results)
    assert ran.status == 0, ran.stderr
    *_, key, propagated = (json.loads(line) for line in results.read_text().splitlines())
    assert (key["kind"], propagated["kind"]) == ("key", "propagated")
    assert (key["segmentation"] == propagated["segmentation"]) == same


def test_an_unknown_motion_source_is_wrong_use_and_the_error_names_the_known_ones(tmp_path: Path) -> None:
    ran = keywarp("run", tmp_path / "v.mp4", "--motion", "raft")
    assert ran.status == 2
    assert all(repr(name) in ran.stderr for name in get_args(MotionName))


def test_codec_motion_processes_a_video(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path / "tiny")
    results = tmp_path / "r.ndjson"
    video = write_video(tmp_path / "v.mp4", frames=14)
    ran = keywarp("run", video, "--model", bundle.path, "--motion", "codec", "--ndjson", results)
    assert ran.status == 0, ran.stderr
    assert len(results.read_text().splitlines()) == 14
