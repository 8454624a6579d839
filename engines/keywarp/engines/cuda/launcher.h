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

// Why no kernel can warp that, or null if one can.
const char* why_not_warp(DType type, Layout layout, const WarpShape& shape) noexcept;

// All pointers are to the device's memory; scale may be null. Allocates nothing and waits for nothing.
// Returns the launch's error, or cudaErrorInvalidValue where why_not_warp has an objection.
cudaError_t launch_warp(DType type, Layout layout, const WarpShape& shape, const void* features, const void* flow,
                        const void* scale, void* warped, cudaStream_t stream) noexcept;

}  // namespace keywarp
