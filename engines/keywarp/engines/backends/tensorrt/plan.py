"""A plan: a graph compiled by TensorRT for one kind of GPU, with a header that describes it."""

import hashlib
from typing import Annotated

from pydantic import Field, ValidationError

from keywarp.engines.records import Record

REVISION = 2  # version of the conversions in `builder` and `half`; raise it when they change
_MAGIC = b"keywarp plan 1\n"


class PlanKey(Record):
    """Everything that a plan depends on. A plan can be used only if all fields are equal."""

    library: str  # tensorrt or tensorrt_rtx
    version: str  # of the library
    device: str  # the GPU's name, or empty for any of the compute capability
    capability: str  # compute capability, such as 8.6
    precision: str
    warp: str  # what runs the warp, see `plugin.WarpKind`
    graph: str  # SHA-256 (hex) of the fused graph, which depends on the bundle and the input size
    resident: tuple[str, ...]  # names of the outputs that stay on the device
    revision: int = REVISION

    @property
    def digest(self) -> str:
        """One SHA-256 (hex) over all fields."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()


class PlanHeader(Record):
    """The header before the plan's bytes in a file."""

    key: PlanKey
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]  # of the plan's bytes
    warps: int  # number of warp plugins in the plan
    seconds: float  # build time


class Plan(Record):
    """A plan and its header."""

    header: PlanHeader
    content: bytes = Field(repr=False)

    def to_bytes(self) -> bytes:
        """Return the content of a plan file."""
        return b"".join((_MAGIC, self.header.model_dump_json().encode(), b"\n", self.content))

    @classmethod
    def from_bytes(cls, data: bytes, key: PlanKey) -> "Plan":
        """Read the content of a plan file.

        Args:
            data: The file's bytes.
            key: The key that the plan must have.

        Raises:
            ValueError: If the data isn't a plan, has another key, or is damaged. The message says which.
        """
        if not data.startswith(_MAGIC):
            raise ValueError("it is not a plan of this version of Keywarp")
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
