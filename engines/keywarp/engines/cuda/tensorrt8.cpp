// TensorRT 8.5 behind a C interface, for Python's ctypes (tensorrt8.py): NVIDIA's own bindings need Python 3.10. Together
// with warp_plugin_v2.cpp it is one library. It contains no kernels: plugins ask Python to launch them.
//
//   g++ -std=c++17 -O2 -shared -fPIC -fvisibility=hidden -I HEADERS tensorrt8.cpp warp_plugin_v2.cpp
//       -l:libnvinfer.so.8 -l:libnvonnxparser.so.8 -o libkeywarp_tensorrt8.so
#include <NvInfer.h>
#include <NvOnnxParser.h>

#include <memory>
#include <string>

#include "launcher.h"

#if NV_TENSORRT_MAJOR != 8 || NV_TENSORRT_MINOR != 5
#error "tensorrt8.cpp is for the headers of TensorRT 8.5"
#endif

#define KEYWARP_API extern "C" __attribute__((visibility("default")))

namespace {

using Log = void (*)(int severity, const char* message);
using Launch = int (*)(int type, int layout, const int* shape, const void* features, const void* flow, const void* scale,
                       void* warped, void* stream);

Log log_message = nullptr;
Launch launch = nullptr;

class Logger final : public nvinfer1::ILogger {
 public:
  void log(Severity severity, const char* message) noexcept override {
    if (log_message != nullptr) log_message(static_cast<int>(severity), message);
  }
};

Logger logger;  // must outlive everything that TensorRT makes

// TensorRT's objects are released in the reverse order of their members.
struct Loaded {
  std::unique_ptr<nvinfer1::IRuntime> runtime;
  std::unique_ptr<nvinfer1::ICudaEngine> engine;
  std::unique_ptr<nvinfer1::IExecutionContext> context;
};

}  // namespace

// ---- what launcher.cu defines where there is a CUDA compiler

namespace keywarp {

const char* why_not_warp(DType, Layout, const WarpShape&) noexcept {
  return launch == nullptr ? "no launcher was set" : nullptr;
}

cudaError_t launch_warp(DType type, Layout layout, const WarpShape& s, const void* features, const void* flow,
                        const void* scale, void* warped, cudaStream_t stream) noexcept {
  const int shape[] = {s.batch, s.channels, s.height, s.width, s.flow_height, s.flow_width};
  const int failed = launch(static_cast<int>(type), static_cast<int>(layout), shape, features, flow, scale, warped, stream);
  return failed == 0 ? cudaSuccess : cudaErrorLaunchFailure;
}

}  // namespace keywarp

extern "C" __attribute__((visibility("hidden"))) const char* cudaGetErrorString(cudaError_t) {
  return "the kernel could not be launched";
}

// ---- the interface. Pointers that it returns are null on failure, and the log has the reason.

KEYWARP_API int keywarp_trt_version() { return getInferLibVersion(); }

KEYWARP_API void keywarp_trt_listen(Log log, Launch launcher) {
  log_message = log;
  launch = launcher;
}

// Builds a plan, an IHostMemory. Layers may run in fp16 if `types` has the bit 1, and in int8 if it has the bit 2. Without
// `sources`, TensorRT's own kernels are used only, and neither cuDNN nor cuBLAS is loaded.
KEYWARP_API void* keywarp_trt_build(const void* graph, size_t size, int types, int sources, size_t workspace) {
  using namespace nvinfer1;
  std::unique_ptr<IBuilder> builder(createInferBuilder(logger));
  if (builder == nullptr) return nullptr;
  const auto batch = 1U << static_cast<uint32_t>(NetworkDefinitionCreationFlag::kEXPLICIT_BATCH);
  std::unique_ptr<INetworkDefinition> network(builder->createNetworkV2(batch));
  std::unique_ptr<nvonnxparser::IParser> parser(nvonnxparser::createParser(*network, logger));
  std::unique_ptr<IBuilderConfig> config(builder->createBuilderConfig());
  if (!parser->parse(graph, size)) {
    for (int32_t i = 0; i < parser->getNbErrors(); ++i) {
      const std::string reason = std::string("can't read node ") + std::to_string(parser->getError(i)->node()) + ": " +
                                 parser->getError(i)->desc();
      logger.log(ILogger::Severity::kERROR, reason.c_str());
    }
    return nullptr;
  }
  if ((types & 1) != 0) config->setFlag(BuilderFlag::kFP16);
  if ((types & 2) != 0) config->setFlag(BuilderFlag::kINT8);
  config->clearFlag(BuilderFlag::kTF32);
  config->setMemoryPoolLimit(MemoryPoolType::kWORKSPACE, workspace);
  if (sources == 0) config->setTacticSources(0);
  return builder->buildSerializedNetwork(*network, *config);
}

KEYWARP_API const void* keywarp_trt_plan_data(void* plan) { return static_cast<nvinfer1::IHostMemory*>(plan)->data(); }

KEYWARP_API size_t keywarp_trt_plan_size(void* plan) { return static_cast<nvinfer1::IHostMemory*>(plan)->size(); }

KEYWARP_API void keywarp_trt_plan_free(void* plan) { delete static_cast<nvinfer1::IHostMemory*>(plan); }

KEYWARP_API void* keywarp_trt_load(const void* plan, size_t size) {
  auto loaded = std::make_unique<Loaded>();
  loaded->runtime.reset(nvinfer1::createInferRuntime(logger));
  if (loaded->runtime == nullptr) return nullptr;
  loaded->engine.reset(loaded->runtime->deserializeCudaEngine(plan, size));
  if (loaded->engine == nullptr) return nullptr;
  loaded->context.reset(loaded->engine->createExecutionContext());
  return loaded->context == nullptr ? nullptr : loaded.release();
}

KEYWARP_API void keywarp_trt_free(void* loaded) { delete static_cast<Loaded*>(loaded); }

KEYWARP_API size_t keywarp_trt_memory(void* loaded) { return static_cast<Loaded*>(loaded)->engine->getDeviceMemorySize(); }

KEYWARP_API int keywarp_trt_count(void* loaded) { return static_cast<Loaded*>(loaded)->engine->getNbIOTensors(); }

KEYWARP_API const char* keywarp_trt_name(void* loaded, int number) {
  return static_cast<Loaded*>(loaded)->engine->getIOTensorName(number);
}

// Fills in a tensor's type (of nvinfer1::DataType), whether it is an input, and its sides; returns their number, at most 8.
KEYWARP_API int keywarp_trt_describe(void* loaded, const char* name, int* type, int* is_input, int* sides) {
  const auto& engine = *static_cast<Loaded*>(loaded)->engine;
  *type = static_cast<int>(engine.getTensorDataType(name));
  *is_input = engine.getTensorIOMode(name) == nvinfer1::TensorIOMode::kINPUT;
  const nvinfer1::Dims shape = engine.getTensorShape(name);
  for (int32_t i = 0; i < shape.nbDims; ++i) sides[i] = shape.d[i];
  return shape.nbDims;
}

KEYWARP_API int keywarp_trt_bind(void* loaded, const char* name, void* address) {
  return static_cast<Loaded*>(loaded)->context->setTensorAddress(name, address) ? 0 : -1;
}

KEYWARP_API int keywarp_trt_enqueue(void* loaded, void* stream) {
  return static_cast<Loaded*>(loaded)->context->enqueueV3(static_cast<cudaStream_t>(stream)) ? 0 : -1;
}
