"""Importing: from any network's ONNX file to a bundle. No PyTorch is needed.

Example:
    >>> import_file(Path("yolov8m.onnx"), ImportOptions(), frames, Path("models/yolo"), progress=print)
"""

from keywarp.importing.candidates import Candidate, find_candidates
from keywarp.importing.checks import Check
from keywarp.importing.class_names import read_class_names
from keywarp.importing.draft import Draft, ImportOptions, draft_bundle
from keywarp.importing.errors import ImportingError
from keywarp.importing.file_import import import_file
from keywarp.importing.findings import Findings
from keywarp.importing.model_file import ImportedModel, read_model
from keywarp.importing.motion_graphs import flow_graph, warp_graph
from keywarp.importing.picture import picture
from keywarp.importing.preparation import PreparationHints
from keywarp.importing.result_format import Hints, ResultFormat

__all__ = [
    "Candidate",
    "Check",
    "Draft",
    "Findings",
    "Hints",
    "ImportOptions",
    "ImportedModel",
    "ImportingError",
    "PreparationHints",
    "ResultFormat",
    "draft_bundle",
    "find_candidates",
    "flow_graph",
    "import_file",
    "picture",
    "read_class_names",
    "read_model",
    "warp_graph",
]
