"""WS-Discovery: one UDP message to everyone, which cameras answer.

The version of April 2005, as ONVIF's Core Specification (section 7) has it, over IPv4.
"""

import selectors
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote, urlsplit
from uuid import uuid4

from keywarp.onvif.errors import BadResponseError, DiscoveryError, UnreachableError
from keywarp.onvif.xml import parse, printable, text

GROUP: Final = "239.255.255.250"
PORT: Final = 3702
DEVICE_SERVICE: Final = "/onvif/device_service"  # ONVIF Core, section 5.1.1: every camera has it there
MAX_CAMERAS: Final = 1024  # in one search, so that nobody can fill the memory
MAX_DATAGRAM: Final = 65_535  # bytes
REPEAT_SECONDS: Final = 0.5  # UDP loses messages, so every probe is sent twice
SCOPES: Final = "onvif://www.onvif.org/"
# Some cameras answer only one of the types.
TYPES: Final = (
    'xmlns:t="http://www.onvif.org/ver10/network/wsdl">t:NetworkVideoTransmitter',
    'xmlns:t="http://www.onvif.org/ver10/device/wsdl">t:Device',
)
PROBE: Final = (
    '<?xml version="1.0" encoding="UTF-8"?>'
    '<s:Envelope xmlns:s="http://www.w3.org/2003/05/soap-envelope"'
    ' xmlns:a="http://schemas.xmlsoap.org/ws/2004/08/addressing"'
    ' xmlns:d="http://schemas.xmlsoap.org/ws/2005/04/discovery">'
    "<s:Header><a:MessageID>{id}</a:MessageID><a:To>urn:schemas-xmlsoap-org:ws:2005:04:discovery</a:To>"
    "<a:Action>http://schemas.xmlsoap.org/ws/2005/04/discovery/Probe</a:Action></s:Header>"
    "<s:Body><d:Probe><d:Types {types}</d:Types></d:Probe></s:Body></s:Envelope>"
)


@dataclass(frozen=True)
class Camera:
    """A camera that answered.

    Attributes:
        address: The IP address that the answer came from.
        service: The URL of its device service, at that address.
        name: The name that it says it has; `""` if it says none.
        hardware: The model that it says it is; `""` if it says none.
        location: Where it says it is; `""` if it doesn't.
    """

    address: str
    service: str
    name: str = ""
    hardware: str = ""
    location: str = ""


def discover(timeout: float) -> list[Camera]:
    """Ask all cameras in the networks of this machine, through each of its interfaces.

    Args:
        timeout: Seconds to wait for answers.

    Returns:
        The cameras, by address. What isn't an answer to the probe is ignored.

    Raises:
        DiscoveryError: If no interface can send.
    """
    with ExitStack() as stack:
        sockets = []
        for index, _ in socket.if_nameindex():
            sender = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            # struct ip_mreqn: any group, any address, this interface
            sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, struct.pack("@4s4si", b"", b"", index))
            sockets.append(sender)
        found = {camera.service: camera for camera in _ask(sockets, (GROUP, PORT), timeout)}
    return sorted(found.values(), key=lambda camera: (socket.inet_aton(camera.address), camera.service))


def probe(host: str, timeout: float, port: int = PORT) -> Camera | None:
    """Ask the camera at one address by UDP. Some answer only probes that everyone gets.

    Args:
        host: A name or an IPv4 address.
        timeout: Seconds to wait for the answer.
        port: Its UDP port.

    Returns:
        The camera, or None if it doesn't answer in time.

    Raises:
        UnreachableError: If the host isn't known.
    """
    address = resolve(host)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        answers = _ask([sender], (address, port), timeout)
        try:
            return next((camera for camera in answers if camera.address == address), None)
        except DiscoveryError:
            return None


def resolve(host: str) -> str:
    """Look up a host's IPv4 address.

    Raises:
        UnreachableError: If there is none.
    """
    try:
        return socket.gethostbyname(host)
    except (OSError, UnicodeError) as error:
        raise UnreachableError(f"there is no host {printable(host)!r} with an IPv4 address") from error


def at(host: str, url: str) -> str:
    """Move a URL that a camera sent to the host that it answers at.

    A camera behind a router tells addresses that lead nowhere, and one with bad intentions those of others: to them, a
    password would be sent.
    """
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port else ""
    except ValueError as error:
        raise BadResponseError(f"{url!r} is no address") from error
    return parts._replace(netloc=f"{host}{port}").geturl()


def read_answer(datagram: bytes, sender: str, ids: frozenset[str]) -> Iterator[Camera]:
    """Read the cameras out of a datagram, of which there is normally one.

    Args:
        datagram: What came.
        sender: The IP address that it came from.
        ids: The ids of the probes that it may answer.

    Raises:
        BadResponseError: If it isn't XML.
    """
    envelope = parse(datagram)
    if text(envelope, "{*}Header/{*}RelatesTo") not in ids:
        return
    for match in envelope.iterfind("{*}Body/{*}ProbeMatches/{*}ProbeMatch"):
        scopes = _scopes(text(match, "{*}Scopes").split())
        yield Camera(
            address=sender,
            service=_choose(text(match, "{*}XAddrs").split(), sender),
            name=scopes.get("name", ""),
            hardware=scopes.get("hardware", ""),
            location=scopes.get("location", ""),
        )


def _ask(sockets: list[socket.socket], to: tuple[str, int], timeout: float) -> Iterator[Camera]:
    """Send probes through each of the sockets, and yield what answers them until the time is over."""
    probes = {f"urn:uuid:{uuid4()}": types for types in TYPES}
    messages = [PROBE.format(id=name, types=types).encode() for name, types in probes.items()]
    start = time.monotonic()
    with selectors.DefaultSelector() as selector:
        for sender in sockets:
            sender.setblocking(False)
            selector.register(sender, selectors.EVENT_READ)
        _send(sockets, messages, to)
        repeated = False
        count = 0
        while (left := start + timeout - time.monotonic()) > 0 and count < MAX_CAMERAS:
            due = start + REPEAT_SECONDS - time.monotonic()
            if not repeated and due <= 0:
                _send(sockets, messages, to)
                repeated = True
            for key, _ in selector.select(left if repeated else min(left, due)):
                receiver = key.fileobj
                assert isinstance(receiver, socket.socket)
                try:
                    datagram, (sender_address, _) = receiver.recvfrom(MAX_DATAGRAM)
                    for camera in read_answer(datagram, sender_address, frozenset(probes)):
                        count += 1
                        yield camera
                except (OSError, BadResponseError):
                    continue  # Others in the network may send what they like.


def _send(sockets: list[socket.socket], messages: list[bytes], to: tuple[str, int]) -> None:
    """Send the messages through the sockets that can.

    Raises:
        DiscoveryError: If none can.
    """
    failure: OSError | None = None
    sent = False
    for sender in sockets:
        try:
            for message in messages:
                sender.sendto(message, to)
            sent = True
        except OSError as error:  # an interface that is down, or has no IPv4 address
            failure = error
    if not sent:
        reason = "there is none" if failure is None else failure.strerror
        raise DiscoveryError(f"no network interface can send to {to[0]}: {reason}") from failure


def _scopes(scopes: list[str]) -> dict[str, str]:
    """Read `onvif://www.onvif.org/name/Front%20door` as {"name": "Front door"}. The first of a kind counts."""
    found: dict[str, str] = {}
    for scope in scopes:
        if scope.startswith(SCOPES):
            kind, _, value = scope.removeprefix(SCOPES).partition("/")
            found.setdefault(kind.lower(), printable(unquote(value)))
    return found


def _choose(urls: list[str], sender: str) -> str:
    """Choose the address of the device service: one at the sender's address or else of IPv4, and one without TLS."""
    usable: dict[str, tuple[bool, bool, bool]] = {}
    for url in urls:
        try:
            parts = urlsplit(url)
            if parts.scheme in ("http", "https"):
                host = parts.hostname or ""
                usable.setdefault(at(sender, url), (host != sender, ":" in host, parts.scheme != "http"))
        except (ValueError, BadResponseError):
            continue
    return min(usable, key=usable.__getitem__) if usable else f"http://{sender}{DEVICE_SERVICE}"
