"""Export: from trained networks to a bundle."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from keywarp.export.errors import ExportError

if TYPE_CHECKING:
    from keywarp.export.bundle import export_bundle, export_network
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

# Loaded when first used, so that `keywarp --help` needs no torch.
_HOMES = {
    "Graph": "graphs",
    "check_parity": "parity",
    "export_bundle": "bundle",
    "export_network": "bundle",
    "graphs_of": "graphs",
    "round_weights": "graphs",
    "to_onnx": "graphs",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
