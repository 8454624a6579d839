"""Whether numba, the compiler of loops, is installed. This doesn't import it, which takes a while."""

from importlib.util import find_spec
from typing import Final

COMPILES: Final = find_spec("numba") is not None  # with the extra `jit`
