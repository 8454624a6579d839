// Launches the warp (see warp.cuh) on a CUDA stream, for programs and plugins in C++.
#pragma once

#include <cuda_runtime_api.h>

namespace keywarp {

enum class DType { kFloat32, kFloat16, kBFloat16 };

enum class Layout {
  kNchw,
  kHwc8,  // channels last, padded to a multiple of 8; 16-bit types only
};

struct WarpShape {
  int batch, channels, height, width;
  int flow_height, flow_width;
};

// Returns why no kernel can warp such tensors, or null if one can.
const char* why_not_warp(DType type, Layout layout, const WarpShape& shape) noexcept;

// All pointers point to device memory, and scale may be null. It allocates no memory and doesn't wait.
// Returns the launch's error, or cudaErrorInvalidValue if why_not_warp returns an objection.
cudaError_t launch_warp(DType type, Layout layout, const WarpShape& shape, const void* features, const void* flow,
                        const void* scale, void* warped, cudaStream_t stream) noexcept;

}  // namespace keywarp
