// Shared by the plugins for both generations of TensorRT: the tensors that they take, and the call of the kernel.
//
//   inputs   features (N, C, H, W), flow (N, 2, h, w), and optionally scale (N, C, H, W)
//   output   warped (N, C, H, W)
#pragma once

#include <NvInferRuntime.h>

#include <stdio.h>

#include "launcher.h"

namespace keywarp {

constexpr char kPluginName[] = "KeywarpWarp";
constexpr char kPluginVersion[] = "1";

// The generation of TensorRT whose classes this library was built for: 8, 10 or 11. TensorRT for RTX has a version of its own.
#ifdef TRT_MAJOR_ENTERPRISE
constexpr int32_t kGeneration = TRT_MAJOR_ENTERPRISE;
#else
constexpr int32_t kGeneration = NV_TENSORRT_MAJOR;
#endif

inline void log_error(const char* message) noexcept {
  char line[256];
  snprintf(line, sizeof line, "%s: %s", kPluginName, message);
  if (nvinfer1::ILogger* logger = getLogger()) logger->log(nvinfer1::ILogger::Severity::kERROR, line);
}

// Returns why a node with these numbers of inputs and outputs isn't a warp, or null if it is.
inline const char* why_not_node(int32_t inputs, int32_t outputs) noexcept {
  if (inputs != 2 && inputs != 3) return "takes features, flow and optionally scale";
  return outputs == 1 ? nullptr : "has one output";
}

inline bool dtype_of(nvinfer1::DataType type, DType& result) noexcept {
  switch (type) {
    case nvinfer1::DataType::kFLOAT: result = DType::kFloat32; return true;
    case nvinfer1::DataType::kHALF: result = DType::kFloat16; return true;
#if NV_TENSORRT_MAJOR != 8  // TensorRT 8 has no bfloat16
    case nvinfer1::DataType::kBF16: result = DType::kBFloat16; return true;
#endif
    default: return false;
  }
}

// Returns whether tensor `pos` (inputs come first) may have this type and format, given those of the features. All tensors
// have the features' type. The flow is linear. Scale and warped have the features' format: linear, or kHWC8 in 16 bits,
// which the convolutions of tensor cores read and write.
inline bool supports(int32_t pos, const nvinfer1::PluginTensorDesc& tensor,
                     const nvinfer1::PluginTensorDesc& features) noexcept {
  const bool linear = tensor.format == nvinfer1::TensorFormat::kLINEAR;
  if (pos == 0) {
    DType type;
    if (!dtype_of(tensor.type, type)) return false;
    return linear || (tensor.format == nvinfer1::TensorFormat::kHWC8 && type != DType::kFloat32);
  }
  if (tensor.type != features.type) return false;
  return pos == 1 ? linear : tensor.format == features.format;
}

// Returns why these shapes don't fit a warp, or null if they do. A dimension that isn't known yet is -1 and fits.
inline const char* why_not_shapes(const nvinfer1::Dims* inputs, int32_t count) noexcept {
  for (int32_t i = 0; i < count; ++i)
    if (inputs[i].nbDims != 4) return "features, flow and scale must have the dimensions N, C, H, W";
  const auto differ = [](int64_t a, int64_t b) { return a != b && a >= 0 && b >= 0; };
  if (differ(inputs[1].d[1], 2)) return "the flow must have two channels";
  if (differ(inputs[0].d[0], inputs[1].d[0])) return "the flow must have the features' batch";
  for (int32_t i = 0; count == 3 && i < 4; ++i)
    if (differ(inputs[0].d[i], inputs[2].d[i])) return "the scale must have the features' shape";
  return nullptr;
}

// Launches the kernel on tensors of known shapes. Returns 0, or the error, which is also logged.
inline int32_t enqueue_warp(const nvinfer1::PluginTensorDesc* descriptions, const void* const* inputs, bool scaled,
                            void* const* outputs, cudaStream_t stream) noexcept {
  const nvinfer1::Dims shapes[] = {descriptions[0].dims, descriptions[1].dims, descriptions[scaled ? 2 : 0].dims};
  const char* objection = why_not_shapes(shapes, scaled ? 3 : 2);
  DType type{};
  if (objection == nullptr && !dtype_of(descriptions[0].type, type)) objection = "takes float, half and bfloat16";
  const Layout layout =
      descriptions[0].format == nvinfer1::TensorFormat::kHWC8 ? Layout::kHwc8 : Layout::kNchw;
  WarpShape shape{};
  if (objection == nullptr) {
    const auto d = [&](int32_t input, int32_t axis) { return static_cast<int>(shapes[input].d[axis]); };
    shape = {d(0, 0), d(0, 1), d(0, 2), d(0, 3), d(1, 2), d(1, 3)};
    objection = why_not_warp(type, layout, shape);
  }
  if (objection != nullptr) {
    log_error(objection);
    return cudaErrorInvalidValue;
  }
  const cudaError_t error =
      launch_warp(type, layout, shape, inputs[0], inputs[1], scaled ? inputs[2] : nullptr, outputs[0], stream);
  if (error != cudaSuccess) log_error(cudaGetErrorString(error));
  return error;
}

}  // namespace keywarp

// What Python loads the library by (plugin.py). Nothing is registered before `keywarp_plugin_register` is called, because a
// library of another generation crashes in TensorRT.
#define KEYWARP_EXPORT_PLUGIN(Creator)                                                                               \
  extern "C" {                                                                                                       \
  __attribute__((visibility("default"))) int32_t keywarp_plugin_generation() { return keywarp::kGeneration; }        \
  __attribute__((visibility("default"))) bool keywarp_plugin_register() {                                            \
    static Creator creator;                                                                                          \
    return getPluginRegistry()->registerCreator(creator, "");                                                        \
  }                                                                                                                  \
  }
