"""A plan: a graph compiled by TensorRT for one kind of GPU, as bytes that say what they are."""

import hashlib
from typing import Annotated

from pydantic import Field, ValidationError

from keywarp.engines.manifest import Record

REVISION = 1  # of what `builder` and `half` make of a graph: to be raised when that changes
_MAGIC = b"keywarp plan 1\n"


class PlanKey(Record):
    """All that a plan depends on: it runs exactly where these are the same."""

    library: str  # tensorrt or tensorrt_rtx
    version: str  # of it
    device: str  # the GPU's name; empty: any of the compute capability
    capability: str  # such as 8.6
    precision: str
    warp: str  # what runs it: see `plugin.WarpKind`
    graph: str  # SHA-256 (hex) of the fused graph: of the bundle's, and of the size
    resident: tuple[str, ...]  # outputs that stay on the device
    revision: int = REVISION

    @property
    def digest(self) -> str:
        """One SHA-256 (hex) over all."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()


class PlanHeader(Record):
    """What stands before the plan's own bytes in a file."""

    key: PlanKey
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]  # of the plan
    warps: int  # plugins in it
    seconds: float  # that it took to build


class Plan(Record):
    """A plan, and what it is."""

    header: PlanHeader
    content: bytes = Field(repr=False)

    def to_bytes(self) -> bytes:
        """As in a file."""
        return b"".join((_MAGIC, self.header.model_dump_json().encode(), b"\n", self.content))

    @classmethod
    def from_bytes(cls, data: bytes, key: PlanKey) -> "Plan":
        """Read a file's bytes.

        Raises:
            ValueError: They are no plan, of another key, or damaged: says which.
        """
        if not data.startswith(_MAGIC):
            raise ValueError("it is no plan of this version of Keywarp")
        line, _, content = data[len(_MAGIC) :].partition(b"\n")
        try:
            header = PlanHeader.model_validate_json(line)
        except ValidationError as error:
            raise ValueError("its header is damaged") from error
        if header.key != key:
            other = [name for name in PlanKey.model_fields if getattr(header.key, name) != getattr(key, name)]
            raise ValueError(f"it was built for another {', '.join(other)}")
        if hashlib.sha256(content).hexdigest() != header.sha256:
            raise ValueError("its bytes are damaged")
        return cls(header=header, content=content)
