"""Training data: the paper's data sets, generated video, plain video with labels of one's own or a teacher's."""

from keywarp.datasets.augmentation import Augmentation
from keywarp.datasets.batches import FlowBatch, FlowDraws, PairBatch, PairDraws
from keywarp.datasets.clips import Clip, read_clip
from keywarp.datasets.detector import Detection, Detector, Grid
from keywarp.datasets.errors import DataError, PackageError
from keywarp.datasets.labels import Vote, label_clip
from keywarp.datasets.masks import Shape, TaughtClass, evidence
from keywarp.datasets.motion import Flow, MadeMotion, dense_flow, made_pair, move
from keywarp.datasets.packages import PackageFile, fetch
from keywarp.datasets.pairs import ClipFlows, LabelledClip
from keywarp.datasets.samples import (
    MAX_GAP,
    Boxes,
    FlowPair,
    FlowSource,
    Pair,
    PairSource,
    Snippet,
    SnippetSource,
    Truth,
)
from keywarp.datasets.types import IGNORE, Image, Labels

__all__ = [
    "IGNORE",
    "MAX_GAP",
    "Augmentation",
    "Boxes",
    "Clip",
    "ClipFlows",
    "DataError",
    "Detection",
    "Detector",
    "Flow",
    "FlowBatch",
    "FlowDraws",
    "FlowPair",
    "FlowSource",
    "Grid",
    "Image",
    "LabelledClip",
    "Labels",
    "MadeMotion",
    "PackageError",
    "PackageFile",
    "Pair",
    "PairBatch",
    "PairDraws",
    "PairSource",
    "Shape",
    "Snippet",
    "SnippetSource",
    "TaughtClass",
    "Truth",
    "Vote",
    "dense_flow",
    "evidence",
    "fetch",
    "label_clip",
    "made_pair",
    "move",
    "read_clip",
]
