"""Prometheus's alerts fire when they should, and like Grafana's dashboard query only existing metrics."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from keywarp.server.telemetry.metrics import Metrics

PROMETHEUS = Path(__file__).parents[1] / "docker" / "prometheus"
GRAFANA = Path(__file__).parents[1] / "docker" / "grafana"
SOURCES = "provisioning/datasources/prometheus.yml"


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


def test_the_dashboard_queries_existing_metrics() -> None:
    exposition = Metrics(lambda: 0, tuple, dict).exposition().decode()
    existing = set(re.findall(r"^# TYPE (\w+)", exposition, re.MULTILINE)) | {"up"}
    dashboard = json.loads((GRAFANA / "dashboards" / "keywarp.json").read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    queried = set(re.findall(r"\b(?:keywarp|process)_\w+", " ".join(queries)))
    assert len(queried) > 10
    assert {name.removesuffix("_bucket") for name in queried} <= existing
    sources = {source for panel in dashboard["panels"] for source in [panel["datasource"]["uid"]]}
    assert [f"uid: {source}" in (GRAFANA / SOURCES).read_text() for source in sources] == [True]
