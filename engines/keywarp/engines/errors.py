"""The errors of `keywarp.engines`.

EngineError
├── BundleError              a bundle that can't be used: damaged, incomplete, of an unknown version
├── MotionError              a motion source that doesn't fit the bundle, or returns no usable flow
├── BackendError             a device, precision or runtime that is missing or has failed
├── TooManySizesError        a frame of a further size, while all that may be compiled are in use
└── InvalidFrameError        a frame of the wrong type, shape or size
    └── FrameOrderError      a frame that came after a later one
"""


class EngineError(Exception):
    """The base class of every error that `keywarp.engines` raises on purpose."""


class BundleError(EngineError):
    """A bundle is missing, damaged, incomplete or of an unknown schema version."""


class BackendError(EngineError):
    """A backend isn't installed, lacks the requested device or precision, or failed to compile or run a graph."""


class TooManySizesError(EngineError):
    """A frame has a size for which nothing is compiled, and all sizes that may be compiled at a time are in use."""


class MotionError(EngineError):
    """A motion source doesn't fit the bundle, or what it returned isn't a flow."""


class InvalidFrameError(EngineError, ValueError):
    """A frame has the wrong type, shape or size."""


class FrameOrderError(InvalidFrameError):
    """A frame's index isn't above the index of the frame before it."""
