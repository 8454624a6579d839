"""The places where a network can be cut into features and a head.

A cut divides the nodes into the features, which come first, and the head. What a propagated frame costs is the time of
the head's nodes, and that of moving every tensor that crosses. So the best cut is a *minimum cut* of the graph, in
which a node on the head's side costs its operations, and a tensor that crosses costs its bytes once. Tensors that
aren't maps of the image, or don't move with it, can't cross. Constants are on both sides.

How much work moving a byte is worth depends on the machine. All cuts that are best at some price between a fraction and
a multiple of the usual one are candidates.

They are about cost alone. In long intervals, results agree better if the head keeps a layer that looks at a
neighbourhood behind every map, and so mends what the warp left uneven (docs/import.md has figures). The cheapest such
cut is a candidate, too, though never the best one: a shorter interval buys the same agreement for less.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import inf, prod

from keywarp.importing.errors import ImportingError
from keywarp.importing.graph import IMAGE, Graph
from keywarp.importing.maps import MapSpec as MapSpec  # part of this module's interface
from keywarp.importing.maps import Measurement, grid_constants, map_of
from keywarp.importing.minimum_cut import FlowGraph
from keywarp.importing.model_file import CONTROL_FLOW, ImportedModel
from keywarp.importing.operations import operations_of

# What moving a byte of a map costs, in operations. GridSample takes about 3 ns a value of 4 bytes on 2 cores, where
# convolutions run at about 330 operations a nanosecond.
OPERATIONS_PER_BYTE = 250.0
BYTES_PER_MAP = 40_000  # what another map costs besides its bytes: the start of a few more nodes
PRICE_RANGE = 32.0  # factor by which prices below and above the usual one are tried
OPERATIONS_PER_ELEMENT = 50.0  # what an activation, sum or copy costs for each value that it writes
LEAST_LOCALITY = 0.35  # 1/4 is chance
LEAST_EQUIVARIANCE = 0.2  # of maps that are made of coordinates for the most part
MOST_FIXED = 0.3
CLEAR_EQUIVARIANCE = 0.5  # of a map that certainly moves
WHITE = 255.0  # in an image of bytes
ROUNDS = 20  # of cutting and measuring
SAME_COST = 0.01  # a difference in cost that doesn't count, as a share of the whole network's
SAME_BYTES = 0.2  # a difference in bytes that isn't worth another candidate, as a share
MOST_CANDIDATES = 8
MOST_MENDING = 0.5  # of the work, left to the head by a cut that is listed only because it mends what the warp does
VIEWS = ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Shape")  # cost nothing
CONVOLUTIONS = ("Conv", "ConvTranspose", "QLinearConv", "ConvInteger")
LAYERS = (*CONVOLUTIONS, "Gemm", "MatMul", "Einsum", "MatMulInteger")


@dataclass(frozen=True)
class Candidate:
    """A place to cut a network.

    Attributes:
        maps: The maps that cross, finest first.
        head_operations: The operations of the head.
        operations: The operations of the whole network.
        bytes: The bytes of the maps, as 32-bit floats.
        equivariance: How far the maps move with the image, the least of them: 1 if they do exactly. See
            `keywarp.importing.maps.equivariance`.
        layers: Whether the head keeps a layer with weights behind every map.
        mends: Whether it keeps one that looks at a neighbourhood, such as 3x3, behind every map.
    """

    maps: tuple[MapSpec, ...]
    head_operations: int
    operations: int
    bytes: int
    equivariance: float
    layers: bool = True
    mends: bool = False

    @property
    def head_share(self) -> float:
        """The head's share of the whole network's operations."""
        return self.head_operations / max(1, self.operations)

    @property
    def cost(self) -> float:
        """The predicted cost of the head and of moving the maps, in operations."""
        return self.head_operations + OPERATIONS_PER_BYTE * (self.bytes + BYTES_PER_MAP * len(self.maps))


def find_candidates(model: ImportedModel, limit: int = MOST_CANDIDATES) -> list[Candidate]:
    """Find the places where a network can be cut, best first.

    Those whose predicted costs differ by less than 1 % of the whole network's count as equal. Of them, the best has
    the fewest maps, then the coarsest, then a layer with weights left in the head, which smooths what moving the maps
    by fractions of a cell left uneven. If none of them leaves the head a layer that looks at a neighbourhood, the
    cheapest one that does comes last, unless it leaves most of the work to the head.

    Args:
        model: The network.
        limit: The most candidates.

    Returns:
        The candidates; none if no maps separate the image from the results.
    """
    cutter = _Cutter(model)
    heads: dict[frozenset[str], set[int]] = {}
    for excluded in (cutter.after_layers, frozenset[str]()):
        for head in cutter.settle(excluded):
            heads.setdefault(frozenset(cutter.crossing(head)), head)
    chosen = rank(cutter.candidate(head) for head in heads.values())[:limit]
    if chosen and not any(_mends_cheaply(candidate) for candidate in chosen):
        mending = filter(_mends_cheaply, map(cutter.candidate, cutter.settle(cutter.after_mending_layers)))
        chosen = [*chosen[: limit - 1], *sorted(mending, key=lambda c: c.cost)[:1]]
    return cutter.measured(chosen)


def _mends_cheaply(candidate: Candidate) -> bool:
    return candidate.mends and candidate.head_share <= MOST_MENDING


def named_candidate(model: ImportedModel, tensors: Sequence[str]) -> Candidate:
    """Return the candidate that cuts a network at given tensors.

    Args:
        model: The network.
        tensors: The tensors' names in its graph.

    Raises:
        ImportingError: If a tensor isn't a map, or they don't separate the image from the results.
    """
    cutter = _Cutter(model)
    for name in tensors:
        if name not in cutter.graph.producers:
            raise ImportingError(f"the network has no tensor {name!r}: choose those of one line of the table of cuts")
        if name not in cutter.maps:
            shape = "x".join(map(str, cutter.graph.shapes.get(name, ()))) or "unknown"
            raise ImportingError(
                f"{name!r} of shape {shape} isn't a map of an image of {model.height}x{model.width}: cut elsewhere"
            )
    head = cutter.graph.needed(cutter.graph.outputs, tensors)
    leaks = [output for output in cutter.graph.outputs if output == IMAGE]
    if leaks or any(IMAGE in cutter.graph.reads[index] for index in head):
        raise ImportingError(f"the results still depend on the image when the network is cut at {', '.join(tensors)}")
    read = {name for index in head for name in cutter.graph.reads[index]} | set(cutter.graph.outputs)
    for name in tensors:
        if name not in read:
            raise ImportingError(f"the results don't need {name!r} besides the other tensors: leave it out")
    specs = [cutter.maps[name] for name in tensors]
    if not _fit_together(specs):
        strides = ", ".join(str(spec.stride) for spec in specs)
        raise ImportingError(
            f"maps of the strides {strides} don't fit together: each must be the smallest times 2, 4, ..."
        )
    for name in tensors:
        if not cutter.moves(name, tensors):
            raise ImportingError(
                f"{name!r} doesn't move with the image, although it has the shape of a map: cut elsewhere"
            )
    return cutter.measured([cutter.candidate(set(head))])[0]


def rank(candidates: Iterable[Candidate]) -> list[Candidate]:
    """Order candidates, best first, see `find_candidates`."""
    left = sorted(candidates, key=lambda c: c.cost)
    ranked: list[Candidate] = []
    while left:
        limit = left[0].cost + SAME_COST * left[0].operations
        equal = [c for c in left if c.cost <= limit]
        best = min(equal, key=lambda c: (len(c.maps), -c.maps[0].stride, not c.layers, c.cost))
        left.remove(best)
        if not any(_alike(best, better) for better in ranked):
            ranked.append(best)
    return ranked


def _alike(worse: Candidate, better: Candidate) -> bool:
    """Return whether a candidate is nearly the same as another, so that there is no reason to choose it."""
    return (
        (better.layers or not worse.layers)
        and len(worse.maps) >= len(better.maps)
        and worse.head_operations > better.head_operations - SAME_COST * better.operations
        and worse.bytes > (1 - SAME_BYTES) * better.bytes
    )


def _fit_together(specs: Iterable[MapSpec]) -> bool:
    """Return whether the strides are the smallest one times powers of 2."""
    strides = {spec.stride for spec in specs}
    finest = min(strides)
    return all(stride % finest == 0 and (stride // finest).bit_count() == 1 for stride in strides)


class _Cutter:
    """Cuts one network at different prices."""

    def __init__(self, model: ImportedModel) -> None:
        self.model = model
        self.graph = Graph(model.model)
        graph = self.graph
        # Nodes that depend on the image and that results depend on; the others are constants, or of no use.
        needed = set(graph.needed(graph.outputs))
        self.nodes = [
            index for index, names in enumerate(graph.reads) if index in needed and not graph.moving.isdisjoint(names)
        ]
        self.operations = {index: operations_of(graph, graph.nodes[index]) for index in self.nodes}
        self.costs = {index: self.operations[index] + _element_cost(graph, index) for index in self.nodes}
        size = (model.height, model.width)
        specs = (map_of(graph, name, *size) for index in self.nodes for name in graph.nodes[index].output)
        self.maps = {spec.tensor: spec for spec in specs if spec is not None}
        self.measurement = Measurement(graph, *size, WHITE if model.bytes_in else 1.0)
        self.localities: dict[str, float] = {}
        self.fixed: dict[str, float] = {}
        self.equivariances: dict[str, float] = {}

    def settle(self, excluded: frozenset[str]) -> list[set[int]]:
        """Return the heads of the candidates, whose maps all move with the image.

        Args:
            excluded: Tensors that may not cross.
        """
        allowed = set(self.maps) - excluded
        found: list[set[int]] = []
        for _ in range(ROUNDS):
            found = self.family(self._fitting(allowed))
            crossing = {name for head in found for name in self.crossing(head)}
            still = {name for name in crossing if not self.moves(name, crossing)}
            if not still:
                return found
            # Shapes that are a map's by chance come in numbers, such as the queries of each layer of a decoder.
            chance = {self.graph.shapes[name] for name in still if self.localities[name] < LEAST_LOCALITY}
            alike = {name for name in allowed if self.graph.shapes[name] in chance}
            allowed -= still | {name for name in alike if not self.moves(name, alike)}
        return [head for head in found if not set(self.crossing(head)) & still]

    def moves(self, name: str, others: Iterable[str]) -> bool:
        """Return whether a map was measured to move with the image.

        Args:
            name: The map's tensor.
            others: Tensors that are measured with it, to save runs.
        """
        if name not in self.localities:
            specs = [self.maps[other] for other in others if other not in self.localities]
            self.localities |= self.measurement.locality(specs)
            doubtful = [spec for spec in specs if spec.tensor in self.after_grids]
            self.fixed |= self.measurement.fixed(doubtful)
            self.equivariances |= self.measurement.equivariance(doubtful)
        if self.localities[name] < LEAST_LOCALITY:
            return False
        return self.fixed.get(name, 0.0) < MOST_FIXED or self.equivariances[name] >= LEAST_EQUIVARIANCE

    def measured(self, candidates: Iterable[Candidate]) -> list[Candidate]:
        """Return candidates with the equivariance of their maps."""
        found = list(candidates)
        names = {spec.tensor: spec for candidate in found for spec in candidate.maps}
        missing = [spec for name, spec in names.items() if name not in self.equivariances]
        self.equivariances |= self.measurement.equivariance(missing)
        if not self.model.bytes_in:  # perhaps white is 255, and what was shown is nearly black
            doubtful = [spec for spec in missing if self.equivariances[spec.tensor] < CLEAR_EQUIVARIANCE]
            for name, brighter in self.measurement.equivariance(doubtful, WHITE).items():
                self.equivariances[name] = max(brighter, self.equivariances[name])
        return [replace(c, equivariance=min(self.equivariances[spec.tensor] for spec in c.maps)) for c in found]

    @cached_property
    def after_grids(self) -> set[str]:
        """The tensors that depend on constants that vary over the image."""
        graph = self.graph
        nodes = [graph.nodes[index] for index in self.nodes]
        found = grid_constants(graph, nodes, self.model.height, self.model.width)
        for index in self.nodes:
            if not found.isdisjoint(graph.reads[index]):
                found.update(graph.nodes[index].output)
        return found

    def candidate(self, head: set[int]) -> Candidate:
        """Return a cut as a candidate.

        Args:
            head: The nodes of the head.
        """
        names = self.crossing(head)
        specs = sorted((self.maps[name] for name in names), key=lambda spec: spec.stride)
        return Candidate(
            tuple(specs),
            sum(self.operations.get(index, 0) for index in head),
            sum(self.operations.values()),
            sum(self._bytes(name) for name in names),
            math.nan,
            self.after_layers.isdisjoint(names),
            self.after_mending_layers.isdisjoint(names),
        )

    def crossing(self, head: set[int]) -> list[str]:
        """Return the tensors that the features give and the head or the results need, in order."""
        read = {name for index in head for name in self.graph.reads[index]} | set(self.graph.outputs)
        features = [index for index in self.nodes if index not in head]
        return [name for index in features for name in self.graph.nodes[index].output if name in read]

    def family(self, allowed: set[str]) -> list[set[int]]:
        """Return the heads of the cuts that are best at some price: the lower hull of operations and bytes."""
        usual = OPERATIONS_PER_BYTE
        cheap, dear = (self.cut(allowed, price) for price in (usual / PRICE_RANGE, usual * PRICE_RANGE))
        if cheap is None or dear is None:
            return []
        found = [cheap]
        waiting = [(cheap, dear)]
        while waiting:
            first, second = waiting.pop()
            (work, moved), (more_work, less_moved) = self._totals(first), self._totals(second)
            if moved <= less_moved:
                continue
            found += [second] if second not in found else []
            price = (more_work - work) / (moved - less_moved)
            between = self.cut(allowed, price)
            if between is not None and between not in found:
                found.append(between)
                waiting += [(first, between), (between, second)]
        return found

    def cut(self, allowed: set[str], price: float) -> set[int] | None:
        """Return the nodes of the head of the cheapest cut, or None if there is none.

        Args:
            allowed: The tensors that may cross.
            price: What moving a byte costs, in operations.
        """
        group = self._merged(allowed)
        names = [name for name in allowed if name in self.graph.producers]
        vertices = {root: 2 + number for number, root in enumerate(dict.fromkeys(group.values()))}
        gates = {name: 2 + len(vertices) + number for number, name in enumerate(names)}
        flow = FlowGraph(len(vertices) + len(gates))
        costs: dict[int, float] = {}
        for index in self.nodes:
            vertex = vertices[group[index]]
            costs[vertex] = costs.get(vertex, 0.0) + self.costs[index]
            if IMAGE in self.graph.reads[index]:
                costs[vertex] = inf  # these are features
        for vertex, cost in costs.items():
            flow.connect(FlowGraph.SOURCE, vertex, cost)
        for root in {group[p] for p in self._always_head(allowed)}:
            flow.connect(vertices[root], FlowGraph.SINK, inf)
        for name in names:
            producer = vertices[group[self.graph.producers[name]]]
            readers = {vertices[group[index]] for index in self.graph.consumers.get(name, ()) if index in group}
            readers -= {producer}
            is_result = name in self.graph.outputs
            if not readers and not is_result:
                continue
            flow.connect(producer, gates[name], price * (self._bytes(name) + BYTES_PER_MAP))
            for reader in readers:
                flow.connect(gates[name], reader, inf)
                flow.connect(reader, producer, inf)  # what a feature reads is a feature
            if is_result:
                flow.connect(gates[name], FlowGraph.SINK, inf)
        side = flow.source_side()
        if side is None:
            return None
        return {index for index in self.nodes if vertices[group[index]] not in side}

    def _always_head(self, allowed: set[str]) -> list[int]:
        """Return nodes of every head: those of control flow, and those that make results which can't cross."""
        outputs = [name for name in self.graph.outputs if name not in allowed and name in self.graph.moving]
        flow = [index for index in self.nodes if self.graph.nodes[index].op_type in CONTROL_FLOW]
        return [*flow, *(self.graph.producers[name] for name in outputs)]

    def _merged(self, allowed: set[str]) -> dict[int, int]:
        """Return a representative for each node; nodes between which no tensor may cross have the same."""
        parent = {index: index for index in self.nodes}

        def root(index: int) -> int:
            while parent[index] != index:
                parent[index] = parent[parent[index]]
                index = parent[index]
            return index

        for index in self.nodes:
            for name in self.graph.reads[index]:
                producer = self.graph.producers.get(name)
                if producer in parent and name not in allowed:
                    parent[root(index)] = root(producer)
        return {index: root(index) for index in self.nodes}

    def _fitting(self, allowed: set[str]) -> set[str]:
        """Leave out the maps of strides that don't fit to the most common ones."""
        families = [{s * 2**k for k in range(8)} for s in {2, *(self.maps[name].stride for name in allowed)}]
        if not families:
            return allowed
        best = max(families, key=lambda f: (sum(self.maps[name].stride in f for name in allowed), -min(f)))
        return {name for name in allowed if self.maps[name].stride in best}

    @cached_property
    def after_layers(self) -> frozenset[str]:
        """The tensors from which results are reached without any layer with weights."""
        return self._after(self._has_weights)

    @cached_property
    def after_mending_layers(self) -> frozenset[str]:
        """The tensors from which results are reached without any layer that looks at a neighbourhood."""
        return self._after(self._has_window)

    def _after(self, is_layer: Callable[[int], bool]) -> frozenset[str]:
        """Return the tensors from which results are reached without any of some layers."""
        found = set(self.graph.outputs)
        for index in reversed(self.nodes):
            if found & set(self.graph.nodes[index].output) and not is_layer(index):
                found.update(self.graph.reads[index])
        return frozenset(found)

    def _has_weights(self, index: int) -> bool:
        node = self.graph.nodes[index]
        return node.op_type in LAYERS and any(name in self.graph.initializers for name in node.input)

    def _has_window(self, index: int) -> bool:
        """Return whether a node is a convolution with a kernel larger than 1x1."""
        graph, node = self.graph, self.graph.nodes[index]
        if node.op_type not in CONVOLUTIONS:
            return False
        kernels = [graph.shapes[name][2:] for name in node.input if name in graph.initializers]
        return any(max(kernel, default=1) > 1 for kernel in kernels)

    def _totals(self, head: set[int]) -> tuple[float, float]:
        moved = sum(self._bytes(name) + BYTES_PER_MAP for name in self.crossing(head))
        return sum(self.costs[index] for index in head), moved

    def _bytes(self, name: str) -> int:
        return 4 * prod(self.graph.shapes[name])


def _element_cost(graph: Graph, index: int) -> float:
    node = graph.nodes[index]
    if node.op_type in VIEWS:
        return 1.0
    shapes = (graph.shapes.get(name, ()) for name in node.output)
    return 1.0 + OPERATIONS_PER_ELEMENT * sum(prod(shape) for shape in shapes if min(shape, default=1) > 0)
