/* The operator MatMulNBits, with an input more for weights of 5 bits (weights.h). */
#include <stdlib.h>

#include "matmul/matmul.h"
#include "matmul/weight_inputs.h"
#include "ort/operator.h"
#include "ort/operators.h"

enum { INPUT_X, INPUT_WEIGHTS, INPUT_GROUP_INDEX = INPUT_WEIGHTS + WEIGHT_INPUTS, INPUT_BIAS, INPUT_LOW_BITS };

static const Value inputs[] = {
    {"A", FLOAT, REQUIRED},           {"B", UINT8, REQUIRED},     {"scales", ANY, REQUIRED},
    {"zero_points", UINT8, OPTIONAL}, {"g_idx", INT32, OPTIONAL}, {"bias", FLOAT, OPTIONAL},
    {"low_bits", UINT8, OPTIONAL},
};
static const Value outputs[] = {{"Y", FLOAT, REQUIRED}};
static const Operator definition = DEFINE("MatMulNBits", inputs, outputs);

typedef struct {
  const OrtApi *api;
  Matrix matrix;
} Kernel;

static void destroy(void *state) {
  Kernel *kernel = state;
  matmul_free(kernel->matrix.weights);
  free(kernel);
}

static OrtStatus *create(const OrtCustomOp *op, const OrtApi *api, const OrtKernelInfo *info, void **out) {
  (void)op;
  Node node = created_node(api, &definition, info);
  check_no_input(&node, INPUT_GROUP_INDEX, "rows in another order are not supported");
  Kernel made = {api, create_matrix(&node, INPUT_WEIGHTS, INPUT_LOW_BITS, "")};
  const Tensor bias = constant_input(&node, INPUT_BIAS);
  check_bias(&node, &bias, &made.matrix.shape);
  Kernel *kernel = node.status == NULL ? malloc(sizeof *kernel) : NULL;
  if (kernel == NULL) {
    matmul_free(made.matrix.weights);
    refuse_memory(&node);
    return node.status;
  }
  *kernel = made;
  *out = kernel;
  return NULL;
}

static OrtStatus *compute(void *state, OrtKernelContext *context) {
  const Kernel *kernel = state;
  const MatMulShape *shape = &kernel->matrix.shape;
  Node node = running_node(kernel->api, &definition, context);
  const Tensor x = input(&node, INPUT_X), bias = input(&node, INPUT_BIAS);
  const int64_t rows = check_rows(&node, &x, "K", shape->k);
  Linear linear = {.weights = kernel->matrix.weights, .bias = check_bias(&node, &bias, shape)};
  if (node.status != NULL) return node.status;
  Tensor y = x;
  y.sizes[y.rank - 1] = shape->n;
  linear.y = output(&node, 0, y.sizes, y.rank);
  if (node.status != NULL || rows == 0) return node.status;
  Pool pool = {kernel->api, context};
  const Input source = {.m = rows, .k = shape->k, .sequence = sequence_length(&x), .x = x.data};
  if (matmul(&source, &linear, 1, run_parallel, &pool) != 0) refuse_memory(&node);
  return node.status;
}

OPERATOR(matmul_nbits, definition, create, compute, destroy)
