// A library with the interface of tensorrt8.cpp, without TensorRT: a plan is the graph, and a run is one warp.
#include <map>
#include <string>

#define KEYWARP_API extern "C" __attribute__((visibility("default")))

namespace {

using Log = void (*)(int severity, const char* message);
using Launch = int (*)(int type, int layout, const int* shape, const void* features, const void* flow, const void* scale,
                       void* warped, void* stream);

struct Tensor {
  const char* name;
  int type, is_input, sides[4];
};

const Tensor tensors[] = {
    {"features", 1, 1, {1, 24, 38, 63}}, {"flow", 1, 1, {1, 2, 38, 63}}, {"frame", 5, 1, {1, 8, 9, 3}}, {"warped", 1, 0, {1, 24, 38, 63}}};

struct Loaded {
  std::map<std::string, void*> addresses;
};

Log log_message;
Launch launch;
int alive = 0;

}  // namespace

KEYWARP_API int fake_alive() { return alive; }
KEYWARP_API int keywarp_plugin_generation() { return 8; }
KEYWARP_API bool keywarp_plugin_register() { return true; }
KEYWARP_API int keywarp_trt_version() { return 8503; }
KEYWARP_API void keywarp_trt_listen(Log log, Launch launcher) {
  log_message = log;
  launch = launcher;
}
KEYWARP_API void* keywarp_trt_build(const void* graph, size_t size, int types, int, size_t workspace) {
  if (size == 0 || workspace < 1024) {
    log_message(3, "looking at the graph");
    log_message(1, "the graph is empty");
    return nullptr;
  }
  ++alive;
  const char* kind = types == 0 ? "whole " : types == 1 ? "half " : "int8 ";
  return new std::string(kind + std::string(static_cast<const char*>(graph), size));
}
KEYWARP_API const void* keywarp_trt_plan_data(void* plan) { return static_cast<std::string*>(plan)->data(); }
KEYWARP_API size_t keywarp_trt_plan_size(void* plan) { return static_cast<std::string*>(plan)->size(); }
KEYWARP_API void keywarp_trt_plan_free(void* plan) {
  --alive;
  delete static_cast<std::string*>(plan);
}
KEYWARP_API void* keywarp_trt_load(const void* plan, size_t size) {
  if (size < 6) {
    log_message(2, "CUDA initialization failure with error: 35");
    return nullptr;
  }
  ++alive;
  (void)plan;
  return new Loaded;
}
KEYWARP_API void keywarp_trt_free(void* loaded) {
  --alive;
  delete static_cast<Loaded*>(loaded);
}
KEYWARP_API size_t keywarp_trt_memory(void*) { return 1000; }
KEYWARP_API int keywarp_trt_count(void*) { return 4; }
KEYWARP_API const char* keywarp_trt_name(void*, int number) { return tensors[number].name; }
KEYWARP_API int keywarp_trt_describe(void*, const char* name, int* type, int* is_input, int* sides) {
  for (const Tensor& tensor : tensors)
    if (std::string(name) == tensor.name) {
      *type = tensor.type;
      *is_input = tensor.is_input;
      for (int i = 0; i < 4; ++i) sides[i] = tensor.sides[i];
    }
  return 4;
}
KEYWARP_API int keywarp_trt_bind(void* loaded, const char* name, void* address) {
  static_cast<Loaded*>(loaded)->addresses[name] = address;
  return name[0] == '?' ? -1 : 0;
}
KEYWARP_API int keywarp_trt_enqueue(void* loaded, void* stream) {
  auto& at = static_cast<Loaded*>(loaded)->addresses;
  const int shape[] = {1, 24, 38, 63, 38, 63};
  const int failed = launch(1, 0, shape, at["features"], at["flow"], nullptr, at["warped"], stream);
  return failed == 0 ? 0 : -1;
}
