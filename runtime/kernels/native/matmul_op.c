/* MatMulNBits as ONNX Runtime sees it, with one input more, the gate: of the output's shape. */
#include <stdlib.h>
#include <string.h>

#include "matmul.h"
#include "operator.h"
#include "operators.h"

enum { INPUT_X, INPUT_WEIGHTS, INPUT_SCALES, INPUT_ZERO_POINTS, INPUT_GROUP_INDEX, INPUT_BIAS, INPUT_GATE, INPUTS };
enum { OUTPUTS = 1 };

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
  int type = 0;
  const StoredWeights stored = {
      .weights = constant(api, info, INPUT_WEIGHTS, NULL),
      .scales = constant(api, info, INPUT_SCALES, &type),
      .halves = type == FLOAT16,
      .zero_points = constant(api, info, INPUT_ZERO_POINTS, NULL),
  };
  if (stored.weights == NULL || stored.scales == NULL || (type != FLOAT && type != FLOAT16))
    return fail(api, ORT_NOT_IMPLEMENTED, "intaglio: MatMulNBits with constant weights and scales only");
  if (!matmul_packable(&shape, &stored))
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
  const Tensor *gate = &inputs[INPUT_GATE];
  if (gate->data != NULL && (gate->rank != x->rank || memcmp(gate->sizes, x->sizes, x->rank * sizeof *x->sizes) != 0))
    return fail(api, ORT_INVALID_ARGUMENT, "intaglio: MatMulNBits' gate does not have the shape of its output");
  void *y = NULL;
  status = get_output(api, context, 0, x->sizes, x->rank, &y);
  if (status != NULL || rows == 0) return status;
  Pool pool = {api, context};
  const Finish finish = {inputs[INPUT_BIAS].data, gate->data};
  if (matmul(kernel->weights, x->data, finish, y, rows, run_parallel, &pool) != 0)
    return fail(api, ORT_FAIL, "intaglio: failed to allocate memory");
  return NULL;
}

static const int input_types[INPUTS] = {FLOAT, UINT8, ANY, UINT8, INT32, FLOAT, FLOAT};
static const int input_kinds[INPUTS] = {REQUIRED, REQUIRED, REQUIRED, OPTIONAL, OPTIONAL, OPTIONAL, OPTIONAL};
static const int output_types[OUTPUTS] = {FLOAT};
static const int output_kinds[OUTPUTS] = {REQUIRED};

OPERATOR(matmul_nbits, "MatMulNBits", input_types, output_types, create, destroy)
