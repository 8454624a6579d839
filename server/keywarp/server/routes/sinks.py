"""The route that lists the sinks."""

from fastapi import APIRouter

from keywarp.protocol import SinkInfo
from keywarp.server.routes.dependencies import ServiceDependency

router = APIRouter()


@router.get("/v1/sinks")
async def list_sinks(service: ServiceDependency) -> list[SinkInfo]:
    """List the sinks of the site file, for a stream's results or a camera's events. Where they lead isn't told."""
    return [
        SinkInfo(name=name, kind=sink.kind, events=service.sinks.takes_events(name), classes=sink.classes)
        for name, sink in service.site.sinks.items()
    ]
