/* MatMulNBits as ONNX Runtime sees it. */
#include <stdlib.h>

#include "matmul.h"
#include "operators.h"
#include "ort.h"

enum { INPUT_X, INPUT_WEIGHTS, INPUT_SCALES, INPUT_ZERO_POINTS, INPUT_GROUP_INDEX, INPUT_BIAS, INPUTS };

typedef struct {
  const OrtApi *api;
  MatMulShape shape;
  PackedWeights *weights;
} Kernel;

static OrtStatus *create(const OrtCustomOp *op, const OrtApi *api, const OrtKernelInfo *info, void **out) {
  (void)op;
  MatMulShape shape = {
      .n = attribute(api, info, "N", 0),
      .k = attribute(api, info, "K", 0),
      .bits = (int)attribute(api, info, "bits", 4),
      .block_size = (int)attribute(api, info, "block_size", 0),
  };
  const int size = shape.block_size, power_of_two = (size & (size - 1)) == 0;
  if (shape.n < 1 || shape.k < 1 || (shape.bits != 4 && shape.bits != 8) || size < 16 || size > 256 || !power_of_two)
    return fail(api, ORT_NOT_IMPLEMENTED, "intaglio: MatMulNBits of 4 or 8 bits in blocks of 16 to 256 only");
  if (attribute(api, info, "accuracy_level", 0) != 4)
    return fail(api, ORT_NOT_IMPLEMENTED, "intaglio: MatMulNBits of accuracy_level 4 only");
  shape.blocks = (shape.k + size - 1) / size;
  const StoredWeights stored = {constant(api, info, INPUT_WEIGHTS), constant(api, info, INPUT_SCALES),
                                constant(api, info, INPUT_ZERO_POINTS)};
  if (stored.weights == NULL || stored.scales == NULL)
    return fail(api, ORT_NOT_IMPLEMENTED, "intaglio: MatMulNBits with constant weights only");
  if (!matmul_packable(&shape, stored.scales))
    return fail(api, ORT_NOT_IMPLEMENTED, "intaglio: MatMulNBits with scales that are numbers of float16 only");
  Kernel *kernel = malloc(sizeof *kernel);
  PackedWeights *weights = kernel == NULL ? NULL : matmul_pack(&shape, &stored);
  if (weights == NULL) {
    free(kernel);
    return fail(api, ORT_FAIL, "intaglio: failed to allocate memory");
  }
  *kernel = (Kernel){api, shape, weights};
  *out = kernel;
  return NULL;
}

static void destroy(void *state) {
  Kernel *kernel = state;
  matmul_free(kernel->weights);
  free(kernel);
}

static OrtStatus *compute(void *state, OrtKernelContext *context) {
  const Kernel *kernel = state;
  const OrtApi *api = kernel->api;
  Tensor inputs[INPUTS];
  OrtStatus *status = get_inputs(api, context, inputs, INPUTS);
  if (status != NULL) return status;
  if (inputs[INPUT_GROUP_INDEX].data != NULL)
    return fail(api, ORT_NOT_IMPLEMENTED, "intaglio: MatMulNBits with g_idx is not supported");
  Tensor *x = &inputs[INPUT_X];
  if (x->rank == 0 || x->sizes[x->rank - 1] != kernel->shape.k)
    return fail(api, ORT_INVALID_ARGUMENT, "intaglio: MatMulNBits needs an input whose last dimension is K");
  int64_t rows = 1;
  for (size_t axis = 0; axis + 1 < x->rank; axis++) rows *= x->sizes[axis];
  x->sizes[x->rank - 1] = kernel->shape.n;
  void *y = NULL;
  status = get_output(api, context, 0, x->sizes, x->rank, &y);
  if (status != NULL || rows == 0) return status;
  Pool pool = {api, context};
  if (matmul(kernel->weights, x->data, inputs[INPUT_BIAS].data, y, rows, run_parallel, &pool) != 0)
    return fail(api, ORT_FAIL, "intaglio: failed to allocate memory");
  return NULL;
}

static const char *name(const OrtCustomOp *op) { return (void)op, "MatMulNBits"; }
static size_t inputs(const OrtCustomOp *op) { return (void)op, INPUTS; }
static size_t outputs(const OrtCustomOp *op) { return (void)op, 1; }
static int input_type(const OrtCustomOp *op, size_t index) {
  static const int types[INPUTS] = {FLOAT, UINT8, FLOAT, UINT8, INT32, FLOAT};
  return (void)op, types[index];
}
static int output_type(const OrtCustomOp *op, size_t index) { return (void)op, (void)index, FLOAT; }
static int input_kind(const OrtCustomOp *op, size_t index) {
  return (void)op, index < INPUT_ZERO_POINTS ? REQUIRED : OPTIONAL;
}
static int output_kind(const OrtCustomOp *op, size_t index) { return (void)op, (void)index, REQUIRED; }

const OrtCustomOp matmul_nbits = {
    .version = ORT_API_VERSION,
    .CreateKernel = unused_create,
    .GetName = name,
    .GetExecutionProviderType = cpu_provider,
    .GetInputType = input_type,
    .GetInputTypeCount = inputs,
    .GetOutputType = output_type,
    .GetOutputTypeCount = outputs,
    .KernelCompute = unused_compute,
    .KernelDestroy = destroy,
    .GetInputCharacteristic = input_kind,
    .GetOutputCharacteristic = output_kind,
    .GetInputMemoryType = memory_type,
    .GetVariadicInputMinArity = one,
    .GetVariadicInputHomogeneity = one,
    .GetVariadicOutputMinArity = one,
    .GetVariadicOutputHomogeneity = one,
    .CreateKernelV2 = create,
    .KernelComputeV2 = compute,
    .GetStartVersion = one,
    .GetEndVersion = one,
};
