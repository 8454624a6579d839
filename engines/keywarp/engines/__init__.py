"""Keywarp's engine: bundles, backends, and streams with key-frame state. It needs neither torch nor a web framework.

Example:
    >>> from keywarp.engines import Engine, FixedInterval, StreamSession, load_bundle
    >>> session = StreamSession(Engine(load_bundle("street")), FixedInterval(10))
    >>> result = session.process(frame)  # uint8 (H, W, 3), RGB
"""

from keywarp.engines.adaptive import AdaptiveInterval
from keywarp.engines.backends import AVAILABLE, Backend, BackendName, Precision, choose_backend, open_backend
from keywarp.engines.bundle import Bundle, load_bundle, read_manifest, write_bundle
from keywarp.engines.devices import Gpu
from keywarp.engines.engine import Engine, KeyState
from keywarp.engines.errors import (
    BackendError,
    BundleError,
    EngineError,
    FrameOrderError,
    InvalidFrameError,
    MotionError,
    TooManySizesError,
)
from keywarp.engines.executor import Executor
from keywarp.engines.manifest import Manifest
from keywarp.engines.motion import MotionName, MotionSource, MotionVectors, OpticalFlow
from keywarp.engines.processor import FRAMES_IN_FLIGHT, available_cores, usual_lanes
from keywarp.engines.result import DenseMap, Detections, FrameKind, FrameResult, KeyReason, LabelMap, Output
from keywarp.engines.schedule import FixedInterval, KeyDecision, KeySchedule, StreamSchedule
from keywarp.engines.session import StreamSession
from keywarp.engines.slicing import SLICES

__all__ = [
    "AVAILABLE",
    "FRAMES_IN_FLIGHT",
    "SLICES",
    "AdaptiveInterval",
    "Backend",
    "BackendError",
    "BackendName",
    "Bundle",
    "BundleError",
    "DenseMap",
    "Detections",
    "Engine",
    "EngineError",
    "Executor",
    "FixedInterval",
    "FrameKind",
    "FrameOrderError",
    "FrameResult",
    "Gpu",
    "InvalidFrameError",
    "KeyDecision",
    "KeyReason",
    "KeySchedule",
    "KeyState",
    "LabelMap",
    "Manifest",
    "MotionError",
    "MotionName",
    "MotionSource",
    "MotionVectors",
    "OpticalFlow",
    "Output",
    "Precision",
    "StreamSchedule",
    "StreamSession",
    "TooManySizesError",
    "available_cores",
    "choose_backend",
    "load_bundle",
    "open_backend",
    "read_manifest",
    "usual_lanes",
    "write_bundle",
]
