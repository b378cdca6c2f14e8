/* Typed wrappers of the functions of ONNX Runtime's C interface that the operators call. */
#ifndef INTAGLIO_ORT_H
#define INTAGLIO_ORT_H

#include "ort/ort_abi.h"

/* The context of `run_parallel`. */
typedef struct {
  const OrtApi *api;
  OrtKernelContext *context;
} Pool;

/* Return an error with one of the ErrorCodes. */
OrtStatus *fail(const OrtApi *api, int code, const char *message);

/* Set `value` to an attribute of a node, or leave it if the node does not have it. Return 0 if it has another type. */
int get_integer(const OrtApi *api, const OrtKernelInfo *info, const char *name, int64_t *value);
int get_float(const OrtApi *api, const OrtKernelInfo *info, const char *name, float *value);

/* Set `value` to a text, or to its beginning if it has `bytes` bytes and more; otherwise as the functions above. */
int get_text(const OrtApi *api, const OrtKernelInfo *info, const char *name, char *value, size_t bytes);

/* Return whether a node has an input, or an output: a value with a name. */
int is_connected(const OrtApi *api, const OrtKernelInfo *info, int input, size_t index);

/* Return an input that is a constant of the graph, or NULL if it is absent or computed. */
const OrtValue *get_constant(const OrtApi *api, const OrtKernelInfo *info, size_t index);

OrtStatus *get_input_count(const OrtApi *api, const OrtKernelContext *context, size_t *count);

/* Set `value` to an input, or to NULL if the node does not have it. */
OrtStatus *get_input(const OrtApi *api, const OrtKernelContext *context, size_t index, const OrtValue **value);

/* Set `data` to the memory of an output of these sizes, or to NULL if the node does not have the output. */
OrtStatus *get_output(const OrtApi *api, OrtKernelContext *context, size_t index, const int64_t *sizes, size_t rank,
                      void **data);

/* Read a tensor. */
OrtStatus *get_data(const OrtApi *api, const OrtValue *value, void **data);
OrtStatus *get_shape_info(const OrtApi *api, const OrtValue *value, OrtShapeInfo **info);
OrtStatus *get_type_and_rank(const OrtApi *api, const OrtShapeInfo *info, int *type, size_t *rank);
OrtStatus *get_sizes(const OrtApi *api, const OrtShapeInfo *info, int64_t *sizes, size_t rank);
void release_shape_info(const OrtApi *api, OrtShapeInfo *info);

/* Run body(data, 0) to body(data, count - 1) on the threads of `pool`, a Pool. */
void run_parallel(void *pool, void (*body)(void *, size_t), size_t count, void *data);

/* Members of OrtCustomOp that are the same for every operator. */
void *unused_create(const OrtCustomOp *op, const OrtApi *api, const OrtKernelInfo *info);
void unused_compute(void *kernel, OrtKernelContext *context);
const char *cpu_provider(const OrtCustomOp *op);
int memory_type(const OrtCustomOp *op, size_t index);
int one(const OrtCustomOp *op);

#endif
