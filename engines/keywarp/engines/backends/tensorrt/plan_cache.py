"""Plans on disk, so that building them, minutes with TensorRT, happens once."""

import contextlib
import logging
import os
import tempfile
from pathlib import Path

from keywarp.engines.backends.tensorrt.plan import Plan, PlanKey

FOLDER = "tensorrt"  # of plans, in the cache
log = logging.getLogger(__name__)


class PlanCache:
    """A folder of plans, and of what TensorRT itself wants to remember. Processes may share it."""

    def __init__(self, folder: Path) -> None:
        """Use a folder; it is made when something is written."""
        self.folder = folder

    def path(self, key: PlanKey) -> Path:
        """Where the plan of this key is, or would be."""
        return self.folder / f"{key.digest[:32]}.plan"

    def load(self, key: PlanKey) -> Plan | None:
        """The plan of this key, if it is there and sound; what isn't is removed, to be built anew."""
        path = self.path(key)
        data = self.recall(path.name)
        if data is None:
            return None
        try:
            return Plan.from_bytes(data, key)
        except ValueError as error:
            log.warning("%s is built anew: %s", path, error)
            with contextlib.suppress(OSError):
                path.unlink()
            return None

    def save(self, plan: Plan) -> bool:
        """Keep a plan; False where the disk is full or not ours to write: then it is built again next time."""
        return self.remember(self.path(plan.header.key).name, plan.to_bytes())

    def recall(self, name: str) -> bytes | None:
        """A file's bytes; None if it can't be read."""
        try:
            return (self.folder / name).read_bytes()
        except OSError:
            return None

    def remember(self, name: str, data: bytes) -> bool:
        """Write a file as a whole or not at all; False where that isn't possible."""
        temporary: str | None = None
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=self.folder, prefix=f".{name}.", delete=False) as file:
                temporary = file.name
                file.write(data)
            os.replace(temporary, self.folder / name)  # noqa: PTH105 - a string
        except OSError as error:
            log.warning("%s can't be written to %s: %s", name, self.folder, error.strerror)
            if temporary:
                with contextlib.suppress(OSError):
                    os.unlink(temporary)  # noqa: PTH108 - a string
            return False
        return True
