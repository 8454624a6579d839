"""Clients that open streams and vanish: in the middle of a handshake, a message, a video or a result."""

import random
import socket
import struct
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import Final
from urllib.parse import urlsplit

from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.typing import Subprotocol
from websockets.uri import parse_uri

from keywarp.protocol import SUBPROTOCOL, FrameHeader, Hello, Ready, ServerMessage, pack

SECONDS: Final = 60.0  # that any answer may take
MOST_PAUSE: Final = 0.1  # seconds
RESET: Final = struct.pack("ii", 1, 0)  # close with a reset instead of a farewell


@dataclass(frozen=True)
class Payloads:
    """What the clients send, made beforehand."""

    images: Sequence[bytes]
    packets: Sequence[bytes]  # of H.264


class RefusedError(Exception):
    """The server refused a stream."""


class Talk:
    """A WebSocket on a bare socket, so that it can end anywhere."""

    def __init__(self, url: str, stream: str, *, reset: bool) -> None:
        """Connect, and send the head of the request up to the last line."""
        address = urlsplit(url)
        assert address.hostname
        self._socket = socket.create_connection((address.hostname, address.port or 80), SECONDS)
        if reset:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self._protocol = ClientProtocol(
            parse_uri(f"ws{url.removeprefix('http')}/v1/streams/{stream}/ws"),
            subprotocols=[Subprotocol(SUBPROTOCOL)],
            max_size=None,
        )
        self._protocol.send_request(self._protocol.connect())
        self._unread: list[Frame] = []
        self._head = b"".join(self._protocol.data_to_send())

    def close(self) -> None:
        """Vanish."""
        self._socket.close()

    def ask(self, share: float = 1.0) -> None:
        """Send the request, or a share of it."""
        self._socket.sendall(self._head[: int(len(self._head) * share)])

    def hello(self, hello: Hello) -> None:
        """Send `hello`."""
        self._protocol.send_text(hello.model_dump_json(exclude_none=True).encode())
        self._flush()

    def ready(self) -> None:
        """Wait for `ready`.

        Raises:
            RefusedError: Something else came.
        """
        answer = ServerMessage.validate_json(self.receive())
        if not isinstance(answer, Ready):
            raise RefusedError(str(answer))

    def send(self, number: int, payload: bytes, share: float = 1.0) -> None:
        """Send a frame, or a share of its bytes."""
        self._protocol.send_binary(pack(FrameHeader(id=number), payload))
        self._flush(share)

    def receive(self) -> bytes:
        """Wait for a message.

        Raises:
            RefusedError: The connection ended.
        """
        while not self._unread:
            data = self._socket.recv(2**16)
            if not data:
                raise RefusedError("the server closed the connection")
            self._protocol.receive_data(data)
            frames = [event for event in self._protocol.events_received() if isinstance(event, Frame)]
            if any(frame.opcode is Opcode.CLOSE for frame in frames):
                raise RefusedError(f"the server closed the stream: {frames[-1].data!r}")
            self._unread += [frame for frame in frames if frame.opcode is Opcode.TEXT]
            if self._protocol.handshake_exc:
                raise RefusedError(str(self._protocol.handshake_exc))
        return bytes(self._unread.pop(0).data)

    def upgraded(self) -> None:
        """Send the request, and wait for the server's consent."""
        self.ask()
        answer = b""
        while b"\r\n\r\n" not in answer:
            data = self._socket.recv(2**16)
            if not data:
                raise RefusedError("the server closed the connection")
            answer += data
        self._protocol.receive_data(answer)
        self._protocol.events_received()
        if self._protocol.handshake_exc:
            raise RefusedError(str(self._protocol.handshake_exc))

    def _flush(self, share: float = 1.0) -> None:
        data = b"".join(self._protocol.data_to_send())
        self._socket.sendall(data[: max(1, int(len(data) * share))])


Client = Callable[[Talk, Payloads, random.Random], None]


def in_the_request(talk: Talk, _: Payloads, chance: random.Random) -> None:
    """Vanish within the request."""
    talk.ask(chance.random())


def before_hello(talk: Talk, _: Payloads, __: random.Random) -> None:
    """Vanish before `hello`."""
    talk.upgraded()


def after_hello(talk: Talk, _: Payloads, __: random.Random) -> None:
    """Vanish without reading `ready`."""
    talk.upgraded()
    talk.hello(Hello())


def in_a_message(talk: Talk, payloads: Payloads, chance: random.Random) -> None:
    """Vanish within a message."""
    talk.upgraded()
    talk.hello(Hello())
    talk.ready()
    talk.send(0, payloads.images[0], chance.random())


def with_unread_results(talk: Talk, payloads: Payloads, chance: random.Random) -> None:
    """Vanish with results on their way."""
    talk.upgraded()
    talk.hello(Hello(mode=chance.choice(("lossless", "latest"))))
    talk.ready()
    for number in range(chance.randint(1, 4)):
        talk.send(number, payloads.images[number])
    _linger(chance)


def after_a_result(talk: Talk, payloads: Payloads, chance: random.Random) -> None:
    """Vanish after the first result, with others on their way."""
    with_unread_results(talk, payloads, chance)
    talk.receive()


def in_a_video(talk: Talk, payloads: Payloads, chance: random.Random) -> None:
    """Vanish within a video, with frames in the decoder."""
    talk.upgraded()
    talk.hello(Hello(codec="h264"))
    talk.ready()
    for number, packet in enumerate(islice(payloads.packets, chance.randint(2, 6))):
        talk.send(number, packet)
    _linger(chance)


def _linger(chance: random.Random) -> None:
    """Wait, in half of the cases, so that the client vanishes in another moment of its frames."""
    time.sleep(max(0.0, chance.uniform(-MOST_PAUSE, MOST_PAUSE)))


WITHOUT_STREAM: Final[tuple[Client, ...]] = (in_the_request, before_hello)
WITH_STREAM: Final[tuple[Client, ...]] = (after_hello, in_a_message, with_unread_results, after_a_result, in_a_video)


class Rude:
    """Opens streams and drops them, several at a time.

    Attributes:
        done: How many clients there were, by what they did.
        refused: Why the server refused clients, and how often.
    """

    def __init__(self, url: str, payloads: Payloads, *, at_a_time: int = 8, seed: int = 0) -> None:
        """Prepare for the server at a URL."""
        self._url = url
        self._payloads = payloads
        self._at_a_time = at_a_time
        self._chance = random.Random(seed)
        self._number = 0
        self.done: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()

    def open(self, streams: int) -> None:
        """Open streams and drop them. In between, some clients don't get as far as a stream."""
        plans: list[tuple[Client, int]] = []
        for number in range(streams):
            plans.append((WITH_STREAM[(self._number + number) % len(WITH_STREAM)], self._chance.getrandbits(32)))
            if number % len(WITH_STREAM) == 0:
                plans.append((self._chance.choice(WITHOUT_STREAM), self._chance.getrandbits(32)))
        with ThreadPoolExecutor(self._at_a_time) as pool:
            for _ in pool.map(self._run, range(self._number, self._number + len(plans)), *zip(*plans, strict=True)):
                pass
        self._number += len(plans)

    def _run(self, number: int, client: Client, seed: int) -> None:
        chance = random.Random(seed)
        talk = Talk(self._url, f"rude-{number}", reset=chance.random() < 0.5)
        try:
            client(talk, self._payloads, chance)
        except (OSError, RefusedError) as error:
            self.refused[str(error)] += 1
        else:
            self.done[client.__name__] += 1
        finally:
            with suppress(OSError):
                talk.close()
