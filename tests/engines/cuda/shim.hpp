// What a CUDA source needs to run on a CPU: keywords, a thread's place in the grid, and the few intrinsics.
#pragma once

#include <math.h>  // C's headers: with C++'s, each of the many compilations takes twice as long
#include <stddef.h>

#define __global__
#define __device__
#define __host__
#define __launch_bounds__(threads)
#define __shared__ static  // kernels that use it have one block

struct Place {
  unsigned x = 0, y = 0, z = 0;
};

inline Place gridDim, blockDim, blockIdx, threadIdx;

inline float __uint_as_float(unsigned bits) { return __builtin_bit_cast(float, bits); }
inline unsigned __float_as_uint(float value) { return __builtin_bit_cast(unsigned, value); }

// warp.cuh converts halves by PTX instructions.
namespace keywarp {
struct Half;
float to_float(Half value);
void from_float(float value, Half& result);
}  // namespace keywarp

// Every thread of every block, one after another.
template <typename Kernel, typename... Arguments>
void launch(Kernel* kernel, Place grid, Place block, Arguments... arguments) {
  gridDim = grid;
  blockDim = block;
  for (blockIdx.z = 0; blockIdx.z < grid.z; ++blockIdx.z)
    for (blockIdx.y = 0; blockIdx.y < grid.y; ++blockIdx.y)
      for (blockIdx.x = 0; blockIdx.x < grid.x; ++blockIdx.x)
        for (threadIdx.z = 0; threadIdx.z < block.z; ++threadIdx.z)
          for (threadIdx.y = 0; threadIdx.y < block.y; ++threadIdx.y)
            for (threadIdx.x = 0; threadIdx.x < block.x; ++threadIdx.x) kernel(arguments...);
}
