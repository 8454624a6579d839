"""The sequences of the Open Inference Protocol, each of which is a stream."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from pydantic import ValidationError

from keywarp.engines import Engine
from keywarp.protocol import StreamOptions, faults
from keywarp.server.errors import BadMessageError, UnknownModelError
from keywarp.server.routes.tensors import Parameters
from keywarp.server.security.quotas import Quota
from keywarp.server.service import Service
from keywarp.server.streams.stream import Stream

SequenceId = int | str
HEADER: Final = "Keywarp-Sequence"  # an id outside the body, for proxies that keep a sequence on one server


@dataclass(frozen=True, slots=True)
class SequencePosition:
    """The place of a request in its sequence."""

    id: SequenceId | None  # None if the request belongs to no sequence
    start: bool
    end: bool

    @classmethod
    def of(cls, parameters: Parameters, header: str | None = None) -> "SequencePosition":
        """Read the position from a request's parameters. As in Triton, an id of 0 or "" means no sequence.

        Args:
            parameters: The request's parameters.
            header: The sequence's id as a proxy can see it, or None. It stands in for a missing `sequence_id`.

        Raises:
            BadMessageError: The sequence id is neither an integer nor a string, or isn't that of the header.
        """
        id_ = parameters.get("sequence_id", 0)
        if isinstance(id_, bool | float):
            raise BadMessageError("sequence_id must be an integer or a string")
        if header and id_ and str(id_) != header:
            raise BadMessageError(f"sequence_id is {str(id_)[:64]!r}, but the header {HEADER} says {header[:64]!r}")
        id_ = id_ or header or 0
        start, end = (bool(parameters.get(name, False)) for name in ("sequence_start", "sequence_end"))
        return cls(id_ or None, start, end)


class Sequences:
    """The streams of all sequences, by model and id."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._streams: dict[tuple[str, SequenceId], Stream] = {}

    def engine(self, model: str, position: SequencePosition, version: str | None) -> Engine:
        """Find the engine for a request: the one of its sequence, or the one for new sequences.

        Args:
            model: The model's name.
            position: The request's place in its sequence.
            version: The version that the request asks for, or None for any.

        Raises:
            UnknownModelError: There is no such model, or it has another version.
        """
        known = None if position.id is None or position.start else self._streams.get((model, position.id))
        engine = known.engine if known and not known.closed.is_set() else self._service.models[model]
        refuse_other_version(engine, version)
        return engine

    @asynccontextmanager
    async def stream(
        self, model: str, position: SequencePosition, parameters: Parameters, owner: Quota
    ) -> AsyncIterator[Stream]:
        """Find or create a request's stream, and remove it after the sequence's last request.

        Args:
            model: The model's name.
            position: The request's place in its sequence.
            parameters: The request's parameters, which may hold options of the stream (`interval`, ...).
            owner: The quota of the request's API key.

        Raises:
            BadMessageError: The sequence hasn't started, or has expired.
            ServerError: The stream can't be created; see `Service.create_stream`.
        """
        self._streams = {key: stream for key, stream in self._streams.items() if not stream.closed.is_set()}
        if position.id is None:
            stream = self._create(model, parameters, owner)
        else:
            key = model, position.id
            known = self._streams.get(key)
            if position.start:
                if known:
                    await self._service.streams.remove(known, "its sequence was started again")
                known = self._streams[key] = self._create(model, parameters, owner)
            if known is None:
                raise BadMessageError(
                    f"the sequence {str(position.id)[:64]!r} of model {model!r} hasn't started, or has expired: "
                    "begin with sequence_start"
                )
            stream = known
        try:
            yield stream
        finally:
            if position.id is None or position.end:
                await self._service.streams.remove(stream, "its sequence ended")

    def _create(self, model: str, parameters: Parameters, owner: Quota) -> Stream:
        names = ("interval", "schedule", "max_interval", "max_age", "overlap", "upright")
        given = {name: parameters[name] for name in names if name in parameters}
        try:
            options = StreamOptions.model_validate({"model": model, **given})
        except ValidationError as error:
            raise BadMessageError(f"parameter {faults.describe(error, limit=1)}") from error
        return self._service.create_stream(options, None, owner)


def refuse_other_version(engine: Engine, version: str | None) -> None:
    """Check the version that a request asks for; None stands for any, and a whole number for all that begin with it.

    Raises:
        UnknownModelError: The model has another version.
    """
    manifest = engine.bundle.manifest
    if version not in (None, manifest.version, major(manifest.version)):
        raise UnknownModelError(f"model {manifest.name!r} has the version {manifest.version}, not {version[:64]!r}")


def major(version: str) -> str:
    """Return the whole number that a version begins with, since Triton's versions are whole numbers."""
    return version.partition(".")[0]
