// Feature propagation (Eq. 1 to 3 of Deep Feature Flow): bilinear sampling of the key frame's features at p + flow(p),
// zero outside of the map, times the scale field. Equal to `keywarp.networks.Warp` for one map of features.
//
//   features  (N, C, H, W)   of the key frame
//   flow      (N, 2, h, w)   (dx, dy) in the flow's cells; (h, w) is (H, W), or larger by a power of 2 (rounded up), like
//                            a flow in cells of a finer map; then it is averaged down, 2x2 cells at a time
//   scale     (N, C, H, W)   null for 1
//   warped    (N, C, H, W)
//
// A NaN or infinite flow points outside. Along a side of one cell there is no motion. Storage is float, IEEE half or
// bfloat16; arithmetic is in float and rounded once. The flow is always linear. The other three are linear (NCHW), or
// channels-last with the channels padded to a multiple of 8 (HWC8), whose padding is written as zeros.
//
// This file includes nothing, so that NVRTC compiles it wherever there is a driver, for every GPU from Kepler on. On a CPU
// it runs behind tests/engines/cuda/shim.hpp.
#pragma once

namespace keywarp {

// ---- launch geometry, the same as in kernels.py

constexpr int kThreads = 128;  // per block
constexpr int kPixels = 2;     // cells per thread, NCHW
constexpr int kChannels = 8;   // channels per thread, NCHW; per vector, HWC8

constexpr unsigned kGridLimit = 65535;     // blocks along y and z, on every GPU
constexpr int kCellLimit = 2147483647;     // cells of one map, which are indexed by int
constexpr int kSideLimit = 1 << 24;        // cells along a side; float positions can't distinguish more

struct Geometry {
  unsigned grid[3];
  unsigned block[3];
};

__host__ __device__ constexpr unsigned quotient_up(unsigned value, unsigned divisor) { return (value + divisor - 1) / divisor; }

__host__ __device__ constexpr Geometry nchw_geometry(unsigned batch, unsigned channels, unsigned cells) {
  return {{quotient_up(cells, kThreads * kPixels), quotient_up(channels, kChannels), batch}, {kThreads, 1, 1}};
}

__host__ __device__ constexpr Geometry hwc8_geometry(unsigned batch, unsigned channels, unsigned cells) {
  unsigned lanes = 1;  // threads that share a cell, up to a warp if there are enough channels
  while (lanes < 32 && lanes * kChannels < channels) lanes *= 2;
  const unsigned pixels = kThreads / lanes;
  return {{quotient_up(cells, pixels), 1, batch}, {lanes, pixels, 1}};
}

// Cells of the flow per cell of the features and side: a power of 2, or 0 if the flow doesn't fit.
__host__ __device__ constexpr int flow_factor(int height, int width, int flow_height, int flow_width) {
  int shift = 0;
  while (((flow_height - 1) >> shift) + 1 > height || ((flow_width - 1) >> shift) + 1 > width) ++shift;
  const bool fits = ((flow_height - 1) >> shift) + 1 == height && ((flow_width - 1) >> shift) + 1 == width;
  return fits ? 1 << shift : 0;
}

// ---- our own storage types, since cuda_fp16.h isn't installed with a driver, and Kepler has no bfloat16

struct Half {
  unsigned short bits;
};

struct BFloat16 {
  unsigned short bits;
};

__device__ inline float to_float(float value) { return value; }

__device__ inline void from_float(float value, float& result) { result = value; }

#ifdef __CUDACC__
__device__ inline float to_float(Half value) {
  float result;
  asm("cvt.f32.f16 %0, %1;" : "=f"(result) : "h"(value.bits));
  return result;
}

__device__ inline void from_float(float value, Half& result) {
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(result.bits) : "f"(value));
}
#endif

__device__ inline float to_float(BFloat16 value) {
  return __uint_as_float(static_cast<unsigned>(value.bits) << 16);
}

__device__ inline void from_float(float value, BFloat16& result) {
  const unsigned bits = __float_as_uint(value);
  const unsigned rounded = bits + 0x7fffu + ((bits >> 16) & 1u);  // half to even; a finite value may become infinite
  const bool nan = (bits & 0x7fffffffu) > 0x7f800000u;
  result.bits = static_cast<unsigned short>(nan ? 0x7fffu : rounded >> 16);
}

// Several values that are loaded or stored together.
template <typename T, int count>
struct alignas(sizeof(T) * count) Vector {
  T values[count];
};

template <typename T, int count>
__device__ inline bool aligned(const T* pointer) {
  return reinterpret_cast<unsigned long long>(pointer) % sizeof(Vector<T, count>) == 0;
}

// ---- sampling positions

// The four cells around a sampling position. A cell outside of the map has the offset -1 and counts as zero.
struct Corners {
  int offset[4];  // in cells from the map's first: above left, above right, below left, below right
  float weight[4];
};

struct Flow {
  float dx, dy;
};

// One component of the flow at a cell of the features. It is averaged over 2x2 cells, then over 2x2 of those means and so
// on, over fewer at the borders. Every cell thus has a weight that is a power of 2 for x times a power of 2 for y.
template <typename T>
__device__ inline float flow_component(const T* plane, int x, int y, int factor, int flow_height, int flow_width) {
  if (factor == 1) return to_float(plane[static_cast<size_t>(y) * flow_width + x]);
  float sum = 0.f;
  for (int i = y * factor; i < flow_height && i - y * factor < factor; ++i) {
    for (int j = x * factor; j < flow_width && j - x * factor < factor; ++j) {
      float weight = 1.f;
      for (int shift = 0; factor >> shift > 1; ++shift) {
        const bool alone_y = (i >> shift) % 2 == 0 && i >> shift == (flow_height - 1) >> shift;
        const bool alone_x = (j >> shift) % 2 == 0 && j >> shift == (flow_width - 1) >> shift;
        weight *= (alone_y ? 1.f : .5f) * (alone_x ? 1.f : .5f);
      }
      sum += weight * to_float(plane[static_cast<size_t>(i) * flow_width + j]);
    }
  }
  return sum / factor;  // in cells of the features
}

template <typename T>
__device__ inline Flow flow_at(const T* flow, int x, int y, int factor, int flow_height, int flow_width) {
  const size_t plane = static_cast<size_t>(flow_height) * flow_width;
  return {flow_component(flow, x, y, factor, flow_height, flow_width),
          flow_component(flow + plane, x, y, factor, flow_height, flow_width)};
}

__device__ inline Corners corners_at(int x, int y, Flow flow, int height, int width) {
  const float px = width == 1 ? 0.f : x + flow.dx;
  const float py = height == 1 ? 0.f : y + flow.dy;
  // Positions strictly between the centres of the cells just outside of the map make the conversions to int below safe.
  // A NaN fails the comparison, too.
  if (!(px > -1.f && px < width && py > -1.f && py < height)) return {{-1, -1, -1, -1}, {0.f, 0.f, 0.f, 0.f}};
  const float left = floorf(px), top = floorf(py);
  const float right_share = px - left, bottom_share = py - top;
  const int column = static_cast<int>(left), row = static_cast<int>(top);
  const bool in_left = column >= 0, in_right = column + 1 < width;
  const bool in_top = row >= 0, in_bottom = row + 1 < height;
  const int first = row * width + column;
  return {{in_top && in_left ? first : -1, in_top && in_right ? first + 1 : -1,
           in_bottom && in_left ? first + width : -1, in_bottom && in_right ? first + width + 1 : -1},
          {(1.f - bottom_share) * (1.f - right_share), (1.f - bottom_share) * right_share,
           bottom_share * (1.f - right_share), bottom_share * right_share}};
}

// ---- the kernels

// NCHW: a thread computes two cells of eight channels, and neighbouring threads have neighbouring cells. If vectors of two
// can't be stored, because the planes have an odd size, the two cells of a thread are a block's width apart instead.
template <typename T>
__device__ inline void warp_nchw(const T* __restrict__ features, const T* __restrict__ flow, const T* __restrict__ scale,
                                 T* __restrict__ warped, int channels, int height, int width, int flow_height,
                                 int flow_width) {
  using Pair = Vector<T, kPixels>;
  const int cells = height * width;
  const int factor = flow_factor(height, width, flow_height, flow_width);
  const bool paired = cells % kPixels == 0 && aligned<T, kPixels>(warped) &&
                      (scale == nullptr || aligned<T, kPixels>(scale));
  const unsigned first = blockIdx.x * (kThreads * kPixels) + threadIdx.x * (paired ? kPixels : 1);
  const unsigned step = paired ? 1 : kThreads;

  flow += static_cast<size_t>(blockIdx.z) * 2 * flow_height * flow_width;
  Corners corners[kPixels];
#pragma unroll
  for (int i = 0; i < kPixels; ++i) {
    const unsigned cell = first + i * step;
    if (cell >= static_cast<unsigned>(cells)) {
      if (i == 0) return;
      corners[i] = {{-1, -1, -1, -1}, {0.f, 0.f, 0.f, 0.f}};
      continue;
    }
    const int x = cell % width, y = cell / width;
    corners[i] = corners_at(x, y, flow_at(flow, x, y, factor, flow_height, flow_width), height, width);
  }

  const int channel = blockIdx.y * kChannels;
  const int channel_end = channel + kChannels < channels ? channel + kChannels : channels;
  size_t plane = (static_cast<size_t>(blockIdx.z) * channels + channel) * cells;
  for (int c = channel; c < channel_end; ++c, plane += cells) {
    float sums[kPixels];
#pragma unroll
    for (int i = 0; i < kPixels; ++i) {
      sums[i] = 0.f;
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        const int offset = corners[i].offset[k];
        if (offset >= 0) sums[i] += corners[i].weight[k] * to_float(features[plane + offset]);
      }
    }
    if (paired) {
      Pair result;
      Pair factors;
      if (scale != nullptr) factors = *reinterpret_cast<const Pair*>(scale + plane + first);
#pragma unroll
      for (int i = 0; i < kPixels; ++i) {
        from_float(scale != nullptr ? sums[i] * to_float(factors.values[i]) : sums[i], result.values[i]);
      }
      *reinterpret_cast<Pair*>(warped + plane + first) = result;
    } else {
#pragma unroll
      for (int i = 0; i < kPixels; ++i) {
        const unsigned cell = first + i * step;
        if (cell >= static_cast<unsigned>(cells)) break;
        from_float(scale != nullptr ? sums[i] * to_float(scale[plane + cell]) : sums[i], warped[plane + cell]);
      }
    }
  }
}

// HWC8: a thread computes eight channels of one cell at a time, and neighbouring threads have neighbouring channels. All
// pointers are aligned to 16 bytes.
template <typename T>
__device__ inline void warp_hwc8(const T* __restrict__ features, const T* __restrict__ flow, const T* __restrict__ scale,
                                 T* __restrict__ warped, int channels, int height, int width, int flow_height,
                                 int flow_width) {
  using Octet = Vector<T, kChannels>;
  const unsigned cells = static_cast<unsigned>(height) * width;
  const unsigned cell = blockIdx.x * blockDim.y + threadIdx.y;
  if (cell >= cells) return;
  const int factor = flow_factor(height, width, flow_height, flow_width);
  flow += static_cast<size_t>(blockIdx.z) * 2 * flow_height * flow_width;
  const int x = cell % width, y = cell / width;
  const Corners corners = corners_at(x, y, flow_at(flow, x, y, factor, flow_height, flow_width), height, width);

  const int octets = (channels - 1) / kChannels + 1;
  const size_t image = static_cast<size_t>(blockIdx.z) * cells;
  const Octet* from = reinterpret_cast<const Octet*>(features) + image * octets;
  const size_t own = (image + cell) * octets;
  for (int octet = threadIdx.x; octet < octets; octet += blockDim.x) {
    float sums[kChannels] = {};
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      if (corners.offset[k] < 0) continue;
      const Octet corner = from[static_cast<size_t>(corners.offset[k]) * octets + octet];
#pragma unroll
      for (int c = 0; c < kChannels; ++c) sums[c] += corners.weight[k] * to_float(corner.values[c]);
    }
    if (scale != nullptr) {
      const Octet factors = reinterpret_cast<const Octet*>(scale)[own + octet];
#pragma unroll
      for (int c = 0; c < kChannels; ++c) sums[c] *= to_float(factors.values[c]);
    }
    Octet result;
#pragma unroll
    for (int c = 0; c < kChannels; ++c) {
      from_float(octet * kChannels + c < channels ? sums[c] : 0.f, result.values[c]);
    }
    reinterpret_cast<Octet*>(warped)[own + octet] = result;
  }
}

}  // namespace keywarp
