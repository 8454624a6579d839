"""The Helm chart, rendered by helm and checked against the schemas of Kubernetes. No cluster runs it here."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from keywarp.commands.serve import FIELDS
from keywarp.server.settings import Settings
from tests.e2e.running import ROOT
from tests.faults.proxy import PATH

CHART = ROOT / "helm" / "keywarp"
TOOLS = ROOT / ".cache" / "keywarp" / "chart" / "bin"
FOREIGN = {"PrometheusRule", "ScaledObject", "ServiceMonitor"}  # kinds that operators add, without a schema here
VERSIONS = ("1.30", "1.37")

EVERYTHING: dict[str, Any] = {
    "image": "registry.example/keywarp:gpu",
    "imagePullSecrets": [{"name": "registry"}],
    "servers": {
        "gpus": 1,
        "runtimeClassName": "nvidia",
        "nodeSelector": {"gpu": "yes"},
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
        "storageClassName": "fast",
        "modelsClaim": "models",
        "settings": {"backend": "tensorrt", "max_streams": 16, "cpu_fallback": False},
    },
    "sites": ['[streams.gate]\nsource = "rtsp://gate/1"\n', '[streams.yard]\nsource = "rtsp://yard/1"\n'],
    "keysSecret": "keywarp-keys",
    "service": {"type": "LoadBalancer", "annotations": {"a": "b"}},
    "networkPolicy": {"metricsFrom": [{"namespaceSelector": {"matchLabels": {"name": "monitoring"}}}]},
    "autoscaling": {"enabled": True},
    "monitoring": {
        "enabled": True,
        "labels": {"release": "prometheus"},
        "tokenSecret": {"name": "keywarp-metrics", "key": "token"},
    },
}
KEDA: dict[str, Any] = {"autoscaling": {"enabled": True, "kind": "keda"}, "networkPolicy": {"enabled": False}}

pytestmark = pytest.mark.skipif(not (TOOLS / "helm").exists(), reason="no helm: `make chart-tools` installs it")


def helm(folder: Path, values: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    file = folder / "values.json"
    file.write_text(json.dumps(values))
    command: list[str | Path] = [TOOLS / "helm", "template", "cams", CHART, "--namespace", "video", "--values", file]
    return subprocess.run(command, capture_output=True, encoding="utf-8", check=False, timeout=60)


def render(folder: Path, values: dict[str, Any]) -> dict[tuple[str, str], Any]:
    """Return the objects of the chart by their kind and name."""
    done = helm(folder, values)
    assert done.returncode == 0, done.stderr
    objects = [one for one in yaml.safe_load_all(done.stdout) if one]
    return {(one["kind"], one["metadata"]["name"]): one for one in objects}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("values", [{}, EVERYTHING, KEDA], ids=["defaults", "everything", "keda"])
def test_what_it_renders_follows_the_schemas_of_kubernetes(
    tmp_path: Path, values: dict[str, Any], version: str
) -> None:
    objects = render(tmp_path, values)
    native = [one for (kind, _), one in objects.items() if kind not in FOREIGN]
    assert len(native) > 5
    file = tmp_path / "objects.yaml"
    file.write_text(yaml.safe_dump_all(native))
    command: list[str | Path] = [TOOLS / "kubernetes-validate", "--strict", "-k", version, file]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(" passed for resource ") == len(native)


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"servers": {"count": 0}}, "/servers/count"),
        ({"servers": {"cuont": 2}}, "cuont"),
        ({"servers": {"settings": {"port": 9000}}}, "port"),
        ({"service": {"type": "Ingress"}}, "/service/type"),
        ({"autoscaling": {"enabled": True, "min": 9}}, "autoscaling.min"),
        ({"servers": {"count": 1}, "sites": ["", ""]}, "at most 1 servers"),
    ],
)
def test_values_that_cannot_be_are_refused(tmp_path: Path, values: dict[str, Any], named: str) -> None:
    done = helm(tmp_path, values)
    assert done.returncode != 0
    assert named in done.stderr


@pytest.mark.parametrize(("values", "most"), [({}, 3), (EVERYTHING, 8)], ids=["defaults", "autoscaling"])
def test_the_proxy_knows_each_server_that_there_may_be(tmp_path: Path, values: dict[str, Any], most: int) -> None:
    objects = render(tmp_path, values)
    config = objects["ConfigMap", "cams-proxy"]["data"]["haproxy.cfg"]
    found = re.findall(r"^    server (\S+) (\S+) resolvers cluster ", config, re.MULTILINE)
    servers = objects["StatefulSet", "cams"]
    assert objects["Service", servers["spec"]["serviceName"]]["spec"]["publishNotReadyAddresses"]
    assert found == [
        (f"server-{number}", f"cams-{number}.{servers['spec']['serviceName']}.video.svc.cluster.local:8080")
        for number in range(most)
    ]
    command = shutil.which("haproxy", path=PATH)
    if not command:
        pytest.skip("no haproxy: `make packages` installs it")
    (tmp_path / "haproxy.cfg").write_text(config)
    done = subprocess.run([command, "-c", "-f", tmp_path / "haproxy.cfg"], capture_output=True, check=False, text=True)
    assert done.returncode == 0, done.stderr


def test_each_server_has_its_own_site_file(tmp_path: Path) -> None:
    objects = render(tmp_path, {**EVERYTHING, "autoscaling": {"enabled": False}, "servers": {"count": 3}})
    sites = objects["Secret", "cams-sites"]["stringData"]
    assert [*sites] == [f"cams-{number}.toml" for number in range(3)]
    assert [*sites.values()] == [*EVERYTHING["sites"], ""]
    [server] = objects["StatefulSet", "cams"]["spec"]["template"]["spec"]["containers"]
    mounts = {mount["name"]: mount["mountPath"] for mount in server["volumeMounts"]}
    assert {"name": "KEYWARP_SITE", "value": f"{mounts['sites']}/$(POD_NAME).toml"} in server["env"]
    order = [one["name"] for one in server["env"]]
    assert order.index("POD_NAME") < order.index("KEYWARP_SITE"), "Kubernetes expands only what stands before"


def test_pods_have_no_rights_and_time_to_drain(tmp_path: Path) -> None:
    objects = render(tmp_path, EVERYTHING)
    workloads = [objects["StatefulSet", "cams"], objects["Deployment", "cams-proxy"]]
    pods = [workload["spec"]["template"]["spec"] for workload in workloads]
    for pod in pods:
        assert pod["securityContext"]["runAsNonRoot"]
        assert not pod["automountServiceAccountToken"]
        [container] = pod["containers"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
    assert pods[0]["terminationGracePeriodSeconds"] > Settings().drain_timeout
    assert pods[0]["containers"][0]["resources"]["limits"] == {"memory": "4Gi", "nvidia.com/gpu": 1}


def test_settings_become_variables_of_the_command(tmp_path: Path) -> None:
    objects = render(tmp_path, EVERYTHING)
    [server] = objects["StatefulSet", "cams"]["spec"]["template"]["spec"]["containers"]
    variables = {one["name"]: one.get("value") for one in server["env"]}
    assert variables["KEYWARP_MAX_STREAMS"] == "16"
    assert variables["KEYWARP_CPU_FALLBACK"] == "false"
    known = {f"KEYWARP_{name.upper()}" for name in FIELDS}
    assert {name for name in variables if name.startswith("KEYWARP_")} <= known


def test_the_rules_are_those_of_compose(tmp_path: Path) -> None:
    rules = render(tmp_path, EVERYTHING)["PrometheusRule", "cams"]["spec"]
    assert rules == yaml.safe_load((ROOT / "docker" / "prometheus" / "alerts.yml").read_text())
