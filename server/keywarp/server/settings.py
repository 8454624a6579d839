"""The server's settings and limits: one frozen object."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from keywarp.engines import BackendName, MotionName, Precision
from keywarp.engines.shipped import DEFAULT_MODELS
from keywarp.protocol import MAX_INTERVAL, MAX_KEY_AGE, Schedule
from keywarp.server.fleet import PeerUrl
from keywarp.server.security.pull_hosts import AllowList

MEBIBYTE = 2**20


class Settings(BaseModel):
    """The settings of one server. Times are in seconds, sizes in bytes.

    `keywarp serve` makes its options from the names, types, bounds, defaults and descriptions of these fields. The
    command also reads environment variables and a file; settings made in code depend on their arguments alone.

    The limits bound what one stream can hold in memory: `credit` messages of `max_message_bytes`, and about five
    decoded frames of 3 x `max_pixels` bytes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    models: Path = Field(
        default=DEFAULT_MODELS,
        description="The folder that holds the bundles, or one bundle. Without a folder `models`, the bundles that "
        "come with Keywarp are served.",
    )
    host: str = Field(default="127.0.0.1", description="The address to listen on.")
    port: int = Field(default=8080, ge=0, le=65535, description="The port to listen on; 0 takes any free port.")
    default_model: str | None = Field(default=None, description="The model of streams that name none.")
    backend: BackendName = Field(
        default="auto",
        description=f"The runtime that executes the networks: {', '.join(get_args(BackendName))}; auto takes the "
        "fastest one that this machine has.",
    )
    precision: Precision = Field(
        default="auto",
        description="The precision of the networks' arithmetic: fp16 is for GPUs, bf16 for CPUs, int8 for bundles that "
        "were quantised; auto takes the fastest one that the device supports.",
    )
    cpu_fallback: bool = Field(
        default=False, description="Run on the CPU if a GPU backend is requested and the GPU can't be used."
    )
    threads: int = Field(
        default=0, ge=0, description="CPU threads of one inference; 0 lets the backend choose their number."
    )
    lanes: int = Field(
        default=0,
        ge=0,
        description="Frames of different streams that run at the same time: on the CPU each on its share of the cores, "
        "on a GPU all in flight on it. 0 chooses by the number of cores, or 4 on a GPU, and 1 runs one after another. "
        "On the CPU there are never more than cores.",
    )
    batch: int = Field(
        default=1,
        ge=1,
        le=16,
        description="Propagated frames of different streams that a GPU computes at once if it is busy anyway. It takes "
        "more than two lanes. 1 computes each alone, and so does the CPU.",
    )
    decoder: Literal["software", "nvdec", "vaapi", "qsv", "auto"] = Field(
        default="software",
        description="What decodes video: the CPU, the hardware of an NVIDIA GPU (nvdec), or of an Intel one (vaapi, "
        "qsv), for the codecs that it supports; auto takes the first that works, or else the CPU.",
    )
    motion: MotionName | None = Field(
        default=None,
        description="The motion source between key frames: none (key features are copied), flow (the model's flow "
        "network), dis (OpenCV's optical flow) or codec (the video's own motion vectors); -chained estimates the "
        "motion from frame to frame; +scale adds the flow network's scale field, and network is short for flow+scale. "
        "Without it, each model has its own default.",
    )
    schedule: Schedule = Field(
        default="fixed",
        description="The key schedule of streams that ask for none: a fixed interval, or one adaptive to the content.",
    )
    max_age: float = Field(
        default=5.0,
        gt=0,
        le=MAX_KEY_AGE,
        description="The seconds after which a key frame is too old to propagate from, for streams in the mode latest "
        "that set no limit of their own.",
    )
    overlap: int = Field(
        default=0,
        ge=0,
        le=MAX_INTERVAL,
        description="For streams that don't choose: the number of frames that are still propagated from the key frame "
        "before, while the next is computed in slices between them; less than a stream's interval. 0 lets key frames "
        "block, and those of streams that choose to overlap are computed in one piece.",
    )
    allow_origin: tuple[str, ...] = Field(
        default=(), description="A site whose web pages may use this server, such as https://cameras.example."
    )
    allow_pull: tuple[str, ...] = Field(
        default=(),
        description="A host, *.DOMAIN, address or network that streams may be pulled from, with or without :PORT.",
    )
    site: Path | None = Field(
        default=None,
        description="A TOML file of cameras to pull from the start, and of sinks for the results: files, webhooks, "
        "MQTT.",
    )
    data: Path | None = Field(
        default=None,
        description="The folder in which cameras that are added while the server runs are kept for its next start, and "
        "events, in SQLite. Without it, cameras are gone after a restart, and events are kept in memory.",
    )
    leases: Path | None = Field(
        default=None,
        description="A folder by which several servers on this host share the site's cameras: each server pulls some, "
        "and the others go on with them when it dies. Without it, every server pulls all.",
    )
    peer: tuple[str, ...] = Field(
        default=(),
        description="Another server behind the same proxy, whose streams are listed together with this one's: "
        "http://HOST:PORT, or dns://NAME:PORT for all servers of a name. API keys of callers are sent to it.",
    )
    event_days: float = Field(default=30.0, gt=0, le=36_500, description="The days for which events are kept.")
    max_events: int = Field(default=10_000, ge=1, description="The most events that are kept.")
    keys: Path | None = Field(
        default=None,
        description="The file of API keys (`keywarp keys add`). Without it, anyone can use the server.",
    )
    model_control: bool = Field(
        default=False,
        description="Without --keys, let anyone who can reach the server load and unload models of the folder.",
    )
    max_streams: int = Field(default=64, ge=1, description="The largest number of streams at the same time.")
    max_connections: int = Field(
        default=1024,
        ge=1,
        description="The largest number of connections at the same time; fewer, if the process may open fewer files.",
    )
    model_limit: Mapping[str, Annotated[int, Field(ge=0)]] = Field(
        default={}, description="The largest number of streams of one model at the same time."
    )
    address_streams: int | None = Field(
        default=None,
        ge=1,
        description="Without --keys, the largest number of streams that clients of one address may have at the same "
        "time; this machine's own have no limit.",
    )
    key_streams: int | None = Field(
        default=None,
        ge=1,
        description="The largest number of streams that an API key without its own limit may have at the same time.",
    )
    key_rate: float | None = Field(
        default=None,
        gt=0,
        description="The largest number of frames per second that an API key without its own limit may send.",
    )
    max_wait: float = Field(
        default=1.0,
        ge=0,
        description="The seconds that frames may wait for the device before new streams are refused; 0 never refuses.",
    )
    max_message_bytes: int = Field(
        default=16 * MEBIBYTE, ge=1024, description="The largest size of one WebSocket message or REST body."
    )
    max_video_bytes: int = Field(
        default=16 * 1024 * MEBIBYTE, ge=1024, description="The largest size of one uploaded video."
    )
    max_pixels: int = Field(default=4096 * 4096, ge=1, description="The largest number of pixels of one frame.")
    max_queued_bytes: int = Field(
        default=1024 * MEBIBYTE,
        ge=1024,
        description="The largest size of all messages and bodies together that wait to be decoded, besides one message "
        "of each connection.",
    )
    max_sizes: int = Field(
        default=8,
        ge=1,
        description="The largest number of input sizes for which each model is compiled at the same time. Frames of "
        "different sizes may have the same input size.",
    )
    credit: int = Field(
        default=8, ge=1, description="The number of messages that a WebSocket client may send before the next credit."
    )
    idle_timeout: float = Field(
        default=30.0, gt=0, description="The seconds without a frame after which a stream expires."
    )

    cache: Path | None = Field(
        default=None, description="The folder of compiled engines, or None for the engine's default."
    )
    traces: bool = Field(
        default=False, description="Whether to export traces, as OpenTelemetry's environment variables say."
    )
    pull_timeout: float = Field(
        default=10.0, gt=0, description="The seconds to wait for a pull's source to connect, and for data from it."
    )
    hello_timeout: float = Field(
        default=10.0, gt=0, description="The seconds to wait for the `hello` of a new WebSocket connection."
    )
    drain_timeout: float = Field(
        default=20.0,
        gt=0,
        description="The seconds that a stopping server may take to finish queued frames.",
    )

    @field_validator("allow_origin")
    @classmethod
    def _check_origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        for origin in origins:
            if not re.fullmatch(r"https?://[^/\s]+/?", origin):
                raise ValueError(f"{origin!r} isn't an origin such as https://cameras.example")
        return tuple(origin.rstrip("/").lower() for origin in origins)

    @field_validator("allow_pull")
    @classmethod
    def _check_allow_list(cls, entries: tuple[str, ...]) -> tuple[str, ...]:
        AllowList(entries)
        return entries

    @field_validator("peer")
    @classmethod
    def _check_peers(cls, peers: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(map(PeerUrl.parse, peers))

    @field_validator("key_streams", "key_rate")
    @classmethod
    def _check_keys(cls, limit: float | None, settings: ValidationInfo) -> float | None:
        if limit is not None and settings.data.get("keys") is None:
            raise ValueError("a limit of each API key needs `keys`")
        return limit

    @property
    def streams_of_address(self) -> int:
        """The largest number of streams of one address, on a server without keys."""
        return self.address_streams or max(1, self.max_streams * 3 // 4)

    @property
    def controlled(self) -> bool:
        """Whether models may be loaded and unloaded: with a key of the scope `models`, or by anyone."""
        return self.model_control or self.keys is not None
