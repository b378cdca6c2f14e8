/* The operator MergedMatMulNBits of intaglio: the multiplications of one input in a decoder layer, with the norm before them
 * and SwiGLU after them.
 *
 *     y0, y1, y2 = x · W0ᵀ + bias0, x · W1ᵀ + bias1, x · W2ᵀ + bias2         the last two are optional
 *     y0 = silu(x · W0ᵀ + bias0) * (x · W1ᵀ + bias1)                          if `swiglu` is 1
 *     y0 = (silu(x · W0ᵀ + bias0) * (x · W1ᵀ + bias1)) · W2ᵀ + bias2          if W2 is given too
 *
 * With `norm` [K], x is replaced by (x + skip) / rms(x + skip) * norm, and x + skip is the last output; skip is optional. The
 * weights have MatMulNBits' format. The attributes are those of MatMulNBits with 0, 1 or 2 appended to their names, and
 * `matrices` (their number), `swiglu` and `epsilon`.
 */
#include <inttypes.h>
#include <stdlib.h>

#include "matmul/matmul.h"
#include "matmul/weight_inputs.h"
#include "ort/operator.h"
#include "ort/operators.h"

enum { INPUT_X, INPUT_SKIP, INPUT_NORM, INPUT_MATRICES };
enum { BIAS = WEIGHT_INPUTS, LOW_BITS, MATRIX_INPUTS }; /* of each matrix */
enum { OUTPUT_SUM = MAX_LINEARS };

#define MATRIX(number, kind) \
  {"B" number, UINT8, kind}, {"scales" number, ANY, kind}, {"zero_points" number, UINT8, OPTIONAL}, \
      {"bias" number, FLOAT, OPTIONAL}, { \
    "low_bits" number, UINT8, OPTIONAL \
  }
static const Value inputs[] = {
    {"x", FLOAT, REQUIRED}, {"skip", FLOAT, OPTIONAL}, {"norm", FLOAT, OPTIONAL},
    MATRIX("0", REQUIRED),  MATRIX("1", OPTIONAL),     MATRIX("2", OPTIONAL),
};
static const Value outputs[] = {
    {"y0", FLOAT, REQUIRED}, {"y1", FLOAT, OPTIONAL}, {"y2", FLOAT, OPTIONAL}, {"sum", FLOAT, OPTIONAL}};
static const Operator definition = DEFINE("MergedMatMulNBits", inputs, outputs);

typedef struct {
  const OrtApi *api;
  int count, swiglu, outputs; /* matrices; outputs without the sum */
  float epsilon;
  Matrix matrices[MAX_LINEARS];
} Kernel;

static size_t input_of(int matrix, size_t which) { return INPUT_MATRICES + (size_t)matrix * MATRIX_INPUTS + which; }

static void destroy(void *state) {
  Kernel *kernel = state;
  for (int i = 0; i < kernel->count; i++) matmul_free(kernel->matrices[i].weights);
  free(kernel);
}

/* Check that two sizes are the same, which are attributes of two matrices. */
static void check_same(Node *node, const char *name, int64_t size, const char *other, int64_t wanted) {
  if (size != wanted)
    refuse(node, ORT_INVALID_ARGUMENT, "attribute %s is %" PRId64 "; it must be that of %s, %" PRId64, name, size,
           other, wanted);
}

/* Check that the matrices fit each other. */
static void check_matrices(Node *node, const Kernel *kernel) {
  const Matrix *each = kernel->matrices;
  if (node->status != NULL) return;
  if (kernel->count > 1) check_same(node, "K1", each[1].shape.k, "K0", each[0].shape.k);
  if (kernel->swiglu) check_same(node, "N1", each[1].shape.n, "N0", each[0].shape.n);
  if (kernel->count > 2 && kernel->swiglu) check_same(node, "K2", each[2].shape.k, "N1", each[1].shape.n);
  if (kernel->count > 2 && !kernel->swiglu) check_same(node, "K2", each[2].shape.k, "K0", each[0].shape.k);
}

/* Check that the node has the inputs and outputs of its matrices and of its norm, and no others. */
static void check_connections(Node *node, const Kernel *kernel) {
  for (int matrix = kernel->count; matrix < MAX_LINEARS; matrix++)
    for (size_t which = 0; which < MATRIX_INPUTS; which++)
      check_no_input(node, input_of(matrix, which), "attribute matrices is smaller");
  for (int i = 0; i < MAX_LINEARS; i++) {
    if (i >= kernel->outputs) check_no_output(node, (size_t)i, "it is not computed");
    else if (node->status == NULL && !has_output(node, (size_t)i))
      refuse(node, ORT_INVALID_ARGUMENT, "output %s is missing", outputs[i].name);
  }
  if (!has_input(node, INPUT_NORM)) check_no_input(node, INPUT_SKIP, "norm is missing");
  if (!has_input(node, INPUT_SKIP)) check_no_output(node, OUTPUT_SUM, "skip is missing");
}

static void check_norm(Node *node, const Tensor *norm, int64_t k) {
  if (norm->given) CHECK_SHAPE(node, norm, "[K]", k);
}

static OrtStatus *create(const OrtCustomOp *op, const OrtApi *api, const OrtKernelInfo *info, void **out) {
  (void)op;
  static const char *const suffixes[MAX_LINEARS] = {"0", "1", "2"};
  Node node = created_node(api, &definition, info);
  Kernel *kernel = calloc(1, sizeof *kernel);
  if (kernel == NULL) {
    refuse_memory(&node);
    return node.status;
  }
  kernel->api = api;
  kernel->swiglu = (int)integer_attribute(&node, "swiglu", 0, 0, 1);
  kernel->epsilon = float_attribute(&node, "epsilon", 1e-5f);
  const int64_t count = integer_attribute(&node, "matrices", 0, 1 + kernel->swiglu, MAX_LINEARS);
  for (int i = 0; i < count && node.status == NULL; i++) {
    Matrix *matrix = &kernel->matrices[i];
    *matrix = create_matrix(&node, input_of(i, 0), input_of(i, LOW_BITS), suffixes[i]);
    kernel->count = i + 1;
    const Tensor bias = constant_input(&node, input_of(i, BIAS));
    check_bias(&node, &bias, &matrix->shape);
  }
  kernel->outputs = kernel->swiglu ? 1 : kernel->count;
  check_matrices(&node, kernel);
  check_connections(&node, kernel);
  const Tensor norm = constant_input(&node, INPUT_NORM);
  check_norm(&node, &norm, kernel->matrices[0].shape.k);
  if (node.status != NULL) destroy(kernel);
  else *out = kernel;
  return node.status;
}

/* Open the output of a multiplication: it has the shape of x but for the last dimension. */
static float *open_output(Node *node, size_t index, const Tensor *x, int64_t n) {
  Tensor y = *x;
  if (node->status != NULL) return NULL;
  y.sizes[y.rank - 1] = n;
  return output(node, index, y.sizes, y.rank);
}

static OrtStatus *compute(void *state, OrtKernelContext *context) {
  const Kernel *kernel = state;
  Node node = running_node(kernel->api, &definition, context);
  const Tensor x = input(&node, INPUT_X), skip = input(&node, INPUT_SKIP), norm = input(&node, INPUT_NORM);
  const int64_t k = kernel->matrices[0].shape.k, rows = check_rows(&node, &x, "K", k);
  if (skip.given) check_shape(&node, &skip, "the shape of x", x.sizes, x.rank);
  check_norm(&node, &norm, k);
  Linear linears[MAX_LINEARS] = {0};
  for (int i = 0; i < kernel->count; i++) {
    const Tensor bias = input(&node, input_of(i, BIAS));
    linears[i].weights = kernel->matrices[i].weights;
    linears[i].bias = check_bias(&node, &bias, &kernel->matrices[i].shape);
  }
  if (node.status != NULL) return node.status;
  Input source = {
      .m = rows,
      .k = k,
      .sequence = sequence_length(&x),
      .x = x.data,
      .skip = skip.given ? skip.data : NULL,
      .norm = norm.given ? norm.data : NULL,
      .epsilon = kernel->epsilon,
  };
  const int last = kernel->count - 1;
  if (kernel->swiglu) {
    linears[1].gate = &linears[0];
    if (last > 1) linears[1].then = &linears[last];
    linears[last].y = open_output(&node, 0, &x, kernel->matrices[last].shape.n);
  }
  for (int i = 0; i < kernel->outputs && !kernel->swiglu; i++)
    linears[i].y = open_output(&node, (size_t)i, &x, kernel->matrices[i].shape.n);
  if (skip.given) source.sum = open_output(&node, OUTPUT_SUM, &x, k);
  if (node.status != NULL || rows == 0) return node.status;
  Pool pool = {kernel->api, context};
  if (matmul(&source, linears + kernel->swiglu, kernel->outputs, run_parallel, &pool) != 0) refuse_memory(&node);
  return node.status;
}

OPERATOR(merged_matmul_nbits, definition, create, compute, destroy)
