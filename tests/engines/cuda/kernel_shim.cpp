// A source as a library for the CPU, whose kernels are launched by name on addresses of this process. The source and its
// kernels are macros: SOURCE, and KERNELS, which is KERNEL(name) for each of them.
#include "shim.hpp"

#include SOURCE

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
  KERNELS
  return 1;
}
