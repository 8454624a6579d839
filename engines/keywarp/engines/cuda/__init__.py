"""Our kernels for NVIDIA GPUs: their CUDA sources, the TensorRT plugins, and the parameters of the warp's launch."""
