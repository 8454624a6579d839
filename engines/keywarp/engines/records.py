"""What the records of a manifest have in common."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Count = Annotated[int, Field(ge=1, le=100_000)]
Probability = Annotated[float, Field(ge=0, le=1)]


class Record(BaseModel):
    """The base class of the manifest's records: frozen, and without unknown fields."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class GraphFile(Record):
    """The hash and size of one file of the bundle."""

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    size: int = Field(gt=0)  # bytes
