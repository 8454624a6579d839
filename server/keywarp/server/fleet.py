"""The other servers of a fleet: which streams they have, and their pictures.

A proxy sends each request about a stream to the server that has it, but one server's list has only its own streams. So
a server that is asked for all of them asks the others with its caller's API key, and each decides what that may see.
"""

import asyncio
import socket
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from secrets import token_hex
from typing import Final
from urllib.parse import SplitResult, urlsplit

import httpx
from pydantic import TypeAdapter, ValidationError

from keywarp.protocol import StreamInfo

SERVER_HEADER: Final = "Keywarp-Server"  # the response header by which a server recognises itself
SECONDS: Final = 2.0  # that a server may take to list its streams
MAX_PART: Final = 2**22  # bytes of a picture
_FORWARDED: Final = ("authorization", "x-api-key")
_SCHEMES: Final = ("http", "https", "dns")
_streams = TypeAdapter(tuple[StreamInfo, ...])


class PeerUrl(str):
    """The address of another server, `http://host:port`, or `dns://name:port` of all servers that a name stands for."""

    __slots__ = ()

    @classmethod
    def parse(cls, url: str) -> "PeerUrl":
        """Check an address.

        Raises:
            ValueError: It isn't one.
        """
        parts = urlsplit(url)
        whole = parts.hostname and parts.port and not (parts.path.strip("/") or parts.query or parts.username)
        if parts.scheme not in _SCHEMES or not whole:
            raise ValueError(
                f"{url!r} isn't a server: write http://HOST:PORT, https://HOST:PORT, or dns://NAME:PORT for all "
                "addresses of a name"
            )
        return cls(url.rstrip("/"))

    @property
    def parts(self) -> SplitResult:
        """Its scheme, host and port."""
        return urlsplit(self)


@dataclass(frozen=True, slots=True)
class PeerStreams:
    """What another server answered."""

    address: str  # host and port
    streams: tuple[StreamInfo, ...] = ()
    problem: str | None = None  # why there are none


class _OneselfError(Exception):
    """The server has asked itself."""


class Fleet:
    """The other servers, which the operator names."""

    def __init__(self, peers: Sequence[str]) -> None:
        """Ask nobody yet.

        Args:
            peers: Their addresses, in the form that `PeerUrl.parse` reads. This server may be among them.

        Raises:
            ValueError: One isn't an address.
        """
        self.instance: Final = token_hex(8)  # names this server in `SERVER_HEADER`
        self._peers = tuple(map(PeerUrl.parse, peers))
        # Neither proxies of the environment nor redirects: the key goes to the servers that the operator named.
        self._http = httpx.AsyncClient(
            trust_env=False, verify=any(peer.parts.scheme == "https" for peer in self._peers)
        )

    async def streams(self, headers: Mapping[str, str]) -> list[PeerStreams]:
        """Ask all other servers for their streams at once.

        Args:
            headers: The caller's, whose API key is passed on.

        Returns:
            An answer for each server that isn't this one, in the order of the settings.
        """
        key = _key(headers)
        found = await asyncio.gather(*(self._ask(address, key) for address in await self.addresses()))
        return [answer for answer in found if answer]

    async def addresses(self) -> list[str]:
        """Return the URLs of all servers now, which may include this one."""
        found = await asyncio.gather(*(self._resolve(peer) for peer in self._peers))
        return [*dict.fromkeys(address for addresses in found for address in addresses)]

    async def previews(self, address: str, query: str, headers: Mapping[str, str]) -> AsyncGenerator[bytes]:
        """Generate the parts of another server's wall, without boundaries, until it ends.

        Args:
            address: The server's URL.
            query: The query for its `/v1/previews`.
            headers: The caller's, whose API key is passed on.
        """
        with suppress(httpx.HTTPError, _OneselfError, ValueError):
            timeout = httpx.Timeout(SECONDS, read=None)  # it is silent while it has no streams
            url = f"{address}/v1/previews?{query}"
            async with self._http.stream("GET", url, headers=_key(headers), timeout=timeout) as response:
                self._check_other(response)
                if response.is_success:
                    async for part in _parts(response):
                        yield part

    async def close(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    async def _ask(self, address: str, key: Mapping[str, str]) -> PeerStreams | None:
        """Return what a server answers, or None if it is this one."""
        name = urlsplit(address).netloc
        try:
            async with asyncio.timeout(SECONDS):
                response = await self._http.get(f"{address}/v1/streams", headers=key, timeout=SECONDS)
            self._check_other(response)
            if not response.is_success:
                reason = "refuses this API key" if response.status_code in (401, 403) else "can't say"
                return PeerStreams(name, problem=f"it {reason} (status {response.status_code})")
            streams = _streams.validate_json(response.content)
        except _OneselfError:
            return None
        except (TimeoutError, httpx.TimeoutException):
            return PeerStreams(name, problem=f"it didn't answer within {SECONDS:g} s")
        except httpx.HTTPError as error:
            return PeerStreams(name, problem=f"it can't be reached: {error}")
        except ValidationError:
            return PeerStreams(name, problem="it isn't a Keywarp server of this version")
        return PeerStreams(name, tuple(stream.model_copy(update={"server": name}) for stream in streams))

    def _check_other(self, response: httpx.Response) -> None:
        if response.headers.get(SERVER_HEADER) == self.instance:
            raise _OneselfError

    async def _resolve(self, peer: PeerUrl) -> list[str]:
        """Return the URLs of the servers that a peer stands for."""
        parts = peer.parts
        if parts.scheme != "dns":
            return [peer]
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(SECONDS):
                found = await loop.getaddrinfo(parts.hostname, parts.port, type=socket.SOCK_STREAM)
        except (OSError, TimeoutError):  # no server has this name now
            return []
        family = min(family for family, *_ in found)  # a server with addresses of both kinds is one
        addresses = sorted({str(sockaddr[0]) for kind, *_, sockaddr in found if kind == family})
        return [f"http://[{one}]:{parts.port}" if ":" in one else f"http://{one}:{parts.port}" for one in addresses]


def _key(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: headers[name] for name in _FORWARDED if name in headers}


async def _parts(response: httpx.Response) -> AsyncGenerator[bytes]:
    """Split a moving picture into the heads and bodies of its parts.

    Raises:
        ValueError: It isn't one.
    """
    buffer = bytearray()
    async for chunk in response.aiter_raw():
        buffer += chunk
        while (end := buffer.find(b"\r\n\r\n")) >= 0:
            head = bytes(buffer[: end + 4])
            length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
            whole = len(head) + int(length)
            if whole > MAX_PART:
                raise ValueError("a part is too large")
            if len(buffer) < whole + 2:
                break
            _, _, fields = head.partition(b"\r\n")  # without the boundary
            yield fields + bytes(buffer[len(head) : whole + 2])
            del buffer[: whole + 2]
        if len(buffer) > MAX_PART:
            raise ValueError("a part is too large")
