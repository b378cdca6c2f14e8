#include "ort/ort.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

OrtStatus *fail(const OrtApi *api, int code, const char *message) { return api->CreateStatus(code, message); }

static void release(const OrtApi *api, OrtStatus *status) {
  if (status != NULL) api->ReleaseStatus(status);
}

/* ---- attributes, inputs and outputs of a node that is created ------------------------------------------------------- */

/* Release the status of an attribute that was read; return 0 if it says that the attribute has another type. Otherwise the
 * node does not have it. */
static int has_type(const OrtApi *api, OrtStatus *status) {
  if (status == NULL) return 1;
  const char *message = api->GetErrorMessage(status);
  const int other = strstr(message, "type don't match") != NULL;
  release(api, status);
  return !other;
}

int get_integer(const OrtApi *api, const OrtKernelInfo *info, const char *name, int64_t *value) {
  int64_t found = *value;
  OrtStatus *status = api->KernelInfoGetAttribute_int64(info, name, &found);
  if (status == NULL) *value = found;
  return has_type(api, status);
}

int get_float(const OrtApi *api, const OrtKernelInfo *info, const char *name, float *value) {
  float found = *value;
  OrtStatus *status = api->KernelInfoGetAttribute_float(info, name, &found);
  if (status == NULL) *value = found;
  return has_type(api, status);
}

int get_text(const OrtApi *api, const OrtKernelInfo *info, const char *name, char *value, size_t bytes) {
  size_t needed = 0; /* with the zero after it */
  OrtStatus *status = api->KernelInfoGetAttribute_string(info, name, NULL, &needed);
  if (status != NULL) return has_type(api, status);
  char *whole = malloc(needed > 0 ? needed : 1);
  if (whole == NULL) return 0;
  status = api->KernelInfoGetAttribute_string(info, name, whole, &needed);
  if (status == NULL) snprintf(value, bytes, "%s", whole);
  free(whole);
  return has_type(api, status);
}

int is_connected(const OrtApi *api, const OrtKernelInfo *info, int input, size_t index) {
  size_t count = 0, bytes = 0; /* of the name, with the zero after it */
  OrtStatus *status = (input ? api->KernelInfo_GetInputCount : api->KernelInfo_GetOutputCount)(info, &count);
  if (status == NULL && index < count)
    status = (input ? api->KernelInfo_GetInputName : api->KernelInfo_GetOutputName)(info, index, NULL, &bytes);
  release(api, status);
  return bytes > 1;
}

const OrtValue *get_constant(const OrtApi *api, const OrtKernelInfo *info, size_t index) {
  int is_constant = 0;
  const OrtValue *value = NULL;
  OrtStatus *status = api->KernelInfoGetConstantInput_tensor(info, index, &is_constant, &value);
  const int found = status == NULL && is_constant;
  release(api, status);
  return found ? value : NULL;
}

/* ---- inputs and outputs of a node that runs ------------------------------------------------------------------------- */

OrtStatus *get_input_count(const OrtApi *api, const OrtKernelContext *context, size_t *count) {
  return api->KernelContext_GetInputCount(context, count);
}

OrtStatus *get_input(const OrtApi *api, const OrtKernelContext *context, size_t index, const OrtValue **value) {
  return api->KernelContext_GetInput(context, index, value);
}

OrtStatus *get_output(const OrtApi *api, OrtKernelContext *context, size_t index, const int64_t *sizes, size_t rank,
                      void **data) {
  OrtValue *value = NULL;
  OrtStatus *status = api->KernelContext_GetOutput(context, index, sizes, rank, &value);
  *data = NULL;
  if (status != NULL || value == NULL) return status;
  return get_data(api, value, data);
}

/* ---- tensors -------------------------------------------------------------------------------------------------------- */

OrtStatus *get_data(const OrtApi *api, const OrtValue *value, void **data) {
  return api->GetTensorMutableData(value, data);
}

OrtStatus *get_shape_info(const OrtApi *api, const OrtValue *value, OrtShapeInfo **info) {
  return api->GetTensorTypeAndShape(value, info);
}

OrtStatus *get_type_and_rank(const OrtApi *api, const OrtShapeInfo *info, int *type, size_t *rank) {
  OrtStatus *status = api->GetTensorElementType(info, type);
  if (status != NULL) return status;
  return api->GetDimensionsCount(info, rank);
}

OrtStatus *get_sizes(const OrtApi *api, const OrtShapeInfo *info, int64_t *sizes, size_t rank) {
  return api->GetDimensions(info, sizes, rank);
}

void release_shape_info(const OrtApi *api, OrtShapeInfo *info) {
  if (info != NULL) api->ReleaseTensorTypeAndShapeInfo(info);
}

/* ---- threads, and what is the same for every operator ---------------------------------------------------------------- */

void run_parallel(void *pool, void (*body)(void *, size_t), size_t count, void *data) {
  const Pool *to = pool;
  OrtStatus *status = to->api->KernelContext_ParallelFor(to->context, body, count, 0, data);
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
