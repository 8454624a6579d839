"""A cache of plans on disk, since building one takes TensorRT minutes."""

import contextlib
import logging
import os
import tempfile
from pathlib import Path

from keywarp.engines.backends.tensorrt.plan import Plan, PlanKey

FOLDER = "tensorrt"  # the plans' folder in the cache folder
log = logging.getLogger(__name__)


class PlanCache:
    """A folder of plans and of TensorRT's own cache files. Several processes may share it."""

    def __init__(self, folder: Path) -> None:
        """Use a folder, which is created with the first write."""
        self.folder = folder

    def path(self, key: PlanKey) -> Path:
        """Return the path of the plan with this key, whether or not it exists."""
        return self.folder / f"{key.digest[:32]}.plan"

    def load(self, key: PlanKey) -> Plan | None:
        """Return the plan with this key, or None. A damaged plan is deleted, so that it is built again."""
        path = self.path(key)
        data = self.read(path.name)
        if data is None:
            return None
        try:
            return Plan.from_bytes(data, key)
        except ValueError as error:
            log.warning("%s will be built again: %s", path, error)
            with contextlib.suppress(OSError):
                path.unlink()
            return None

    def save(self, plan: Plan) -> bool:
        """Write a plan. Returns False if that isn't possible; the plan is then built again next time."""
        return self.write(self.path(plan.header.key).name, plan.to_bytes())

    def read(self, name: str) -> bytes | None:
        """Return a file's bytes, or None if it can't be read."""
        try:
            return (self.folder / name).read_bytes()
        except OSError:
            return None

    def write(self, name: str, data: bytes) -> bool:
        """Write a file atomically. Returns False if that isn't possible."""
        temporary: str | None = None
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=self.folder, prefix=f".{name}.", delete=False) as file:
                temporary = file.name
                file.write(data)
            os.replace(temporary, self.folder / name)  # noqa: PTH105 - a string
        except OSError as error:
            log.warning("can't write %s to %s: %s", name, self.folder, error.strerror)
            if temporary:
                with contextlib.suppress(OSError):
                    os.unlink(temporary)  # noqa: PTH108 - a string
            return False
        return True
