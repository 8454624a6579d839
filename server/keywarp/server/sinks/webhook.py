"""Post responses to a web server."""

import hashlib
import hmac
import logging
from collections.abc import Collection, Mapping, Sequence
from typing import Final

import httpx

from keywarp.protocol.events import Rules
from keywarp.server.errors import SinkError, SinkRefusalError
from keywarp.server.streams.subscribers import StreamMessage

TIMEOUT: Final = 10.0  # seconds, for each step of a request
# The client errors that may go away without a change to the request: authorization, routing, timing, rate limits.
RETRIED_STATUSES: Final = frozenset({401, 403, 404, 408, 425, 429})
SIGNATURE: Final = "Keywarp-Signature"


class _Unlogged(logging.Filter):
    """Keeps httpx from logging the URL of each of its requests, whose path alone may be a secret."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self._url = httpx.URL(url)

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a record is about another URL."""
        return not isinstance(record.args, tuple) or self._url not in record.args


class WebhookSink:
    """A URL to which batches of responses are posted as JSON lines. Any status but 2xx is a failure."""

    def __init__(
        self,
        url: str,
        headers: Mapping[str, str] | None = None,
        secret: str | None = None,
        classes: Collection[str] = (),
    ) -> None:
        """Connect to nothing yet.

        Args:
            url: The URL to post to.
            headers: Additional headers, such as `Authorization`.
            secret: The key that signs each body: the header `Keywarp-Signature` is `sha256=` and the HMAC in
                hexadecimal. None leaves bodies unsigned.
            classes: Names of classes; only results that show one of them are posted. Empty: all responses are.
        """
        self.classes = frozenset(classes)
        self.takes_events = True
        self._url = url
        self._secret = secret
        self._client = httpx.AsyncClient(timeout=TIMEOUT, headers=headers, trust_env=False)
        self._unlogged = _Unlogged(url)
        logging.getLogger("httpx").addFilter(self._unlogged)

    async def announce(self, stream: str, rules: Rules) -> None:
        """Do nothing: events need no preparation."""

    async def deliver(self, stream: str, responses: Sequence[StreamMessage]) -> None:
        """Post the responses in one request.

        Raises:
            SinkRefusalError: If the web server refuses this body for good.
            SinkError: If the web server doesn't respond, or fails.
        """
        if not responses:
            return
        body = b"".join(response.model_dump_json(exclude_none=True).encode() + b"\n" for response in responses)
        headers = {"Content-Type": "application/x-ndjson", "Keywarp-Stream": stream}
        if self._secret is not None:
            headers[SIGNATURE] = "sha256=" + hmac.new(self._secret.encode(), body, hashlib.sha256).hexdigest()
        try:
            reply = await self._client.post(self._url, content=body, headers=headers)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise SinkError(f"the web server doesn't respond: {error or type(error).__name__}") from error
        if not reply.is_success:
            is_final = reply.is_client_error and reply.status_code not in RETRIED_STATUSES
            raise (SinkRefusalError if is_final else SinkError)(
                f"the web server responded with status {reply.status_code}"
            )

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()
        logging.getLogger("httpx").removeFilter(self._unlogged)
