"""The limit of streams of one address, on a real server without keys."""

import pytest

from keywarp.protocol import CloseCode, Hello
from keywarp.server.security.addresses import network_of
from tests.server.conftest import Starter, eventually
from tests.server.faults.neighbour import undisturbed

ATTACKER = {"X-Forwarded-For": "203.0.113.7"}  # as a proxy on this machine sends it
OTHER = {"X-Forwarded-For": "203.0.113.8"}


def test_one_address_leaves_streams_to_others(start: Starter) -> None:
    server = start(max_streams=8)
    with undisturbed(server) as neighbour:
        statuses = [server.http.post("/v1/streams", json={}, headers=ATTACKER).status_code for _ in range(10)]
        assert statuses == [201] * 6 + [429] * 4
        with server.connect("late", additional_headers=ATTACKER) as talk:
            talk.send(Hello())
            assert "the address 203.0.113.7 has its 6 streams" in talk.error().problem.detail
            assert talk.close_code() == CloseCode.TRY_AGAIN_LATER
        assert server.http.post("/v1/streams", json={}, headers=OTHER).is_success
        neighbour.receives(3)
    assert 'reason="address_streams"' in server.http.get("/metrics").text


def test_ended_streams_make_room_for_others_of_their_address(start: Starter) -> None:
    server = start(address_streams=1)
    for _ in range(3):
        with server.connect("one", Hello(), additional_headers=ATTACKER):
            pass
        eventually(lambda: len(server.service.streams) == 0)


def test_clients_on_this_machine_have_no_limit(start: Starter) -> None:
    server = start(address_streams=1)
    assert [server.http.post("/v1/streams", json={}).status_code for _ in range(3)] == [201] * 3


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("127.0.0.1", None),
        ("::1", None),
        ("::ffff:127.0.0.1", None),
        ("", None),
    ],
)
def test_a_client_is_an_address_or_a_network(address: str, network: str | None) -> None:
    assert network_of(address) == network
