"""What the flow network learns from: the teacher's features, the head's output on them, and a better flow.

Each part is in units of what copying the key frame's features would cost, so that 1 is as bad as doing nothing::

    features    squared error of the warped features, normalised per channel, over all maps; once with the scale field
                and once without it, so that the flow learns to move what the scale field could only paint over
    head        how far the head's output on the warped features is from its output on the teacher's
    pull        distance to the best other flow (chained DIS, DIS or none, by cell), where that explains the features
                better than the network's own

The pull decays in the course of the training. A feature error says little about motions beyond a cell or two, because
features are sampled between four cells only; a flow from elsewhere leads there.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from keywarp.adaptation.instance_loss import instance_difference
from keywarp.adaptation.pairs import PairBatch
from keywarp.adaptation.torch_graph import TorchGraph
from keywarp.adaptation.value_loss import value_difference
from keywarp.engines import Manifest
from keywarp.engines.manifest import DenseDetection, map_names
from keywarp.networks import FeatureMap, Warp, sample

SMOOTHING = 3  # cells across which errors are averaged to compare flows
PROBABILITY = 1e-6  # least probability whose logarithm is taken
FOCUS = 0.05  # least score of an object for its box to be distilled


@dataclass(frozen=True)
class LossWeights:
    """The weights of the parts."""

    features: float = 1.0
    unscaled: float = 0.5  # of the features without the scale field
    head: float = 1.0
    pull: float = 2.0  # at the beginning
    least_pull: float = 0.1  # at the end
    borrowed: float = 0.3  # share of the pairs that are warped along chained DIS, so that the scale field fits it too


@dataclass(frozen=True)
class Parts:
    """The parts of the loss, before their weights."""

    features: Tensor
    unscaled: Tensor
    head: Tensor
    pull: Tensor

    def as_dict(self) -> dict[str, float]:
        """Return them as numbers."""
        return {name: float(getattr(self, name).detach()) for name in ("features", "unscaled", "head", "pull")}


@dataclass(frozen=True)
class Units:
    """What copying costs, in the raw units of each part."""

    features: float
    head: float
    pull: float  # mean length of the best other flow, in cells


class PropagationLoss:
    """Computes the parts for batches of pairs."""

    def __init__(
        self,
        manifest: Manifest,
        flow: TorchGraph,
        teacher: TorchGraph | None,
        student: TorchGraph | None,
        deviations: Sequence[Tensor],
        autocast: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        """Prepare.

        Args:
            manifest: The bundle's manifest.
            flow: The flow network.
            teacher: The bundle's head, or None to do without its output.
            student: The head that is trained along, or None if the head stays as it is.
            deviations: Each map's standard deviation by channel, (C,), over the frames to learn from.
            autocast: Opens the context in which the flow network runs.
        """
        self._manifest, self._flow, self._teacher, self._student = manifest, flow, teacher, student
        self._autocast = autocast
        self._warp = Warp([FeatureMap(f.channels, f.stride) for f in manifest.features])
        self._scale_names = map_names("scale", len(manifest.features))
        self._finest = manifest.features.index(manifest.finest)
        self._deviations = [d.view(1, -1, 1, 1) for d in deviations]
        self.units = Units(1.0, 1.0, 1.0)

    def calibrate(self, batches: Sequence[PairBatch]) -> Units:
        """Measure what copying costs, and use it as the unit from now on."""
        with torch.no_grad():
            costs = []
            for batch in batches:
                guide, _ = self._guide(batch)
                costs.append(
                    (
                        self._error(batch.key_features, batch),
                        self._head_difference(batch.key_features, batch),
                        _mean(guide.norm(dim=1, keepdim=True), batch.counts[self._finest]),
                    )
                )
            features, head, pull = (float(torch.stack(values).mean()) for values in zip(*costs, strict=True))
        self.units = Units(max(features, 1e-6), max(head, 1e-6), max(pull, 1e-2))
        return self.units

    def __call__(self, batch: PairBatch, borrowed: Tensor) -> Parts:
        """Compute the parts.

        Args:
            batch: The pairs.
            borrowed: Which of them are warped along chained DIS, (N,) bool.
        """
        current, key = self._small(batch.current), self._small(batch.key)
        with self._autocast():
            outputs = self._flow(current=current, key=key)
        flow = outputs["flow"].float()
        scales = [outputs[name].float() for name in self._scale_names]
        used = torch.where(borrowed.view(-1, 1, 1, 1), batch.chained, flow)
        moved = self._warp(batch.key_features, used, [torch.ones_like(s) for s in scales])
        scaled = tuple(m * s for m, s in zip(moved, scales, strict=True))
        return Parts(
            features=self._error(scaled, batch) / self.units.features,
            unscaled=self._error(moved, batch) / self.units.features,
            head=self._head_difference(scaled, batch) / self.units.head,
            pull=self._pull(batch, flow) / self.units.pull,
        )

    def _small(self, frames: Tensor) -> Tensor:
        """Return the frames as the flow network's input."""
        mean = torch.tensor(self._manifest.image.rgb_mean, device=frames.device)
        side = self._manifest.flow.downscale
        return functional.avg_pool2d((frames.float() - mean).permute(0, 3, 1, 2), side, ceil_mode=True)

    def _error(self, features: Sequence[Tensor], batch: PairBatch) -> Tensor:
        """Return the squared error normalised per channel, a mean over channels, cells, pairs and maps."""
        return torch.stack(
            [
                _mean((((x - t) / d) ** 2).mean(dim=1, keepdim=True), counts)
                for x, t, d, counts in zip(features, batch.target, self._deviations, batch.counts, strict=True)
            ]
        ).mean()

    def _cell_error(self, moved: Tensor, target: Tensor) -> Tensor:
        """Return the finest map's error by cell, averaged over neighbouring cells: (N, 1, h, w)."""
        error = (((moved - target) / self._deviations[self._finest]) ** 2).mean(dim=1, keepdim=True)
        return functional.avg_pool2d(error, SMOOTHING, 1, SMOOTHING // 2, count_include_pad=False)

    def _guide(self, batch: PairBatch) -> tuple[Tensor, Tensor]:
        """Return, cell by cell, the other flow that explains the finest map best, and its error."""
        features, target = batch.key_features[self._finest], batch.target[self._finest]
        candidates = (torch.zeros_like(batch.chained), batch.chained, batch.direct)
        errors = torch.stack([self._cell_error(sample(features, c), target) for c in candidates])  # (3, N, 1, h, w)
        least, place = errors.min(dim=0)
        guide = torch.stack(candidates).gather(0, place[None].expand(1, -1, 2, -1, -1))[0]
        return guide, least

    def _pull(self, batch: PairBatch, flow: Tensor) -> Tensor:
        with torch.no_grad():
            guide, error = self._guide(batch)
            own = self._cell_error(sample(batch.key_features[self._finest], flow.detach()), batch.target[self._finest])
            better = ((own - error) / own.clamp(min=1e-6)).clamp(min=0)  # 0..1
        distance = torch.sqrt(((flow - guide) ** 2).sum(dim=1, keepdim=True) + 1e-8)
        return _mean(better * distance, batch.counts[self._finest])

    def _head_difference(self, features: Sequence[Tensor], batch: PairBatch) -> Tensor:
        """Return how far the head's output on features is from its output on the teacher's."""
        if self._teacher is None:
            return features[0].new_zeros(())
        names = [f.name for f in self._manifest.features]
        held = [h.name for h in self._manifest.held]
        true = dict(zip([*names, *held], (*batch.target, *batch.held), strict=True))
        seen = {  # at a crop's rim the head sees the teacher's features
            name: torch.lerp(t, x, counts)
            for name, x, t, counts in zip(names, features, batch.target, batch.counts, strict=True)
        } | dict(zip(held, batch.key_held, strict=True))
        with torch.no_grad():
            wanted = self._run(self._teacher, true)
        found = self._run(self._student or self._teacher, seen)
        difference = output_difference(self._manifest, found, wanted)
        if self._student is None:
            return difference
        on_key_frames = self._run(self._student, true)  # they must stay what they are
        return difference + output_difference(self._manifest, on_key_frames, wanted)

    def _run(self, head: TorchGraph, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Run a head. Graphs for an input of exact size may be for a single frame, too."""
        if self._manifest.image.fit == "resize":
            outputs: dict[str, Tensor] = head(**inputs)
            return outputs
        count = len(next(iter(inputs.values())))
        each = [head(**{name: x[n : n + 1] for name, x in inputs.items()}) for n in range(count)]
        return {name: torch.cat([one[name] for one in each]) for name in each[0]}


def _mean(values: Tensor, counts: Tensor) -> Tensor:
    """Return the mean over the cells that count; both are (N, 1, h, w)."""
    return (values * counts).sum() / counts.sum().clamp(min=1.0)


def output_difference(manifest: Manifest, found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> Tensor:
    """Compare two outputs of a head.

    Args:
        manifest: The bundle's manifest, which says what the outputs are.
        found: The outputs on warped features, by name.
        wanted: The teacher's outputs.

    Returns:
        For segmentation, the divergence (Kullback-Leibler) of the probabilities. For heads that return boxes, the cross
        entropy of the scores, weighted where they differ, and the overlap that boxes of objects lack, together with the
        `instance_difference` of masks and keypoints. For dense maps, the distance of values and of the steps between
        them, in units of the teacher's spread. For others, the squared differences in units of the teacher's variance.
    """
    found = {name: x.float() for name, x in found.items()}
    wanted = {name: x.float() for name, x in wanted.items()}
    if manifest.task == "segmentation":
        if manifest.segmentation and manifest.segmentation.logits:
            found, wanted = ({"scores": x["scores"].softmax(dim=1)} for x in (found, wanted))
        p, q = (x["scores"].clamp(min=PROBABILITY) for x in (wanted, found))
        return (p * (p.log() - q.log())).sum(dim=1).mean()
    if isinstance(manifest.detection, DenseDetection):
        return _box_difference(found, wanted)
    if manifest.task == "dense":
        return value_difference(found["values"], wanted["values"])
    parts = [((found[name] - x) ** 2).mean() / x.var().clamp(min=PROBABILITY) for name, x in wanted.items()]
    return torch.stack(parts).mean()


def _box_difference(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> Tensor:
    t, s = wanted["scores"][..., 1:], found["scores"][..., 1:].clamp(PROBABILITY, 1 - PROBABILITY)
    entropy = -(t * s.log() + (1 - t) * (1 - s).log())
    scores = (entropy * (t - s).abs()).sum(dim=(1, 2))  # quality focal loss (Li et al., 2020) with the exponent 1
    weight = t.amax(dim=-1)
    weight = weight * (weight > FOCUS)
    lacking = 1 - _overlap(found["boxes"], wanted["boxes"])
    objects = weight.sum(dim=1).clamp(min=1.0)
    boxes = ((scores + (weight * lacking).sum(dim=1)) / objects).mean()
    return boxes + instance_difference(found, wanted, weight)


def _overlap(a: Tensor, b: Tensor) -> Tensor:
    """Return the generalised intersection over union (Rezatofighi et al., 2019) of boxes (N, n, 4): (N, n), -1..1."""
    low, high = torch.maximum(a[..., :2], b[..., :2]), torch.minimum(a[..., 2:], b[..., 2:])
    outer = torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])
    shared = (high - low).clamp(min=0).prod(dim=-1)
    areas = [(x[..., 2:] - x[..., :2]).clamp(min=0).prod(dim=-1) for x in (a, b)]
    union = (areas[0] + areas[1] - shared).clamp(min=PROBABILITY)
    hull = outer.clamp(min=0).prod(dim=-1).clamp(min=PROBABILITY)
    return shared / union - (hull - union) / hull


def measure_deviations(features: Sequence[Tensor]) -> list[Tensor]:
    """Return the standard deviation by channel of feature maps (N, C, h, w): (C,) each, never nearly 0."""
    found = []
    for x in features:
        deviation = x.std(dim=(0, 2, 3))
        found.append(deviation.clamp(min=max(1e-6, 1e-3 * float(deviation.max()))))
    return found


def freeze(graph: nn.Module) -> None:
    """Keep a graph's weights from being trained."""
    for parameter in graph.parameters():
        parameter.requires_grad_(False)
