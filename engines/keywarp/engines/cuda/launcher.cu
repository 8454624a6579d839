#include "launcher.h"

#include "warp.cu"

namespace keywarp {
namespace {

Geometry geometry_of(Layout layout, const WarpShape& shape) {
  const unsigned cells = static_cast<unsigned>(shape.height) * shape.width;
  return layout == Layout::kNchw ? nchw_geometry(shape.batch, shape.channels, cells)
                                 : hwc8_geometry(shape.batch, shape.channels, cells);
}

const void* kernel_of(DType type, Layout layout) {
  const bool nchw = layout == Layout::kNchw;
  switch (type) {
    case DType::kFloat32: return nchw ? reinterpret_cast<const void*>(keywarp_warp_f32) : nullptr;
    case DType::kFloat16: return reinterpret_cast<const void*>(nchw ? keywarp_warp_f16 : keywarp_warp_hwc8_f16);
    case DType::kBFloat16: return reinterpret_cast<const void*>(nchw ? keywarp_warp_bf16 : keywarp_warp_hwc8_bf16);
  }
  return nullptr;
}

}  // namespace

const char* why_not_warp(DType type, Layout layout, const WarpShape& shape) noexcept {
  if (kernel_of(type, layout) == nullptr) return "there is no kernel for this type in this layout";
  if (shape.batch < 1 || shape.channels < 1 || shape.height < 1 || shape.width < 1) return "the features are empty";
  if (shape.flow_height < 1 || shape.flow_width < 1) return "the flow is empty";
  if (shape.height > kSideLimit || shape.width > kSideLimit || shape.height > kCellLimit / shape.width)
    return "the map has too many cells";
  if (flow_factor(shape.height, shape.width, shape.flow_height, shape.flow_width) == 0)
    return "the flow must be as large as the features, or larger by a power of 2 (rounded up)";
  const Geometry geometry = geometry_of(layout, shape);
  if (geometry.grid[1] > kGridLimit || geometry.grid[2] > kGridLimit) return "the batch or the channels are too many";
  return nullptr;
}

cudaError_t launch_warp(DType type, Layout layout, const WarpShape& shape, const void* features, const void* flow,
                        const void* scale, void* warped, cudaStream_t stream) noexcept {
  if (why_not_warp(type, layout, shape) != nullptr) return cudaErrorInvalidValue;
  const Geometry geometry = geometry_of(layout, shape);
  WarpShape s = shape;
  void* arguments[] = {&features,  &flow,    &scale,   &warped,        &s.batch,
                       &s.channels, &s.height, &s.width, &s.flow_height, &s.flow_width};
  return cudaLaunchKernel(kernel_of(type, layout), dim3(geometry.grid[0], geometry.grid[1], geometry.grid[2]),
                          dim3(geometry.block[0], geometry.block[1], geometry.block[2]), arguments, 0, stream);
}

}  // namespace keywarp
