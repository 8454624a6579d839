"""From a fused graph to a plan: the warp becomes the plugin, fp32 becomes fp16, TensorRT compiles the rest."""

import hashlib
import logging
import time
from dataclasses import dataclass
from typing import Any

import onnx

from keywarp.engines.backends.half import to_half
from keywarp.engines.backends.tensorrt.library import Library
from keywarp.engines.backends.tensorrt.plan import Plan, PlanHeader, PlanKey
from keywarp.engines.backends.tensorrt.plan_cache import PlanCache
from keywarp.engines.backends.tensorrt.plugin import WarpLauncher, register_warp, warps_on
from keywarp.engines.backends.warping import insert_plugin, plain
from keywarp.engines.errors import BackendError

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Target:
    """The GPU that plans are built for."""

    capability: tuple[int, int]
    device: str = ""  # its name; empty: none at hand, any of this capability

    @property
    def text(self) -> str:
        """For people."""
        return self.device or f"compute capability {self.capability_text}"

    @property
    def capability_text(self) -> str:
        """As people write it: 8.6."""
        return f"{self.capability[0]}.{self.capability[1]}"


class PlanBuilder:
    """Builds plans for one GPU, or takes them from the cache."""

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
            library: TensorRT.
            target: The GPU.
            precision: `fp32` or `fp16`.
            cache: Where plans are kept.
            launcher: Runs the plugin in Python on the GPU; None without one.

        Raises:
            BackendError: There is no GPU and this TensorRT needs it, or it doesn't know the compute capability.
        """
        if not target.device and not library.portable:
            raise BackendError(
                "TensorRT builds plans only on the GPU that runs them, and there is none; TensorRT for RTX builds them "
                "ahead of time: install the extra `rtx` (README, Install)"
            )
        self.library = library
        self.target = target
        self.precision = precision
        self.cache = cache
        self.warp = register_warp(library)
        self._launcher = launcher
        self._capability = self._named_capability()

    def plan(self, model: onnx.ModelProto, resident: frozenset[str] = frozenset()) -> tuple[Plan, bool]:
        """The plan of a graph.

        Args:
            model: With static shapes.
            resident: The outputs that stay on the device.

        Returns:
            The plan, and whether it was in the cache.

        Raises:
            BackendError: TensorRT refuses the graph: says why, in its words.
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
        built, warps = self._build(self._adapt(model, resident), model.graph.name)
        seconds = time.perf_counter() - started
        header = PlanHeader(key=key, sha256=hashlib.sha256(built).hexdigest(), warps=warps, seconds=seconds)
        plan = Plan(header=header, content=built)
        if self.cache:
            self.cache.save(plan)
        log.info(
            "%s: plan built for %s in %.1f s, %.1f MB", model.graph.name, self.target.text, seconds, len(built) / 1e6
        )
        return plan, False

    def _adapt(self, model: onnx.ModelProto, resident: frozenset[str]) -> bytes:
        """The graph as TensorRT gets it. Plans of before a change of this are to be refused: see `PlanKey.revision`."""
        graph = plain(model)
        if self.warp != "gridsample":
            graph, warps = insert_plugin(graph)
            if not warps and any(node.op_type == "GridSample" for node in graph.graph.node):
                log.warning("%s: GridSample isn't the bundle contract's warp there: no plugin", model.graph.name)
        if self.precision == "fp16":
            graph = to_half(graph, resident)
        return graph.SerializeToString()

    def _build(self, content: bytes, name: str) -> tuple[bytes, int]:
        """TensorRT's plan, and how many plugins are in it."""
        trt = self.library.module
        failures: list[str] = []
        logger = self.library.logger(failures.append)
        with warps_on(self._launcher):
            builder = trt.Builder(logger)
            if builder is None:
                raise BackendError(f"TensorRT can't start: {'; '.join(failures)}")
            network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
            parser = trt.OnnxParser(network, logger)
            if not parser.parse(content):
                refused = [parser.get_error(number) for number in range(parser.num_errors)]
                told = "; ".join(
                    f"{error.node_operator() or 'graph'} {error.node_name()}: {error.desc()}" for error in refused
                )
                raise BackendError(f"TensorRT can't read {name}: {told or '; '.join(failures)}")
            layers = [network.get_layer(number).type for number in range(network.num_layers)]
            config = builder.create_builder_config()
            config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # names of layers, for its inspector
            if self.precision == "fp32":
                config.clear_flag(trt.BuilderFlag.TF32)  # whose products have 10 bits
            if self._capability is not None:
                config.num_compute_capabilities = 1
                config.set_compute_capability(self._capability, 0)
            timings = self._recall_timings(config)
            serialized = builder.build_serialized_network(network, config)
        if serialized is None:
            raise BackendError(f"TensorRT can't compile {name}: {'; '.join(failures) or 'it gives no reason'}")
        if timings is not None and self.cache:
            self.cache.remember(self._timings_name, bytes(timings.serialize()))
        return bytes(serialized), layers.count(trt.LayerType.PLUGIN_V3)

    @property
    def _timings_name(self) -> str:
        key = f"{self.library.name} {self.library.version} {self.target.device} {self.target.capability_text}"
        return f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.timings"

    def _recall_timings(self, config: Any) -> Any:
        """What TensorRT measured before on this GPU; TensorRT for RTX measures nothing."""
        if self.library.portable or not self.cache:
            return None
        known = self.cache.recall(self._timings_name) or b""
        timings = config.create_timing_cache(known)
        if not config.set_timing_cache(timings, ignore_mismatch=False):
            timings = config.create_timing_cache(b"")
            config.set_timing_cache(timings, ignore_mismatch=False)
        return timings

    def _named_capability(self) -> Any:
        """The compute capability as TensorRT for RTX calls it; None: TensorRT asks the GPU."""
        if not self.library.portable:
            return None
        names = self.library.module.ComputeCapability.__members__
        name = f"SM{self.target.capability[0]}{self.target.capability[1]}"
        if name not in names:
            known = ", ".join(f"{n[2:-1]}.{n[-1]}" for n in names if n.startswith("SM"))
            raise BackendError(
                f"TensorRT for RTX {self.library.version} builds for compute capability {known}, "
                f"not for {self.target.capability_text}"
            )
        return names[name]
