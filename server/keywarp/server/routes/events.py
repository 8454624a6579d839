"""The routes of events: list, show, and their snapshots and clips."""

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Path, Query, Response
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from keywarp.protocol.events import Event
from keywarp.server.errors import UnknownEventError
from keywarp.server.events.store import EventQuery
from keywarp.server.problems import documented
from keywarp.server.routes.dependencies import ServiceDependency

router = APIRouter(prefix="/v1/events")
Id = Annotated[str, Path(pattern=r"^[A-Za-z0-9-]{1,64}$", description="The event's id.")]
NOT_FOUND = documented(HTTPStatus.NOT_FOUND, HTTPStatus.UNPROCESSABLE_ENTITY)


class EventOptions(BaseModel):
    """The query of a list of events."""

    model_config = ConfigDict(extra="forbid")

    stream: Annotated[str, Field(max_length=64)] | None = None
    rule: Annotated[str, Field(max_length=64)] | None = None
    since: AwareDatetime | None = None  # the earliest start
    until: AwareDatetime | None = None  # the latest start, exclusive
    limit: int = Field(default=100, ge=1, le=1000)


@router.get("", responses=documented(HTTPStatus.UNPROCESSABLE_ENTITY), response_model_exclude_none=True)
async def list_events(options: Annotated[EventOptions, Query()], service: ServiceDependency) -> list[Event]:
    """List events, the newest first."""
    query = EventQuery(
        stream=options.stream, rule=options.rule, since=options.since, until=options.until, limit=options.limit
    )
    return await service.events.query(query)


@router.get("/{event_id}", responses=NOT_FOUND, response_model_exclude_none=True)
async def show_event(event_id: Id, service: ServiceDependency) -> Event:
    """Show one event."""
    event = await service.events.get(event_id)
    if event is None:
        raise UnknownEventError(f"there is no event {event_id!r}")
    return event


@router.get(
    "/{event_id}/snapshot",
    response_class=Response,
    responses=NOT_FOUND | {int(HTTPStatus.OK): {"content": {"image/jpeg": {}}, "description": "A JPEG."}},
)
async def show_snapshot(event_id: Id, service: ServiceDependency) -> Response:
    """Return the frame on which an event started, with its result, zones and lines drawn in."""
    jpeg = await service.events.snapshot(event_id)
    if jpeg is None:
        raise UnknownEventError(f"there is no event {event_id!r} with a snapshot")
    return Response(jpeg, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=86400, immutable"})


@router.get(
    "/{event_id}/clip",
    response_class=Response,
    responses=NOT_FOUND | {int(HTTPStatus.OK): {"content": {"video/mp4": {}}, "description": "An MP4 file."}},
)
async def show_clip(event_id: Id, service: ServiceDependency) -> Response:
    """Return the seconds around the start of an event, as its camera sent them."""
    mp4 = await service.events.clip(event_id)
    if mp4 is None:
        raise UnknownEventError(f"there is no event {event_id!r} with a clip, or the clip isn't complete yet")
    return Response(mp4, media_type="video/mp4", headers={"Cache-Control": "private, max-age=86400, immutable"})
