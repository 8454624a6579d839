"""Training data: the paper's data sets, generated video, and plain video with labels of your own or a teacher's."""

from keywarp.datasets.augmentation import Augmentation
from keywarp.datasets.batches import FlowBatch, FlowDataset, PairBatch, PairDataset
from keywarp.datasets.clips import Clip, read_clip
from keywarp.datasets.detector import Detector, Grid, TeacherDetection
from keywarp.datasets.errors import DataError, PackageError
from keywarp.datasets.labelled_clips import ClipFlowSource, LabelledClip
from keywarp.datasets.labelling import VotingRule, label_clip
from keywarp.datasets.masks import ShapePrior, TeacherClass, evidence
from keywarp.datasets.motion import Flow, SyntheticMotion, dense_flow, synthetic_pair, warp_image
from keywarp.datasets.packages import PackageFile, fetch
from keywarp.datasets.samples import (
    MAX_GAP,
    Boxes,
    FlowPair,
    FlowSource,
    FramePair,
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
    "ClipFlowSource",
    "DataError",
    "Detector",
    "Flow",
    "FlowBatch",
    "FlowDataset",
    "FlowPair",
    "FlowSource",
    "FramePair",
    "Grid",
    "Image",
    "LabelledClip",
    "Labels",
    "PackageError",
    "PackageFile",
    "PairBatch",
    "PairDataset",
    "PairSource",
    "ShapePrior",
    "Snippet",
    "SnippetSource",
    "SyntheticMotion",
    "TeacherClass",
    "TeacherDetection",
    "Truth",
    "VotingRule",
    "dense_flow",
    "evidence",
    "fetch",
    "label_clip",
    "read_clip",
    "synthetic_pair",
    "warp_image",
]
