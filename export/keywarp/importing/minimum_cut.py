"""Minimum cuts, by Dinic's algorithm ("Algorithm for solution of a problem of maximum flow in networks", 1970)."""

from collections import deque
from math import inf


class FlowGraph:
    """A directed graph with capacities, and a source and a sink."""

    SOURCE, SINK = 0, 1

    def __init__(self, vertices: int) -> None:
        """Make a graph of vertices 2, 3, ... besides the source and the sink, without edges.

        Args:
            vertices: The number of vertices besides the source and the sink.
        """
        self._edges: list[list[int]] = [[] for _ in range(vertices + 2)]  # by vertex; edge e and e ^ 1 are opposite
        self._heads: list[int] = []
        self._residuals: list[float] = []

    def connect(self, tail: int, head: int, capacity: float) -> None:
        """Add an edge. An infinite capacity can't be cut."""
        for start, end, value in ((tail, head, capacity), (head, tail, 0.0)):
            self._edges[start].append(len(self._heads))
            self._heads.append(end)
            self._residuals.append(value)

    def source_side(self) -> set[int] | None:
        """Return the source's side of a minimum cut, the largest if there are several; None if every cut is infinite.

        It can be called once.
        """
        largest = sum(residual for residual in self._residuals if residual < inf)
        self._residuals = [min(residual, 2 * largest + 1) for residual in self._residuals]
        self._tolerance = 1e-12 * (largest + 1)
        flow = 0.0
        while (levels := self._levels())[self.SINK] >= 0:
            starts = [0] * len(self._edges)
            while pushed := self._push(levels, starts):
                flow += pushed
                if flow > largest + self._tolerance * len(self._edges):
                    return None
        return set(range(len(self._edges))) - self._reaching_sink()

    def _levels(self) -> list[int]:
        """Return each vertex's distance from the source along edges with capacity left, or -1."""
        levels = [-1] * len(self._edges)
        levels[self.SOURCE] = 0
        waiting = deque([self.SOURCE])
        while waiting:
            vertex = waiting.popleft()
            for edge in self._edges[vertex]:
                head = self._heads[edge]
                if levels[head] < 0 and self._residuals[edge] > self._tolerance:
                    levels[head] = levels[vertex] + 1
                    waiting.append(head)
        return levels

    def _push(self, levels: list[int], starts: list[int]) -> float:
        """Push flow along one shortest path, and return how much; 0 if there is none left."""
        path: list[int] = []
        vertex = self.SOURCE
        while vertex != self.SINK:
            edges = self._edges[vertex]
            while starts[vertex] < len(edges):
                edge = edges[starts[vertex]]
                if self._residuals[edge] > self._tolerance and levels[self._heads[edge]] == levels[vertex] + 1:
                    break
                starts[vertex] += 1
            else:
                if not path:
                    return 0.0
                vertex = self._heads[path.pop() ^ 1]
                starts[vertex] += 1
                continue
            path.append(edge)
            vertex = self._heads[edge]
        pushed = min(self._residuals[edge] for edge in path)
        for edge in path:
            self._residuals[edge] -= pushed
            self._residuals[edge ^ 1] += pushed
        return pushed

    def _reaching_sink(self) -> set[int]:
        """Return the vertices from which the sink can be reached along edges with capacity left."""
        found = {self.SINK}
        waiting = [self.SINK]
        while waiting:
            for edge in self._edges[waiting.pop()]:
                tail = self._heads[edge]
                if tail not in found and self._residuals[edge ^ 1] > self._tolerance:
                    found.add(tail)
                    waiting.append(tail)
        return found
