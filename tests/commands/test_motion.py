"""`--motion` of the commands."""

import json
from pathlib import Path
from typing import get_args

import pytest

from keywarp.commands.motion import Motion
from keywarp.engines import MotionName
from tests.client.media import write_video
from tests.commands.test_models import keywarp
from tests.tiny_bundle import tiny_bundle


def test_the_commands_know_the_engines_motion_sources() -> None:
    assert [motion.value for motion in Motion] == list(get_args(MotionName))


@pytest.mark.parametrize(("motion", "same"), [("network", False), ("none", True)])
def test_run_takes_the_motion_that_it_is_told_to(motion: str, same: bool, tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path / "tiny", flow=(100.0, 0.0))  # everything comes from outside
    video = write_video(tmp_path / "v.mp4", frames=14)  # from dark to bright
    results = tmp_path / "r.ndjson"
    ran = keywarp("run", video, "--model", bundle.path, "--motion", motion, "--interval", "12", "--json", results)
    assert ran.returncode == 0, ran.stderr
    *_, key, propagated = (json.loads(line) for line in results.read_text().splitlines())
    assert (key["kind"], propagated["kind"]) == ("key", "propagated")
    assert (key["segmentation"] == propagated["segmentation"]) == same


def test_an_unknown_motion_is_wrong_use(tmp_path: Path) -> None:
    ran = keywarp("run", tmp_path / "v.mp4", "--motion", "raft")
    assert ran.returncode == 2
    assert "'dis'" in ran.stderr
