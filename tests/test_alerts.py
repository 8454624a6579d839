"""Prometheus's alerts fire when they should, and query only existing metrics."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from keywarp.server.telemetry.metrics import Metrics

PROMETHEUS = Path(__file__).parents[1] / "docker" / "prometheus"


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool isn't installed")
@pytest.mark.parametrize(
    "arguments",
    [
        ("test", "rules", "alerts.test.yml"),
        ("check", "config", "--syntax-only", "prometheus.yml"),
    ],
    ids=["rules", "config"],
)
def test_promtool_accepts_the_files(arguments: tuple[str, ...]) -> None:
    done = subprocess.run(["promtool", *arguments], cwd=PROMETHEUS, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_alerts_query_existing_metrics() -> None:
    exposition = Metrics(lambda: 0, tuple, dict).exposition().decode()
    existing = set(re.findall(r"^# TYPE (\w+)", exposition, re.MULTILINE))
    queried = set(re.findall(r"\bkeywarp_\w+", (PROMETHEUS / "alerts.yml").read_text()))
    assert queried
    assert {name.removesuffix("_bucket") for name in queried} <= existing
