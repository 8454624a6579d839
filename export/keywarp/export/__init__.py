"""Export: from trained networks to a bundle."""

from keywarp.export.bundle import export_bundle, export_network
from keywarp.export.errors import ExportError
from keywarp.export.graphs import Graph, graphs_of, round_weights, to_onnx
from keywarp.export.parity import check_parity

__all__ = [
    "ExportError",
    "Graph",
    "check_parity",
    "export_bundle",
    "export_network",
    "graphs_of",
    "round_weights",
    "to_onnx",
]
