"""The operator's TOML file of a site's cameras and sinks (`serve --site`).

[streams.gate]
source = "rtsp://user:password@192.168.7.20/stream1"
interval = 10
sinks = ["archive", "alarm"]

[sinks.archive]
file = "/data/{stream}.ndjson"

[sinks.table]
parquet = "/data/{stream}"

[sinks.alarm]
webhook = "https://alarm.example/hook"
classes = ["person"]

[sinks.bus]
mqtt = "mqtt://broker.example:1883"
topic = "keywarp/{stream}"
"""

import tomllib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final
from urllib.parse import unquote, urlsplit

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, TypeAdapter, ValidationError, field_validator

from keywarp.protocol import CameraOptions, faults
from keywarp.protocol.events import Rules
from keywarp.protocol.messages import StreamId
from keywarp.server.decode.sources import SourceUrl
from keywarp.server.errors import BadMessageError, SinkError, SiteError
from keywarp.server.sinks.delivery import Sink
from keywarp.server.sinks.file import FileSink
from keywarp.server.sinks.mqtt import MqttSink
from keywarp.server.sinks.webhook import WebhookSink

MQTT_PORTS: Final = {"mqtt": 1883, "mqtts": 8883}
GIBIBYTE: Final = 2**30


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SiteStream(CameraOptions, Rules):
    """A stream that the server starts to pull as soon as it is ready."""

    source: str

    @field_validator("source")
    @classmethod
    def _check_url(cls, url: str) -> str:
        try:
            SourceUrl.parse(url)
        except BadMessageError as error:
            raise ValueError(str(error)) from error
        return url


class _SiteSink(_Table):
    kind: ClassVar[str]
    classes: tuple[str, ...] = ()


class _File(_SiteSink):
    kind: ClassVar[str] = "file"
    file: str
    max_bytes: int = Field(default=GIBIBYTE, ge=1024)

    def open(self) -> Sink:
        return FileSink(self.file, self.max_bytes, self.classes)


class _Parquet(_SiteSink):
    kind: ClassVar[str] = "parquet"
    parquet: str
    max_bytes: int = Field(default=GIBIBYTE, ge=1024)
    max_rows: int = Field(default=100_000, ge=1)
    max_seconds: float = Field(default=3600.0, gt=0)

    def open(self) -> Sink:
        try:
            from keywarp.server.sinks.parquet import ParquetSink
        except ImportError as error:
            raise SinkError(
                f"Parquet files need {error.name}: install the extra `parquet` (README, Install)"
            ) from error
        return ParquetSink(self.parquet, self.max_bytes, self.max_rows, self.max_seconds, self.classes)


class _Webhook(_SiteSink):
    kind: ClassVar[str] = "webhook"
    webhook: str = Field(pattern=r"^https?://[^/]+")
    headers: dict[str, str] = {}
    secret: str | None = None

    def open(self) -> Sink:
        return WebhookSink(self.webhook, self.headers, self.secret, self.classes)


class _Mqtt(_SiteSink):
    kind: ClassVar[str] = "mqtt"
    mqtt: str = Field(pattern=r"^mqtts?://[^/]+$")
    topic: str = Field(default="keywarp/{stream}", pattern=r"^[^+#]+$")
    discovery: str | None = Field(default=None, pattern=r"^[^+#]+$")  # the prefix that Home Assistant listens to

    @field_validator("mqtt")
    @classmethod
    def _check_url(cls, url: str) -> str:
        try:
            parts = urlsplit(url)
            valid = bool(parts.hostname) and parts.port != 0
        except ValueError:  # its text may contain a part of a password
            valid = False
        if not valid:
            raise ValueError("not a valid URL: in a password, write %2F %3F %23 %40 for / ? # @") from None
        return url

    def open(self) -> Sink:
        parts = urlsplit(self.mqtt)
        user, password = (unquote(part) if part else None for part in (parts.username, parts.password))
        port = parts.port or MQTT_PORTS[parts.scheme]
        secure = parts.scheme == "mqtts"
        return MqttSink(
            parts.hostname or "",
            port,
            self.topic,
            user=user,
            password=password,
            tls=secure,
            classes=self.classes,
            discovery=self.discovery,
        )


_KINDS: Final = ("file", "parquet", "webhook", "mqtt")


def _kind(content: Any) -> str:
    return next((kind for kind in _KINDS if isinstance(content, Mapping) and kind in content), "file")


_AnySink = Annotated[
    Annotated[_File, Tag("file")]
    | Annotated[_Parquet, Tag("parquet")]
    | Annotated[_Webhook, Tag("webhook")]
    | Annotated[_Mqtt, Tag("mqtt")],
    Discriminator(_kind),
]


class Site(_Table):
    """A site's streams and sinks by name."""

    streams: Mapping[StreamId, SiteStream] = Field(default_factory=dict)
    sinks: Mapping[str, _AnySink] = Field(default_factory=dict)

    def open_sinks(self, names: Collection[str] | None = None) -> dict[str, Sink]:
        """Open the sinks of some names, or all.

        Raises:
            SiteError: If a sink needs a package that isn't installed.
        """
        try:
            return {name: sink.open() for name, sink in self.sinks.items() if names is None or name in names}
        except SinkError as error:
            raise SiteError(str(error)) from error


_site = TypeAdapter(Site)


def read_site(file: Path | None) -> Site:
    """Read the file of streams and sinks, or return an empty site for None.

    Raises:
        SiteError: If the file can't be read or is invalid. The message names the invalid field.
    """
    if file is None:
        return Site()
    try:
        site = _site.validate_python(tomllib.loads(file.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SiteError(f"{file} can't be read: {error}") from error
    except ValidationError as error:
        raise SiteError(f"{file}: {faults.describe(error, limit=1)}") from error
    for name, stream in site.streams.items():
        if unknown := {*(stream.sinks or ()), *stream.events} - set(site.sinks):
            raise SiteError(f"{file}: streams.{name}: there is no sink {min(unknown)!r}")
    return site
