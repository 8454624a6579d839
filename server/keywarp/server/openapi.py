"""The API's documentation: how operations are grouped, and what they are called."""

from typing import Any, Final

from fastapi import FastAPI

STREAMS: Final = "Streams"
WATCHING: Final = "Watching"
VIDEOS: Final = "Videos"
EVENTS: Final = "Events"
MODELS: Final = "Models"
OPERATION: Final = "Operation"
OPEN_INFERENCE: Final = "Open Inference Protocol"
TAGS: Final = [
    {
        "name": STREAMS,
        "description": "Streams, the cameras that the server pulls, zones and rules, single frames.",
    },
    {"name": WATCHING, "description": "The results and the annotated frames of streams, whoever feeds them."},
    {"name": VIDEOS, "description": "Whole videos in one request."},
    {"name": EVENTS, "description": "What the rules of cameras reported."},
    {"name": MODELS, "description": "The models, and how to load and unload them."},
    {"name": OPERATION, "description": "Health, metrics, and reading the operator's files again."},
    {"name": OPEN_INFERENCE, "description": "The protocol of Triton and KServe: each sequence is a stream."},
]
DESCRIPTION: Final = (
    "Frames reach the server over WebSocket, as a video, one by one, or from a camera that the server pulls. "
    "OpenAPI can't describe WebSockets, so `/v1/streams/{stream_id}/ws` isn't listed here."
)


class TitledAPI(FastAPI):
    """An application whose operations are called what the first sentences of their docstrings say."""

    def openapi(self) -> dict[str, Any]:
        """Make the OpenAPI document, once."""
        if self.openapi_schema is None:
            for path in super().openapi()["paths"].values():
                for operation in path.values():
                    first, _, rest = " ".join(operation.get("description", "").split()).partition(". ")
                    operation["summary"] = first.removesuffix(".")
                    operation.pop("description", None)
                    if rest:
                        operation["description"] = rest
        assert self.openapi_schema is not None
        return self.openapi_schema
