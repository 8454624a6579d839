"""A camera tells its videos to its user, and whatever it sends can't do harm; a process stands in for a camera."""

import asyncio

import pytest

from keywarp.onvif import (
    BadResponseError,
    Description,
    Login,
    OnvifError,
    Profile,
    UnauthorizedError,
    UnreachableError,
    check,
    describe,
)
from tests.onvif.camera import PASSWORD, USER
from tests.onvif.running import Running, camera

LOGIN = Login(USER, PASSWORD)


def ask(running: Running, login: Login = LOGIN, seconds: float = 60.0) -> Description:
    return asyncio.run(describe(running.service, login, seconds))


def test_a_camera_tells_what_it_is_and_its_videos() -> None:
    with camera() as running:
        told = ask(running)
    assert (told.manufacturer, told.model, told.firmware) == ("HIKVISION", "DS-2CD2143", "V5.5.82")
    # Some cameras write the password into addresses.
    main = "rtsp://127.0.0.1:554/Streaming/main?password=PASSWORD"
    sub = "rtsp://127.0.0.1:554/Streaming/sub?password=PASSWORD"
    assert told.profiles == (
        Profile("mainstream", "H264", 1920, 1080, 25, main),
        Profile("substream", "H264", 640, 360, 8, sub),
    )


def test_h265_is_found_by_media2() -> None:
    with camera("--media2") as running:
        assert [(one.codec, one.width) for one in ask(running).profiles] == [("H265", 1920), ("H265", 640)]


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(("--old",), id="without GetServices"),
        pytest.param(("--ahead", "-31536000"), id="with a clock a year behind"),
        pytest.param(("--http-digest",), id="with HTTP digests instead of tokens"),
    ],
)
def test_cameras_differ(options: tuple[str, ...]) -> None:
    with camera(*options) as running:
        assert len(ask(running).profiles) == 2


def test_nothing_is_asked_of_other_addresses() -> None:
    """A camera behind a router tells addresses from inside; one with bad intentions tells those of others."""
    with camera("--inside", "203.0.113.9") as running:
        assert ask(running).profiles[0].source.startswith("rtsp://127.0.0.1:554/Streaming/main")


@pytest.mark.parametrize("options", [(), ("--http-digest",)])
@pytest.mark.parametrize("login", [Login(USER, "wrong-password"), Login("nobody", PASSWORD)])
def test_a_wrong_password_is_tried_once(options: tuple[str, ...], login: Login) -> None:
    with camera(*options) as running:
        with pytest.raises(UnauthorizedError) as caught:
            ask(running, login)
        refused = running.stop()
    assert refused == (2 if options else 1)  # HTTP's digest needs a refusal to begin with.
    assert login.password not in f"{caught.value!r} {login}"


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ("garbage", r"no ONVIF camera: what it sent isn't XML as SOAP has it \(HTTP status 200\)"),
        ("entities", r"no ONVIF camera: what it sent isn't XML as SOAP has it"),
        ("elsewhere", r"no ONVIF camera: .* \(HTTP status 302\)"),
        ("huge", r"sent more than 1048576 bytes"),
    ],
)
def test_what_is_no_answer_is_refused(answer: str, message: str) -> None:
    with camera("--answer", answer) as running, pytest.raises(BadResponseError, match=message):
        ask(running)


@pytest.mark.parametrize("answer", ["silent", "drip"])
def test_a_camera_that_never_answers_is_given_up(answer: str) -> None:
    with camera("--answer", answer) as running, pytest.raises(UnreachableError, match=r"doesn't respond within 0.5 s"):
        ask(running, seconds=0.5)


def test_nobody_at_the_address_is_told() -> None:
    with pytest.raises(UnreachableError, match="can't be reached over HTTP"):
        asyncio.run(check("http://127.0.0.1:9/onvif/device_service", 60.0))
    with pytest.raises(OnvifError):
        asyncio.run(check("http://a b/", 60.0))


def test_a_responding_camera_needs_no_password_to_be_seen() -> None:
    with camera() as running:
        asyncio.run(check(running.service, 60.0))
