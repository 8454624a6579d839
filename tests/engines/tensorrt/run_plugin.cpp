// Runs the registered KeywarpWarp as TensorRT does: through its C++ classes, up to the launch of the kernel.
#include <NvInfer.h>

using namespace nvinfer1;

// Returns 0, or the number of the step that failed.
extern "C" __attribute__((visibility("default"))) int run_plugin(int inputs, void* const* addresses, cudaStream_t stream) {
  auto* found = getPluginRegistry()->getCreator("KeywarpWarp", "1", "");
  if (found == nullptr) return 1;
  PluginFieldCollection none{0, nullptr};
  IPluginV3* plugin = static_cast<IPluginCreatorV3One*>(found)->createPlugin("warp", &none, TensorRTPhase::kRUNTIME);
  if (plugin == nullptr) return 2;
  auto* prototype = static_cast<IPluginV3OneRuntime*>(plugin->getCapabilityInterface(PluginCapabilityType::kRUNTIME));
  if (prototype == nullptr) return 3;
  IPluginV3* attached = prototype->attachToContext(nullptr);
  if (attached == nullptr) return 4;
  auto* runtime = static_cast<IPluginV3OneRuntime*>(attached->getCapabilityInterface(PluginCapabilityType::kRUNTIME));
  if (runtime == nullptr) return 5;
  const PluginTensorDesc features{Dims4{1, 24, 38, 63}, DataType::kHALF, TensorFormat::kLINEAR, 1.F};
  const PluginTensorDesc flow{Dims4{1, 2, 38, 63}, DataType::kHALF, TensorFormat::kLINEAR, 1.F};
  const PluginTensorDesc taken[] = {features, flow, features};
  if (runtime->onShapeChange(taken, inputs, &features, 1) != 0) return 6;
  if (runtime->setTactic(0) != 0) return 7;
  if (runtime->enqueue(taken, &features, addresses, addresses + inputs, nullptr, stream) != 0) return 8;
  delete attached;
  delete plugin;
  return 0;
}
