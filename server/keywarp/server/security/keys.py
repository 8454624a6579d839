"""API keys and their scopes, which are checked before a request reaches anything else.

The file of keys has one line for each key, `NAME SCOPE[,SCOPE] SHA-256 [LIMIT=NUMBER...]`. It holds only hashes, so a
copy of it gives no access:

    # name   scopes          SHA-256 of the key
    gate-1   stream          9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
    gate-2   stream          fd61a03af4f77d870fc21e05e7e80678095c92d808cfb3b5c279ee04c74aca13  streams=4 rate=30
    grafana  metrics         60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752
"""

import asyncio
import hashlib
import hmac
import logging
import re
import secrets
import shutil
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, Self, get_args

from pydantic import ValidationError
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Send
from starlette.types import Scope as AsgiScope

from keywarp.protocol import KEY_SUBPROTOCOL, Changes, faults
from keywarp.server.errors import ForbiddenError, KeyFileError, ServerError, UnauthorizedError
from keywarp.server.problems import refuse
from keywarp.server.security.quotas import NO_LIMITS, Limits, Quota
from keywarp.server.task_scope import task_scope

log = logging.getLogger(__name__)

# `stream`: use models by streams, frames and videos; `metrics`: scrape metrics; `models`: load and unload models;
# `site`: read the site file and the keys again
Scope = Literal["stream", "metrics", "models", "site"]
PREFIX: Final = "kw_"  # lets secret scanners recognise a leaked key
_MODEL_CONTROL: Final = re.compile(r"/v1/models/[^/]+/(un)?load|/v2/repository/models/.*", re.DOTALL)  # paths
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class ApiKey:
    """One line of the file of keys."""

    name: str
    scopes: frozenset[Scope]
    digest: str  # SHA-256 of the secret, hexadecimal
    limits: Limits = NO_LIMITS  # the limits that override the server's defaults

    def __str__(self) -> str:
        return f"{self.name} {','.join(sorted(self.scopes))} {self.digest} {self.limits}".rstrip()


def new_key(name: str, scopes: str, **limits: float | None) -> tuple[str, ApiKey]:
    """Make a key of 256 random bits.

    Args:
        name: The name of the key's owner.
        scopes: The scopes, separated by commas.
        limits: The values of `Limits` by name, or None for the server's default.

    Returns:
        The secret, and the key to add to the file.

    Raises:
        KeyFileError: If the name, a scope or a limit is invalid.
    """
    secret = PREFIX + secrets.token_urlsafe(32)
    given = [f"{limit}={number}" for limit, number in limits.items() if number is not None]
    return secret, parse_key(" ".join((name, scopes, _digest(secret), *given)))


def read_keys(file: Path) -> list[ApiKey]:
    """Read a file of keys.

    Raises:
        KeyFileError: If the file can't be read, holds no key, or has an invalid line or two keys of one name. The
            message names the line.
    """
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise KeyFileError(f"the keys in {file} can't be read: {error}") from error
    keys: dict[str, ApiKey] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            key = parse_key(line)
        except KeyFileError as error:
            raise KeyFileError(f"{file}, line {number}: {error}") from error
        if key.name in keys:
            raise KeyFileError(f"{file}, line {number}: there is already a key named {key.name}")
        keys[key.name] = key
    if not keys:
        raise KeyFileError(f"{file} holds no key: add one with `keywarp keys add`")
    return [*keys.values()]


def add_key(file: Path, key: ApiKey) -> None:
    """Append a key to a file, which is created if it is missing.

    Raises:
        OSError: If the file can't be written.
    """
    with file.open("a+b") as lines:
        lines.seek(max(lines.tell() - 1, 0))
        is_complete = lines.read() in (b"", b"\n")  # some editors don't end the last line
        lines.write(f"{'' if is_complete else chr(10)}{key}\n".encode())


def remove_key(file: Path, name: str) -> None:
    """Remove the key of a name from a file. Other lines stay as they are.

    Raises:
        KeyFileError: If the file can't be read, or has no such key.
        OSError: If the file can't be written.
    """
    _edit(file, name, None)


def replace_key(file: Path, key: ApiKey) -> None:
    """Replace the key of the same name in a file. Other lines stay as they are.

    Raises:
        KeyFileError: If the file can't be read, or has no such key.
        OSError: If the file can't be written.
    """
    _edit(file, key.name, key)


def _edit(file: Path, name: str, key: ApiKey | None) -> None:
    if name not in (known := [one.name for one in read_keys(file)]):
        raise KeyFileError(f"{file} has no key named {name}; there are: {', '.join(known)}")
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    place = next(place for place, line in enumerate(lines) if line.split()[:1] == [name])
    lines[place : place + 1] = [f"{key}\n"] if key else []
    draft = file.with_name(f"{file.name}.new")  # a server that reads the file meanwhile sees all of one or the other
    draft.write_text("".join(lines), encoding="utf-8")
    shutil.copystat(file, draft)
    draft.replace(file)


def parse_key(line: str) -> ApiKey:
    """Read one line of the file.

    Raises:
        KeyFileError: If the line isn't a valid key.
    """
    match line.split():
        case [name, scopes, digest, *limits] if _NAME.fullmatch(name) and _DIGEST.fullmatch(digest):
            given, known = frozenset(scopes.split(",")), get_args(Scope)
            if unknown := given.difference(known):
                raise KeyFileError(f"no such scope: {', '.join(sorted(unknown))}; there are: {', '.join(known)}")
            return ApiKey(name, given, digest, _parse_limits(limits))  # type: ignore[arg-type]  # checked above
    raise KeyFileError("not `NAME SCOPE[,SCOPE] SHA-256 [LIMIT=NUMBER...]`")


def _parse_limits(words: Sequence[str]) -> Limits:
    try:
        return Limits.model_validate({name: limit for name, _, limit in (word.partition("=") for word in words)})
    except ValidationError as error:
        known = ", ".join(Limits.model_fields)
        raise KeyFileError(f"not a limit: {faults.describe(error, limit=1)}; there are: {known}") from error


class ApiKeys:
    """The keys that a server accepts, each with its quota."""

    def __init__(
        self,
        keys: Sequence[ApiKey],
        default_limits: Limits = NO_LIMITS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Make a quota for each key.

        Args:
            keys: The accepted keys.
            default_limits: The limits of keys that don't set their own.
            clock: Returns the monotonic seconds by which rates are counted.
        """
        self._keys = tuple(keys)
        self._default_limits = default_limits
        self._clock = clock
        self._quotas = {key.name: Quota(key.name, key.limits.with_defaults(default_limits), clock) for key in keys}
        self._revoked = {_access(key): asyncio.Event() for key in keys}

    @classmethod
    def read(cls, file: Path, default_limits: Limits = NO_LIMITS, clock: Callable[[], float] = time.monotonic) -> Self:
        """Read the accepted keys from a file.

        Raises:
            KeyFileError: If `read_keys` can't read the file.
        """
        return cls(read_keys(file), default_limits, clock)

    def replace(self, keys: Sequence[ApiKey]) -> Changes:
        """Accept other keys from now on, and end the requests and connections of those that are no longer valid.

        A key of the same name keeps its quota, with its new limits.

        Returns:
            The names of the keys that were added, changed and removed.
        """
        changes = Changes.between({key.name: key for key in self._keys}, {key.name: key for key in keys})
        for key in keys:
            limits = key.limits.with_defaults(self._default_limits)
            if key.name in self._quotas:
                self._quotas[key.name].set_limits(limits)
            else:
                self._quotas[key.name] = Quota(key.name, limits, self._clock)
        valid = {_access(key): self._revoked.get(_access(key)) or asyncio.Event() for key in keys}
        for access, revoked in self._revoked.items():
            if access not in valid:
                revoked.set()
        self._keys, self._revoked = tuple(keys), valid
        return changes

    async def raise_when_revoked(self, key: ApiKey) -> None:
        """Wait until a key is no longer valid.

        Raises:
            UnauthorizedError: It isn't. The method never returns normally.
        """
        if revoked := self._revoked.get(_access(key)):
            await revoked.wait()
        raise UnauthorizedError(f"the API key {key.name} is no longer valid")

    def quota(self, key: ApiKey) -> Quota:
        """Return the quota of a key, which all its requests share."""
        return self._quotas[key.name]

    def quota_of(self, name: str) -> Quota:
        """Return the quota of the key of a name, or a new one with the default limits if there is no such key."""
        return self._quotas.get(name) or Quota(name, self._default_limits, self._clock)

    def authorize(self, secret: str | None, scope: Scope) -> ApiKey:
        """Return the key that a secret belongs to.

        Args:
            secret: The secret in a request, or None if it has none.
            scope: The scope that the request needs.

        Raises:
            UnauthorizedError: If the secret is missing or belongs to no key.
            ForbiddenError: If the key doesn't have the scope.
        """
        if not secret:
            raise UnauthorizedError("this server requires an API key: ask its operator for one")
        digest = _digest(secret)
        # All keys are compared, each in constant time, so that the response time reveals nothing about any of them.
        found = [key for key in self._keys if hmac.compare_digest(key.digest, digest)]
        if not found:
            raise UnauthorizedError("this isn't an API key of this server")
        if scope not in found[0].scopes:
            raise ForbiddenError(f"the API key {found[0].name} doesn't have the scope {scope!r}")
        return found[0]


class ApiKeyMiddleware:
    """Middleware that refuses requests without an API key of the required scope."""

    def __init__(
        self,
        app: ASGIApp,
        api_keys: ApiKeys,
        open_paths: Collection[str],
        open_prefix: str,
        count_refused: Callable[[str], None],
    ) -> None:
        """Wrap an application.

        Args:
            app: The application that gets the accepted requests.
            api_keys: The accepted keys.
            open_paths: Paths that need no key.
            open_prefix: The prefix of further paths that need no key.
            count_refused: Called with the reason of each refused request.
        """
        self._app = app
        self._api_keys = api_keys
        self._open_paths = frozenset(open_paths)
        self._open_prefix = open_prefix
        self._count_refused = count_refused

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        """Pass a request on with its key's quota, or refuse it."""
        if scope["type"] in ("http", "websocket") and not self._is_open(scope["path"]):
            try:
                key = self._api_keys.authorize(_find_secret(scope), _required_scope(scope["path"]))
            except ServerError as error:
                log.info("refused a request for %r: %s", scope["path"][:200], error)
                self._count_refused(error.reason)
                await refuse(error, scope, receive, send)
                return
            scope.setdefault("state", {})["quota"] = self._api_keys.quota(key)
            await self._serve(key, scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _serve(self, key: ApiKey, scope: AsgiScope, receive: Receive, send: Send) -> None:
        """Pass a request on, and end it when its key is revoked."""
        has_started = has_ended = False

        async def observed_send(message: Message) -> None:
            nonlocal has_started, has_ended
            has_started = True
            has_ended = message["type"] == "websocket.close" or (
                message["type"] == "http.response.body" and not message.get("more_body")
            )
            await send(message)

        try:
            async with task_scope(self._api_keys.raise_when_revoked(key)):
                await self._app(scope, receive, observed_send)
        except UnauthorizedError as error:
            log.info("ended a request for %r: %s", scope["path"][:200], error)
            if not has_started:
                await refuse(error, scope, receive, send)
            elif not has_ended and scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": error.close, "reason": str(error)})
            elif not has_ended:
                await send({"type": "http.response.body", "body": b""})

    def _is_open(self, path: str) -> bool:
        return path in self._open_paths or path.startswith(self._open_prefix)


def _access(key: ApiKey) -> tuple[str, frozenset[Scope]]:
    """Return what a key's requests depend on."""
    return key.digest, key.scopes


def _required_scope(path: str) -> Scope:
    if path == "/metrics":
        return "metrics"
    if path == "/v1/reload":
        return "site"
    return "models" if _MODEL_CONTROL.fullmatch(path) else "stream"


def _find_secret(scope: Mapping[str, object]) -> str | None:
    """Return the secret of `Authorization: Bearer`, `X-API-Key` or, as browsers' WebSockets send it, a subprotocol."""
    headers = Headers(scope=dict(scope))
    kind, _, secret = headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer":
        return secret.strip()
    if secret := headers.get("x-api-key", ""):
        return secret
    offered = scope.get("subprotocols")
    for name in offered if isinstance(offered, list) else ():
        if name.startswith(KEY_SUBPROTOCOL):
            return str(name.removeprefix(KEY_SUBPROTOCOL))
    return None


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
