"""Build plans from fused graphs: insert the warp plugin, convert to fp16, and compile with TensorRT."""

import hashlib
import logging
import time
from dataclasses import dataclass
from typing import Any

import onnx

from keywarp.engines.backends.casts import cast_through_float
from keywarp.engines.backends.half import to_half
from keywarp.engines.backends.signed import to_signed
from keywarp.engines.backends.tensorrt.library import Library
from keywarp.engines.backends.tensorrt.plan import Plan, PlanHeader, PlanKey
from keywarp.engines.backends.tensorrt.plan_cache import PlanCache
from keywarp.engines.backends.tensorrt.plugin import WarpLauncher, launching_with, register_warp
from keywarp.engines.backends.warping import insert_plugin, simplify
from keywarp.engines.errors import BackendError

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Target:
    """The GPU that plans are built for."""

    capability: tuple[int, int]
    device: str = ""  # its name, or empty for any GPU of this compute capability

    @property
    def text(self) -> str:
        """The device's name, or its compute capability, for people to read."""
        return self.device or f"compute capability {self.capability_text}"

    @property
    def capability_text(self) -> str:
        """The compute capability as text, such as 8.6."""
        return f"{self.capability[0]}.{self.capability[1]}"


class PlanBuilder:
    """Builds plans for one GPU, or reads them from the cache."""

    def __init__(
        self,
        library: Library,
        target: Target,
        precision: str,
        cache: PlanCache | None = None,
        launcher: WarpLauncher | None = None,
    ) -> None:
        """Check that plans for this GPU can be built here.

        Args:
            library: The TensorRT to build with.
            target: The GPU to build for.
            precision: `fp32` or `fp16`.
            cache: The cache for plans, or None to keep none.
            launcher: Runs the Python plugin on the GPU, or None if there is no GPU here.

        Raises:
            BackendError: If this TensorRT needs a GPU to build and there is none, or if it doesn't support the
                compute capability.
        """
        if not target.device and not library.portable:
            raise BackendError(
                "TensorRT can build plans only on the GPU that runs them, and there is no GPU here: to build them "
                "ahead of time, install TensorRT for RTX with the extra `rtx` (README, Install)"
            )
        self.library = library
        self.target = target
        self.precision = precision
        self.cache = cache
        self.warp = register_warp(library)
        self._launcher = launcher
        self._capability = self._named_capability()

    def plan(self, model: onnx.ModelProto, resident: frozenset[str] = frozenset()) -> tuple[Plan, bool]:
        """Return the plan of a graph, from the cache or newly built.

        Args:
            model: The graph, with static shapes.
            resident: The names of the outputs that stay on the device.

        Returns:
            The plan, and whether it was in the cache.

        Raises:
            BackendError: If TensorRT refuses the graph. The message has TensorRT's reason.
        """
        content = model.SerializeToString(deterministic=True)
        key = PlanKey(
            library=self.library.name,
            version=self.library.version,
            device="" if self.library.portable else self.target.device,
            capability=self.target.capability_text,
            precision=self.precision,
            warp=self.warp,
            graph=hashlib.sha256(content).hexdigest(),
            resident=tuple(sorted(resident)),
        )
        if self.cache and (kept := self.cache.load(key)):
            return kept, True
        started = time.perf_counter()
        built, warps = self._build(self.adapt(model, resident), model.graph.name)
        seconds = time.perf_counter() - started
        header = PlanHeader(key=key, sha256=hashlib.sha256(built).hexdigest(), warps=warps, seconds=seconds)
        plan = Plan(header=header, content=built)
        if self.cache:
            self.cache.save(plan)
        log.info(
            "%s: plan built for %s in %.1f s, %.1f MB", model.graph.name, self.target.text, seconds, len(built) / 1e6
        )
        return plan, False

    def adapt(self, model: onnx.ModelProto, resident: frozenset[str]) -> bytes:
        """Return the graph that TensorRT compiles. Raise `REVISION` after a change here, to invalidate old plans."""
        graph = cast_through_float(to_signed(simplify(model)))
        if self.warp != "gridsample":
            graph, warps = insert_plugin(graph)
            if not warps and any(node.op_type == "GridSample" for node in graph.graph.node):
                log.warning(
                    "%s: its GridSample isn't the warp that docs/bundle.md describes, so no plugin replaces it",
                    model.graph.name,
                )
        if self.precision == "fp16":
            graph = to_half(graph, resident)
        content: bytes = graph.SerializeToString()
        return content

    def _build(self, content: bytes, name: str) -> tuple[bytes, int]:
        """Return TensorRT's plan, and the number of warp plugins in it."""
        if self.library.name == "tensorrt8":
            launch = self._launcher.launch if self._launcher else None
            plan: tuple[bytes, int] = self.library.module.build(content, name, launch, half=self.precision == "fp16")
            return plan
        trt = self.library.module
        failures: list[str] = []
        logger = self.library.logger(failures.append)
        with launching_with(self._launcher):
            builder = trt.Builder(logger)
            if builder is None:
                raise BackendError(f"TensorRT can't start: {'; '.join(failures)}")
            network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
            parser = trt.OnnxParser(network, logger)
            if not parser.parse(content):
                errors = [parser.get_error(number) for number in range(parser.num_errors)]
                reasons = "; ".join(
                    f"{error.node_operator() or 'graph'} {error.node_name()}: {error.desc()}" for error in errors
                )
                raise BackendError(f"TensorRT can't read {name}: {reasons or '; '.join(failures)}")
            layers = [network.get_layer(number).type for number in range(network.num_layers)]
            config = builder.create_builder_config()
            # Keeps the names of layers for TensorRT's inspector.
            config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
            if self.precision == "fp32":
                config.clear_flag(trt.BuilderFlag.TF32)  # TF32 products have only 10 bits of mantissa
            if self._capability is not None:
                config.num_compute_capabilities = 1
                config.set_compute_capability(self._capability, 0)
            timings = self._load_timing_cache(config)
            serialized = builder.build_serialized_network(network, config)
        if serialized is None:
            raise BackendError(f"TensorRT can't compile {name}: {'; '.join(failures) or 'it gives no reason'}")
        if timings is not None and self.cache:
            self.cache.write(self._timing_cache_name, bytes(timings.serialize()))
        return bytes(serialized), layers.count(trt.LayerType.PLUGIN_V3)

    @property
    def _timing_cache_name(self) -> str:
        key = f"{self.library.name} {self.library.version} {self.target.device} {self.target.capability_text}"
        return f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.timings"

    def _load_timing_cache(self, config: Any) -> Any:
        """Return TensorRT's cache of earlier kernel timings on this GPU, or None, as TensorRT for RTX has none."""
        if self.library.portable or not self.cache:
            return None
        known = self.cache.read(self._timing_cache_name) or b""
        timings = config.create_timing_cache(known)
        if not config.set_timing_cache(timings, ignore_mismatch=False):
            timings = config.create_timing_cache(b"")
            config.set_timing_cache(timings, ignore_mismatch=False)
        return timings

    def _named_capability(self) -> Any:
        """Return TensorRT for RTX's name of the compute capability, or None for TensorRT, which asks the GPU."""
        if not self.library.portable:
            return None
        names = self.library.module.ComputeCapability.__members__
        name = f"SM{self.target.capability[0]}{self.target.capability[1]}"
        if name not in names:
            known = ", ".join(f"{n[2:-1]}.{n[-1]}" for n in names if n.startswith("SM"))
            raise BackendError(
                f"TensorRT for RTX {self.library.version} can build for compute capability {known}, "
                f"not for {self.target.capability_text}"
            )
        return names[name]
