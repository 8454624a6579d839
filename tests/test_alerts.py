"""Prometheus's alerts: they fire when they should, and ask for metrics that there are."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from keywarp.server.telemetry.metrics import Metrics

PROMETHEUS = Path(__file__).parents[1] / "docker" / "prometheus"


@pytest.mark.skipif(shutil.which("promtool") is None, reason="there is no promtool")
@pytest.mark.parametrize(
    "arguments",
    [
        ("test", "rules", "alerts.test.yml"),
        ("check", "config", "--syntax-only", "prometheus.yml"),
    ],
    ids=["rules", "config"],
)
def test_promtool_is_content(arguments: tuple[str, ...]) -> None:
    done = subprocess.run(["promtool", *arguments], cwd=PROMETHEUS, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_alerts_ask_for_metrics_that_there_are() -> None:
    said = Metrics(lambda: 0, tuple, dict).exposition().decode()
    metrics = set(re.findall(r"^# TYPE (\w+)", said, re.MULTILINE))
    asked = set(re.findall(r"\bkeywarp_\w+", (PROMETHEUS / "alerts.yml").read_text()))
    assert {name.removesuffix("_bucket") for name in asked} <= metrics
