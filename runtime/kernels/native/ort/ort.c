#include "ort/ort.h"

int64_t row_count(const Tensor *tensor, int64_t k) {
  if (tensor->rank == 0 || tensor->sizes[tensor->rank - 1] != k) return -1;
  int64_t rows = 1;
  for (size_t axis = 0; axis + 1 < tensor->rank; axis++) rows *= tensor->sizes[axis];
  return rows;
}

int64_t sequence_length(const Tensor *tensor) { return tensor->rank > 1 ? tensor->sizes[tensor->rank - 2] : 1; }

OrtStatus *fail(const OrtApi *api, int code, const char *message) {
  return ORT(api, CREATE_STATUS, OrtStatus *, int, const char *)(code, message);
}

static int succeeded(const OrtApi *api, OrtStatus *status) {
  if (status != NULL) ORT(api, RELEASE_STATUS, void, OrtStatus *)(status);
  return status == NULL;
}

int64_t attribute(const OrtApi *api, const OrtKernelInfo *info, const char *name, int64_t absent) {
  int64_t value = absent;
  OrtStatus *status = ORT(api, KERNEL_INFO_GET_ATTRIBUTE_INT64, OrtStatus *, const OrtKernelInfo *, const char *,
                          int64_t *)(info, name, &value);
  return succeeded(api, status) ? value : absent;
}

float attribute_float(const OrtApi *api, const OrtKernelInfo *info, const char *name, float absent) {
  float value = absent;
  OrtStatus *status = ORT(api, KERNEL_INFO_GET_ATTRIBUTE_FLOAT, OrtStatus *, const OrtKernelInfo *, const char *,
                          float *)(info, name, &value);
  return succeeded(api, status) ? value : absent;
}

static OrtStatus *get_sizes(const OrtApi *api, const OrtValue *value, Tensor *tensor) {
  OrtShapeInfo *info = NULL;
  OrtStatus *status = ORT(api, GET_TENSOR_TYPE_AND_SHAPE, OrtStatus *, const OrtValue *, OrtShapeInfo **)(value, &info);
  if (status != NULL) return status;
  status = ORT(api, GET_TENSOR_ELEMENT_TYPE, OrtStatus *, const OrtShapeInfo *, int *)(info, &tensor->type);
  if (status == NULL)
    status = ORT(api, GET_DIMENSIONS_COUNT, OrtStatus *, const OrtShapeInfo *, size_t *)(info, &tensor->rank);
  if (status == NULL && tensor->rank > MAX_RANK) tensor->rank = 0;
  if (status == NULL)
    status = ORT(api, GET_DIMENSIONS, OrtStatus *, const OrtShapeInfo *, int64_t *, size_t)(info, tensor->sizes,
                                                                                            tensor->rank);
  ORT(api, RELEASE_TENSOR_TYPE_AND_SHAPE, void, OrtShapeInfo *)(info);
  return status;
}

const void *constant(const OrtApi *api, const OrtKernelInfo *info, size_t index, int *type) {
  int is_constant = 0;
  const OrtValue *value = NULL;
  Tensor tensor = {0};
  OrtStatus *status = ORT(api, KERNEL_INFO_GET_CONSTANT_INPUT, OrtStatus *, const OrtKernelInfo *, size_t, int *,
                          const OrtValue **)(info, index, &is_constant, &value);
  if (!succeeded(api, status) || !is_constant || value == NULL) return NULL;
  status = ORT(api, GET_TENSOR_MUTABLE_DATA, OrtStatus *, const OrtValue *, void **)(value, &tensor.data);
  if (status == NULL && type != NULL) status = get_sizes(api, value, &tensor);
  if (!succeeded(api, status)) return NULL;
  if (type != NULL) *type = tensor.type;
  return tensor.data;
}

OrtStatus *get_inputs(const OrtApi *api, OrtKernelContext *context, Tensor *inputs, size_t count) {
  size_t given = 0;
  OrtStatus *status =
      ORT(api, KERNEL_CONTEXT_GET_INPUT_COUNT, OrtStatus *, const OrtKernelContext *, size_t *)(context, &given);
  for (size_t index = 0; index < count && status == NULL; index++) {
    const OrtValue *value = NULL;
    inputs[index] = (Tensor){0};
    if (index < given)
      status = ORT(api, KERNEL_CONTEXT_GET_INPUT, OrtStatus *, const OrtKernelContext *, size_t, const OrtValue **)(
          context, index, &value);
    if (status != NULL || value == NULL) continue;
    status = ORT(api, GET_TENSOR_MUTABLE_DATA, OrtStatus *, const OrtValue *, void **)(value, &inputs[index].data);
    if (status == NULL) status = get_sizes(api, value, &inputs[index]);
  }
  return status;
}

OrtStatus *get_output(const OrtApi *api, OrtKernelContext *context, size_t index, const int64_t *sizes, size_t rank,
                      void **data) {
  OrtValue *value = NULL;
  OrtStatus *status = ORT(api, KERNEL_CONTEXT_GET_OUTPUT, OrtStatus *, OrtKernelContext *, size_t, const int64_t *,
                          size_t, OrtValue **)(context, index, sizes, rank, &value);
  *data = NULL;
  if (status != NULL || value == NULL) return status;
  return ORT(api, GET_TENSOR_MUTABLE_DATA, OrtStatus *, OrtValue *, void **)(value, data);
}

void run_parallel(void *pool, void (*body)(void *, size_t), size_t count, void *data) {
  const Pool *to = pool;
  OrtStatus *status = ORT(to->api, KERNEL_CONTEXT_PARALLEL_FOR, OrtStatus *, const OrtKernelContext *,
                          void (*)(void *, size_t), size_t, size_t, void *)(to->context, body, count, 0, data);
  if (!succeeded(to->api, status))
    for (size_t index = 0; index < count; index++) body(data, index);
}

void *unused_create(const OrtCustomOp *op, const OrtApi *api, const OrtKernelInfo *info) {
  return (void)op, (void)api, (void)info, NULL;
}

void unused_compute(void *kernel, OrtKernelContext *context) { (void)kernel, (void)context; }

const char *cpu_provider(const OrtCustomOp *op) { return (void)op, "CPUExecutionProvider"; }

int memory_type(const OrtCustomOp *op, size_t index) { return (void)op, (void)index, 0; }

int one(const OrtCustomOp *op) { return (void)op, 1; }
