"""The models that the server has loaded."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Self

import numpy as np

from keywarp.engines import Bundle, BundleError, Engine, FixedInterval, StreamSession, load_bundle
from keywarp.engines.manifest import MANIFEST
from keywarp.protocol import ClassInfo, ModelInfo
from keywarp.server.errors import UnknownModelError
from keywarp.server.settings import Settings

log = logging.getLogger(__name__)

WARM_UP_SIZE = (720, 1280)  # height, width of the frames that a fresh model is tried with


def find_bundles(path: Path) -> tuple[Bundle, ...]:
    """Open all bundles of a folder, or the one bundle that the folder is.

    Returns:
        The bundles, sorted by name; at least one.

    Raises:
        BundleError: There is none, one can't be used, or two have the same name.
    """
    folders = [path] if (path / MANIFEST).exists() else sorted(file.parent for file in path.glob(f"*/{MANIFEST}"))
    if not folders:
        raise BundleError(f"{path} holds no bundle (a folder with {MANIFEST})")
    bundles: dict[str, Bundle] = {}
    for folder in folders:
        bundle = load_bundle(folder)
        if other := bundles.get(bundle.name):
            raise BundleError(f"{other.path} and {folder} are both named {bundle.name!r}: rename or move one")
        bundles[bundle.name] = bundle
    return tuple(bundles[name] for name in sorted(bundles))


class Models:
    """Compiled and warmed models by name."""

    def __init__(self, engines: Mapping[str, Engine], default: str) -> None:
        self._engines = engines
        self._default = default

    @classmethod
    def load(cls, bundles: Sequence[Bundle], settings: Settings) -> Self:
        """Compile and try all bundles: blocking, maybe minutes.

        Raises:
            BackendError: A bundle can't be compiled or run on the backend that `settings` ask for.
        """
        engines: dict[str, Engine] = {}
        for bundle in bundles:
            engine = Engine(
                bundle, settings.backend, settings.precision, settings.threads, settings.cache, settings.motion
            )
            _warm_up(engine)
            backend = engine.backend
            runs_on = (backend.name, backend.device, backend.precision, engine.motion)
            log.info("model %s runs on %s %s %s, motion: %s", bundle.name, *runs_on)
            engines[bundle.name] = engine
        return cls(engines, settings.default_model or bundles[0].name)

    def __getitem__(self, name: str | None) -> Engine:
        """The engine of a model; None: of the default model.

        Raises:
            UnknownModelError: There is no such model; says which there are.
        """
        engine = self._engines.get(self._default if name is None else name)
        if engine is None:
            raise UnknownModelError(f"there is no model {str(name)[:64]!r}; there are: {', '.join(self._engines)}")
        return engine

    def __iter__(self) -> Iterator[Engine]:
        return iter(self._engines.values())


def describe(engine: Engine) -> ModelInfo:
    """What clients are told of a model."""
    manifest, backend = engine.bundle.manifest, engine.backend
    return ModelInfo(
        name=manifest.name,
        version=manifest.version,
        task=manifest.task,
        classes=tuple(ClassInfo(id=c.id, name=c.name, color=c.color) for c in manifest.classes),
        key_interval=manifest.key_interval,
        backend=backend.name,
        device=backend.device,
        precision=backend.precision,
        motion=engine.motion,
    )


def _warm_up(engine: Engine) -> None:
    """Run both of a model's paths once, so that no client waits for what the first run costs."""
    session = StreamSession(engine, FixedInterval(2))
    frame = np.zeros((*WARM_UP_SIZE, 3), np.uint8)
    session.process(frame)
    session.process(frame)
    session.close()
