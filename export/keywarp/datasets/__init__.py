"""Training data out of plain video: clips, a teacher's labels, pairs with labels or motion."""

from keywarp.datasets.clips import IGNORE, Clip, Image, Labels, read_clip
from keywarp.datasets.detector import Detection, Detector, Grid
from keywarp.datasets.errors import DataError, PackageError
from keywarp.datasets.labels import Vote, label_clip
from keywarp.datasets.masks import Shape, TaughtClass, evidence
from keywarp.datasets.motion import Flow, MadeMotion, dense_flow, made_pair, move
from keywarp.datasets.packages import PackageFile, fetch
from keywarp.datasets.pairs import Augmentation, FlowPairs, LabelledClip, LabelledPairs, PairSampler

__all__ = [
    "IGNORE",
    "Augmentation",
    "Clip",
    "DataError",
    "Detection",
    "Detector",
    "Flow",
    "FlowPairs",
    "Grid",
    "Image",
    "LabelledClip",
    "LabelledPairs",
    "Labels",
    "MadeMotion",
    "PackageError",
    "PackageFile",
    "PairSampler",
    "Shape",
    "TaughtClass",
    "Vote",
    "dense_flow",
    "evidence",
    "fetch",
    "label_clip",
    "made_pair",
    "move",
    "read_clip",
]
