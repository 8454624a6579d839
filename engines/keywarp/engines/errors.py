"""The errors of `keywarp.engines`.

EngineError
├── BundleError            a bundle that can't be used: damaged, incomplete, of an unknown version
├── MotionError            a motion source that doesn't fit the bundle, or gives no flow
├── BackendError           a device, precision or runtime that isn't there or failed
└── FrameError             a frame that can't be processed
    └── FrameOrderError    a frame that is older than its predecessor
"""


class EngineError(Exception):
    """Base class: every error that `keywarp.engines` raises on purpose."""


class BundleError(EngineError):
    """A bundle is missing, damaged, incomplete or of an unknown schema version."""


class BackendError(EngineError):
    """A backend isn't installed, lacks the asked device or precision, or failed to compile or run."""


class MotionError(EngineError):
    """A motion source doesn't fit the bundle, or what it gives is no flow."""


class FrameError(EngineError, ValueError):
    """A frame has the wrong type, shape or size."""


class FrameOrderError(FrameError):
    """A frame came with an index that isn't after its predecessor's."""
