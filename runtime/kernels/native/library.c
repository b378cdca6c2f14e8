/* The library that ONNX Runtime loads: one kernel, which takes the place of com.microsoft.MatMulNBits.
 *
 * A library's own kernels are looked up before ONNX Runtime's, so that a graph needs no change to run on them.
 */
#include <stdlib.h>

#include "matmul.h"
#include "ort_abi.h"
#include "pages.h"

enum { INPUT_A, INPUT_B, INPUT_SCALES, INPUT_ZERO_POINTS, INPUT_GROUP_INDEX, INPUT_BIAS, INPUTS };

typedef struct {
  const OrtApi *api;
  MatMulShape shape;
  PackedWeights *weights;
} Kernel;

static OrtStatus *fail(const OrtApi *api, int code, const char *message) {
  return ORT(api, CREATE_STATUS, OrtStatus *, int, const char *)(code, message);
}

static int64_t attribute(const OrtApi *api, const OrtKernelInfo *info, const char *name, int64_t absent) {
  int64_t value = absent;
  OrtStatus *status = ORT(api, KERNEL_INFO_GET_ATTRIBUTE_INT64, OrtStatus *, const OrtKernelInfo *, const char *,
                          int64_t *)(info, name, &value);
  if (status == NULL) return value;
  ORT(api, RELEASE_STATUS, void, OrtStatus *)(status);
  return absent;
}

/* An input that is a constant of the graph; NULL where it is absent or computed. */
static const OrtValue *constant(const OrtApi *api, const OrtKernelInfo *info, size_t index, const void **data) {
  int is_constant = 0;
  const OrtValue *value = NULL;
  *data = NULL;
  OrtStatus *status = ORT(api, KERNEL_INFO_GET_CONSTANT_INPUT, OrtStatus *, const OrtKernelInfo *, size_t, int *,
                          const OrtValue **)(info, index, &is_constant, &value);
  if (status == NULL && is_constant && value != NULL)
    status = ORT(api, GET_TENSOR_MUTABLE_DATA, OrtStatus *, const OrtValue *, const void **)(value, data);
  if (status != NULL) ORT(api, RELEASE_STATUS, void, OrtStatus *)(status);
  return *data == NULL ? NULL : value;
}

static OrtStatus *create(const OrtCustomOp *op, const OrtApi *api, const OrtKernelInfo *info, void **out) {
  (void)op;
  MatMulShape shape = {
      .n = attribute(api, info, "N", 0),
      .k = attribute(api, info, "K", 0),
      .bits = (int)attribute(api, info, "bits", 4),
      .block_size = (int)attribute(api, info, "block_size", 0),
  };
  int size = shape.block_size;
  if (shape.n < 1 || shape.k < 1 || (shape.bits != 4 && shape.bits != 8) || size < 16 || size > 256 || (size & (size - 1)))
    return fail(api, ORT_NOT_IMPLEMENTED, "intaglio: MatMulNBits of 4 or 8 bits in blocks of 16 to 256 only");
  if (attribute(api, info, "accuracy_level", 0) != 4)
    return fail(api, ORT_NOT_IMPLEMENTED, "intaglio: MatMulNBits of accuracy_level 4 only");
  shape.blocks = (shape.k + size - 1) / size;
  const void *data[INPUTS];
  for (size_t index = 0; index < INPUTS; index++) constant(api, info, index, &data[index]);
  if (data[INPUT_B] == NULL || data[INPUT_SCALES] == NULL)
    return fail(api, ORT_NOT_IMPLEMENTED, "intaglio: MatMulNBits with constant weights only");
  Kernel *kernel = malloc(sizeof *kernel);
  StoredWeights stored = {data[INPUT_B], data[INPUT_SCALES], data[INPUT_ZERO_POINTS]};
  PackedWeights *weights = kernel == NULL ? NULL : matmul_pack(&shape, &stored);
  if (weights == NULL) {
    free(kernel);
    return fail(api, ORT_FAIL, "intaglio: failed to allocate memory");
  }
  const int64_t bytes = shape.n * shape.blocks * size * shape.bits / 8;
  forget_file_pages(data[INPUT_B], bytes);
  forget_file_pages(data[INPUT_SCALES], shape.n * shape.blocks * (int64_t)sizeof(float));
  *kernel = (Kernel){api, shape, weights};
  *out = kernel;
  return NULL;
}

static void *unused_create(const OrtCustomOp *op, const OrtApi *api, const OrtKernelInfo *info) {
  (void)op, (void)api, (void)info;
  return NULL;
}

static void unused_compute(void *kernel, OrtKernelContext *context) { (void)kernel, (void)context; }

static void destroy(void *state) {
  Kernel *kernel = state;
  matmul_free(kernel->weights);
  free(kernel);
}

typedef struct {
  const OrtApi *api;
  OrtKernelContext *context;
} Pool;

static void parallel(void *context, void (*body)(void *, size_t), size_t count, void *data) {
  Pool *pool = context;
  OrtStatus *status = ORT(pool->api, KERNEL_CONTEXT_PARALLEL_FOR, OrtStatus *, const OrtKernelContext *,
                          void (*)(void *, size_t), size_t, size_t, void *)(pool->context, body, count, 0, data);
  if (status == NULL) return;
  ORT(pool->api, RELEASE_STATUS, void, OrtStatus *)(status);
  for (size_t index = 0; index < count; index++) body(data, index);
}

/* The data of an input, or NULL where an optional input is absent. */
static OrtStatus *input(const OrtApi *api, OrtKernelContext *context, size_t index, const void **data,
                        const OrtValue **value) {
  OrtStatus *status = ORT(api, KERNEL_CONTEXT_GET_INPUT, OrtStatus *, const OrtKernelContext *, size_t,
                          const OrtValue **)(context, index, value);
  *data = NULL;
  if (status != NULL || *value == NULL) return status;
  return ORT(api, GET_TENSOR_MUTABLE_DATA, OrtStatus *, const OrtValue *, const void **)(*value, data);
}

enum { MAX_RANK = 8 };

/* The dimensions of a tensor; a rank of 0 where it has more than MAX_RANK. */
static OrtStatus *dimensions(const OrtApi *api, const OrtValue *value, int64_t *sizes, size_t *rank) {
  OrtShapeInfo *info = NULL;
  OrtStatus *status =
      ORT(api, GET_TENSOR_TYPE_AND_SHAPE, OrtStatus *, const OrtValue *, OrtShapeInfo **)(value, &info);
  if (status != NULL) return status;
  status = ORT(api, GET_DIMENSIONS_COUNT, OrtStatus *, const OrtShapeInfo *, size_t *)(info, rank);
  if (status == NULL && *rank > MAX_RANK) *rank = 0;
  if (status == NULL) status = ORT(api, GET_DIMENSIONS, OrtStatus *, const OrtShapeInfo *, int64_t *, size_t)(info, sizes, *rank);
  ORT(api, RELEASE_TENSOR_TYPE_AND_SHAPE, void, OrtShapeInfo *)(info);
  return status;
}

static OrtStatus *compute(void *state, OrtKernelContext *context) {
  const Kernel *kernel = state;
  const OrtApi *api = kernel->api;
  const void *data[INPUTS] = {0};
  const OrtValue *values[INPUTS] = {0};
  size_t given = 0;
  OrtStatus *status =
      ORT(api, KERNEL_CONTEXT_GET_INPUT_COUNT, OrtStatus *, const OrtKernelContext *, size_t *)(context, &given);
  for (size_t index = 0; status == NULL && index < given && index < INPUTS; index++)
    status = input(api, context, index, &data[index], &values[index]);
  if (status != NULL) return status;
  if (data[INPUT_GROUP_INDEX] != NULL)
    return fail(api, ORT_NOT_IMPLEMENTED, "intaglio: MatMulNBits with g_idx is not supported");

  int64_t sizes[MAX_RANK];
  size_t rank = 0;
  if ((status = dimensions(api, values[INPUT_A], sizes, &rank)) != NULL) return status;
  if (rank == 0 || sizes[rank - 1] != kernel->shape.k)
    return fail(api, ORT_INVALID_ARGUMENT, "intaglio: MatMulNBits needs an input whose last dimension is K");
  int64_t rows = 1;
  for (size_t axis = 0; axis + 1 < rank; axis++) rows *= sizes[axis];
  sizes[rank - 1] = kernel->shape.n;
  OrtValue *output = NULL;
  float *y = NULL;
  status = ORT(api, KERNEL_CONTEXT_GET_OUTPUT, OrtStatus *, OrtKernelContext *, size_t, const int64_t *, size_t,
               OrtValue **)(context, 0, sizes, rank, &output);
  if (status == NULL) status = ORT(api, GET_TENSOR_MUTABLE_DATA, OrtStatus *, OrtValue *, float **)(output, &y);
  if (status != NULL || rows == 0) return status;

  Pool pool = {api, context};
  if (matmul(kernel->weights, data[INPUT_A], data[INPUT_BIAS], y, rows, parallel, &pool) != 0)
    return fail(api, ORT_FAIL, "intaglio: failed to allocate memory");
  return NULL;
}

static const char *name(const OrtCustomOp *op) { return (void)op, "MatMulNBits"; }
static const char *provider(const OrtCustomOp *op) { return (void)op, "CPUExecutionProvider"; }
static size_t inputs(const OrtCustomOp *op) { return (void)op, INPUTS; }
static size_t outputs(const OrtCustomOp *op) { return (void)op, 1; }
static int input_type(const OrtCustomOp *op, size_t index) {
  (void)op;
  static const int types[INPUTS] = {FLOAT, UINT8, FLOAT, UINT8, INT32, FLOAT};
  return types[index];
}
static int output_type(const OrtCustomOp *op, size_t index) { return (void)op, (void)index, FLOAT; }
static int input_kind(const OrtCustomOp *op, size_t index) {
  return (void)op, index < INPUT_ZERO_POINTS ? REQUIRED : OPTIONAL;
}
static int output_kind(const OrtCustomOp *op, size_t index) { return (void)op, (void)index, REQUIRED; }
static int memory(const OrtCustomOp *op, size_t index) { return (void)op, (void)index, 0; }
static int one(const OrtCustomOp *op) { return (void)op, 1; }

static const OrtCustomOp matmul_nbits = {
    .version = ORT_API_VERSION,
    .CreateKernel = unused_create,
    .GetName = name,
    .GetExecutionProviderType = provider,
    .GetInputType = input_type,
    .GetInputTypeCount = inputs,
    .GetOutputType = output_type,
    .GetOutputTypeCount = outputs,
    .KernelCompute = unused_compute,
    .KernelDestroy = destroy,
    .GetInputCharacteristic = input_kind,
    .GetOutputCharacteristic = output_kind,
    .GetInputMemoryType = memory,
    .GetVariadicInputMinArity = one,
    .GetVariadicInputHomogeneity = one,
    .GetVariadicOutputMinArity = one,
    .GetVariadicOutputHomogeneity = one,
    .CreateKernelV2 = create,
    .KernelComputeV2 = compute,
    .GetStartVersion = one,
    .GetEndVersion = one,
};

#if defined(_WIN32)
__declspec(dllexport)
#else
__attribute__((visibility("default")))
#endif
OrtStatus *RegisterCustomOps(OrtSessionOptions *options, const OrtApiBase *base) {
  const OrtApi *api = base->GetApi(ORT_API_VERSION);
  if (!matmul_supported()) return fail(api, ORT_NOT_IMPLEMENTED, "intaglio: this processor has no AVX512-VNNI");
  OrtCustomOpDomain *domain = NULL;
  OrtStatus *status = ORT(api, CREATE_CUSTOM_OP_DOMAIN, OrtStatus *, const char *, OrtCustomOpDomain **)("com.microsoft", &domain);
  if (status == NULL) status = ORT(api, CUSTOM_OP_DOMAIN_ADD, OrtStatus *, OrtCustomOpDomain *, const OrtCustomOp *)(domain, &matmul_nbits);
  if (status == NULL) status = ORT(api, ADD_CUSTOM_OP_DOMAIN, OrtStatus *, OrtSessionOptions *, OrtCustomOpDomain *)(options, domain);
  return status;
}
