// KeywarpWarp as an IPluginV3, for TensorRT 10 and TensorRT for RTX.
#include <cstring>
#include <new>

#include "warp_tensors.h"

namespace keywarp {
namespace {

using nvinfer1::DataType;
using nvinfer1::DimsExprs;
using nvinfer1::DynamicPluginTensorDesc;
using nvinfer1::IPluginCapability;
using nvinfer1::IPluginV3;
using nvinfer1::PluginCapabilityType;
using nvinfer1::PluginField;
using nvinfer1::PluginFieldCollection;
using nvinfer1::PluginFieldType;
using nvinfer1::PluginTensorDesc;

constexpr char kScaled[] = "scaled";  // the only field of a serialised plugin: whether it has a third input

int32_t refuse(const char* objection) noexcept {
  if (objection != nullptr) log_error(objection);
  return objection == nullptr ? 0 : -1;
}

class WarpPluginV3 final : public IPluginV3,
                           public nvinfer1::IPluginV3OneCore,
                           public nvinfer1::IPluginV3OneBuild,
                           public nvinfer1::IPluginV3OneRuntime {
 public:
  explicit WarpPluginV3(bool scaled) noexcept : scaled_(scaled) {}

  // ---- IPluginV3

  IPluginCapability* getCapabilityInterface(PluginCapabilityType type) noexcept override {
    switch (type) {
      case PluginCapabilityType::kCORE: return static_cast<nvinfer1::IPluginV3OneCore*>(this);
      case PluginCapabilityType::kBUILD: return static_cast<nvinfer1::IPluginV3OneBuild*>(this);
      case PluginCapabilityType::kRUNTIME: return static_cast<nvinfer1::IPluginV3OneRuntime*>(this);
    }
    return nullptr;
  }

  IPluginV3* clone() noexcept override { return new (std::nothrow) WarpPluginV3(scaled_ != 0); }

  // ---- core

  const char* getPluginName() const noexcept override { return kPluginName; }
  const char* getPluginVersion() const noexcept override { return kPluginVersion; }
  const char* getPluginNamespace() const noexcept override { return ""; }

  // ---- build

  int32_t getNbOutputs() const noexcept override { return 1; }

  int32_t getOutputDataTypes(DataType* outputs, int32_t output_count, const DataType* inputs,
                             int32_t input_count) const noexcept override {
    const char* objection = why_not_node(input_count, output_count);
    if (objection == nullptr) outputs[0] = inputs[0];
    return refuse(objection);
  }

  int32_t getOutputShapes(const DimsExprs* inputs, int32_t input_count, const DimsExprs*, int32_t, DimsExprs* outputs,
                          int32_t output_count, nvinfer1::IExprBuilder&) noexcept override {
    const char* objection = why_not_node(input_count, output_count);
    if (objection == nullptr) outputs[0] = inputs[0];
    return refuse(objection);
  }

  bool supportsFormatCombination(int32_t pos, const DynamicPluginTensorDesc* tensors, int32_t,
                                 int32_t) noexcept override {
    return supports(pos, tensors[pos].desc, tensors[0].desc);
  }

  int32_t configurePlugin(const DynamicPluginTensorDesc* inputs, int32_t input_count, const DynamicPluginTensorDesc*,
                          int32_t output_count) noexcept override {
    const char* objection = why_not_node(input_count, output_count);
    if (objection != nullptr) return refuse(objection);
    scaled_ = input_count == 3;
    const nvinfer1::Dims shapes[] = {inputs[0].desc.dims, inputs[1].desc.dims, inputs[scaled_ ? 2 : 0].desc.dims};
    return refuse(why_not_shapes(shapes, input_count));
  }

  // ---- runtime

  int32_t onShapeChange(const PluginTensorDesc* inputs, int32_t input_count, const PluginTensorDesc*,
                        int32_t output_count) noexcept override {
    const char* objection = why_not_node(input_count, output_count);
    if (objection != nullptr) return refuse(objection);
    scaled_ = input_count == 3;
    const nvinfer1::Dims shapes[] = {inputs[0].dims, inputs[1].dims, inputs[scaled_ ? 2 : 0].dims};
    return refuse(why_not_shapes(shapes, input_count));
  }

  int32_t enqueue(const PluginTensorDesc* descriptions, const PluginTensorDesc*, const void* const* inputs,
                  void* const* outputs, void*, cudaStream_t stream) noexcept override {
    return enqueue_warp(descriptions, inputs, scaled_ != 0, outputs, stream);
  }

  IPluginV3* attachToContext(nvinfer1::IPluginResourceContext*) noexcept override { return clone(); }

  const PluginFieldCollection* getFieldsToSerialize() noexcept override {
    field_ = {kScaled, &scaled_, PluginFieldType::kINT32, 1};
    fields_ = {1, &field_};
    return &fields_;
  }

 private:
  int32_t scaled_;
  PluginField field_;
  PluginFieldCollection fields_{};
};

class WarpPluginV3Creator final : public nvinfer1::IPluginCreatorV3One {
 public:
  const char* getPluginName() const noexcept override { return kPluginName; }
  const char* getPluginVersion() const noexcept override { return kPluginVersion; }
  const char* getPluginNamespace() const noexcept override { return ""; }

  // A node has no attributes, since `scaled` follows from its inputs.
  const PluginFieldCollection* getFieldNames() noexcept override { return &none_; }

  IPluginV3* createPlugin(const char*, const PluginFieldCollection* fields, nvinfer1::TensorRTPhase) noexcept override {
    bool scaled = false;
    for (int32_t i = 0; fields != nullptr && i < fields->nbFields; ++i) {
      const PluginField& field = fields->fields[i];
      if (std::strcmp(field.name, kScaled) != 0) continue;
      if (field.type != PluginFieldType::kINT32 || field.length != 1) {
        log_error("the plan's field `scaled` is not one integer");
        return nullptr;
      }
      scaled = *static_cast<const int32_t*>(field.data) != 0;
    }
    return new (std::nothrow) WarpPluginV3(scaled);
  }

 private:
  PluginFieldCollection none_{0, nullptr};
};

}  // namespace
}  // namespace keywarp

KEYWARP_EXPORT_PLUGIN(keywarp::WarpPluginV3Creator)
