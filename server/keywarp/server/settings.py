"""The server's settings and limits: one frozen object."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from keywarp.engines import BackendName, MotionName, Precision
from keywarp.protocol import Schedule
from keywarp.server.security.pull_hosts import AllowList


class Settings(BaseModel):
    """What an operator decides. Times are seconds, sizes bytes.

    The limits bound what one stream can hold in memory: `credit` messages of `max_message_bytes`, and about five
    decoded frames of 3 x `max_pixels`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    @field_validator("allow_origin")
    @classmethod
    def _are_origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        for origin in origins:
            if not re.fullmatch(r"https?://[^/\s]+/?", origin):
                raise ValueError(f"{origin!r} isn't an origin such as https://cameras.example")
        return tuple(origin.rstrip("/").lower() for origin in origins)

    @field_validator("allow_pull")
    @classmethod
    def _are_rules(cls, entries: tuple[str, ...]) -> tuple[str, ...]:
        AllowList(entries)
        return entries

    @field_validator("key_streams", "key_rate")
    @classmethod
    def _has_keys(cls, limit: float | None, settings: ValidationInfo) -> float | None:
        if limit is not None and settings.data.get("keys") is None:
            raise ValueError("a limit of each API key needs `keys`")
        return limit

    models: Path  # a folder of bundles, or one bundle
    default_model: str | None = None  # None: the first by name
    backend: BackendName = "auto"
    precision: Precision = "auto"
    cpu_fallback: bool = False  # whether the CPU may do where a GPU was asked for
    threads: int = Field(default=0, ge=0)  # of the inference; 0: the backend decides
    motion: MotionName = "network"  # where the flow comes from
    schedule: Schedule = "fixed"  # of key frames, for streams that ask for none
    decoder: Literal["software", "nvdec"] = "software"  # of video: the processor, or the GPU's hardware where it can
    cache: Path | None = None  # compiled engines; None: the engine's default

    allow_origin: tuple[str, ...] = ()  # web pages of which other sites may use the server
    allow_pull: tuple[str, ...] = ()  # hosts, addresses and networks that streams may be pulled from
    pull_timeout: float = Field(default=10.0, gt=0)  # to connect to a source, and without anything from it

    site: Path | None = None  # the file of streams that the server pulls from its start, and of sinks

    traces: bool = False  # export them, as OpenTelemetry's environment variables say

    keys: Path | None = None  # the file of API keys; None: everyone may do everything

    model_control: bool = False  # without keys: whether everyone may load and unload models

    host: str = "127.0.0.1"
    port: int = Field(default=8080, ge=0, le=65535)  # 0: any free one

    max_streams: int = Field(default=64, ge=1)
    model_limits: Mapping[str, Annotated[int, Field(ge=0)]] = {}  # by model: of those streams, how many it may have
    key_streams: int | None = Field(default=None, ge=1)  # of one API key that has no limit of its own; None: any number
    key_rate: float | None = Field(default=None, gt=0)  # frames a second, likewise
    max_wait: float = Field(default=1.0, ge=0)  # for a stream's turn on the device; beyond it no new ones; 0: whatever
    max_message_bytes: int = Field(default=16 * 2**20, ge=1024)  # one WebSocket message, one REST body
    max_video_bytes: int = Field(default=16 * 2**30, ge=1024)  # one uploaded video, which is never held as a whole
    max_pixels: int = Field(default=4096 * 4096, ge=1)  # of one frame
    credit: int = Field(default=8, ge=1)  # messages that a WebSocket client may be ahead
    idle_timeout: float = Field(default=30.0, gt=0)  # without a frame, a stream expires
    hello_timeout: float = Field(default=10.0, gt=0)  # from the connection to `hello`
    drain_timeout: float = Field(default=20.0, gt=0)  # for finishing what was queued when the server is told to stop

    @property
    def controlled(self) -> bool:
        """Whether models may come and go: by keys of the scope `models`, or by everyone."""
        return self.model_control or self.keys is not None
