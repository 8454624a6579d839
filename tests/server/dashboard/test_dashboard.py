import hashlib
import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import httpx
import pytest

from keywarp.server.dashboard import routes
from keywarp.server.security.keys import add_key, new_key
from tests.server.conftest import Running, Starter

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "server" / "keywarp" / "server" / "dashboard" / "page"
WEB = ROOT / "clients" / "web"


@pytest.fixture
def client(server: Running) -> httpx.Client:
    return server.http


def linked(page: httpx.Response) -> list[str]:
    return re.findall(r'(?:href|src)="(/dashboard/[^"#]+)', page.text)


def test_the_page_and_everything_it_links_are_served(client: httpx.Client) -> None:
    page = client.get("/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    types = {path.rpartition(".")[2]: client.get(path).headers["content-type"] for path in linked(page)}
    assert types == {
        "css": "text/css; charset=utf-8",
        "js": "text/javascript; charset=utf-8",
        "svg": "image/svg+xml",
    }


def test_every_module_that_another_one_imports_is_served(client: httpx.Client) -> None:
    wanted = linked(client.get("/"))
    served: set[str] = set()
    while wanted:
        path = wanted.pop()
        response = client.get(path)
        assert response.is_success, path
        served.add(path)
        imports = re.findall(r'^(?:import|export) .* from "(\./[^"]+)"', response.text, re.MULTILINE)
        wanted += {urljoin(path, name) for name in imports} - served
    assert {"/dashboard/app.js", "/dashboard/vendor/keywarp.js", "/dashboard/vendor/uPlot.js"} < served


def test_the_policy_forbids_inline_and_foreign_code(client: httpx.Client) -> None:
    page = client.get("/")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "unsafe" not in policy
    assert page.headers["x-content-type-options"] == "nosniff"
    assert not re.search(r"<script(?![^>]* src=)|\son\w+=|\sstyle=", page.text)


def test_an_unchanged_file_is_not_sent_again(client: httpx.Client) -> None:
    for path in ("/", "/dashboard/app.js"):
        first = client.get(path)
        assert first.headers["cache-control"] == "no-cache"
        tag = first.headers["etag"]
        again = client.get(path, headers={"If-None-Match": f'"other", W/{tag}'})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
        assert client.get(path, headers={"If-None-Match": '"other"'}).content == first.content
    assert client.head("/").headers["content-length"] == str(len(client.get("/").content))


def test_the_api_documentation_loads_only_files_of_this_server(client: httpx.Client) -> None:
    page = client.get("/docs")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "script-src 'self';" in page.headers["content-security-policy"]
    assert "http" not in "".join(re.findall(r"<(?:script|link|img)[^>]*>", page.text))
    assert all(client.get(path).is_success for path in linked(page))
    assert client.get("/redoc").status_code == 404


@pytest.mark.parametrize(
    "path",
    [
        "",
        "nothing.js",
        "vendor",
        "vendor/",
        "vendor/manifest.json",
        "vendor/uPlot.d.ts",
        "..%2froutes.py",
        "%2e%2e/routes.py",
        "vendor/..%2f..%2f..%2f..%2f..%2f..%2fclients/web/src/keywarp.js",
        "vendor/..%2ftest/keywarp.test.js",  # a file beside the client in a checkout
        "%00.js",
        f"{'x' * 300}.js",
    ],
)
def test_no_other_file_is_served(client: httpx.Client, path: str) -> None:
    response = client.get(f"/dashboard/{path}")
    assert response.status_code == 404
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["detail"].startswith("the dashboard has no file ")


def test_only_reading_is_allowed(client: httpx.Client) -> None:
    assert client.post("/dashboard/app.js").status_code == 405


def test_a_304_response_has_the_security_headers(client: httpx.Client) -> None:
    first = client.get("/docs")
    again = client.get("/docs", headers={"If-None-Match": first.headers["etag"]})
    assert again.status_code == 304
    for name in ("cache-control", "content-security-policy", "permissions-policy", "referrer-policy"):
        assert again.headers[name] == first.headers[name]


def test_the_page_needs_no_key_even_if_the_api_does(start: Starter, tmp_path: Path) -> None:
    keys = tmp_path / "keys.txt"
    add_key(keys, new_key("gate", "stream")[1])
    client = start(keys=keys).http
    page = client.get("/")
    assert all(client.get(path).is_success for path in ["/", *linked(page)])
    assert client.get("/v1/streams").status_code == client.get("/dashboard").status_code == 401


def test_the_openapi_document_leaves_the_dashboard_out(client: httpx.Client) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    assert "/v1/streams" in paths
    assert not [path for path in paths if path in ("/", "/docs") or path.startswith("/dashboard")]


def manifest() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((PAGE / "vendor" / "manifest.json").read_text())
    return found


def test_vendored_files_are_those_that_make_vendor_copied() -> None:
    hashes = manifest()["sha256"]
    found = {file.name: file.read_bytes() for file in (PAGE / "vendor").iterdir() if file.name != "manifest.json"}
    assert {name: hashlib.sha256(content).hexdigest() for name, content in found.items()} == hashes
    lock = json.loads((WEB / "package-lock.json").read_text())["packages"]["node_modules/uplot"]
    packages = manifest()["packages"]
    assert packages["uplot"] == {name: lock[name] for name in ("version", "license", "integrity")}
    assert all(value in (WEB / "vendor.mjs").read_text() for value in packages["rapidoc"].values())
    assert b"MIT" in found["uPlot.LICENSE.txt"]
    assert b"MIT" in found["rapidoc.LICENSE.txt"]
    assert b"MIT" in found["rapidoc-min.js.LICENSE.txt"]  # licences of the packages bundled in it


def test_a_checkout_serves_the_client_from_its_source(client: httpx.Client) -> None:
    sources = list((WEB / "src").glob("*.js"))
    assert WEB / "src" / "keywarp.js" in sources
    for source in sources:
        assert client.get(f"/dashboard/vendor/{source.name}").content == source.read_bytes()


def test_the_sample_video_is_served_if_it_is_installed(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    found = server.http.get("/dashboard/sample.mp4")
    assert (found.status_code, found.headers["content-type"]) == (200, "video/mp4")
    assert found.content[4:8] == b"ftyp"
    monkeypatch.setattr(routes, "sample_video", lambda: None)
    missing = server.http.get("/dashboard/sample.mp4")
    assert missing.status_code == 404
    assert "install the extra `demo`" in missing.json()["detail"]
