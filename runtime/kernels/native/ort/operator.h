/* The registration of an operator. */
#ifndef INTAGLIO_OPERATOR_H
#define INTAGLIO_OPERATOR_H

#include "ort/node.h"
#include "ort/ort.h"

/* Define the operator `variable` from `definition`, an Operator, and from OrtCustomOp's CreateKernelV2, KernelComputeV2 and
 * KernelDestroy. */
#define OPERATOR(variable, definition, create, compute, destroy) \
  static const char *variable##_name(const OrtCustomOp *op) { return (void)op, definition.name; } \
  static size_t variable##_inputs(const OrtCustomOp *op) { return (void)op, definition.input_count; } \
  static size_t variable##_outputs(const OrtCustomOp *op) { return (void)op, definition.output_count; } \
  static int variable##_input_type(const OrtCustomOp *op, size_t index) { \
    return (void)op, definition.inputs[index].type; \
  } \
  static int variable##_output_type(const OrtCustomOp *op, size_t index) { \
    return (void)op, definition.outputs[index].type; \
  } \
  static int variable##_input_kind(const OrtCustomOp *op, size_t index) { \
    return (void)op, definition.inputs[index].kind; \
  } \
  static int variable##_output_kind(const OrtCustomOp *op, size_t index) { \
    return (void)op, definition.outputs[index].kind; \
  } \
  const OrtCustomOp variable = { \
      .version = ORT_API_VERSION, \
      .CreateKernel = unused_create, \
      .GetName = variable##_name, \
      .GetExecutionProviderType = cpu_provider, \
      .GetInputType = variable##_input_type, \
      .GetInputTypeCount = variable##_inputs, \
      .GetOutputType = variable##_output_type, \
      .GetOutputTypeCount = variable##_outputs, \
      .KernelCompute = unused_compute, \
      .KernelDestroy = destroy, \
      .GetInputCharacteristic = variable##_input_kind, \
      .GetOutputCharacteristic = variable##_output_kind, \
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
