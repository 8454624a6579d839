"""Importing: from any network's ONNX file to a bundle. No PyTorch is needed.

Example:
    >>> draft = draft_bundle(Path("yolov8m.onnx"), ImportOptions(), frames)
    >>> print(draft.doubt or draft.measured.frames)
    >>> for check in draft.check(frames):
    ...     print(check)
    >>> bundle = draft.write(Path("models/yolo"))
"""

from keywarp.importing.candidates import Candidate, find_candidates
from keywarp.importing.checks import Check
from keywarp.importing.class_names import read_class_names
from keywarp.importing.draft import Draft, ImportOptions, draft_bundle
from keywarp.importing.errors import ImportingError
from keywarp.importing.model_file import ImportedModel, read_model
from keywarp.importing.motion_graphs import flow_graph, warp_graph
from keywarp.importing.picture import picture
from keywarp.importing.preparation import PreparationHints
from keywarp.importing.result_format import Hints, ResultFormat

__all__ = [
    "Candidate",
    "Check",
    "Draft",
    "Hints",
    "ImportOptions",
    "ImportedModel",
    "ImportingError",
    "PreparationHints",
    "ResultFormat",
    "draft_bundle",
    "find_candidates",
    "flow_graph",
    "picture",
    "read_class_names",
    "read_model",
    "warp_graph",
]
