"""The messages of the protocol `keywarp.v1`, as the client and the server exchange them.

A WebSocket conversation::

    client                                  server
    hello (text)                      ->
                                      <-    ready (text): the model and the first credit
    frame (binary), frame, ...        ->
                                      <-    result, error or dropped (text), one per frame, in order
                                      <-    credit (text), when it grows without a result to carry it
    end (text)                        ->
                                      <-    the remaining results, then done (text), then close 1000

Text messages are JSON objects whose field `type` names their kind. `keywarp.protocol.framing` packs and unpacks binary
messages.

`credit` is the flow control: the number of binary messages that the client may send in all, counted from the start of
the connection. It only grows. The server closes the connection of a client that sends more (code 4429).
"""

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, JsonValue, TypeAdapter, model_validator

SUBPROTOCOL = "keywarp.v1"
KEY_SUBPROTOCOL = "keywarp.key."  # prefix of an API key, which browsers can't send in a header
MAX_INTERVAL = 1000  # frames; the limit of `interval` and `max_interval`
MAX_KEY_AGE = 86400.0  # seconds; the limit of `max_age`
MAX_FPS = 1000.0  # greatest `max_fps`

StreamId = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
ClientId = Annotated[str, Field(max_length=128)] | int
Kind = Literal["key", "propagated"]
PacketCodec = Literal["h264", "hevc", "vp8", "vp9", "av1"]
Container = Literal["mpegts", "mp4", "webm"]
Codec = Literal["image", PacketCodec, Container]
NO_CHUNKS: frozenset[Codec] = frozenset({"image", "vp8", "vp9", "av1"})  # a byte stream of these has no boundaries
Schedule = Literal["fixed", "adaptive"]
Mode = Literal["lossless", "latest"]
Masks = Literal["png", "rle", "none"]
Resolution = Literal["model", "frame"]
Reliability = Literal["none", "map"]
# Corners as shares of the frame's width and height; the last is joined to the first
HiddenRegion = Annotated[
    tuple[tuple[Annotated[float, Field(ge=0, le=1)], Annotated[float, Field(ge=0, le=1)]], ...],
    Field(min_length=3, max_length=64),
]
# Where a camera is configured: in the site file, or in the database of those that were added while the server ran
Origin = Literal["site", "stored"]
# `open` is a stream that clients feed; the other states are those of a stream that the server pulls.
StreamState = Literal["open", "connecting", "running", "retrying", "unauthorized", "paused", "ended", "failed"]


class Message(BaseModel):
    """The base of all messages. Fields that a message doesn't define are ignored, so that servers may add some."""

    model_config = ConfigDict(frozen=True)


class Request(Message):
    """The base of all messages that clients send. Fields that a message doesn't define are an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


# -- models and streams ------------------------------------------------------------------------------------------------


class ClassInfo(Message):
    """One class of a model."""

    id: int
    name: str
    color: tuple[int, int, int]  # RGB


class KeypointsInfo(Message):
    """The keypoints that a model gives each object."""

    names: tuple[str, ...]
    skeleton: tuple[tuple[int, int], ...] = ()  # indices of points that lines join


class ModelInfo(Message):
    """One model of the server. While it isn't loaded, unknown fields are empty or 0."""

    name: str
    version: str
    task: str
    classes: tuple[ClassInfo, ...]
    background: bool = True  # whether class 0 is the background, which is neither drawn nor counted
    keypoints: KeypointsInfo | None = None  # None if its objects have none
    key_interval: int  # the default key interval, in frames
    backend: str
    device: str  # in `ready`, the stream's device
    devices: tuple[str, ...] = ()  # in REST responses, all devices that serve the model's streams
    precision: str
    chosen: str = ""  # why the server chose this backend and device
    motion: str = "network"  # the motion source; with "none", features are copied
    state: str = "ready"  # ready, loading, failed, draining (unloaded, but with open streams) or unloaded
    reason: str | None = None  # why it last failed to load; if it is `ready`, the version before is still served
    streams: int | None = None  # open streams, of all its versions
    draining: int | None = None  # open streams of versions that new streams don't get


class LiveStatistics(Message):
    """A stream's statistics over the last 10 seconds. All but `fps` are None if there was no result."""

    fps: float  # results per second
    latency_p50: float | None = None  # seconds on the server from a frame's arrival to its result; the median
    latency_p95: float | None = None  # the 95th percentile
    key_share: float | None = None  # 0..1, the share of key frames
    key_age_seconds: float | None = None  # the age of the oldest key frame that a result was propagated from
    reliability: float | None = None  # 0..1, the mean of the propagated results; None if there were none


class StreamInfo(Message):
    """One stream: its settings, its counts of frames so far, and its live statistics."""

    id: str
    model: str
    device: str = ""  # the device that processes its frames
    interval: int  # processed frames from one key frame to the next; with the schedule `adaptive`, their mean
    schedule: str = "fixed"
    max_interval: int | None = None  # the most frames from one key frame to the next, if the interval varies
    max_age: float | None = None  # seconds after which a key frame is too old to propagate from; None: never
    overlap: int = 0  # frames that may still be propagated from the key frame before, while the next is computed
    max_fps: float | None = None  # the most frames per second that are processed; None: all
    hidden: tuple[HiddenRegion, ...] = ()  # regions that are black to everything behind the decoder
    mode: str = "lossless"
    connected: bool  # whether a client feeds it, or frames come from the source that it is pulled from
    age: float  # seconds since it was created
    idle: float  # seconds since its last frame; 0 while the server pulls it
    frame_age: float | None = None  # seconds since its last result; None if there was none
    frames: int  # results so far
    key_frames: int  # results on key frames
    errors: int  # frames that ended in an error
    dropped: int = 0  # frames that were dropped
    live: LiveStatistics | None = None
    watchers: int = 0  # subscribers to its responses or its annotated frames, sinks included
    sinks: tuple[str, ...] = ()
    track: bool = False  # whether its objects have a `track_id`
    title: str | None = None  # its camera's name for people
    rules: tuple[str, ...] = ()  # the names of the rules that it is watched by
    source: str | None = None  # a pulled stream's URL, without credentials and query
    state: str = "open"  # one of `StreamState`
    problem: str | None = None  # a pulled stream's last problem
    reconnects: int = 0  # how often a pulled stream's source was opened again
    kept: bool = False  # whether the server pulls it again after a restart
    # `site`: changes last until a restart or a reload that changes it; `stored`: they are kept; None: nothing is kept
    configured: Origin | None = None
    notes: tuple[str, ...] = ()  # what one should know about its video, such as that another video was left out
    server: str | None = None  # host and port of its server, in the list of a fleet


class ServerInfo(Message):
    """One server of a fleet."""

    address: str  # host and port
    streams: int | None  # how many it has; None if it doesn't say
    problem: str | None = None  # why it doesn't


class FleetInfo(Message):
    """Several servers behind one address, and the streams of those that answered."""

    servers: tuple[ServerInfo, ...]  # the one that was asked comes first
    streams: tuple[StreamInfo, ...]


class SinkInfo(Message):
    """A sink of the server. Where it leads isn't told, because that may hold passwords."""

    name: str
    kind: str  # file, parquet, webhook or mqtt
    events: bool  # whether rules may send their events to it
    classes: tuple[str, ...] = ()  # it gets only what shows one of these; empty: everything


class Changes(Message):
    """The names of what a reload has changed."""

    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()

    @classmethod
    def between(cls, old: Mapping[str, object], new: Mapping[str, object]) -> Self:
        """Compare what names stand for."""
        return cls(
            added=tuple(name for name in new if name not in old),
            changed=tuple(name for name in new if name in old and new[name] != old[name]),
            removed=tuple(name for name in old if name not in new),
        )


class Reloaded(Message):
    """The response to `POST /v1/reload`."""

    streams: Changes  # of the site file
    sinks: Changes
    keys: Changes
    failed: Mapping[str, str] = Field(default_factory=dict)  # why streams couldn't be started or changed, by name


class Problem(Message):
    """An error as RFC 9457 problem details."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str = ""
    retry_after: int | None = None  # seconds after which to try again, if the problem is temporary


# -- results -----------------------------------------------------------------------------------------------------------


class Timings(Message):
    """The time that the server spent on one frame in each stage, in seconds."""

    decode: float
    queue: float
    inference: float
    postprocess: float


class RunLengths(Message):
    """A mask as COCO's uncompressed RLE, which runs down the columns, from left to right."""

    size: tuple[int, int]  # height, width
    counts: tuple[int, ...]  # lengths of the runs, alternately outside and inside the mask; the first is outside


class Region(Message):
    """All pixels of one class, which is never the background."""

    class_id: int
    name: str
    area: float  # 0..1, its share of the frame
    rle: RunLengths | None = None  # its pixels, with the masks `rle`


class Segmentation(Message):
    """A label map, in the form that the stream's option `masks` chose."""

    width: int  # of the label map, pixels
    height: int
    labels_png: str | None = None  # with the masks `png`, an 8-bit grey PNG in base64 whose pixels are class ids
    regions: tuple[Region, ...]  # one for each class on the frame but the background


class Detection(Message):
    """One object.

    Its box covers x1 <= x < x2 and y1 <= y < y2, so that a box around the frame's first pixel is (0, 0, 1, 1).
    """

    class_id: int  # never the background (class 0)
    name: str
    confidence: float  # 0..1
    xyxy: tuple[float, float, float, float]  # x1, y1, x2, y2 in pixels of the frame
    # 0..1, how well the motion since the key frame explains the frame in the box; None on key frames
    reliability: float | None = None
    mask: RunLengths | None = None  # its pixels inside its box, unless the stream asked for the masks `none`
    # From 1, the same as on other frames of the stream, never of another object. None if the stream doesn't track
    # objects, or the object has only just appeared
    track_id: int | None = None
    # x and y in pixels of the frame, perhaps outside of it, and confidence, 0..1, for each of the model's keypoints
    keypoints: tuple[tuple[float, float, float], ...] | None = None


class Dense(Message):
    """A map of numbers that covers the frame, such as the depth. Its pixels are left out with the masks `none`."""

    width: int  # of the map, pixels
    height: int
    quantity: str  # what the numbers are, such as "inverse depth"
    unit: str | None = None  # such as "m"; None if there is none, or it is unknown
    minimum: float  # of the numbers on this frame
    maximum: float
    # A 16-bit grey PNG in base64. The number at a pixel is minimum + pixel / 65535 * (maximum - minimum)
    values_png: str | None = None


class Result(Message):
    """The result on one frame: a `segmentation`, `detections` or a `dense` map, according to the model's task."""

    type: Literal["result"] = "result"
    stream: str
    frame: int  # the frame's position in the stream, from 0
    # Names the time from the stream's creation to its end, so that it names a frame for ever together with `frame`,
    # which begins again after a restart. Empty from servers that don't say
    run: str = ""
    id: ClientId | None = None  # the id that the client gave the frame
    timestamp: float | None = None  # seconds, as the client or the container gave it
    time: AwareDatetime | None = None  # when the frame reached the server, UTC; None from servers that don't say
    width: int  # of the frame, pixels
    height: int
    kind: Kind
    key_age: int  # frames since the key frame, dropped ones included; 0 on a key frame
    key_age_seconds: float | None = None  # seconds since the key frame; None from servers that don't measure it
    reason: str | None = None  # why the frame is a key frame: start, gap, size, age, interval, change or cut
    change: float | None = None  # 0..1, the change since the key frame that motion doesn't explain; None: not measured
    motion: str | None = None  # the motion source that was used; None on key frames
    # 0..1, how well the motion since the key frame explains the frame where it matters; None on key frames
    reliability: float | None = None
    # With the reliability `map`, an 8-bit grey PNG in base64: a pixel per cell of the finest feature map, 255 is 1
    reliability_png: str | None = None
    timings: Timings
    segmentation: Segmentation | None = None
    detections: tuple[Detection, ...] | None = None  # the most confident first
    dense: Dense | None = None
    credit: int | None = None


# -- the WebSocket conversation ----------------------------------------------------------------------------------------


class StreamOptions(Request):
    """The options of a stream. None leaves a choice to the server."""

    model: str | None = None  # the model's name; None: the server's default model
    # Frames from one key frame to the next, without those that are dropped; None: the model's default
    interval: int | None = Field(default=None, ge=1, le=MAX_INTERVAL)
    schedule: Schedule | None = None  # with `adaptive`, `interval` is the mean; None: the server's default
    # The most frames from one key frame to the next, with `adaptive`; None: 3 x `interval`
    max_interval: int | None = Field(default=None, ge=1, le=MAX_INTERVAL)
    # Seconds; if the key frame is older, the next frame is a key frame. By the frames' timestamps, else by when they
    # are processed. None: the server's default in the mode `latest`, else no limit
    max_age: float | None = Field(default=None, gt=0, le=MAX_KEY_AGE, allow_inf_nan=False)
    # Frames that are still propagated from the key frame before, while the next is computed between them; in the mode
    # `latest`, fewer if it is ready earlier. 0: key frames block; None: the server's default
    overlap: int | None = Field(default=None, ge=0, le=MAX_INTERVAL)
    # The most frames per second that are processed, by their timestamps, else by when they arrive. Others are dropped
    max_fps: float | None = Field(default=None, gt=0, le=MAX_FPS, allow_inf_nan=False)
    # The form of segmentation masks; None: `png`. Masks of objects are RLE, and dense maps PNGs, unless it is `none`
    masks: Masks | None = None
    resolution: Resolution | None = None  # the resolution of masks and dense maps; None: `model`
    reliability: Reliability | None = None  # with `map`, results say where they can be trusted; None: `none`
    # In the mode `latest` the newest frame replaces those that wait; None: `latest` for pulled RTSP, else `lossless`
    mode: Mode | None = None
    sinks: Annotated[tuple[str, ...], Field(max_length=16)] | None = None  # the server's sinks that get the responses
    track: bool | None = None  # whether objects get a `track_id` that they keep from frame to frame; None: they don't
    # Whether frames are turned as the video's display matrix or the image's EXIF orientation says; None: they are
    upright: bool | None = None
    video: int | None = Field(default=None, ge=0)  # which of a container's videos, from 0; None: the best


class CameraOptions(StreamOptions):
    """The options of a stream, with those that the query of an upload can't hold."""

    # Regions that are made black before anything sees the frame: networks, previews, snapshots
    hidden: Annotated[tuple[HiddenRegion, ...], Field(max_length=32)] | None = None


class WatchedOptions(CameraOptions):
    """The options of a stream, with its zones, lines and rules."""

    # As `keywarp.protocol.events.Rules` has them. Clients only repeat them, so that they needn't know all; None: none
    watched_by: Mapping[str, JsonValue] | None = None


class Hello(WatchedOptions):
    """The client's first message.

    The codec determines the payload of each binary message:

    - `image`: one JPEG, PNG or WebP image.
    - `h264`, `hevc`: one access unit in Annex-B format or, with `framing="chunks"`, any piece of such a byte stream.
    - `vp8`, `vp9`, `av1`: one packet, as encoders produce it and WebM stores it.
    - `mpegts`, `mp4`, `webm`: any piece of a file in this container.
    """

    type: Literal["hello"] = "hello"
    codec: Codec = "image"
    framing: Literal["packets", "chunks"] = "packets"
    # How the frames of bare packets are turned to be upright, as EXIF numbers it, since a container's display matrix
    # isn't in its packets; None: as the packets say
    orientation: int | None = Field(default=None, ge=1, le=8)
    # Whether the client goes on with a stream after a break. Then the other options are those of `ready`, with which
    # the stream is created if it is gone; one that is still there keeps its own. A connection of the same client that
    # still feeds it is closed
    resumed: bool | None = None

    @model_validator(mode="after")
    def _check_framing(self) -> Self:
        if self.framing == "chunks" and self.codec in NO_CHUNKS:
            raise ValueError(f"`{self.codec}` can't be sent in chunks: send packets")
        return self


class End(Request):
    """The client's last message. The server responds with the remaining results, then with `done`."""

    type: Literal["end"] = "end"


class AgreedOptions(WatchedOptions):
    """The options that a stream has. Those that only a newer server knows are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Ready(Message):
    """The server's response to `hello`, with the options of the stream."""

    type: Literal["ready"] = "ready"
    stream: str  # the stream's id
    model: ModelInfo
    interval: int
    schedule: str = "fixed"
    max_interval: int | None = None
    max_age: float | None = None
    overlap: int = 0
    mode: str = "lossless"
    credit: int  # binary messages that the client may send before the next credit
    max_message_bytes: int  # the size limit of one binary message
    # What the stream was created with, for a `hello` with `resumed`; None from servers that don't know it
    options: AgreedOptions | None = None


class Credit(Message):
    """More credit, when there is no response to carry it; or other options, after someone has changed them."""

    type: Literal["credit"] = "credit"
    credit: int
    options: AgreedOptions | None = None  # those of `ready` from now on; None if they are still the same


class Error(Message):
    """A frame could not be processed; the stream continues without it. After a fatal error the stream ends."""

    type: Literal["error"] = "error"
    problem: Problem
    fatal: bool
    stream: str | None = None  # None if there is none, or from servers that don't say
    time: AwareDatetime | None = None  # when the frame reached the server, UTC; None from servers that don't say
    frame: int | None = None  # the frame's position in the stream, if it is known
    run: str | None = None  # as in `Result`
    id: ClientId | None = None
    credit: int | None = None


class Dropped(Message):
    """A frame was dropped, in the mode `latest` or by `max_fps`: it never reached the networks."""

    type: Literal["dropped"] = "dropped"
    stream: str | None = None  # None from servers that don't say
    time: AwareDatetime | None = None  # when the server dropped it, UTC; None from servers that don't say
    frame: int
    run: str | None = None  # as in `Result`
    id: ClientId | None = None
    # "newer": a newer frame replaced it; "rate": the API key's frame rate was exceeded; "max_fps": the stream's was
    reason: str
    credit: int | None = None


class Missed(Message):
    """Responses that a subscriber didn't get because it read too slowly."""

    type: Literal["missed"] = "missed"
    count: int


class Gone(Message):
    """The end of a stream, for its subscribers."""

    type: Literal["gone"] = "gone"
    reason: str


class Done(Message):
    """The server's response to `end`, after the last result, with the counts of this stream's frames."""

    type: Literal["done"] = "done"
    frames: int  # results
    key_frames: int  # results on key frames
    errors: int
    dropped: int = 0
    notes: tuple[str, ...] = ()  # what one should know about the video, such as that another video was left out


ClientMessage = TypeAdapter[Hello | End](Annotated[Hello | End, Field(discriminator="type")])
WatchMessage = TypeAdapter[Result | Error | Dropped | Missed | Gone](
    Annotated[Result | Error | Dropped | Missed | Gone, Field(discriminator="type")]
)
ServerMessage = TypeAdapter[Ready | Result | Credit | Error | Dropped | Done](
    Annotated[Ready | Result | Credit | Error | Dropped | Done, Field(discriminator="type")]
)
