"""schemathesis on the whole OpenAPI schema: no response has status 5xx or isn't documented."""

import subprocess
import sys
from pathlib import Path

from keywarp.server.security.keys import new_key
from tests.server.conftest import Running, Starter

# The bodies for schemas of the format "binary": an image, a video, and bytes that are neither.
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
ENDLESS = r"/v1/(previews|streams/\{stream_id\}/(results|preview))"  # responses that last as long as streams
DESTRUCTIVE = r"load$"  # operations after which the model isn't there for those that follow
KNOWN = {"path.name": "tiny", "path.model_version": "1.0.0", "path.stream_id": "known"}


def check(server: Running, folder: Path, *options: str, examples: int = 15) -> None:
    """Run schemathesis as its users do, with the names of a model and a stream that exist."""
    schema = server.http.get("/openapi.json").json()
    bodies = [
        kind
        for path in schema["paths"].values()
        for operation in path.values()
        for kind in operation.get("requestBody", {}).get("content", {})
    ]
    (folder / "hooks.py").write_text(HOOKS.format(kinds=sorted({kind for kind in bodies if "json" not in kind})))
    parameters = "".join(f'"{name}" = "{value}"\n' for name, value in KNOWN.items())
    (folder / "schemathesis.toml").write_text(f'hooks = "hooks.py"\n[parameters]\n{parameters}')
    command = [str(Path(sys.executable).with_name("st")), "run", f"{server.url}/openapi.json", *options]
    command += [
        "--checks",
        ",".join(CHECKS),
        "--seed",
        "1",
        "--max-examples",
        str(examples),
        "--phases",
        "coverage,fuzzing",
        "--request-timeout",
        "20",
    ]
    command += ["--no-color", "--generation-database", "none", "--suppress-health-check", "all"]
    env = {"PYTHONPATH": str(Path(__file__).parents[2]), "PATH": "/usr/bin:/bin", "HOME": str(folder)}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, encoding="utf-8", check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_response_is_documented(start: Starter, tmp_path: Path) -> None:
    server = start()
    server.http.post("/v1/streams", json={"id": "known"})
    check(server, tmp_path, "--exclude-method", "DELETE", "--exclude-path-regex", f"{ENDLESS}|{DESTRUCTIVE}")
    assert server.http.get("/readyz").is_success
    assert server.http.get("/v1/streams/known").json()["frames"] > 0


def test_every_response_to_unloading_and_deleting_is_documented(start: Starter, tmp_path: Path) -> None:
    server = start(model_control=True)
    server.http.post("/v1/streams", json={"id": "known"})
    check(server, tmp_path, "--include-path-regex", rf"{DESTRUCTIVE}|/v1/streams/\{{stream_id\}}$", examples=5)
    assert server.http.get("/v1/streams/known").status_code == 404
    assert 'keywarp_model_loads_total{outcome="loaded"}' in server.http.get("/metrics").text


def test_every_response_beyond_a_limit_is_documented(start: Starter, tmp_path: Path) -> None:
    secret, line = new_key("limited", "stream,metrics", streams=1, rate=1)
    (tmp_path / "keys.txt").write_text(str(line))
    server = start(keys=tmp_path / "keys.txt")
    server.http.headers["X-API-Key"] = secret
    server.http.post("/v1/streams", json={"id": "known"})
    limited = rf"/v1/streams$|/frames$|/v1/videos$|/infer$|{DESTRUCTIVE}"  # the last are forbidden to this key
    check(server, tmp_path, "--header", f"X-API-Key: {secret}", "--include-path-regex", limited, examples=8)
    metrics = server.http.get("/metrics").text
    for limit in ("key_streams", "key_rate"):
        assert f'keywarp_requests_refused_total{{reason="{limit}"}}' in metrics
