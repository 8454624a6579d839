"""The TensorRT backend: builds and caches plans, and runs them on the GPU."""
