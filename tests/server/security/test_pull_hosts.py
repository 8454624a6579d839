"""The allow-list of hosts that streams may be pulled from."""

import socket
from typing import Any

import pytest

from keywarp.server.errors import PullError, SourceForbiddenError
from keywarp.server.security.pull_hosts import AllowList

NAMES = {
    "gate.cameras.example": ["10.1.2.3"],
    "two.cameras.example": ["10.1.2.3", "127.0.0.1"],
    "evil.cameras.example": ["127.0.0.1"],
    "metadata.cameras.example": ["169.254.169.254"],
    "mapped.cameras.example": ["::ffff:127.0.0.1"],
}


@pytest.fixture(autouse=True)
def names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Resolve the names of `NAMES`, and no other `.example`."""
    real = socket.getaddrinfo

    def look_up(host: str, port: int, **options: Any) -> Any:
        if host in NAMES:
            return [found for address in NAMES[host] for found in real(address, port, **options)]
        if host.endswith(".example"):
            raise socket.gaierror("no such name")
        return real(host, port, **options)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)


@pytest.mark.parametrize(
    ("entries", "host", "port", "addresses"),
    [
        (["*.cameras.example"], "gate.cameras.example", 554, ["10.1.2.3"]),
        (["gate.cameras.example:554"], "GATE.cameras.example.", 554, ["10.1.2.3"]),
        (["10.0.0.0/8"], "gate.cameras.example", 80, ["10.1.2.3"]),
        (["10.1.2.3"], "10.1.2.3", 80, ["10.1.2.3"]),
        (["*"], "10.1.2.3", 80, ["10.1.2.3"]),
        (["127.0.0.1:8080"], "evil.cameras.example", 8080, ["127.0.0.1"]),
        (["[::1]:554"], "::1", 554, ["::1"]),
        (["*.cameras.example"], "two.cameras.example", 554, ["10.1.2.3"]),
    ],
)
def test_listed_hosts_are_allowed(entries: list[str], host: str, port: int, addresses: list[str]) -> None:
    assert AllowList(entries).addresses(host, port) == addresses


@pytest.mark.parametrize(
    ("entries", "host", "port"),
    [
        ([], "gate.cameras.example", 554),
        (["gate.cameras.example"], "10.1.2.3", 554),
        (["gate.cameras.example:554"], "gate.cameras.example", 22),
        (["10.1.0.0/16:554"], "10.1.2.3", 22),
        (["*.cameras.example"], "cameras.example", 554),
        (["*.cameras.example"], "evil.cameras.example", 554),
        (["*"], "metadata.cameras.example", 80),
        (["*"], "mapped.cameras.example", 80),
        (["*"], "127.0.0.1", 80),
        (["*"], "2130706433", 80),  # 127.0.0.1 as a number
        (["*"], "0.0.0.0", 80),
    ],
)
def test_other_hosts_are_refused_whatever_their_names_resolve_to(entries: list[str], host: str, port: int) -> None:
    with pytest.raises(SourceForbiddenError, match="allow-pull"):
        AllowList(entries).addresses(host, port)


def test_an_unknown_host_is_reported() -> None:
    with pytest.raises(PullError, match="unknown"):
        AllowList(["*"]).addresses("nobody.example", 80)


@pytest.mark.parametrize("entry", ["", "10.0.0.1/8", "a b", "host:0", "host:99999", "[::1]:x"])
def test_an_invalid_entry_is_refused(entry: str) -> None:
    with pytest.raises(ValueError, match=r"neither|port"):
        AllowList([entry])
