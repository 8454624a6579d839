// KeywarpWarp as an IPluginV2DynamicExt, for TensorRT 8.5, the last version for Kepler.
#include <cstring>
#include <new>

#include "warp_tensors.h"

namespace keywarp {
namespace {

using nvinfer1::DataType;
using nvinfer1::DimsExprs;
using nvinfer1::DynamicPluginTensorDesc;
using nvinfer1::PluginFieldCollection;
using nvinfer1::PluginTensorDesc;

class WarpPluginV2 final : public nvinfer1::IPluginV2DynamicExt {
 public:
  explicit WarpPluginV2(bool scaled) noexcept : scaled_(scaled) {}

  // ---- IPluginV2

  const char* getPluginType() const noexcept override { return kPluginName; }
  const char* getPluginVersion() const noexcept override { return kPluginVersion; }
  const char* getPluginNamespace() const noexcept override { return ""; }
  void setPluginNamespace(const char*) noexcept override {}  // always the default namespace
  int32_t getNbOutputs() const noexcept override { return 1; }
  int32_t initialize() noexcept override { return 0; }
  void terminate() noexcept override {}
  void destroy() noexcept override { delete this; }

  // A plan holds one integer for the plugin: whether it has a third input.
  size_t getSerializationSize() const noexcept override { return sizeof scaled_; }
  void serialize(void* buffer) const noexcept override { std::memcpy(buffer, &scaled_, sizeof scaled_); }

  // ---- IPluginV2Ext

  DataType getOutputDataType(int32_t, const DataType* inputs, int32_t) const noexcept override { return inputs[0]; }

  // ---- IPluginV2DynamicExt

  nvinfer1::IPluginV2DynamicExt* clone() const noexcept override { return new (std::nothrow) WarpPluginV2(scaled_ != 0); }

  DimsExprs getOutputDimensions(int32_t, const DimsExprs* inputs, int32_t,
                                nvinfer1::IExprBuilder&) noexcept override {
    return inputs[0];
  }

  bool supportsFormatCombination(int32_t pos, const PluginTensorDesc* tensors, int32_t input_count,
                                 int32_t output_count) noexcept override {
    return why_not_node(input_count, output_count) == nullptr && supports(pos, tensors[pos], tensors[0]);
  }

  // It can't return an error, so errors are logged here and enqueue refuses to run.
  void configurePlugin(const DynamicPluginTensorDesc* inputs, int32_t input_count, const DynamicPluginTensorDesc*,
                       int32_t output_count) noexcept override {
    const char* objection = why_not_node(input_count, output_count);
    if (objection == nullptr) {
      scaled_ = input_count == 3;
      const nvinfer1::Dims shapes[] = {inputs[0].desc.dims, inputs[1].desc.dims, inputs[scaled_ ? 2 : 0].desc.dims};
      objection = why_not_shapes(shapes, input_count);
    }
    if (objection != nullptr) log_error(objection);
  }

  size_t getWorkspaceSize(const PluginTensorDesc*, int32_t, const PluginTensorDesc*, int32_t) const noexcept override {
    return 0;
  }

  int32_t enqueue(const PluginTensorDesc* descriptions, const PluginTensorDesc*, const void* const* inputs,
                  void* const* outputs, void*, cudaStream_t stream) noexcept override {
    return enqueue_warp(descriptions, inputs, scaled_ != 0, outputs, stream);
  }

 private:
  int32_t scaled_;
};

class WarpPluginV2Creator final : public nvinfer1::IPluginCreator {
 public:
  const char* getPluginName() const noexcept override { return kPluginName; }
  const char* getPluginVersion() const noexcept override { return kPluginVersion; }
  const char* getPluginNamespace() const noexcept override { return ""; }
  void setPluginNamespace(const char*) noexcept override {}
  const PluginFieldCollection* getFieldNames() noexcept override { return &none_; }

  nvinfer1::IPluginV2* createPlugin(const char*, const PluginFieldCollection*) noexcept override {
    return new (std::nothrow) WarpPluginV2(false);
  }

  nvinfer1::IPluginV2* deserializePlugin(const char*, const void* data, size_t size) noexcept override {
    int32_t scaled = 0;
    if (size != sizeof scaled) {
      log_error("the plan's data is not one integer");
      return nullptr;
    }
    std::memcpy(&scaled, data, sizeof scaled);
    return new (std::nothrow) WarpPluginV2(scaled != 0);
  }

 private:
  PluginFieldCollection none_{0, nullptr};
};

}  // namespace
}  // namespace keywarp

KEYWARP_EXPORT_PLUGIN(keywarp::WarpPluginV2Creator)
