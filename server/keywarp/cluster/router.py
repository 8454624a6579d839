"""The router that keeps each stream on the replica that has its key frame."""

import pickle
from collections.abc import Mapping
from typing import Any, Final

from ray.serve.experimental.consistent_hash_router import ConsistentHashRouter
from ray.serve.request_router import PendingRequest, RunningReplica

from keywarp.cluster.addresses import affinity

NAME: Final = f"{__name__}.StreamRouter"


class StreamRouter(ConsistentHashRouter):  # type: ignore[misc]  # mypy doesn't see Ray
    """Chooses replicas by consistent hashing of the stream's id.

    Ray's own router hashes the id that a header names. Browsers can't set headers of WebSockets, and our ids are in
    the path, so this router reads them there. Ray's router also goes on to the next replica on the ring if the first
    one takes long to answer; this one waits. Only if the first one is dead does the next one take its streams: the
    one that will have their place once all routers know about the death.
    """

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        """Return the replica of the request's stream. Empty if several on the ring are dead, until Ray has told."""
        if pending_request is not None and pending_request.metadata.is_http_request:
            pending_request.metadata.session_id = affinity(_scope(pending_request)) or ""
        living: list[list[RunningReplica]] = await super().choose_replicas(candidate_replicas, pending_request)
        return living[:1]


def _scope(request: PendingRequest) -> Mapping[str, Any]:
    """Return the ASGI scope of a request, which Serve's proxy sends on pickled."""
    scope: Mapping[str, Any] = pickle.loads(request.args[0]).asgi_scope
    return scope
