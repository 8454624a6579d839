"""The paper's networks as torch modules, and a bridge to networks from other sources."""

from keywarp.networks.batch_norms import fold_batch_norms, unfreeze_batch_norms
from keywarp.networks.checkpoint import (
    Checkpoint,
    CheckpointError,
    ModelCard,
    NetworkOptions,
    build_network,
    load_checkpoint,
    save_checkpoint,
)
from keywarp.networks.cut import CutError, CutNetwork, cut
from keywarp.networks.dff import DeepFeatureFlow, half_size
from keywarp.networks.feature_maps import FeatureMap
from keywarp.networks.flow_networks import FLOW_NETWORKS
from keywarp.networks.flow_pyramid import FlowPyramid
from keywarp.networks.flow_weights import FlowWeights, load_flow_weights, pretrained_flow, save_flow_weights
from keywarp.networks.flownet import (
    ExpandingFlowNetwork,
    FlowNet,
    FlowNetHalf,
    FlowNetInception,
    FlowNetwork,
    FlowPrediction,
)
from keywarp.networks.heads import SegmentationHead
from keywarp.networks.pretrained import (
    IMAGE_MEAN,
    TORCHVISION_MEAN,
    TORCHVISION_STD,
    WeightsError,
    load_caffe_weights,
    load_flownet_weights,
    load_keras_weights,
    load_mxnet_flownet_weights,
    load_torchvision_weights,
    read_weights,
)
from keywarp.networks.recognition import (
    DetectionNetwork,
    RecognitionNetwork,
    SegmentationNetwork,
    SplitNetwork,
    Task,
)
from keywarp.networks.resnet import (
    FEATURE_STRIDE,
    ResNetFeatures,
    ResNetOptions,
    resnet50_conv4_features,
    resnet50_features,
    resnet101_features,
)
from keywarp.networks.rfcn import DetectionMaps, RFCNHead
from keywarp.networks.warp import Warp, sample

__all__ = [
    "FEATURE_STRIDE",
    "FLOW_NETWORKS",
    "IMAGE_MEAN",
    "TORCHVISION_MEAN",
    "TORCHVISION_STD",
    "Checkpoint",
    "CheckpointError",
    "CutError",
    "CutNetwork",
    "DeepFeatureFlow",
    "DetectionMaps",
    "DetectionNetwork",
    "ExpandingFlowNetwork",
    "FeatureMap",
    "FlowNet",
    "FlowNetHalf",
    "FlowNetInception",
    "FlowNetwork",
    "FlowPrediction",
    "FlowPyramid",
    "FlowWeights",
    "ModelCard",
    "NetworkOptions",
    "RFCNHead",
    "RecognitionNetwork",
    "ResNetFeatures",
    "ResNetOptions",
    "SegmentationHead",
    "SegmentationNetwork",
    "SplitNetwork",
    "Task",
    "Warp",
    "WeightsError",
    "build_network",
    "cut",
    "fold_batch_norms",
    "half_size",
    "load_caffe_weights",
    "load_checkpoint",
    "load_flow_weights",
    "load_flownet_weights",
    "load_keras_weights",
    "load_mxnet_flownet_weights",
    "load_torchvision_weights",
    "pretrained_flow",
    "read_weights",
    "resnet50_conv4_features",
    "resnet50_features",
    "resnet101_features",
    "sample",
    "save_checkpoint",
    "save_flow_weights",
    "unfreeze_batch_norms",
]
