"""What a camera tells about itself and its videos, by SOAP over HTTP.

The few calls that this takes are of ONVIF's services Device, Media and Media2. Media2 alone knows H.265, so it is asked
first.
"""

import asyncio
import base64
import hashlib
import os
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final
from urllib.parse import urlsplit
from xml.etree.ElementTree import Element
from xml.sax.saxutils import escape

import httpx

from keywarp.onvif.discovery import at
from keywarp.onvif.errors import BadResponseError, RefusedError, UnauthorizedError, UnreachableError
from keywarp.onvif.xml import number, parse, text

MAX_RESPONSE: Final = 2**20  # bytes
MAX_PROFILES: Final = 32
SOAP: Final = "http://www.w3.org/2003/05/soap-envelope"
SCHEMA: Final = "http://www.onvif.org/ver10/schema"
DEVICE: Final = "http://www.onvif.org/ver10/device/wsdl"
MEDIA: Final = "http://www.onvif.org/ver10/media/wsdl"
MEDIA2: Final = "http://www.onvif.org/ver20/media/wsdl"
WSS: Final = "http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss"
UNAUTHORIZED: Final = frozenset({"NotAuthorized", "FailedAuthentication", "InvalidSecurity", "InvalidSecurityToken"})
UNAUTHORIZED_TEXT: Final = "it refuses the user and password, or its user may not read the settings"


@dataclass(frozen=True)
class Login:
    """A camera's user. The password isn't shown."""

    user: str
    password: str = field(repr=False)


@dataclass(frozen=True)
class Profile:
    """A video that a camera offers.

    Attributes:
        name: The camera's name for it.
        codec: As the camera names it: `H264`, `H265`, `JPEG`, ...; `""` if it doesn't tell.
        width: Pixels, or None if the camera doesn't tell.
        height: Pixels, or None if the camera doesn't tell.
        fps: Frames per second at most, or None if the camera doesn't tell.
        source: The RTSP URL, without user and password, at the address that the camera answers at.
    """

    name: str
    codec: str
    width: int | None
    height: int | None
    fps: int | None
    source: str


@dataclass(frozen=True)
class Description:
    """What a camera tells to its user."""

    manufacturer: str
    model: str
    firmware: str
    profiles: tuple[Profile, ...]


async def describe(service: str, login: Login, seconds: float) -> Description:
    """Ask a camera what it is and which videos it offers.

    It is asked by one user and password once, because cameras lock an account after a few attempts.

    Args:
        service: The URL of its device service.
        login: The user, who needs the right to view.
        seconds: The time for all questions together.

    Raises:
        UnreachableError: If it doesn't respond in time.
        UnauthorizedError: If it refuses the user and password.
        RefusedError: If it refuses a request for another reason.
        BadResponseError: If it responds with something else.
    """
    async with _talking(service, login, seconds) as device:
        await device.read_clock()
        about = await device.call(DEVICE, "GetDeviceInformation")
        return Description(
            manufacturer=text(about, "{*}Manufacturer"),
            model=text(about, "{*}Model"),
            firmware=text(about, "{*}FirmwareVersion"),
            profiles=await _read_profiles(device),
        )


async def check(service: str, seconds: float) -> None:
    """See whether a camera responds at the address of its device service. That needs no password.

    Raises:
        UnreachableError: If nothing responds in time.
        BadResponseError: If what responds is no camera.
    """
    async with _talking(service, None, seconds) as device:
        await device.read_clock()


@asynccontextmanager
async def _talking(service: str, login: Login | None, seconds: float) -> AsyncIterator["_Device"]:
    """Open a conversation with one camera, which takes no longer than allowed."""
    # A camera's certificate is its own, so it can't be checked. A proxy isn't for the local network.
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
    digest = httpx.DigestAuth(login.user, login.password) if login else None  # for cameras that want it, not the token
    try:
        async with (
            asyncio.timeout(seconds),
            httpx.AsyncClient(auth=digest, verify=tls, trust_env=False, timeout=seconds) as http,
        ):
            yield _Device(http, service, login)
    except (TimeoutError, httpx.TimeoutException) as error:
        raise UnreachableError(f"it doesn't respond within {seconds:g} s") from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise UnreachableError(f"it can't be reached over HTTP: {error}") from error


class _Device:
    """A camera in a conversation."""

    def __init__(self, http: httpx.AsyncClient, service: str, login: Login | None) -> None:
        self._http = http
        self._login = login
        self._service = service
        self._ahead = timedelta()  # of the camera's clock before ours

    async def read_clock(self) -> None:
        """Learn how far the camera's clock is from ours: it refuses tokens that are minutes old."""
        sent = await self.call(DEVICE, "GetSystemDateAndTime", token=False)
        utc = sent.find("{*}SystemDateAndTime/{*}UTCDateTime")
        parts = ("Date/{*}Year", "Date/{*}Month", "Date/{*}Day", "Time/{*}Hour", "Time/{*}Minute", "Time/{*}Second")
        year, month, day, hour, minute, second = (number(utc, f"{{*}}{part}") or 0 for part in parts)
        if 1970 <= year < 2200:  # Otherwise it doesn't tell: let us hope that it is right.
            with suppress(ValueError):
                self._ahead = datetime(year, month, day, hour, minute, second, tzinfo=UTC) - datetime.now(UTC)

    @property
    def host(self) -> str:
        """The address that it answers at."""
        return urlsplit(self._service).hostname or ""

    def without_password(self, url: str) -> str:
        """Hide the password if a camera has put it into an address's path or query, as some do."""
        hidden = self._login.password if self._login else ""
        return url.replace(hidden, "PASSWORD") if hidden else url

    async def find_media(self) -> list[tuple[str, str]]:
        """Return the namespaces and addresses of its services for videos, the newest first.

        Raises:
            BadResponseError: If it has none.
        """
        try:
            services = (
                await self.call(DEVICE, "GetServices", "<IncludeCapability>false</IncludeCapability>")
            ).iterfind("{*}Service")
            found = {text(service, "{*}Namespace"): text(service, "{*}XAddr") for service in services}
        except RefusedError:  # an old camera, which knows only the old question
            sent = await self.call(DEVICE, "GetCapabilities", "<Category>Media</Category>")
            found = {MEDIA: text(sent, "{*}Capabilities/{*}Media/{*}XAddr")}
        media = [(kind, self._reach(found[kind])) for kind in (MEDIA2, MEDIA) if found.get(kind)]
        if not media:
            raise BadResponseError("it has no service for videos")
        return media

    def _reach(self, url: str) -> str:
        """Return where a service is. If the camera names another host, a router changes its address and its port."""
        moved = urlsplit(at(self.host, url))
        device = urlsplit(self._service)
        if urlsplit(url).hostname != self.host:
            moved = moved._replace(scheme=device.scheme, netloc=device.netloc)
        return moved.geturl()

    async def call(
        self, namespace: str, name: str, arguments: str = "", *, to: str = "", token: bool = True
    ) -> Element:
        """Call an operation, and return its response.

        Args:
            namespace: The service's.
            name: The operation's.
            arguments: XML of its arguments. `tt:` is the common schema, and no prefix the service.
            to: The service's address; the device service if it is empty.
            token: Whether to send the user and the password's digest.

        Raises:
            UnauthorizedError: If the camera refuses the user and password.
            RefusedError: If it refuses for another reason.
            BadResponseError: If its response isn't one to this.
        """
        security = _security(self._login, datetime.now(UTC) + self._ahead) if self._login and token else ""
        body = (
            f'<?xml version="1.0" encoding="UTF-8"?><s:Envelope xmlns:s="{SOAP}" xmlns:tt="{SCHEMA}">'
            f"<s:Header>{security}</s:Header>"
            f'<s:Body><{name} xmlns="{namespace}">{arguments}</{name}></s:Body></s:Envelope>'
        )
        headers = {
            "content-type": f'application/soap+xml; charset=utf-8; action="{namespace}/{name}"',
            "accept-encoding": "identity",
        }
        async with self._http.stream("POST", to or self._service, content=body.encode(), headers=headers) as response:
            data = bytearray()
            async for piece in response.aiter_raw():
                data += piece
                if len(data) > MAX_RESPONSE:
                    raise BadResponseError(f"it sent more than {MAX_RESPONSE} bytes")
        if response.status_code == httpx.codes.UNAUTHORIZED:
            raise UnauthorizedError(UNAUTHORIZED_TEXT)
        try:
            sent = parse(bytes(data)).find("{*}Body")
        except BadResponseError as error:
            raise BadResponseError(f"it is no ONVIF camera: {error} (HTTP status {response.status_code})") from error
        if (fault := None if sent is None else sent.find("{*}Fault")) is not None:
            codes = {(code.text or "").strip().rpartition(":")[2] for code in fault.iterfind(".//{*}Value")}
            if codes & UNAUTHORIZED:
                raise UnauthorizedError(UNAUTHORIZED_TEXT)
            raise RefusedError(f"it refuses {name}: {text(fault, '{*}Reason/{*}Text') or ', '.join(sorted(codes))}")
        found = None if sent is None else sent.find(f"{{{namespace}}}{name}Response")
        if found is None:
            raise BadResponseError(f"it is no ONVIF camera: its response has no {name}Response")
        return found


async def _read_profiles(device: _Device) -> tuple[Profile, ...]:
    """Read the profiles from the newest of the camera's services that has some."""
    media = await device.find_media()
    refused: RefusedError | None = None
    for namespace, address in media:
        try:
            arguments = "<Type>VideoEncoder</Type>" if namespace == MEDIA2 else ""
            sent = await device.call(namespace, "GetProfiles", arguments, to=address)
            profiles = [
                await _read_profile(device, namespace, address, profile)
                for profile in sent.findall("{*}Profiles")[:MAX_PROFILES]
            ]
        except RefusedError as error:
            refused = error
            continue
        if profiles:
            return tuple(profiles)
    if refused:
        raise refused
    return ()


async def _read_profile(device: _Device, namespace: str, address: str, profile: Element) -> Profile:
    token = f"<ProfileToken>{escape(profile.get('token', ''))}</ProfileToken>"
    if namespace == MEDIA2:
        encoder, where = "{*}Configurations/{*}VideoEncoder/", "{*}Uri"
        arguments = f"<Protocol>RTSP</Protocol>{token}"
    else:
        encoder, where = "{*}VideoEncoderConfiguration/", "{*}MediaUri/{*}Uri"
        arguments = (
            "<StreamSetup><tt:Stream>RTP-Unicast</tt:Stream><tt:Transport><tt:Protocol>RTSP</tt:Protocol></tt:Transport>"
            f"</StreamSetup>{token}"
        )
    url = text(await device.call(namespace, "GetStreamUri", arguments, to=address), where)
    if not url.startswith(("rtsp://", "rtsps://")):
        raise BadResponseError(f"it names {url!r} as the address of a video, which isn't RTSP")
    return Profile(
        name=text(profile, "{*}Name"),
        codec=text(profile, f"{encoder}{{*}}Encoding"),
        width=number(profile, f"{encoder}{{*}}Resolution/{{*}}Width"),
        height=number(profile, f"{encoder}{{*}}Resolution/{{*}}Height"),
        fps=number(profile, f"{encoder}{{*}}RateControl/{{*}}FrameRateLimit"),
        source=device.without_password(at(device.host, url)),
    )


def _security(login: Login, now: datetime) -> str:
    """Make the header of WS-Security with a UsernameToken, whose digest proves the password without telling it."""
    nonce = os.urandom(16)
    created = now.strftime("%Y-%m-%dT%H:%M:%SZ")
    digest = hashlib.sha1(nonce + created.encode() + login.password.encode(), usedforsecurity=False).digest()
    password_type = f"{WSS}-username-token-profile-1.0#PasswordDigest"
    nonce_type = f"{WSS}-soap-message-security-1.0#Base64Binary"
    return (
        f'<w:Security s:mustUnderstand="1" xmlns:w="{WSS}-wssecurity-secext-1.0.xsd"'
        f' xmlns:u="{WSS}-wssecurity-utility-1.0.xsd"><w:UsernameToken><w:Username>{escape(login.user)}</w:Username>'
        f'<w:Password Type="{password_type}">{base64.b64encode(digest).decode()}</w:Password>'
        f'<w:Nonce EncodingType="{nonce_type}">{base64.b64encode(nonce).decode()}</w:Nonce>'
        f"<u:Created>{created}</u:Created></w:UsernameToken></w:Security>"
    )
