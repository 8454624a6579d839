"""Cameras are found by multicast and directly, whatever else is sent; a process stands in for a camera."""

import pytest

from keywarp.onvif import DiscoveryError, UnreachableError, discover, discovery, probe
from tests.onvif.running import camera


def test_the_cameras_of_the_network_are_found() -> None:
    with camera("--udp", "3702") as running:
        found = [one for one in discover(3.0) if f":{running.http}/" in one.service]
    # once, though it answered each probe, and without the escape sequence that its location carries
    assert [(one.name, one.hardware, one.location) for one in found] == [("Front door", "DS-2CD2143", "Yard[31m")]
    assert found[0].address in found[0].service  # whichever of this machine's the probe came from


@pytest.mark.parametrize("answer", ["well", "garbage"])
def test_one_camera_is_asked_directly(answer: str) -> None:
    with camera("--answer", answer) as running:
        found = probe("127.0.0.1", 20.0, running.udp)
    assert found is not None
    assert found.service == running.service


def test_a_camera_is_asked_at_the_address_that_it_answers_from() -> None:
    with camera("--xaddrs", "http://203.0.113.9:8000/onvif/here") as running:
        found = probe("127.0.0.1", 20.0, running.udp)
    assert found is not None
    assert found.service == "http://127.0.0.1:8000/onvif/here"


@pytest.mark.parametrize("xaddrs", ["file:///etc/passwd", "http://127.0.0.1:99999/", "-"])
def test_without_a_usable_address_the_usual_one_is_taken(xaddrs: str) -> None:
    with camera("--xaddrs=" + xaddrs) as running:
        found = probe("127.0.0.1", 20.0, running.udp)
    assert found is not None
    assert found.service == "http://127.0.0.1/onvif/device_service"


def test_a_camera_that_does_not_answer_is_not_found() -> None:
    with camera("--answer", "silent") as running:
        assert probe("127.0.0.1", 0.7, running.udp) is None


def test_the_number_of_cameras_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discovery, "MAX_CAMERAS", 1)
    with camera("--udp", "3702"):
        assert len(discover(600.0)) == 1  # It ends with the first answer.


def test_an_unknown_host_is_named() -> None:
    with pytest.raises(UnreachableError, match=r"no host 'no camera' with an IPv4 address"):
        probe("no camera", 1.0)


def test_a_machine_that_cannot_send_is_told_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.if_nameindex", list)
    with pytest.raises(DiscoveryError, match=r"no network interface can send to 239\.255\.255\.250: there is none"):
        discover(1.0)
