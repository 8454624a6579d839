// detection.cu as a library for the CPU, whose kernels are launched by name on addresses of this process.
#include "shim.hpp"

#include "detection.cu"

#include <string.h>

#include <utility>

namespace {

template <typename... Arguments, size_t... places>
void call(void (*kernel)(Arguments...), Place grid, Place block, void** arguments, std::index_sequence<places...>) {
  launch(kernel, grid, block, *static_cast<Arguments*>(arguments[places])...);
}

template <typename... Arguments>
void call(void (*kernel)(Arguments...), Place grid, Place block, void** arguments) {
  call(kernel, grid, block, arguments, std::index_sequence_for<Arguments...>());
}

}  // namespace

#define KERNEL(kernel)                     \
  if (strcmp(name, #kernel) == 0) {        \
    call(kernel, grid, block, arguments);  \
    return 0;                              \
  }

extern "C" int run_kernel(const char* name, const unsigned* g, const unsigned* b, void** arguments) {
  const Place grid{g[0], g[1], g[2]}, block{b[0], b[1], b[2]};
  KERNEL(keywarp_keys)
  KERNEL(keywarp_clear)
  KERNEL(keywarp_rank)
  KERNEL(keywarp_propose)
  KERNEL(keywarp_overlaps)
  KERNEL(keywarp_suppress)
  KERNEL(keywarp_vote)
  KERNEL(keywarp_score)
  KERNEL(keywarp_gather)
  KERNEL(keywarp_select)
  return 1;
}
