"""The checks: what each of them is about, and how long it may take."""

from dataclasses import dataclass
from typing import Final

FEATURES: Final = ("resnet50", "resnet101")
FLOWS: Final = ("flownet", "flownet_half", "flownet_inception")
SANITIZERS: Final = ("memcheck", "racecheck", "initcheck")
BACKENDS: Final = ("tensorrt", "onnxruntime-cuda", "onnxruntime-tensorrt")


@dataclass(frozen=True, slots=True)
class Check:
    """A check: a function `run(case, *arguments)` of a module of this package."""

    name: str
    title: str
    module: str
    seconds: float  # time limit
    arguments: tuple[str, ...] = ()


CHECKS: Final = (
    Check("machine", "the card, its driver and libraries; what copies and matrices reach", "machine", 60),
    Check("graphs", "the paper's networks without weights, made once with torch", "graphs", 180),
    Check("driver", "the engine's programs on the real driver: memory, streams, events", "driver", 45),
    Check("detection", "R-FCN's last step on the device, against the host's", "detection", 60),
    Check("labels", "a segmentation's labels on the device, against the host's, and their bandwidth", "labels", 45),
    Check("images", "frames resized on the device, against OpenCV, and their bandwidth", "images", 45),
    Check("kernels", "the warp's kernels against float64, and their bandwidth", "kernels", 60),
    *(
        Check(f"kernels-{tool}", f"the kernels under compute-sanitizer's {tool}", "sanitizer", 60, (tool,))
        for tool in SANITIZERS
    ),
    *(
        Check(
            f"backend-{name}", f"{name} against ONNX Runtime on the CPU, and streams in fp16", "backends", 90, (name,)
        )
        for name in BACKENDS
    ),
    *(
        Check(f"speed-{features}-{flow}", f"frames a second of {features} with {flow}", "speed", 90, (features, flow))
        for features in FEATURES
        for flow in FLOWS
    ),
    Check("training", "joint training on the card", "training", 60),
)
BY_NAME: Final = {check.name: check for check in CHECKS}
