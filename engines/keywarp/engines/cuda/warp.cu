// The kernels by name, the same as in kernels.py.
#include "warp.cuh"

#define KEYWARP_WARP(name, T, function)                                                                              \
  extern "C" __global__ void __launch_bounds__(keywarp::kThreads)                                                    \
      name(const T* features, const T* flow, const T* scale, T* warped, int /* batch: gridDim.z */, int channels,    \
           int height, int width, int flow_height, int flow_width) {                                                 \
    keywarp::function(features, flow, scale, warped, channels, height, width, flow_height, flow_width);              \
  }

KEYWARP_WARP(keywarp_warp_f32, float, warp_nchw)
KEYWARP_WARP(keywarp_warp_f16, keywarp::Half, warp_nchw)
KEYWARP_WARP(keywarp_warp_bf16, keywarp::BFloat16, warp_nchw)
KEYWARP_WARP(keywarp_warp_hwc8_f16, keywarp::Half, warp_hwc8)
KEYWARP_WARP(keywarp_warp_hwc8_bf16, keywarp::BFloat16, warp_hwc8)
