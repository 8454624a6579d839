"""The whole OpenAPI, by schemathesis: no 5xx, and no answer that isn't documented."""

import subprocess
import sys
from pathlib import Path

from keywarp.server.security.keys import new_key
from tests.server.conftest import Running, Starter

# What is sent where the schema says "binary": pictures and what is none.
HOOKS = """
import schemathesis
from hypothesis import strategies as st

from tests.server.media import B_FRAMES, jpeg, mpegts

bodies = st.one_of(st.just(jpeg()), st.just(mpegts(3, B_FRAMES)), st.binary(max_size=200))
for kind in {kinds}:
    schemathesis.openapi.media_type(kind, bodies)
"""
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
)
ENDLESS = r"/v1/streams/\{stream_id\}/(results|preview)"  # as long as the stream lives


def check(server: Running, folder: Path, known: dict[str, str], *options: str) -> None:
    """Run schemathesis as its users do; `known`: parameters that mean something."""
    schema = server.http.get("/openapi.json").json()
    bodies = [
        kind
        for path in schema["paths"].values()
        for operation in path.values()
        for kind in operation.get("requestBody", {}).get("content", {})
    ]
    (folder / "hooks.py").write_text(HOOKS.format(kinds=sorted({kind for kind in bodies if "json" not in kind})))
    parameters = "".join(f'"{name}" = "{value}"\n' for name, value in known.items())
    (folder / "schemathesis.toml").write_text(f'hooks = "hooks.py"\n[parameters]\n{parameters}')
    command = [str(Path(sys.executable).with_name("st")), "run", f"{server.url}/openapi.json", *options]
    command += [
        "--checks",
        ",".join(CHECKS),
        "--seed",
        "1",
        "--max-examples",
        "15",
        "--phases",
        "coverage,fuzzing",
        "--request-timeout",
        "20",
    ]
    command += ["--no-color", "--generation-database", "none", "--suppress-health-check", "all"]
    env = {"PYTHONPATH": str(Path(__file__).parents[2]), "PATH": "/usr/bin:/bin", "HOME": str(folder)}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, encoding="utf-8", check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_answer_is_a_documented_one(start: Starter, tmp_path: Path) -> None:
    server = start(idle_timeout=2.0, model_control=True)
    check(server, tmp_path, {"path.name": "tiny"}, "--exclude-path-regex", ENDLESS)
    assert server.http.get("/readyz").is_success


def test_so_are_those_of_a_stream_that_is_there(start: Starter, tmp_path: Path) -> None:
    server = start()
    server.http.post("/v1/streams", json={"id": "known"})
    only = ["--include-path-regex", r"/v1/streams/\{stream_id\}", "--exclude-path-regex", ENDLESS]
    check(server, tmp_path, {"path.stream_id": "known"}, "--exclude-method", "DELETE", *only)
    assert server.http.get("/v1/streams/known").json()["frames"] > 0


def test_so_are_those_beyond_a_limit(start: Starter, tmp_path: Path) -> None:
    secret, line = new_key("limited", "stream,metrics,models", streams=1, rate=1)
    (tmp_path / "keys.txt").write_text(str(line))
    server = start(keys=tmp_path / "keys.txt")
    server.http.headers["X-API-Key"] = secret
    server.http.post("/v1/streams", json={"id": "known"})
    options = ["--header", f"X-API-Key: {secret}", "--exclude-method", "DELETE", "--exclude-path-regex", ENDLESS]
    check(server, tmp_path, {"path.name": "tiny", "path.stream_id": "known"}, *options)
    metrics = server.http.get("/metrics").text
    for limit in ("key_streams", "key_rate"):
        assert f'keywarp_requests_refused_total{{reason="{limit}"}}' in metrics
