"""The names that recipes, checkpoints and command-line options choose from.

They stand apart from the code that they choose, so that a command can list them without importing PyTorch.
"""

from typing import Literal

__all__ = [
    "DeviceName",
    "ExperimentName",
    "FeatureNetworkName",
    "FlowNetworkName",
    "PaperMotion",
    "PrecisionName",
    "PresetName",
    "PretrainedName",
    "SIFTFlowName",
    "ServedTask",
    "Task",
    "Variant",
    "WeightsLayout",
]

Task = Literal["segmentation", "detection"]  # of networks that are trained here
ServedTask = Literal["segmentation", "detection", "dense"]
FeatureNetworkName = Literal["resnet50", "resnet101"]
FlowNetworkName = Literal["flownet", "flownet_half", "flownet_inception", "flow_pyramid"]
PretrainedName = Literal["nanodet"]  # networks that others have trained
WeightsLayout = Literal["torchvision", "caffe", "keras"]  # source of the names and shapes of ResNet weights

DeviceName = Literal["auto", "cpu", "cuda"]
PrecisionName = Literal["auto", "fp32", "bf16", "fp16"]
# What is trained jointly; `keywarp.training.variants` describes each (Table 3 of the paper and three of our own).
Variant = Literal[
    "frame",
    "sff_slow",
    "sff_fast",
    "dff",
    "fix_n",
    "fix_f",
    "separate",
    "no_scale",
    "from_frame",
    "copy",
]

SIFTFlowName = Literal["sift-fast", "sift-slow"]
PaperMotion = Literal["network", "none", SIFTFlowName]  # the motion sources that the paper compares
PresetName = Literal["cpu", "hard", "paper", "smoke"]
ExperimentName = Literal[
    "table2",
    "table4",
    "table5",
    "figure1",
    "figure3",
    "figure4",
    "figure5",
    "ages",
    "motion",
    "adaptive",
]
