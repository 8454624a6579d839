"""Publish responses to an MQTT broker. Needs the extra `mqtt`."""

import asyncio
import threading
from collections.abc import Collection, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Final

from keywarp.protocol.events import Event, Rules
from keywarp.server.errors import SinkError
from keywarp.server.sinks import home_assistant
from keywarp.server.streams.subscribers import StreamMessage

if TYPE_CHECKING:
    from paho.mqtt.client import Client, MQTTMessage

TIMEOUT: Final = 5.0  # seconds to connect, and for the broker to confirm a message
QOS: Final = 1  # at least once
MAX_QUEUED: Final = 2048  # messages that the client keeps for the broker


EXCLUDED: Final = {"snapshot_jpeg"}  # it has a topic of its own


class MqttSink:
    """A sink that publishes each response as a message to a broker."""

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
        discovery: str | None = None,
    ) -> None:
        """Connect to nothing yet.

        Args:
            host: The broker's host name or address.
            port: The broker's port.
            topic: The topic; `{stream}` in it stands for the stream's id, `{type}` for `result`, `error`, `dropped` or
                `event`.
            user: The user name for the broker, or None for no login.
            password: The password for the broker.
            tls: Whether to encrypt the connection and to verify the broker's certificate.
            classes: Names of classes; only results that show one of them are published. Empty: all responses are.
            discovery: The prefix of the topics by which Home Assistant discovers devices, usually `homeassistant`, or
                None to tell it nothing.

        Raises:
            SinkError: If the extra `mqtt` isn't installed.
        """
        try:
            from paho.mqtt.client import Client
            from paho.mqtt.enums import CallbackAPIVersion
        except ImportError as error:
            raise SinkError("MQTT needs paho-mqtt: install the extra `mqtt` (README, Install)") from error
        self.classes = frozenset(classes)
        self.takes_events = True
        self._discovery = discovery
        self._status = topic.split("{")[0].rstrip("/") + "/status"
        self._announced: dict[str, Rules] = {}  # what Home Assistant doesn't know yet, by stream
        self._known: dict[str, frozenset[str]] = {}  # the topics that told it of rules, by the stream's identifier
        self._address = host, port
        self._topic = topic
        self._client: Client = Client(CallbackAPIVersion.VERSION2)
        self._client.connect_timeout = TIMEOUT
        if user is not None:
            self._client.username_pw_set(user, password)
        if tls:
            self._client.tls_set()
        self._client.reconnect_delay_set(1, 30)  # seconds, from and to
        self._client.max_queued_messages_set(MAX_QUEUED)  # by default it keeps all messages that aren't confirmed
        if discovery:
            self._client.will_set(self._status, "offline", QOS, retain=True)
        self._is_started = False
        self._connected = threading.Event()
        self._refusal = ""  # why the broker refused the last connection
        self._client.on_connect = self._on_connect
        self._client.on_message = self._clear_if_old
        self._client.on_disconnect = lambda *_: self._connected.clear()
        self._lock = asyncio.Lock()

    async def announce(self, stream: str, rules: Rules) -> None:
        """Tell Home Assistant about the rules of a stream with the next delivery; it forgets those before."""
        if self._discovery:
            self._announced[stream] = rules

    async def deliver(self, stream: str, responses: Sequence[StreamMessage]) -> None:
        """Publish the responses, and wait until the broker confirms them.

        Raises:
            SinkError: If the broker can't be reached, refuses the connection or doesn't confirm in time.
        """
        async with self._lock:
            try:
                await asyncio.to_thread(self._publish, stream, responses)
            except (OSError, RuntimeError, ValueError) as error:
                raise SinkError(f"publishing to the MQTT broker failed: {error}") from error

    async def close(self) -> None:
        """Disconnect."""
        if self._discovery and self._connected.is_set():
            offline = self._client.publish(self._status, "offline", QOS, retain=True)
            with suppress(RuntimeError, ValueError):
                await asyncio.to_thread(offline.wait_for_publish, TIMEOUT)
        self._client.disconnect()
        await asyncio.to_thread(self._client.loop_stop)
        if (left := self._client.socket()) is not None:  # the broker hasn't closed it yet
            left.close()

    def _publish(self, stream: str, responses: Sequence[StreamMessage]) -> None:
        if not self._is_started:
            self._is_started = True
            self._client.connect_async(*self._address)
            self._client.loop_start()  # connects, and reconnects whenever the connection is lost
        if not self._connected.wait(TIMEOUT):
            raise TimeoutError(self._refusal or "it can't be reached")
        messages = []
        announced = {**self._announced}
        prefix = self._discovery or ""
        for one, rules in announced.items():
            contents = dict(
                home_assistant.entities(one, rules, prefix, partial(self._base, one, "event"), self._status)
            )
            messages += [self._client.publish(topic, text, QOS, retain=True) for topic, text in contents.items()]
            self._known[home_assistant.identifier(one)] = frozenset(contents)
            self._client.subscribe(home_assistant.known(one, prefix), QOS)  # the broker sends all that it retains
        for response in responses:
            topic = self._base(stream, response.type)
            content = response.model_dump_json(exclude_none=True, exclude=EXCLUDED)
            messages.append(self._client.publish(topic, content, QOS))
            if isinstance(response, Event) and self._discovery:
                base = self._base(stream, "event", response.rule)
                for part, payload, retain in home_assistant.states(response):
                    messages.append(self._client.publish(f"{base}/{part}", payload, QOS, retain=retain))
        for message in messages:
            message.wait_for_publish(TIMEOUT)
            if not message.is_published():
                raise TimeoutError(f"it doesn't confirm messages within {TIMEOUT:g} s")
        for one, rules in announced.items():
            if self._announced.get(one) is rules:
                del self._announced[one]

    def _base(self, stream: str, kind: str, rule: str | None = None) -> str:
        """Return the topic of a kind of message, or the first part of a rule's own topics."""
        topic = self._topic.replace("{stream}", stream).replace("{type}", kind)
        return topic if rule is None else f"{topic}/{rule}"

    def _clear_if_old(self, client: "Client", data: object, message: "MQTTMessage") -> None:  # noqa: ARG002
        """Clear what is retained of a rule that is gone, also if it went while the server was away."""
        topic = message.topic
        if not message.retain or topic in self._known.get(topic.split("/")[-3], frozenset()):
            return
        if about := home_assistant.retained(bytes(message.payload), self._status):
            for old in (topic, *about):
                client.publish(old, b"", QOS, retain=True)

    def _on_connect(self, client: "Client", data: object, flags: object, reason: object, properties: object) -> None:  # noqa: ARG002
        if getattr(reason, "is_failure", False):
            self._refusal = f"it refuses the connection: {reason}"
        else:
            if self._discovery:
                client.publish(self._status, "online", QOS, retain=True)
            self._connected.set()
