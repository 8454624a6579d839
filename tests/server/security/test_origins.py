"""Requests from web pages of other sites to a real server."""

from pathlib import Path

import pytest
from websockets.exceptions import InvalidStatus

from keywarp.protocol import Hello
from keywarp.server.security.keys import new_key
from tests.server.conftest import Running, Starter
from tests.server.routes.test_streams import problem

ELSEWHERE = "https://evil.example"


def test_a_page_of_another_site_is_refused(server: Running) -> None:
    for method, path in (("GET", "/v1/streams"), ("POST", "/v1/streams"), ("OPTIONS", "/v1/streams"), ("GET", "/")):
        response = server.http.request(method, path, headers={"Origin": ELSEWHERE})
        assert problem(response).status == 403
        assert "--allow-origin" in response.json()["detail"]
        assert "access-control-allow-origin" not in response.headers
    with pytest.raises(InvalidStatus, match="403"), server.connect("x", Hello(), origin=ELSEWHERE):
        pass
    with pytest.raises(InvalidStatus, match="403"), server.connect("x", Hello(), origin="null"):
        pass
    assert server.http.get("/v1/streams", headers={"Origin": "http://[x"}).status_code == 403
    assert 'keywarp_requests_refused_total{reason="origin"}' in server.http.get("/metrics").text


def test_a_page_of_the_server_itself_is_accepted(server: Running) -> None:
    assert server.http.get("/v1/streams", headers={"Origin": server.url}).is_success
    with server.connect("x", Hello(), origin=server.url) as talk:
        assert talk.ready


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8080", "192.168.7.1:8080", "127.0.0.1.evil.example", ""]
)
def test_a_local_server_refuses_foreign_names(server: Running, host: str) -> None:
    assert problem(server.http.get("/v1/streams", headers={"Host": host})).status == 403


@pytest.mark.parametrize("host", ["localhost:8080", "127.0.0.1", "[::1]:8080", "keywarp.localhost"])
def test_a_local_server_accepts_all_local_names(server: Running, host: str) -> None:
    assert server.http.get("/v1/streams", headers={"Host": host}).is_success


def test_a_page_of_an_allowed_origin_is_accepted(start: Starter) -> None:
    server = start(allow_origin=("https://Cameras.example/",))
    page = {"Origin": "https://cameras.example"}
    answer = server.http.get("/v1/streams", headers=page)
    assert answer.is_success
    assert answer.headers["access-control-allow-origin"] == "https://cameras.example"
    asked = {"Access-Control-Request-Method": "DELETE", "Access-Control-Request-Headers": "authorization"}
    assert server.http.options("/v1/streams/x", headers=page | asked).is_success
    assert server.http.get("/v1/streams", headers={"Host": "cameras.example"}).is_success  # as a proxy forwards it
    assert server.http.get("/v1/streams", headers={"Origin": ELSEWHERE}).status_code == 403
    with server.connect("x", Hello(), origin="https://cameras.example") as talk:
        assert talk.ready


def test_a_server_on_all_addresses_accepts_only_addresses_and_private_names(start: Starter) -> None:
    server = start(host="0.0.0.0")
    for host in ("192.168.7.1:8080", "box.local", "box.internal:80", "[fd00::5]:8080"):
        assert server.http.get("/v1/streams", headers={"Host": host}).is_success
    for host in ("evil.example:8080", "127.0.0.1.evil.example"):
        refused = server.http.get("/v1/streams", headers={"Host": host, "Origin": f"http://{host}"})
        assert problem(refused).status == 403
    assert server.http.get("/v1/streams", headers={"Host": "box:8080"}).is_success
    assert server.http.get("/v1/streams", headers={"Host": "box:8080", "Origin": "http://box:8080"}).is_success
    assert server.http.get("/v1/streams", headers={"Host": "box:8080", "Origin": ELSEWHERE}).status_code == 403


def test_a_key_is_accepted_from_any_origin(start: Starter, tmp_path: Path) -> None:
    secret, key = new_key("me", "stream")
    (tmp_path / "keys.txt").write_text(f"{key}\n")
    server = start(keys=tmp_path / "keys.txt")
    headers = {"Origin": ELSEWHERE, "Host": "cameras.example", "Authorization": f"Bearer {secret}"}
    assert server.http.get("/v1/streams", headers=headers).is_success


CROSS_SITE = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"}


@pytest.mark.parametrize("path", ["/v1/streams", "/v1/streams/door/preview", "/v1/streams/door/results", "/metrics"])
@pytest.mark.parametrize("headers", [{}, {"Referer": f"{ELSEWHERE}/page"}, {"Referer": "http://[x"}])
def test_a_picture_in_a_page_of_another_site_is_refused(server: Running, path: str, headers: dict[str, str]) -> None:
    """Browsers send no `Origin` for what a page only shows."""
    server.http.post("/v1/streams", json={"id": "door"})
    assert problem(server.http.get(path, headers=CROSS_SITE | headers)).status == 403


def test_a_link_from_another_site_leads_to_the_dashboard(server: Running) -> None:
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    assert server.http.get("/", headers=link | {"Referer": ELSEWHERE}).is_success
    frame = link | {"Sec-Fetch-Dest": "iframe"}
    assert server.http.get("/", headers=frame).status_code == 403


def test_a_picture_in_a_page_of_an_allowed_site_is_shown(start: Starter) -> None:
    server = start(allow_origin=("https://cameras.example",))
    referrer = {"Referer": "https://cameras.example/wall"}
    assert server.http.get("/v1/streams", headers=CROSS_SITE | referrer).is_success
    same = {"Sec-Fetch-Site": "same-origin", "Referer": f"{server.url}/"}
    assert server.http.get("/v1/streams", headers=same).is_success
