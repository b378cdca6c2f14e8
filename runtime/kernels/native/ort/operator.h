/* The definition of an operator from tables of its inputs and outputs. */
#ifndef INTAGLIO_OPERATOR_H
#define INTAGLIO_OPERATOR_H

#include "ort/ort.h"

/* Define the operator `variable`, named `title`, from the ElementTypes of its inputs and outputs and from OrtCustomOp's
 * CreateKernelV2 and KernelDestroy. The file defines before it
 *
 *     input_kinds, output_kinds   the Characteristic of each input and output
 *     compute                     OrtCustomOp's KernelComputeV2
 */
#define OPERATOR(variable, title, input_types, output_types, create, destroy) \
  static const char *variable##_name(const OrtCustomOp *op) { return (void)op, title; } \
  static size_t variable##_inputs(const OrtCustomOp *op) { \
    return (void)op, sizeof(input_types) / sizeof *(input_types); \
  } \
  static size_t variable##_outputs(const OrtCustomOp *op) { \
    return (void)op, sizeof(output_types) / sizeof *(output_types); \
  } \
  static int variable##_input_type(const OrtCustomOp *op, size_t index) { return (void)op, input_types[index]; } \
  static int variable##_output_type(const OrtCustomOp *op, size_t index) { return (void)op, output_types[index]; } \
  static int variable##_input_kind(const OrtCustomOp *op, size_t index) { return (void)op, input_kinds[index]; } \
  static int variable##_output_kind(const OrtCustomOp *op, size_t index) { return (void)op, output_kinds[index]; } \
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
