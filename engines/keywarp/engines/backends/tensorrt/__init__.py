"""NVIDIA's TensorRT: plans built and cached, and programs that run them on the GPU."""
