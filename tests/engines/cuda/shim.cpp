// Runs warp.cu on the CPU. It reads cases from standard input and writes their results to standard output (see shim.py).
// Every tensor is in a heap block of exactly its size, so that AddressSanitizer detects each access outside of it.
#include "shim.hpp"

#include "warp.cu"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

namespace keywarp {
float to_float(Half value) { return static_cast<float>(__builtin_bit_cast(_Float16, value.bits)); }
void from_float(float value, Half& result) { result.bits = __builtin_bit_cast(unsigned short, static_cast<_Float16>(value)); }
}  // namespace keywarp

namespace {

struct Case {
  int kernel;  // index in the list of `main`
  int batch, channels, height, width, flow_height, flow_width;
  int scaled;   // 0 if there is no scale
  int shifted;  // values by which the tensors are off their natural alignment
  int factor;   // the factor of kernels.py, which must equal that of warp.cuh
  unsigned grid[3], block[3];
};

[[noreturn]] void fail(const char* message) {
  fprintf(stderr, "shim: %s\n", message);
  exit(2);
}

void read(void* target, size_t size) {
  if (fread(target, 1, size, stdin) != size) fail("the input ends within a case");
}

template <typename T>
class Tensor {
 public:
  Tensor(size_t count, int shifted)
      : size_((count + shifted) * sizeof(T)), shifted_(shifted), block_(static_cast<T*>(malloc(size_))) {
    memset(block_, 0xff, size_);  // NaN in all types, which reveals values that aren't written
  }
  Tensor(const Tensor&) = delete;
  Tensor& operator=(const Tensor&) = delete;
  ~Tensor() { free(block_); }
  T* data() { return block_ + shifted_; }
  size_t size() const { return size_ - shifted_ * sizeof(T); }

 private:
  size_t size_;
  int shifted_;
  T* block_;
};

template <typename T>
void run(const Case& c, bool hwc8,
         void (*kernel)(const T*, const T*, const T*, T*, int, int, int, int, int, int)) {
  const unsigned cells = c.height * c.width;
  const auto geometry = hwc8 ? keywarp::hwc8_geometry(c.batch, c.channels, cells)
                             : keywarp::nchw_geometry(c.batch, c.channels, cells);
  if (memcmp(geometry.grid, c.grid, sizeof c.grid) != 0 || memcmp(geometry.block, c.block, sizeof c.block) != 0)
    fail("kernels.py and warp.cuh disagree about the geometry");
  if (keywarp::flow_factor(c.height, c.width, c.flow_height, c.flow_width) != c.factor)
    fail("kernels.py and warp.cuh disagree about the flow's size");

  const size_t channels = hwc8 ? (c.channels + 7) / 8 * 8 : c.channels;
  const size_t values = c.batch * channels * cells;
  Tensor<T> features(values, c.shifted), scale(c.scaled ? values : 0, c.shifted), warped(values, c.shifted);
  Tensor<T> flow(static_cast<size_t>(c.batch) * 2 * c.flow_height * c.flow_width, c.shifted);
  read(features.data(), features.size());
  read(flow.data(), flow.size());
  if (c.scaled) read(scale.data(), scale.size());
  launch(kernel, {c.grid[0], c.grid[1], c.grid[2]}, {c.block[0], c.block[1], c.block[2]}, features.data(), flow.data(),
         c.scaled ? scale.data() : nullptr, warped.data(), c.batch, c.channels, c.height, c.width, c.flow_height,
         c.flow_width);
  fwrite(warped.data(), 1, warped.size(), stdout);
}

}  // namespace

int main() {
  Case c;
  while (fread(&c, 1, sizeof c, stdin) == sizeof c) {
    switch (c.kernel) {
      case 0: run(c, false, keywarp_warp_f32); break;
      case 1: run(c, false, keywarp_warp_f16); break;
      case 2: run(c, false, keywarp_warp_bf16); break;
      case 3: run(c, true, keywarp_warp_hwc8_f16); break;
      case 4: run(c, true, keywarp_warp_hwc8_bf16); break;
      default: fail("no such kernel");
    }
  }
}
