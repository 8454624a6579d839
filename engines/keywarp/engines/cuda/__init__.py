"""The warp on an NVIDIA GPU: its CUDA source, the TensorRT plugins, and the parameters of its launch."""
