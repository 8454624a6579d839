"""Choose the precision of a bundle's arithmetic.

`auto` takes int8 where that was measured to be faster and to agree with fp32: if the bundle has graphs in int8, and
they were measured on the same backend, on a processor with the same instructions for int8. Otherwise it takes the
backend's own choice. This depends on nothing but the bundle, the backend and the processor.
"""

from keywarp.engines.backends import BackendName, Precision, choose_backend
from keywarp.engines.bundle import Bundle
from keywarp.engines.devices import Gpu
from keywarp.engines.errors import BackendError
from keywarp.engines.processor import int8_instructions
from keywarp.engines.quantization import Measurement


def choose_precision(
    bundle: Bundle, requested: Precision, backend: BackendName, gpu: Gpu | None = None
) -> tuple[Precision, str]:
    """Choose a precision.

    Args:
        bundle: The bundle.
        requested: The precision that was asked for, or `auto`.
        backend: The backend that will run it, see `open_backend`.
        gpu: See `open_backend`.

    Returns:
        The precision, and why it was chosen; "" if there was nothing to choose.

    Raises:
        BackendError: If a precision is requested for which the bundle has no graphs.
    """
    if requested == "int8" and "int8" not in bundle.manifest.precisions:
        raise BackendError(
            f"{bundle.path} has no graphs in int8: make them with keywarp quantize, or use another precision"
        )
    if requested != "auto" or "int8" not in bundle.manifest.precisions:
        return requested, ""
    instructions = int8_instructions()
    name = choose_backend(backend, None if gpu is None else [gpu]).backend
    measured = find_measurement(bundle, name, instructions)
    if measured is None:
        named = f"a processor with {instructions}" if instructions else "a processor without instructions for int8"
        return "auto", f"its int8 wasn't measured to be faster with {name} on {named}"
    return "int8", (
        f"int8 agrees with fp32 to {100 * measured.agreement:.1f} %, and was measured to be faster than "
        f"{measured.instead} with {measured.instructions}"
    )


def find_measurement(bundle: Bundle, backend: str, instructions: str) -> Measurement | None:
    """Return the measurement of a bundle's int8 on a backend and processors with some instructions, if there is one."""
    quantization = bundle.manifest.precisions.get("int8")
    if quantization is None or not instructions:
        return None
    found = (m for m in quantization.measurements if (m.backend, m.instructions) == (backend, instructions))
    return next(found, None)
