"""The warp on an NVIDIA GPU: CUDA source, the TensorRT plugins around it, and what a host must know to launch it."""
