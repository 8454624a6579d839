"""`GET /v1/fleet`: the streams of all servers behind one address, and which server doesn't answer."""

from fastapi import APIRouter, Request

from keywarp.protocol import FleetInfo, ServerInfo
from keywarp.server.routes.dependencies import ServiceDependency

router = APIRouter(prefix="/v1/fleet")


@router.get("")
async def list_fleet(request: Request, service: ServiceDependency) -> FleetInfo:
    """List the streams of this server and of all others that it was told of, and which of them don't answer.

    The others are asked with the request's API key. Each has 2 seconds.
    """
    host, port = request.scope["server"] or ("", None)
    here = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    own = tuple(stream.info.model_copy(update={"server": here}) for stream in service.streams)
    answers = await service.fleet.streams(request.headers)
    servers = [ServerInfo(address=here, streams=len(own))]
    servers += [
        ServerInfo(address=one.address, streams=None if one.problem else len(one.streams), problem=one.problem)
        for one in answers
    ]
    return FleetInfo(servers=tuple(servers), streams=own + tuple(stream for one in answers for stream in one.streams))
