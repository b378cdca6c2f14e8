/* Typed wrappers of the functions of ONNX Runtime's C interface that the operators call. */
#ifndef INTAGLIO_ORT_H
#define INTAGLIO_ORT_H

#include "ort/ort_abi.h"

enum { MAX_RANK = 8 };

/* An input or output of a running operator. `data` is NULL if an optional input is absent. */
typedef struct {
  void *data;
  int type;    /* an ElementType */
  size_t rank; /* 0 if there are more than MAX_RANK dimensions */
  int64_t sizes[MAX_RANK];
} Tensor;

/* The context of `run_parallel`. */
typedef struct {
  const OrtApi *api;
  OrtKernelContext *context;
} Pool;

/* Return how many rows of k elements a tensor has, or -1 if its last dimension is not k. */
int64_t row_count(const Tensor *tensor, int64_t k);

/* Return how many of the rows belong to one sequence: the last dimension but one. */
int64_t sequence_length(const Tensor *tensor);

/* Return an error with one of the ErrorCodes. */
OrtStatus *fail(const OrtApi *api, int code, const char *message);

/* Return an attribute of a node, or `absent` if the node does not have it. */
int64_t attribute(const OrtApi *api, const OrtKernelInfo *info, const char *name, int64_t absent);
float attribute_float(const OrtApi *api, const OrtKernelInfo *info, const char *name, float absent);

/* Return the data of an input that is a constant of the graph, or NULL if it is absent or computed. Set `type` to its
 * ElementType unless it is NULL. */
const void *constant(const OrtApi *api, const OrtKernelInfo *info, size_t index, int *type);

/* Read inputs 0 to count - 1; the data of those that the node does not have is NULL. */
OrtStatus *get_inputs(const OrtApi *api, OrtKernelContext *context, Tensor *inputs, size_t count);

/* Set `data` to the memory of an output of these sizes, or to NULL if the node does not have the output. */
OrtStatus *get_output(const OrtApi *api, OrtKernelContext *context, size_t index, const int64_t *sizes, size_t rank,
                      void **data);

/* Run body(data, 0) to body(data, count - 1) on the threads of `pool`, a Pool. */
void run_parallel(void *pool, void (*body)(void *, size_t), size_t count, void *data);

/* Members of OrtCustomOp that are the same for every operator. */
void *unused_create(const OrtCustomOp *op, const OrtApi *api, const OrtKernelInfo *info);
void unused_compute(void *kernel, OrtKernelContext *context);
const char *cpu_provider(const OrtCustomOp *op);
int memory_type(const OrtCustomOp *op, size_t index);
int one(const OrtCustomOp *op);

#endif
