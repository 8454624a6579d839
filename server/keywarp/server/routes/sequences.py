"""The Open Inference Protocol's sequences: each is a stream."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from pydantic import ValidationError

from keywarp.engines import Engine
from keywarp.protocol import StreamOptions
from keywarp.server.errors import BadMessageError, UnknownModelError
from keywarp.server.routes.tensors import Parameters
from keywarp.server.security.quotas import Quota
from keywarp.server.service import Service
from keywarp.server.streams.stream import Stream

SequenceId = int | str


@dataclass(frozen=True, slots=True)
class Turn:
    """What a request says of its sequence."""

    id: SequenceId | None  # None: a frame of its own
    start: bool
    end: bool

    @classmethod
    def of(cls, parameters: Parameters) -> "Turn":
        """Read it from a request's parameters; 0 and nothing are no sequence, as in Triton.

        Raises:
            BadMessageError: The id is neither an integer nor a string.
        """
        id_ = parameters.get("sequence_id", 0)
        if isinstance(id_, bool | float):
            raise BadMessageError("sequence_id is an integer or a string")
        start, end = (bool(parameters.get(name, False)) for name in ("sequence_start", "sequence_end"))
        return cls(id_ or None, start, end)


class Sequences:
    """The streams of all sequences, by model and id."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._streams: dict[tuple[str, SequenceId], Stream] = {}

    def engine(self, model: str, turn: Turn, version: str | None) -> Engine:
        """What a request is for: its sequence's engine, or that of new sequences.

        Args:
            model: The model's name.
            turn: Where in which sequence the request is.
            version: That it asks for; None: any.

        Raises:
            UnknownModelError: There is no such model, or not of this version.
        """
        known = None if turn.id is None or turn.start else self._streams.get((model, turn.id))
        engine = known.engine if known and not known.gone.is_set() else self._service.models[model]
        refuse_other_version(engine, version)
        return engine

    @asynccontextmanager
    async def stream(self, model: str, turn: Turn, parameters: Parameters, owner: Quota) -> AsyncIterator[Stream]:
        """Lend the stream that a request belongs to; it is removed after the sequence's last one.

        Args:
            model: The model's name.
            turn: Where in which sequence the request is.
            parameters: The request's, which may hold a stream's options (`interval`, ...).
            owner: Of the request's key.

        Raises:
            BadMessageError: The sequence hasn't started, or has expired.
            ServerError: See `Service.create_stream`.
        """
        self._streams = {key: stream for key, stream in self._streams.items() if not stream.gone.is_set()}
        if turn.id is None:
            stream = self._create(model, parameters, owner)
        else:
            key = model, turn.id
            known = self._streams.get(key)
            if turn.start:
                if known:
                    await self._service.streams.remove(known, "its sequence started anew")
                known = self._streams[key] = self._create(model, parameters, owner)
            if known is None:
                raise BadMessageError(
                    f"the sequence {str(turn.id)[:64]!r} of model {model!r} hasn't started, or has expired: "
                    "begin with sequence_start"
                )
            stream = known
        try:
            yield stream
        finally:
            if turn.id is None or turn.end:
                await self._service.streams.remove(stream, "its sequence ended")

    def _create(self, model: str, parameters: Parameters, owner: Quota) -> Stream:
        names = ("interval", "schedule", "max_interval")
        given = {name: parameters[name] for name in names if name in parameters}
        try:
            options = StreamOptions.model_validate({"model": model, **given})
        except ValidationError as error:
            fault = error.errors()[0]
            raise BadMessageError(f"parameter {fault['loc'][0]}: {fault['msg']}") from error
        return self._service.create_stream(options, None, owner)


def refuse_other_version(engine: Engine, version: str | None) -> None:
    """Refuse a request for another version of a model than there is.

    Raises:
        UnknownModelError: It is another; None is any.
    """
    manifest = engine.bundle.manifest
    if version not in (None, manifest.version):
        raise UnknownModelError(f"model {manifest.name!r} has the version {manifest.version}, not {version[:64]!r}")
