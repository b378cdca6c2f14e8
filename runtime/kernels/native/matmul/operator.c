/* The operator MatMulNBits. */
#include <stdlib.h>

#include "matmul/matmul.h"
#include "matmul/weight_inputs.h"
#include "ort/operator.h"
#include "ort/operators.h"

enum { INPUT_X, INPUT_WEIGHTS, INPUT_GROUP_INDEX = INPUT_WEIGHTS + WEIGHT_INPUTS, INPUT_BIAS, INPUTS };
enum { OUTPUTS = 1 };

typedef struct {
  const OrtApi *api;
  Matrix matrix;
} Kernel;

static OrtStatus *create(const OrtCustomOp *op, const OrtApi *api, const OrtKernelInfo *info, void **out) {
  (void)op;
  Kernel *kernel = malloc(sizeof *kernel);
  if (kernel == NULL) return fail(api, ORT_FAIL, "intaglio: failed to allocate memory");
  kernel->api = api;
  OrtStatus *status = create_matrix(api, info, INPUT_WEIGHTS, "", &kernel->matrix);
  if (status != NULL) {
    free(kernel);
    return status;
  }
  *out = kernel;
  return NULL;
}

static void destroy(void *state) {
  Kernel *kernel = state;
  matmul_free(kernel->matrix.weights);
  free(kernel);
}

static OrtStatus *compute(void *state, OrtKernelContext *context) {
  const Kernel *kernel = state;
  const OrtApi *api = kernel->api;
  const MatMulShape *shape = &kernel->matrix.shape;
  Tensor inputs[INPUTS];
  OrtStatus *status = get_inputs(api, context, inputs, INPUTS);
  if (status != NULL) return status;
  if (inputs[INPUT_GROUP_INDEX].data != NULL)
    return fail(api, ORT_NOT_IMPLEMENTED, "intaglio: MatMulNBits with g_idx is not supported");
  Tensor *x = &inputs[INPUT_X];
  const int64_t rows = row_count(x, shape->k);
  if (rows < 0)
    return fail(api, ORT_INVALID_ARGUMENT, "intaglio: MatMulNBits needs an input whose last dimension is K");
  x->sizes[x->rank - 1] = shape->n;
  void *y = NULL;
  status = get_output(api, context, 0, x->sizes, x->rank, &y);
  if (status != NULL || rows == 0) return status;
  Pool pool = {api, context};
  const Input source = {.m = rows, .k = shape->k, .sequence = sequence_length(x), .x = x->data};
  const Linear linear = {.weights = kernel->matrix.weights, .bias = inputs[INPUT_BIAS].data, .y = y};
  if (matmul(&source, &linear, 1, run_parallel, &pool) != 0)
    return fail(api, ORT_FAIL, "intaglio: failed to allocate memory");
  return NULL;
}

static const int input_types[INPUTS] = {FLOAT, UINT8, ANY, UINT8, INT32, FLOAT};
static const int input_kinds[INPUTS] = {REQUIRED, REQUIRED, REQUIRED, OPTIONAL, OPTIONAL, OPTIONAL};
static const int output_types[OUTPUTS] = {FLOAT};
static const int output_kinds[OUTPUTS] = {REQUIRED};

OPERATOR(matmul_nbits, "MatMulNBits", input_types, output_types, create, destroy)
