"""Results to a web server of yours."""

import hashlib
import hmac
from collections.abc import Collection, Mapping
from typing import Final

import httpx

from keywarp.server.errors import SinkError, SinkRefusalError
from keywarp.server.streams.subscribers import FrameResponse

TIMEOUT: Final = 10.0  # seconds, for each step of a request
PASSING: Final = frozenset({401, 403, 404, 408, 425, 429})  # of the requests' faults: what may be mended without us
SIGNATURE: Final = "Keywarp-Signature"


class WebhookSink:
    """Posts answers, as many as there are at a time, as JSON lines. Any status but 2xx is a failure."""

    def __init__(
        self,
        url: str,
        headers: Mapping[str, str] | None = None,
        secret: str | None = None,
        classes: Collection[str] = (),
    ) -> None:
        """Nothing is sent yet.

        Args:
            url: Where to post.
            headers: More of them, such as `Authorization`.
            secret: Signs each body: the header `Keywarp-Signature` is `sha256=` and the HMAC in hexadecimal.
            classes: Only results with one of these; none: all answers.
        """
        self.classes = frozenset(classes)
        self._url = url
        self._secret = secret
        self._client = httpx.AsyncClient(timeout=TIMEOUT, headers=headers, trust_env=False)

    async def deliver(self, stream: str, answers: list[FrameResponse]) -> None:
        """Post them in one request."""
        body = b"".join(answer.model_dump_json(exclude_none=True).encode() + b"\n" for answer in answers)
        headers = {"Content-Type": "application/x-ndjson", "Keywarp-Stream": stream}
        if self._secret is not None:
            headers[SIGNATURE] = "sha256=" + hmac.new(self._secret.encode(), body, hashlib.sha256).hexdigest()
        try:
            response = await self._client.post(self._url, content=body, headers=headers)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise SinkError(f"no answer: {error or type(error).__name__}") from error
        if not response.is_success:
            final = response.is_client_error and response.status_code not in PASSING
            raise (SinkRefusalError if final else SinkError)(f"it answers with status {response.status_code}")

    async def close(self) -> None:
        """Close the connection."""
        await self._client.aclose()
