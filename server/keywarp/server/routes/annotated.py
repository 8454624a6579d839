"""`POST /v1/videos/annotated`: process a video, and return it with its results drawn in.

Nothing is kept: the file is deleted as soon as its response ends.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from http import HTTPStatus
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Final

import numpy as np
from fastapi import APIRouter, Depends, Query, Request
from numpy.typing import NDArray
from pydantic import Field
from starlette.requests import HTTPConnection
from starlette.types import Receive, Scope, Send

from keywarp.protocol import Done, Error, Result
from keywarp.server.errors import BadVideoError, CannotEncodeError, TooManyStreamsError
from keywarp.server.overlay import paint
from keywarp.server.problems import documented
from keywarp.server.routes.dependencies import CANNOT_CREATE, NOT_FOUND, QuotaDependency, ServiceDependency
from keywarp.server.routes.request_body import check_content_length
from keywarp.server.routes.videos import BAD_VIDEO, CODECS, VideoOptions, VideoResponse, codec_of
from keywarp.server.streams.pipeline import Pipeline
from keywarp.videos import NoEncoderError, VideoWriter, WritingError, check_encoder

log = logging.getLogger(__name__)
router = APIRouter()

MAX_RUNNING: Final = 2  # videos that are drawn or downloaded at the same time
MAX_BYTES: Final = 2**30  # of an annotated video
DOWNLOAD_SECONDS: Final = 600.0  # after which a client that hasn't read all of it gets no more
FPS: Final = 25.0  # of videos whose frames have no timestamps
CHUNK: Final = 2**20  # bytes that are sent at a time
CHECKED: Final = 50  # frames from one look at the file's size to the next


class AnnotateOptions(VideoOptions):
    """The query of `POST /v1/videos/annotated`."""

    width: int = Field(default=1280, ge=16, le=1920)  # the greatest width in pixels


class Annotations:
    """The number of videos that are annotated now, which is bounded: each takes a thread and a file."""

    def __init__(self) -> None:
        self._running = 0

    def refuse_over_limit(self) -> None:
        """Raise `TooManyStreamsError` if no other one may begin."""
        if self._running >= MAX_RUNNING:
            raise TooManyStreamsError(
                f"{MAX_RUNNING} videos are being annotated already: try again later", "annotations"
            )

    @contextmanager
    def running(self) -> Iterator[None]:
        """Count one that runs."""
        self._running += 1
        try:
            yield
        finally:
            self._running -= 1


def _annotations(connection: HTTPConnection) -> Annotations:
    annotations: Annotations = connection.app.state.annotations
    return annotations


class AnnotatedVideoResponse(VideoResponse):
    """Processes the request's body, and then sends an MP4 file. Every error becomes the response's status."""

    media_type = "video/mp4"
    width = 1280
    annotations: Annotations
    _path: Path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Process the body and send the file."""
        with (
            self.annotations.running(),
            TemporaryDirectory(prefix="keywarp-annotated-", ignore_cleanup_errors=True) as folder,
        ):
            self._path = Path(folder) / "annotated.mp4"
            await super().__call__(scope, receive, send)

    async def _collect(self, pipeline: Pipeline) -> Done | Error:
        """Draw each result on its frame.

        Raises:
            ServerError: The video can't be processed, or would become too large.
        """
        stream = self._stream
        manifest = stream.engine.bundle.manifest
        writer = await asyncio.to_thread(VideoWriter, self._path, FPS)
        written = 0
        try:
            with stream.subscribers.preview() as preview:
                async for response in pipeline.responses():
                    if not isinstance(response, Result):
                        continue
                    taken = await preview.take()  # this result's: the next frame is only published when it is asked for
                    assert taken is not None
                    frame, found = taken
                    draw = partial(paint, frame.pixels, found, manifest.classes, self.width, manifest.background)
                    await self._write(writer, draw, frame.timestamp)
                    written += 1
                    if written % CHECKED == 0 and self._path.stat().st_size > MAX_BYTES:
                        raise BadVideoError(f"the annotated video would have more than {MAX_BYTES} bytes: send a part")
        except WritingError as error:
            raise BadVideoError(f"the video can't be annotated: {error}") from error
        finally:
            await asyncio.to_thread(writer.close)
            await self._unread.end()
        if not written:
            raise BadVideoError("the video has no frame that can be decoded")
        return pipeline.done

    async def _write(self, writer: VideoWriter, draw: Callable[[], NDArray[np.uint8]], timestamp: float | None) -> None:
        """Draw a picture and write it. If this is cancelled, it still waits until no thread writes."""
        loop = asyncio.get_running_loop()
        writing = loop.run_in_executor(self._stream.pool, lambda: writer.write(draw(), timestamp))
        try:
            await asyncio.shield(writing)
        except asyncio.CancelledError:
            await asyncio.wait([writing])
            writing.exception()  # marks it as retrieved
            raise

    async def _finish(self, send: Send, last: Done | Error) -> None:
        """Send the file."""
        assert isinstance(last, Done)
        size = self._path.stat().st_size
        headers = [*self.raw_headers, (b"content-length", str(size).encode()), (b"cache-control", b"no-store")]
        await send({"type": "http.response.start", "status": self.status_code, "headers": headers})
        with suppress(TimeoutError):
            async with asyncio.timeout(DOWNLOAD_SECONDS):
                with self._path.open("rb") as file:
                    left = size
                    while piece := await asyncio.to_thread(file.read, CHUNK):
                        left -= len(piece)
                        await send({"type": "http.response.body", "body": piece, "more_body": left > 0})


@router.post(
    "/v1/videos/annotated",
    status_code=HTTPStatus.OK,
    response_class=AnnotatedVideoResponse,
    responses=NOT_FOUND
    | CANNOT_CREATE
    | BAD_VIDEO
    | documented(HTTPStatus.NOT_IMPLEMENTED)
    | {
        int(HTTPStatus.OK): {
            "description": "An MP4 file (H.264, no sound), after the whole video was processed.",
            "content": {"video/mp4": {"schema": {"type": "string", "format": "binary"}}},
        }
    },
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {media_type: {"schema": {"type": "string", "format": "binary"}} for media_type in CODECS},
        }
    },
)
async def annotate_video(
    options: Annotated[AnnotateOptions, Query()],
    request: Request,
    service: ServiceDependency,
    quota: QuotaDependency,
    annotations: Annotated[Annotations, Depends(_annotations)],
) -> AnnotatedVideoResponse:
    """Process a video as a new stream, and return it with its results drawn in. The server keeps no copy."""
    try:
        check_encoder()
    except NoEncoderError as error:  # before the whole video is uploaded
        raise CannotEncodeError(str(error)) from error
    codec = codec_of(options, request.headers.get("content-type", ""))
    check_content_length(request, service.settings.max_video_bytes)
    annotations.refuse_over_limit()
    wanted = options.model_copy(update={"masks": "none", "mode": "lossless"})
    stream = service.create_stream(wanted, options.id, quota)
    response = AnnotatedVideoResponse(request, service, stream, codec)
    response.width, response.annotations = options.width, annotations
    return response
