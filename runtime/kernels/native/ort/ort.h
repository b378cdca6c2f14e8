/* ONNX Runtime's functions as the operators use them, and what all operators have in common. */
#ifndef INTAGLIO_ORT_H
#define INTAGLIO_ORT_H

#include "ort/ort_abi.h"

enum { MAX_RANK = 8 };

/* An input or output of a running operator. `data` is NULL where an optional input is absent. */
typedef struct {
  void *data;
  int type;    /* an ElementType */
  size_t rank; /* 0 where there are more than MAX_RANK dimensions */
  int64_t sizes[MAX_RANK];
} Tensor;

/* What ParallelFor hands to ONNX Runtime's threads. */
typedef struct {
  const OrtApi *api;
  OrtKernelContext *context;
} Pool;

/* How many rows of k elements a tensor has: -1 where its last dimension is another. */
int64_t rows_of(const Tensor *tensor, int64_t k);

/* How many of them belong to one text: the last dimension but one. */
int64_t sequence_of(const Tensor *tensor);

OrtStatus *fail(const OrtApi *api, int code, const char *message);

/* An attribute of a node, or `absent`. */
int64_t attribute(const OrtApi *api, const OrtKernelInfo *info, const char *name, int64_t absent);
float attribute_float(const OrtApi *api, const OrtKernelInfo *info, const char *name, float absent);

/* The data of an input that is a constant of the graph, and its ElementType unless `type` is NULL; NULL where it is absent
 * or computed. */
const void *constant(const OrtApi *api, const OrtKernelInfo *info, size_t index, int *type);

/* Inputs 0 to count - 1; those that the node does not have are absent. */
OrtStatus *get_inputs(const OrtApi *api, OrtKernelContext *context, Tensor *inputs, size_t count);

/* Where an output of these sizes is to be written; NULL where the node does not have it. */
OrtStatus *get_output(const OrtApi *api, OrtKernelContext *context, size_t index, const int64_t *sizes, size_t rank,
                      void **data);

/* Runs body(data, 0) to body(data, count - 1) on the threads of `pool`, a Pool. */
void run_parallel(void *pool, void (*body)(void *, size_t), size_t count, void *data);

/* Members of OrtCustomOp that are the same for every operator. */
void *unused_create(const OrtCustomOp *op, const OrtApi *api, const OrtKernelInfo *info);
void unused_compute(void *kernel, OrtKernelContext *context);
const char *cpu_provider(const OrtCustomOp *op);
int memory_type(const OrtCustomOp *op, size_t index);
int one(const OrtCustomOp *op);

#endif
