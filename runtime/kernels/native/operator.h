/* What ONNX Runtime asks of an operator, answered from tables: float32 comes out. */
#ifndef INTAGLIO_OPERATOR_H
#define INTAGLIO_OPERATOR_H

#include "ort.h"

/* Defines the operator `variable`, called `title`, in a file that has
 *
 *     INPUTS, OUTPUTS                          how many there are
 *     input_types, input_kinds, output_kinds   of each an ElementType, a Characteristic
 *     create, compute                          OrtCustomOp's CreateKernelV2 and KernelComputeV2
 */
#define OPERATOR(variable, title, destroy) \
  static const char *name(const OrtCustomOp *op) { return (void)op, title; } \
  static size_t inputs(const OrtCustomOp *op) { return (void)op, INPUTS; } \
  static size_t outputs(const OrtCustomOp *op) { return (void)op, OUTPUTS; } \
  static int input_type(const OrtCustomOp *op, size_t index) { return (void)op, input_types[index]; } \
  static int output_type(const OrtCustomOp *op, size_t index) { return (void)op, (void)index, FLOAT; } \
  static int input_kind(const OrtCustomOp *op, size_t index) { return (void)op, input_kinds[index]; } \
  static int output_kind(const OrtCustomOp *op, size_t index) { return (void)op, output_kinds[index]; } \
  const OrtCustomOp variable = { \
      .version = ORT_API_VERSION, \
      .CreateKernel = unused_create, \
      .GetName = name, \
      .GetExecutionProviderType = cpu_provider, \
      .GetInputType = input_type, \
      .GetInputTypeCount = inputs, \
      .GetOutputType = output_type, \
      .GetOutputTypeCount = outputs, \
      .KernelCompute = unused_compute, \
      .KernelDestroy = destroy, \
      .GetInputCharacteristic = input_kind, \
      .GetOutputCharacteristic = output_kind, \
      .GetInputMemoryType = memory_type, \
      .GetVariadicInputMinArity = one, \
      .GetVariadicInputHomogeneity = one, \
      .GetVariadicOutputMinArity = one, \
      .GetVariadicOutputHomogeneity = one, \
      .CreateKernelV2 = create, \
      .KernelComputeV2 = compute, \
      .GetStartVersion = one, \
      .GetEndVersion = one, \
  };

#endif
