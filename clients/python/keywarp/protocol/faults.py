"""Describe the faults that pydantic found in an input."""

from collections.abc import Sequence
from typing import Any, Protocol


class Invalid(Protocol):
    """An error that lists its faults as pydantic does: a `ValidationError`, or FastAPI's `RequestValidationError`."""

    def errors(self) -> Sequence[Any]:
        """Return one mapping for each fault, with the keys `loc` and `msg`."""


def describe(error: Invalid, whole: str = "", limit: int | None = None) -> str:
    """Describe the faults of an input in one line.

    Args:
        error: The error that pydantic raised.
        whole: The name of the input, which replaces the field's name if a fault concerns the input as a whole.
        limit: The number of faults to describe, or None for all.

    Returns:
        The faults, as in `model.name: Field required; interval: Input should be greater than or equal to 1`.
    """
    described = []
    for fault in error.errors()[:limit]:
        parts = (str(part) for part in fault["loc"] if part != "[key]")  # which stands for a mapping's key by itself
        field = ".".join(part if part.isprintable() else repr(part) for part in parts) or whole
        message = str(fault["msg"]).removeprefix("Value error, ")
        described.append(f"{field}: {message}" if field else message)
    return "; ".join(described)
