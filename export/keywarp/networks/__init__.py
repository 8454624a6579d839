"""The paper's networks as torch modules: feature networks, flow network, warp, head."""

from keywarp.networks.checkpoint import (
    Checkpoint,
    CheckpointError,
    ModelCard,
    NetworkOptions,
    build_network,
    load_checkpoint,
    save_checkpoint,
)
from keywarp.networks.dff import DeepFeatureFlow, half_size
from keywarp.networks.flownet import FlowNetInception, Motion
from keywarp.networks.folding import fold_batch_norms
from keywarp.networks.heads import SegmentationHead
from keywarp.networks.pretrained import IMAGE_MEAN, WeightsError, load_keras_weights, load_torchvision_weights
from keywarp.networks.resnet import (
    FEATURE_STRIDE,
    ResNetFeatures,
    ResNetOptions,
    resnet50_conv4_features,
    resnet50_features,
    resnet101_features,
)
from keywarp.networks.warp import Warp, sample

__all__ = [
    "FEATURE_STRIDE",
    "IMAGE_MEAN",
    "Checkpoint",
    "CheckpointError",
    "DeepFeatureFlow",
    "FlowNetInception",
    "ModelCard",
    "Motion",
    "NetworkOptions",
    "ResNetFeatures",
    "ResNetOptions",
    "SegmentationHead",
    "Warp",
    "WeightsError",
    "build_network",
    "fold_batch_norms",
    "half_size",
    "load_checkpoint",
    "load_keras_weights",
    "load_torchvision_weights",
    "resnet50_conv4_features",
    "resnet50_features",
    "resnet101_features",
    "sample",
    "save_checkpoint",
]
