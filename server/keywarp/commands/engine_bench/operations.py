"""The operations of a bundle's networks, and the speed-up that they predict (section 3.2 of the paper)."""

from dataclasses import dataclass
from math import prod

import onnx

from keywarp.engines import Bundle
from keywarp.engines.manifest import map_names
from keywarp.engines.motion import MotionSource
from keywarp.engines.parity import fix_shapes
from keywarp.importing.graph import Graph
from keywarp.importing.operations import total_operations
from keywarp.importing.runtime import fold
from keywarp.saving import WARP_OPERATIONS, predicted_speed_up

Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Operations:
    """The operations of each part for one frame; a multiply-add is two."""

    features: int
    head: int
    warp: int
    flow: int  # with the scale fields; 0 if no flow network runs

    @property
    def whole(self) -> int:
        """Those of the network on every frame."""
        return self.features + self.head

    def predict(self, interval: int) -> float:
        """Return the speed-up over the network on every frame by Eq. 7, with the ratio of Eq. 6: flow to features.

        Args:
            interval: The key interval, in frames.
        """
        return predicted_speed_up(self.flow / max(self.features, 1), interval)

    def predict_with_head(self, interval: int) -> float:
        """Return the same with the ratio of Eq. 5, which counts the head and the warp as well.

        Args:
            interval: The key interval, in frames.
        """
        return predicted_speed_up((self.flow + self.warp + self.head) / max(self.whole, 1), interval)


def count_operations(bundle: Bundle, motion: MotionSource, height: int, width: int) -> Operations:
    """Count the operations of a bundle's networks.

    Args:
        bundle: The bundle.
        motion: The motion source.
        height: The height of the networks' input in pixels.
        width: Its width.
    """
    plain = bundle.without_precisions()
    maps = [shape for name, shape in part_shapes(bundle, "warp", height, width).items() if name.startswith("features")]
    return Operations(
        features=_count(plain.graph("features.onnx"), part_shapes(bundle, "features", height, width)),
        head=_count(plain.graph("head.onnx"), part_shapes(bundle, "head", height, width)),
        warp=WARP_OPERATIONS * sum(prod(shape) for shape in maps),
        flow=_count(plain.graph("flow.onnx"), part_shapes(bundle, "flow", height, width))
        if motion.needs_network
        else 0,
    )


def part_shapes(bundle: Bundle, part: str, height: int, width: int) -> Shapes:
    """Return the shapes of the inputs of one of a bundle's graphs.

    Args:
        bundle: The bundle.
        part: `features`, `flow`, `warp` or `head`.
        height: The height of the networks' input in pixels.
        width: Its width.
    """
    manifest = bundle.manifest

    def cells(channels: int, stride: int) -> tuple[int, ...]:
        return 1, channels, -(-height // stride), -(-width // stride)

    maps = {f.name: cells(f.channels, f.stride) for f in manifest.features}
    match part:
        case "features":
            return {"image": cells(3, 1)}
        case "flow":
            return dict.fromkeys(("current", "key"), cells(3, manifest.flow.downscale))
        case "head":
            return maps | {held.name: tuple(held.shape) for held in manifest.held}
    scales = dict(zip(map_names("scale", len(maps)), maps.values(), strict=True))
    return maps | {"flow": cells(2, manifest.finest.stride)} | scales


def _count(model: onnx.ModelProto, shapes: Shapes) -> int:
    return total_operations(Graph(fold(fix_shapes(model, shapes))))
