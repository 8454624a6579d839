"""API keys: who may do what. Checked before a request reaches anything else.

The file of keys has one line for each, `NAME SCOPE[,SCOPE] SHA-256 [LIMIT=NUMBER...]`, so it holds nothing that could
be used as a key:

    # name   scopes          SHA-256 of the key
    gate-1   stream          9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
    gate-2   stream          fd61a03af4f77d870fc21e05e7e80678095c92d808cfb3b5c279ee04c74aca13  streams=4 rate=30
    grafana  metrics         60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752
"""

import hashlib
import hmac
import logging
import re
import secrets
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, Self, get_args

from pydantic import ValidationError
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Send
from starlette.types import Scope as Connection

from keywarp.protocol import KEY_SUBPROTOCOL
from keywarp.server.errors import ForbiddenError, KeyFileError, ServerError, UnauthorizedError
from keywarp.server.problems import refuse
from keywarp.server.security.quotas import NO_LIMITS, Limits, Quota

log = logging.getLogger(__name__)

# To see models, and streams, frames and videos; what Prometheus scrapes; to load and unload models.
Scope = Literal["stream", "metrics", "models"]
PREFIX: Final = "kw_"  # so that secret scanners find a key where it shouldn't be
_CONTROL: Final = re.compile(r"/v1/models/[^/]+/(un)?load|/v2/repository/models/.*", re.DOTALL)  # the scope `models`
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Key:
    """One line of the file."""

    name: str
    scopes: frozenset[Scope]
    digest: str  # SHA-256 of the key, hexadecimal
    limits: Limits = NO_LIMITS  # where they aren't the server's defaults

    def __str__(self) -> str:
        return f"{self.name} {','.join(sorted(self.scopes))} {self.digest} {self.limits}".rstrip()


def new_key(name: str, scopes: str, **limits: float | None) -> tuple[str, Key]:
    """Make a key of 256 random bits: itself, and its line.

    Args:
        name: Whose it is.
        scopes: With commas between them.
        limits: Of `Limits`, by their names; None: none.

    Raises:
        KeyFileError: Not a name, not scopes or not limits.
    """
    secret = PREFIX + secrets.token_urlsafe(32)
    given = [f"{limit}={number}" for limit, number in limits.items() if number is not None]
    return secret, parse_key(" ".join((name, scopes, _digest(secret), *given)))


def read_keys(file: Path) -> list[Key]:
    """Read a file of keys.

    Raises:
        KeyFileError: It can't be read, holds no key, a line isn't one, or two have the same name; says which line.
    """
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise KeyFileError(f"the keys in {file} can't be read: {error}") from error
    keys: dict[str, Key] = {}
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
        raise KeyFileError(f"{file} holds no key: add one by `keywarp keys add`")
    return [*keys.values()]


def add_key(file: Path, key: Key) -> None:
    """Append a key to a file, which is made where there is none.

    Raises:
        OSError: It can't be written.
    """
    with file.open("a+b") as lines:
        lines.seek(max(lines.tell() - 1, 0))
        ended = lines.read() in (b"", b"\n")  # not every editor ends the last line
        lines.write(f"{'' if ended else chr(10)}{key}\n".encode())


def parse_key(line: str) -> Key:
    """Read one line.

    Raises:
        KeyFileError: It isn't one.
    """
    match line.split():
        case [name, scopes, digest, *limits] if _NAME.fullmatch(name) and _DIGEST.fullmatch(digest):
            wanted, known = frozenset(scopes.split(",")), get_args(Scope)
            if unknown := wanted.difference(known):
                raise KeyFileError(f"no such scope: {', '.join(sorted(unknown))}; there are: {', '.join(known)}")
            return Key(name, wanted, digest, _parse_limits(limits))  # type: ignore[arg-type]  # just checked
    raise KeyFileError("not `NAME SCOPE[,SCOPE] SHA-256 [LIMIT=NUMBER...]`")


def _parse_limits(words: Sequence[str]) -> Limits:
    try:
        return Limits.model_validate({name: limit for name, _, limit in (word.partition("=") for word in words)})
    except ValidationError as error:
        fault = error.errors()[0]
        there_are = ", ".join(Limits.model_fields)
        raise KeyFileError(f"not a limit: {fault['loc'][0]}: {fault['msg']}; there are: {there_are}") from error


class Access:
    """The keys that a server takes."""

    def __init__(self, keys: Sequence[Key], limits: Limits = NO_LIMITS) -> None:
        """Take these keys; `limits`: of those that have none of their own."""
        self._keys = keys
        self._quotas = {key.name: Quota(key.name, key.limits.over(limits)) for key in keys}

    @classmethod
    def read(cls, file: Path, limits: Limits = NO_LIMITS) -> Self:
        """Take those of a file; raises as `read_keys`."""
        return cls(read_keys(file), limits)

    def quota(self, key: Key) -> Quota:
        """What a key may use: the same object for all its requests."""
        return self._quotas[key.name]

    def check(self, secret: str | None, scope: Scope) -> Key:
        """Find out whose key this is.

        Raises:
            UnauthorizedError: Nobody's.
            ForbiddenError: It isn't for this.
        """
        if not secret:
            raise UnauthorizedError("this server wants an API key")
        digest = _digest(secret)
        # Every key is compared, each in constant time: how long it takes tells nothing about any.
        found = [key for key in self._keys if hmac.compare_digest(key.digest, digest)]
        if not found:
            raise UnauthorizedError("this isn't an API key of this server")
        if scope not in found[0].scopes:
            raise ForbiddenError(f"the API key {found[0].name} isn't for {scope!r}")
        return found[0]


class AccessMiddleware:
    """Rejects requests that bear no API key for what they ask."""

    def __init__(
        self,
        app: ASGIApp,
        access: Access,
        open_paths: Collection[str],
        open_prefix: str,
        count_rejected: Callable[[str], None],
    ) -> None:
        """Wrap an application.

        Args:
            app: The application that gets the accepted requests.
            access: The accepted keys.
            open_paths: Paths that need no key.
            open_prefix: The prefix of further paths that need no key.
            count_rejected: Called with the reason of each rejected request.
        """
        self._app = app
        self._access = access
        self._open_paths = frozenset(open_paths)
        self._open_prefix = open_prefix
        self._count_rejected = count_rejected

    async def __call__(self, scope: Connection, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] in ("http", "websocket") and not self._is_open(scope["path"]):
            try:
                key = self._access.check(_secret(scope), _needed(scope["path"]))
            except ServerError as error:
                log.info("%r refused: %s", scope["path"][:200], error)
                self._count_rejected(error.reason)
                await refuse(error, scope, receive, send)
                return
            scope.setdefault("state", {})["quota"] = self._access.quota(key)
        await self._app(scope, receive, send)

    def _is_open(self, path: str) -> bool:
        return path in self._open_paths or path.startswith(self._open_prefix)


def _needed(path: str) -> Scope:
    if path == "/metrics":
        return "metrics"
    return "models" if _CONTROL.fullmatch(path) else "stream"


def _secret(scope: Mapping[str, object]) -> str | None:
    """The key that a request bears: `Authorization: Bearer`, `X-API-Key`, or a subprotocol, which browsers can send."""
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
