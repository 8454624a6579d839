"""Results to an MQTT broker. Needs the extra `mqtt`."""

import asyncio
import threading
from collections.abc import Collection
from typing import TYPE_CHECKING, Final

from keywarp.server.errors import SinkError
from keywarp.server.streams.subscribers import FrameResponse

if TYPE_CHECKING:
    from paho.mqtt.client import Client

TIMEOUT: Final = 5.0  # seconds to connect, and until the broker has what it was given
QOS: Final = 1  # at least once
QUEUED: Final = 2048  # messages that wait for the broker


class MqttSink:
    """Publishes each answer as a message."""

    def __init__(
        self,
        host: str,
        port: int,
        topic: str,
        *,
        user: str | None = None,
        password: str | None = None,
        tls: bool = False,
        classes: Collection[str] = (),
    ) -> None:
        """Nothing is connected yet.

        Args:
            host: The broker's.
            port: The broker's.
            topic: `{stream}` in it stands for the stream's id, `{type}` for `result`, `error` or `dropped`.
            user: Name for the broker.
            password: For the broker.
            tls: Encrypt, and check the broker's certificate.
            classes: Only results with one of these; none: all answers.

        Raises:
            SinkError: The extra isn't installed.
        """
        try:
            from paho.mqtt.client import Client
            from paho.mqtt.enums import CallbackAPIVersion
        except ImportError as error:
            raise SinkError("MQTT needs paho-mqtt: install the extra `mqtt` (README, Install)") from error
        self.classes = frozenset(classes)
        self._address = host, port
        self._topic = topic
        self._client: Client = Client(CallbackAPIVersion.VERSION2)
        self._client.connect_timeout = TIMEOUT
        if user is not None:
            self._client.username_pw_set(user, password)
        if tls:
            self._client.tls_set()
        self._client.reconnect_delay_set(1, 30)  # seconds, from and to
        self._client.max_queued_messages_set(QUEUED)  # or it would keep all that a broker doesn't confirm
        self._begun = False
        self._connected = threading.Event()
        self._refusal = ""
        self._client.on_connect = self._on_connect
        self._client.on_disconnect = lambda *_: self._connected.clear()
        self._turn = asyncio.Lock()

    async def deliver(self, stream: str, answers: list[FrameResponse]) -> None:
        """Publish them, and wait until the broker has them."""
        async with self._turn:
            try:
                await asyncio.to_thread(self._publish, stream, answers)
            except (OSError, RuntimeError, ValueError) as error:
                raise SinkError(f"the broker can't be reached: {error}") from error

    async def close(self) -> None:
        """Say goodbye."""
        self._client.disconnect()
        await asyncio.to_thread(self._client.loop_stop)

    def _publish(self, stream: str, answers: list[FrameResponse]) -> None:
        if not self._begun:
            self._begun = True
            self._client.connect_async(*self._address)
            self._client.loop_start()  # connects, and again whenever that is needed
        if not self._connected.wait(TIMEOUT):
            raise TimeoutError(self._refusal or "no connection")
        sent = []
        for answer in answers:
            topic = self._topic.replace("{stream}", stream).replace("{type}", answer.type)
            sent.append(self._client.publish(topic, answer.model_dump_json(exclude_none=True), QOS))
        for message in sent:
            message.wait_for_publish(TIMEOUT)
            if not message.is_published():
                raise TimeoutError("it doesn't confirm what it was given")

    def _on_connect(self, client: "Client", data: object, flags: object, reason: object, properties: object) -> None:  # noqa: ARG002
        if getattr(reason, "is_failure", False):
            self._refusal = f"it refuses: {reason}"
        else:
            self._connected.set()
