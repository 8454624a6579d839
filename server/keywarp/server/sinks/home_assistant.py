"""What Home Assistant discovers over MQTT: a device for each camera, with a sensor and a picture for each rule."""

import base64
import json
import re
from collections.abc import Callable, Iterator
from typing import Any, Final

from keywarp.protocol.events import Event, Rules

_TOPICS: Final = ("state_topic", "json_attributes_topic", "image_topic")
OFF_DELAY: Final = 5  # seconds for which the sensor of a crossing, which has no length, is on


def entities(
    stream: str, rules: Rules, prefix: str, base: Callable[[str], str], status: str
) -> Iterator[tuple[str, str]]:
    """Yield the topics and contents of the messages that make a stream's rules known. They are to be retained.

    Args:
        stream: The stream's id.
        rules: Its rules.
        prefix: The first part of the topics that Home Assistant listens to.
        base: Returns the first part of a rule's own topics.
        status: The topic on which the server says that it is `online` or `offline`.
    """
    node = identifier(stream)
    shared = {
        "availability_topic": status,
        "device": {"identifiers": [node], "name": rules.title or stream, "manufacturer": "Keywarp"},
        "origin": {"name": "Keywarp"},
    }
    for name, rule in rules.rules.items():
        sensor: dict[str, Any] = {
            "name": name,
            "unique_id": f"{node}_{name}",
            "state_topic": f"{base(name)}/state",
            "json_attributes_topic": f"{base(name)}/attributes",
            "device_class": "motion",
        }
        if rule.line is not None:
            sensor["off_delay"] = OFF_DELAY
        picture = {
            "name": f"{name} snapshot",
            "unique_id": f"{node}_{name}_snapshot",
            "image_topic": f"{base(name)}/snapshot",
            "content_type": "image/jpeg",
        }
        yield f"{prefix}/binary_sensor/{node}/{name}/config", json.dumps(sensor | shared)
        yield f"{prefix}/image/{node}/{name}/config", json.dumps(picture | shared)
        if rule.line is None:
            yield f"{base(name)}/state", "OFF"


def states(event: Event) -> Iterator[tuple[str, str | bytes, bool]]:
    """Yield what a rule's topics say after an event: the topic's last part, its content, and whether to retain it."""
    yield "attributes", event.model_dump_json(exclude_none=True, exclude={"snapshot_jpeg"}), True
    if event.snapshot_jpeg is not None:
        yield "snapshot", base64.b64decode(event.snapshot_jpeg), True
    has_length = event.line is None
    yield "state", "ON" if event.state == "started" or not has_length else "OFF", has_length


def known(stream: str, prefix: str) -> str:
    """Return the topics, as a filter, of all messages that ever made a stream's rules known."""
    return f"{prefix}/+/{identifier(stream)}/+/config"


def retained(config: bytes, status: str) -> tuple[str, ...]:
    """Return the topics on which something may be retained about a rule that was made known by a message.

    Args:
        config: The message's content.
        status: See `entities`. There are none if the message isn't of this server.
    """
    try:
        content = json.loads(config)
    except ValueError:
        return ()
    if not isinstance(content, dict) or content.get("availability_topic") != status:
        return ()
    return tuple(str(content[key]) for key in _TOPICS if key in content)


def identifier(stream: str) -> str:
    """Return what a stream is called in the topics."""
    return "keywarp_" + re.sub(r"[^A-Za-z0-9_-]", "_", stream)
