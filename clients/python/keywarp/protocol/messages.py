"""The wire types of protocol `keywarp.v1`: what client and server say to each other.

A WebSocket conversation::

    client                                  server
    hello (text)                      ->
                                      <-    ready (text): the model, the credit
    frame (binary), frame, ...        ->
                                      <-    result, error or dropped (text), one per frame, in order
                                      <-    credit (text), where a message made room without a result
    end (text)                        ->
                                      <-    the remaining results, then done (text), then close 1000

Text messages are JSON objects told apart by `type`. Binary messages are made and read by `keywarp.protocol.framing`.

Flow control: `credit` is the number of binary messages that the client may have sent *since the start*. It only grows.
A client that sends more breaks the protocol (close 4429).
"""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, model_validator

SUBPROTOCOL = "keywarp.v1"
KEY_SUBPROTOCOL = "keywarp.key."  # with an API key behind it, for browsers, which can't send headers
MAX_INTERVAL = 1000  # frames, of any kind of key interval

StreamId = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
ClientId = Annotated[str, Field(max_length=128)] | int
Kind = Literal["key", "propagated"]
PacketCodec = Literal["h264", "hevc", "vp8", "vp9", "av1"]
Container = Literal["mpegts", "mp4", "webm"]
Codec = Literal["image", PacketCodec, Container]
NO_CHUNKS: frozenset[Codec] = frozenset({"image", "vp8", "vp9", "av1"})  # nothing in a byte stream tells where they end
Schedule = Literal["fixed", "adaptive"]
Mode = Literal["lossless", "latest"]
Masks = Literal["png", "rle", "none"]
Resolution = Literal["model", "frame"]
# `open`: a client feeds it; all others: the server pulls it
StreamState = Literal["open", "connecting", "running", "retrying", "paused", "ended", "failed"]


class Message(BaseModel):
    """Base of all wire types: frozen. Servers refuse fields that they don't know; clients ignore them."""

    model_config = ConfigDict(frozen=True)


class Request(Message):
    """Base of what clients send."""

    model_config = ConfigDict(frozen=True, extra="forbid")


# -- what the server tells about itself ------------------------------------------------------------------------------


class ClassInfo(Message):
    """One class that a model knows."""

    id: int
    name: str
    color: tuple[int, int, int]  # RGB


class ModelInfo(Message):
    """One model of the server; what isn't known while it isn't loaded is empty, or 0."""

    name: str
    version: str
    task: str
    classes: tuple[ClassInfo, ...]
    key_interval: int  # the default l
    backend: str
    device: str  # in `ready` the stream's
    devices: tuple[str, ...] = ()  # in REST: all that its streams are spread over
    precision: str
    chosen: str = ""  # why that backend on that device
    motion: str = "network"  # where the motion between key frames comes from; "none": results are copied
    state: str = "ready"  # or loading, failed, draining (unloaded, but streams go on), unloaded
    reason: str | None = None  # why it couldn't be loaded the last time; if `ready`, what was loaded before is served
    streams: int | None = None  # open ones, of all its versions
    draining: int | None = None  # those of them that go on with a version that new streams don't get


class Pulse(Message):
    """How a stream does: the last 10 seconds. Figures of frames are left out where there were none."""

    fps: float  # results per second
    latency_p50: float | None = None  # seconds on the server, from a frame's arrival to its result: the median
    latency_p95: float | None = None
    key_share: float | None = None  # 0..1 of the frames


class StreamInfo(Message):
    """One stream: its settings, its count of frames so far, how it does."""

    id: str
    model: str
    device: str = ""  # that its frames are processed on
    interval: int  # from one key frame to the next; with the schedule `adaptive` in the mean
    schedule: str = "fixed"
    max_interval: int | None = None  # frames from one key frame to the next at most, where the interval varies
    mode: str = "lossless"
    connected: bool
    age: float  # seconds since it was created
    idle: float  # seconds since its last frame
    frames: int  # results given
    key_frames: int
    errors: int  # frames answered with an error
    dropped: int = 0  # frames left out
    live: Pulse | None = None
    watchers: int = 0  # of its results and its pictures; sinks too
    sinks: tuple[str, ...] = ()
    source: str | None = None  # pulled streams: from where, without credentials and query
    state: str = "open"  # of `StreamState`
    problem: str | None = None  # pulled streams: what went wrong last
    reconnects: int = 0  # pulled streams: times that the source was opened again


class Problem(Message):
    """RFC 9457 problem details."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str = ""
    retry_after: int | None = None  # seconds after which to try again, where it passes by itself


# -- results -----------------------------------------------------------------------------------------------------------


class Timings(Message):
    """Where one frame's time went on the server, in seconds."""

    decode: float
    queue: float
    inference: float
    postprocess: float


class RunLengths(Message):
    """A mask as COCO's uncompressed RLE: pixels outside and inside in turns, down the columns, from outside."""

    size: tuple[int, int]  # height, width
    counts: tuple[int, ...]


class Region(Message):
    """The share of the frame that one class covers; background (class 0) is left out."""

    class_id: int
    name: str
    area: float  # 0..1 of the frame
    rle: RunLengths | None = None  # its pixels, where masks are asked for in this form


class Segmentation(Message):
    """A label map: an 8-bit grey PNG (base64) whose pixels are class ids; or RLE by region; or neither, if so asked."""

    width: int
    height: int
    labels_png: str | None = None
    regions: tuple[Region, ...]


class Detection(Message):
    """One object that was found.

    Its box covers x1 <= x < x2 and y1 <= y < y2: one around the frame's first pixel is (0, 0, 1, 1).
    """

    class_id: int  # never the background (class 0)
    name: str
    confidence: float  # 0..1
    xyxy: tuple[float, float, float, float]  # x1, y1, x2, y2 in pixels of the frame


class Result(Message):
    """What the server found on one frame: `segmentation` or `detections`, by the model's task."""

    type: Literal["result"] = "result"
    stream: str
    frame: int  # position in the stream, from 0
    id: ClientId | None = None  # the client's own
    timestamp: float | None = None  # the client's own, or the container's, in seconds
    width: int  # of the frame, pixels
    height: int
    kind: Kind
    key_age: int  # frames since the key frame; 0 on a key frame
    reason: str | None = None  # why it is a key frame: start, gap, size, interval, change, cut
    change: float | None = None  # 0..1, what motion doesn't explain since the key frame, where that was measured
    timings: Timings
    segmentation: Segmentation | None = None
    detections: tuple[Detection, ...] | None = None  # the most certain first; empty where nothing was found
    credit: int | None = None


# -- the WebSocket conversation ----------------------------------------------------------------------------------------


class StreamOptions(Request):
    """What a stream is asked to do."""

    model: str | None = None  # None: the server's default
    interval: int | None = Field(default=None, ge=1, le=MAX_INTERVAL)  # None: the model's default
    schedule: Schedule | None = None  # `adaptive`: interval is the mean; None: the server's default
    # `adaptive`: None: 3 x interval; `fixed` in the mode `latest`: how far the interval may grow; None: not
    max_interval: int | None = Field(default=None, ge=1, le=MAX_INTERVAL)
    masks: Masks | None = None  # how segmentations are told; None: as PNG
    resolution: Resolution | None = None  # of masks; None: the model's
    # `latest`: the newest frame takes the place of those that wait; None: all have their turn, but where RTSP is pulled
    mode: Mode | None = None
    sinks: Annotated[tuple[str, ...], Field(max_length=16)] | None = None  # of the server, which also get the answers


class CreateStream(StreamOptions):
    """Body of `POST /v1/streams`."""

    id: StreamId | None = None  # None: the server chooses
    source: Annotated[str, Field(max_length=2048)] | None = None  # a URL that the server pulls; None: clients feed it


class Hello(StreamOptions):
    """The client's first message.

    `codec` says what the payloads are. `image`: each a whole JPEG, PNG or WebP. `h264`, `hevc`: each one access unit in
    Annex-B format, or with `framing="chunks"` any piece of such a byte stream. `vp8`, `vp9`, `av1`: each one packet, as
    encoders give and WebM holds them. `mpegts`, `mp4`, `webm`: any piece of such a container.
    """

    type: Literal["hello"] = "hello"
    codec: Codec = "image"
    framing: Literal["packets", "chunks"] = "packets"

    @model_validator(mode="after")
    def _framing_fits_codec(self) -> Self:
        if self.framing == "chunks" and self.codec in NO_CHUNKS:
            raise ValueError(f"`{self.codec}` has no byte stream that could be sent in chunks: send packets")
        return self


class End(Request):
    """The client has sent its last frame and waits for the rest of its results."""

    type: Literal["end"] = "end"


class Ready(Message):
    """The server's answer to `hello`."""

    type: Literal["ready"] = "ready"
    stream: str
    model: ModelInfo
    interval: int
    schedule: str = "fixed"
    max_interval: int | None = None
    mode: str = "lossless"
    credit: int
    max_message_bytes: int


class Credit(Message):
    """More credit, where no result carries it."""

    type: Literal["credit"] = "credit"
    credit: int


class Error(Message):
    """A frame could not be processed (the stream goes on), or, with `fatal`, the conversation ends after this."""

    type: Literal["error"] = "error"
    problem: Problem
    fatal: bool
    frame: int | None = None
    id: ClientId | None = None
    credit: int | None = None


class Dropped(Message):
    """A frame was left out: it never reached the networks."""

    type: Literal["dropped"] = "dropped"
    frame: int
    id: ClientId | None = None
    reason: str  # mode `latest`; "newer": one came while it waited; "rate": more came than the API key may send
    credit: int | None = None


class Missed(Message):
    """Answers that a watcher didn't get, since it was too slow."""

    type: Literal["missed"] = "missed"
    count: int


class Gone(Message):
    """The stream that was watched has ended."""

    type: Literal["gone"] = "gone"
    reason: str


class Done(Message):
    """The answer to `end`, after the last result."""

    type: Literal["done"] = "done"
    frames: int  # results given
    key_frames: int
    errors: int
    dropped: int = 0


ClientMessage = TypeAdapter[Hello | End](Annotated[Hello | End, Field(discriminator="type")])
WatchMessage = TypeAdapter[Result | Error | Dropped | Missed | Gone](
    Annotated[Result | Error | Dropped | Missed | Gone, Field(discriminator="type")]
)
ServerMessage = TypeAdapter[Ready | Result | Credit | Error | Dropped | Done](
    Annotated[Ready | Result | Credit | Error | Dropped | Done, Field(discriminator="type")]
)
