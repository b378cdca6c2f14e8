#include "ort/ort.h"

#include <string.h>

OrtStatus *fail(const OrtApi *api, int code, const char *message) {
  return ORT(api, CREATE_STATUS, OrtStatus *, int, const char *)(code, message);
}

static void release(const OrtApi *api, OrtStatus *status) {
  if (status != NULL) ORT(api, RELEASE_STATUS, void, OrtStatus *)(status);
}

/* ---- attributes, inputs and outputs of a node that is created ------------------------------------------------------- */

/* Release the status of an attribute that was read; return 0 if it says that the attribute has another type. Otherwise the
 * node does not have it. */
static int has_type(const OrtApi *api, OrtStatus *status) {
  if (status == NULL) return 1;
  const char *message = ORT(api, GET_ERROR_MESSAGE, const char *, const OrtStatus *)(status);
  const int other = strstr(message, "type don't match") != NULL;
  release(api, status);
  return !other;
}

int get_integer(const OrtApi *api, const OrtKernelInfo *info, const char *name, int64_t *value) {
  int64_t found = *value;
  OrtStatus *status = ORT(api, KERNEL_INFO_GET_ATTRIBUTE_INT64, OrtStatus *, const OrtKernelInfo *, const char *,
                          int64_t *)(info, name, &found);
  if (status == NULL) *value = found;
  return has_type(api, status);
}

int get_float(const OrtApi *api, const OrtKernelInfo *info, const char *name, float *value) {
  float found = *value;
  OrtStatus *status = ORT(api, KERNEL_INFO_GET_ATTRIBUTE_FLOAT, OrtStatus *, const OrtKernelInfo *, const char *,
                          float *)(info, name, &found);
  if (status == NULL) *value = found;
  return has_type(api, status);
}

int is_connected(const OrtApi *api, const OrtKernelInfo *info, int input, size_t index) {
  size_t count = 0, bytes = 0; /* of the name, with the zero after it */
  OrtStatus *status = ORT(api, input ? KERNEL_INFO_GET_INPUT_COUNT : KERNEL_INFO_GET_OUTPUT_COUNT, OrtStatus *,
                          const OrtKernelInfo *, size_t *)(info, &count);
  if (status == NULL && index < count)
    status = ORT(api, input ? KERNEL_INFO_GET_INPUT_NAME : KERNEL_INFO_GET_OUTPUT_NAME, OrtStatus *,
                 const OrtKernelInfo *, size_t, char *, size_t *)(info, index, NULL, &bytes);
  release(api, status);
  return bytes > 1;
}

const OrtValue *get_constant(const OrtApi *api, const OrtKernelInfo *info, size_t index) {
  int is_constant = 0;
  const OrtValue *value = NULL;
  OrtStatus *status = ORT(api, KERNEL_INFO_GET_CONSTANT_INPUT, OrtStatus *, const OrtKernelInfo *, size_t, int *,
                          const OrtValue **)(info, index, &is_constant, &value);
  const int found = status == NULL && is_constant;
  release(api, status);
  return found ? value : NULL;
}

/* ---- inputs and outputs of a node that runs ------------------------------------------------------------------------- */

OrtStatus *get_input_count(const OrtApi *api, const OrtKernelContext *context, size_t *count) {
  return ORT(api, KERNEL_CONTEXT_GET_INPUT_COUNT, OrtStatus *, const OrtKernelContext *, size_t *)(context, count);
}

OrtStatus *get_input(const OrtApi *api, const OrtKernelContext *context, size_t index, const OrtValue **value) {
  return ORT(api, KERNEL_CONTEXT_GET_INPUT, OrtStatus *, const OrtKernelContext *, size_t, const OrtValue **)(
      context, index, value);
}

OrtStatus *get_output(const OrtApi *api, OrtKernelContext *context, size_t index, const int64_t *sizes, size_t rank,
                      void **data) {
  OrtValue *value = NULL;
  OrtStatus *status = ORT(api, KERNEL_CONTEXT_GET_OUTPUT, OrtStatus *, OrtKernelContext *, size_t, const int64_t *,
                          size_t, OrtValue **)(context, index, sizes, rank, &value);
  *data = NULL;
  if (status != NULL || value == NULL) return status;
  return get_data(api, value, data);
}

/* ---- tensors -------------------------------------------------------------------------------------------------------- */

OrtStatus *get_data(const OrtApi *api, const OrtValue *value, void **data) {
  return ORT(api, GET_TENSOR_MUTABLE_DATA, OrtStatus *, const OrtValue *, void **)(value, data);
}

OrtStatus *get_shape_info(const OrtApi *api, const OrtValue *value, OrtShapeInfo **info) {
  return ORT(api, GET_TENSOR_TYPE_AND_SHAPE, OrtStatus *, const OrtValue *, OrtShapeInfo **)(value, info);
}

OrtStatus *get_type_and_rank(const OrtApi *api, const OrtShapeInfo *info, int *type, size_t *rank) {
  OrtStatus *status = ORT(api, GET_TENSOR_ELEMENT_TYPE, OrtStatus *, const OrtShapeInfo *, int *)(info, type);
  if (status != NULL) return status;
  return ORT(api, GET_DIMENSIONS_COUNT, OrtStatus *, const OrtShapeInfo *, size_t *)(info, rank);
}

OrtStatus *get_sizes(const OrtApi *api, const OrtShapeInfo *info, int64_t *sizes, size_t rank) {
  return ORT(api, GET_DIMENSIONS, OrtStatus *, const OrtShapeInfo *, int64_t *, size_t)(info, sizes, rank);
}

void release_shape_info(const OrtApi *api, OrtShapeInfo *info) {
  if (info != NULL) ORT(api, RELEASE_TENSOR_TYPE_AND_SHAPE, void, OrtShapeInfo *)(info);
}

/* ---- threads, and what is the same for every operator ---------------------------------------------------------------- */

void run_parallel(void *pool, void (*body)(void *, size_t), size_t count, void *data) {
  const Pool *to = pool;
  OrtStatus *status = ORT(to->api, KERNEL_CONTEXT_PARALLEL_FOR, OrtStatus *, const OrtKernelContext *,
                          void (*)(void *, size_t), size_t, size_t, void *)(to->context, body, count, 0, data);
  if (status != NULL)
    for (size_t index = 0; index < count; index++) body(data, index);
  release(to->api, status);
}

void *unused_create(const OrtCustomOp *op, const OrtApi *api, const OrtKernelInfo *info) {
  return (void)op, (void)api, (void)info, NULL;
}

void unused_compute(void *kernel, OrtKernelContext *context) { (void)kernel, (void)context; }

const char *cpu_provider(const OrtCustomOp *op) { return (void)op, "CPUExecutionProvider"; }

int memory_type(const OrtCustomOp *op, size_t index) { return (void)op, (void)index, 0; }

int one(const OrtCustomOp *op) { return (void)op, 1; }
