"""The choice of a backend and a precision on the command line."""

from typing import Annotated

import typer

BACKEND_HELP = "auto, tensorrt, onnxruntime-cuda, onnxruntime-tensorrt, openvino or onnxruntime."
PRECISION_HELP = "auto, fp32, fp16 (GPU) or bf16 (CPU)."
FALLBACK_HELP = "Let the CPU do where a GPU was asked for and can't be used."
BackendOption = Annotated[str, typer.Option(help=BACKEND_HELP)]
PrecisionOption = Annotated[str, typer.Option(help=PRECISION_HELP)]
FallbackOption = Annotated[bool, typer.Option("--cpu-fallback", help=FALLBACK_HELP)]
