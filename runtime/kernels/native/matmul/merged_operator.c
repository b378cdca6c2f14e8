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
#include <stdlib.h>
#include <string.h>

#include "matmul/matmul.h"
#include "matmul/weight_inputs.h"
#include "ort/operator.h"
#include "ort/operators.h"

enum { INPUT_X, INPUT_SKIP, INPUT_NORM, INPUT_MATRICES };
enum { BIAS = WEIGHT_INPUTS, MATRIX_INPUTS }; /* of each matrix */
enum { INPUTS = INPUT_MATRICES + MAX_LINEARS * MATRIX_INPUTS };
enum { OUTPUT_SUM = MAX_LINEARS, OUTPUTS };

typedef struct {
  const OrtApi *api;
  int count, swiglu;
  float epsilon;
  Matrix matrices[MAX_LINEARS];
} Kernel;

static void destroy(void *state) {
  Kernel *kernel = state;
  for (int i = 0; i < kernel->count; i++) matmul_free(kernel->matrices[i].weights);
  free(kernel);
}

static OrtStatus *create(const OrtCustomOp *op, const OrtApi *api, const OrtKernelInfo *info, void **out) {
  (void)op;
  static const char *const suffixes[MAX_LINEARS] = {"0", "1", "2"};
  Kernel *kernel = malloc(sizeof *kernel);
  if (kernel == NULL) return fail(api, ORT_FAIL, "intaglio: failed to allocate memory");
  *kernel = (Kernel){.api = api, .swiglu = attribute(api, info, "swiglu", 0) == 1};
  kernel->epsilon = attribute_float(api, info, "epsilon", 1e-5f);
  const int64_t count = attribute(api, info, "matrices", 0);
  OrtStatus *status = NULL;
  for (; status == NULL && kernel->count < count && count <= MAX_LINEARS; kernel->count += status == NULL) {
    const size_t first = INPUT_MATRICES + (size_t)kernel->count * MATRIX_INPUTS;
    status = create_matrix(api, info, first, suffixes[kernel->count], &kernel->matrices[kernel->count]);
  }
  const Matrix *each = kernel->matrices;
  const int whole = count >= 1 + kernel->swiglu && count <= MAX_LINEARS;
  if (status == NULL && !(whole && (count < 2 || each[1].shape.k == each[0].shape.k) &&
                          (!kernel->swiglu || each[1].shape.n == each[0].shape.n) &&
                          (count < 3 || each[2].shape.k == (kernel->swiglu ? each[1].shape.n : each[0].shape.k))))
    status = fail(api, ORT_INVALID_ARGUMENT, "intaglio: MergedMatMulNBits's matrices do not fit each other");
  if (status != NULL) {
    destroy(kernel);
    return status;
  }
  *out = kernel;
  return NULL;
}

/* Open the output of a multiplication: it has the shape of x but for the last dimension. */
static OrtStatus *open_output(const Kernel *kernel, OrtKernelContext *context, size_t index, const Tensor *x, int64_t n,
                              float **data) {
  Tensor y = *x;
  y.sizes[y.rank - 1] = n;
  void *opened = NULL;
  OrtStatus *status = get_output(kernel->api, context, index, y.sizes, y.rank, &opened);
  *data = opened;
  return status;
}

static OrtStatus *compute(void *state, OrtKernelContext *context) {
  const Kernel *kernel = state;
  const OrtApi *api = kernel->api;
  Tensor in[INPUTS];
  OrtStatus *status = get_inputs(api, context, in, INPUTS);
  if (status != NULL) return status;
  const Tensor *x = &in[INPUT_X], *skip = &in[INPUT_SKIP], *norm = &in[INPUT_NORM];
  const int64_t k = kernel->matrices[0].shape.k, rows = row_count(x, k);
  if (rows < 0 ||
      (skip->data != NULL && (skip->rank != x->rank || memcmp(skip->sizes, x->sizes, x->rank * sizeof k) != 0)) ||
      (norm->data != NULL && (norm->rank != 1 || norm->sizes[0] != k)))
    return fail(api, ORT_INVALID_ARGUMENT, "intaglio: MergedMatMulNBits's inputs do not fit its matrices");
  Input source = {
      .m = rows,
      .k = k,
      .sequence = sequence_length(x),
      .x = x->data,
      .skip = skip->data,
      .norm = norm->data,
      .epsilon = kernel->epsilon,
  };
  Linear linears[MAX_LINEARS];
  for (int i = 0; i < kernel->count; i++)
    linears[i] =
        (Linear){.weights = kernel->matrices[i].weights, .bias = in[INPUT_MATRICES + i * MATRIX_INPUTS + BIAS].data};
  const int last = kernel->count - 1, outputs = kernel->swiglu ? 1 : kernel->count;
  if (kernel->swiglu) {
    linears[1].gate = &linears[0];
    if (last > 1) linears[1].then = &linears[last];
    status = open_output(kernel, context, 0, x, kernel->matrices[last].shape.n, &linears[last].y);
  }
  for (int i = 0; i < outputs && !kernel->swiglu && status == NULL; i++)
    status = open_output(kernel, context, (size_t)i, x, kernel->matrices[i].shape.n, &linears[i].y);
  if (status == NULL && skip->data != NULL) status = open_output(kernel, context, OUTPUT_SUM, x, k, &source.sum);
  if (status != NULL || rows == 0) return status;
  Pool pool = {api, context};
  if (matmul(&source, linears + kernel->swiglu, outputs, run_parallel, &pool) != 0)
    return fail(api, ORT_FAIL, "intaglio: failed to allocate memory");
  return NULL;
}

#define MATRIX_TYPES UINT8, ANY, UINT8, FLOAT
static const int input_types[INPUTS] = {FLOAT, FLOAT, FLOAT, MATRIX_TYPES, MATRIX_TYPES, MATRIX_TYPES};
static const int input_kinds[INPUTS] = {REQUIRED, OPTIONAL, OPTIONAL, REQUIRED, REQUIRED, OPTIONAL, OPTIONAL, OPTIONAL,
                                        OPTIONAL, OPTIONAL, OPTIONAL, OPTIONAL, OPTIONAL, OPTIONAL, OPTIONAL};
static const int output_types[OUTPUTS] = {FLOAT, FLOAT, FLOAT, FLOAT};
static const int output_kinds[OUTPUTS] = {REQUIRED, OPTIONAL, OPTIONAL, OPTIONAL};

OPERATOR(merged_matmul_nbits, "MergedMatMulNBits", input_types, output_types, create, destroy)
