/* NBitsLayer, an operator of our own: what a decoder layer does with one input and weights in MatMulNBits' format.
 *
 *     y0, y1, y2 = x · W0ᵀ + bias0, x · W1ᵀ + bias1, x · W2ᵀ + bias2         any of the last two may be absent
 *     y0 = silu(x · W0ᵀ + bias0) * (x · W1ᵀ + bias1)                          where `swiglu` is 1;
 *     y0 = (silu(x · W0ᵀ + bias0) * (x · W1ᵀ + bias1)) · W2ᵀ + bias2          if W2 is there
 *
 * With `norm` [K], x is first (x + skip) / rms(x + skip) * norm, and x + skip is the last output; skip is optional. The
 * attributes are those of MatMulNBits, their names followed by 0, 1 or 2, and `epsilon`.
 */
#include <stdlib.h>
#include <string.h>

#include "matmul/matmul.h"
#include "ort/operator.h"
#include "ort/operators.h"
#include "matmul/weight_inputs.h"

enum { INPUT_X, INPUT_SKIP, INPUT_NORM, INPUT_MATRICES };
enum { BIAS = WEIGHT_INPUTS, MATRIX_INPUTS }; /* of each matrix */
enum { INPUTS = INPUT_MATRICES + MOST_PRODUCTS * MATRIX_INPUTS };
enum { OUTPUT_SUM = MOST_PRODUCTS, OUTPUTS };

typedef struct {
  const OrtApi *api;
  int count, swiglu;
  float epsilon;
  Matrix matrices[MOST_PRODUCTS];
} Kernel;

static void destroy(void *state) {
  Kernel *kernel = state;
  for (int i = 0; i < kernel->count; i++) matmul_free(kernel->matrices[i].weights);
  free(kernel);
}

static OrtStatus *create(const OrtCustomOp *op, const OrtApi *api, const OrtKernelInfo *info, void **out) {
  (void)op;
  static const char *const suffixes[MOST_PRODUCTS] = {"0", "1", "2"};
  Kernel *kernel = malloc(sizeof *kernel);
  if (kernel == NULL) return fail(api, ORT_FAIL, "intaglio: failed to allocate memory");
  *kernel = (Kernel){.api = api, .swiglu = attribute(api, info, "swiglu", 0) == 1};
  kernel->epsilon = attribute_float(api, info, "epsilon", 1e-5f);
  const int64_t count = attribute(api, info, "matrices", 0);
  OrtStatus *status = NULL;
  for (; status == NULL && kernel->count < count && count <= MOST_PRODUCTS; kernel->count += status == NULL) {
    const size_t first = INPUT_MATRICES + (size_t)kernel->count * MATRIX_INPUTS;
    status = create_matrix(api, info, first, suffixes[kernel->count], &kernel->matrices[kernel->count]);
  }
  const Matrix *each = kernel->matrices;
  const int whole = count >= 1 + kernel->swiglu && count <= MOST_PRODUCTS;
  if (status == NULL && !(whole && (count < 2 || each[1].shape.k == each[0].shape.k) &&
                          (!kernel->swiglu || each[1].shape.n == each[0].shape.n) &&
                          (count < 3 || each[2].shape.k == (kernel->swiglu ? each[1].shape.n : each[0].shape.k))))
    status = fail(api, ORT_INVALID_ARGUMENT, "intaglio: NBitsLayer's matrices do not fit each other");
  if (status != NULL) {
    destroy(kernel);
    return status;
  }
  *out = kernel;
  return NULL;
}

/* The output of a product, of the shape of x but for the last dimension. */
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
  const int64_t k = kernel->matrices[0].shape.k, rows = rows_of(x, k);
  if (rows < 0 || (skip->data != NULL && (skip->rank != x->rank || memcmp(skip->sizes, x->sizes, x->rank * sizeof k) != 0)) ||
      (norm->data != NULL && (norm->rank != 1 || norm->sizes[0] != k)))
    return fail(api, ORT_INVALID_ARGUMENT, "intaglio: NBitsLayer's inputs do not fit its matrices");
  Source source = {
      .m = rows,
      .k = k,
      .sequence = sequence_of(x),
      .x = x->data,
      .skip = skip->data,
      .norm = norm->data,
      .epsilon = kernel->epsilon,
  };
  Product products[MOST_PRODUCTS];
  for (int i = 0; i < kernel->count; i++)
    products[i] = (Product){.weights = kernel->matrices[i].weights,
                            .bias = in[INPUT_MATRICES + i * MATRIX_INPUTS + BIAS].data};
  const int last = kernel->count - 1, outputs = kernel->swiglu ? 1 : kernel->count;
  if (kernel->swiglu) {
    products[1].gate = &products[0];
    if (last > 1) products[1].then = &products[last];
    status = open_output(kernel, context, 0, x, kernel->matrices[last].shape.n, &products[last].y);
  }
  for (int i = 0; i < outputs && !kernel->swiglu && status == NULL; i++)
    status = open_output(kernel, context, (size_t)i, x, kernel->matrices[i].shape.n, &products[i].y);
  if (status == NULL && skip->data != NULL) status = open_output(kernel, context, OUTPUT_SUM, x, k, &source.sum);
  if (status != NULL || rows == 0) return status;
  Pool pool = {api, context};
  if (matmul(&source, products + kernel->swiglu, outputs, run_parallel, &pool) != 0)
    return fail(api, ORT_FAIL, "intaglio: failed to allocate memory");
  return NULL;
}

#define MATRIX_TYPES UINT8, ANY, UINT8, FLOAT
static const int input_types[INPUTS] = {FLOAT, FLOAT, FLOAT, MATRIX_TYPES, MATRIX_TYPES, MATRIX_TYPES};
static const int input_kinds[INPUTS] = {REQUIRED, OPTIONAL, OPTIONAL, REQUIRED, REQUIRED, OPTIONAL, OPTIONAL, OPTIONAL,
                                        OPTIONAL, OPTIONAL, OPTIONAL, OPTIONAL, OPTIONAL, OPTIONAL, OPTIONAL};
static const int output_types[OUTPUTS] = {FLOAT, FLOAT, FLOAT, FLOAT};
static const int output_kinds[OUTPUTS] = {REQUIRED, OPTIONAL, OPTIONAL, OPTIONAL};

OPERATOR(nbits_layer, "NBitsLayer", input_types, output_types, create, destroy)
