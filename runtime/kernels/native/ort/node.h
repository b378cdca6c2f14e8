/* A node of the graph, as its kernel sees it while it is created and while it runs.
 *
 * A graph is not trusted: whatever a kernel knows of its attributes, inputs and outputs is read and checked here. The first
 * thing that is wrong is kept as the node's `status`, with a message that names the operator, the input and both values;
 * what is read or checked after it does nothing. A kernel uses data, sizes and attributes only while `status` is NULL.
 */
#ifndef INTAGLIO_NODE_H
#define INTAGLIO_NODE_H

#include "ort/ort_abi.h"

enum { MAX_RANK = 8, ANY_SIZE = -1 };

/* An input or output of an operator. */
typedef struct {
  const char *name;
  int type; /* an ElementType */
  int kind; /* a Characteristic */
} Value;

/* The definition of an operator. */
typedef struct {
  const char *name;
  const Value *inputs, *outputs;
  size_t input_count, output_count;
} Operator;

#define DEFINE(name, inputs, outputs) \
  {name, inputs, outputs, sizeof(inputs) / sizeof *(inputs), sizeof(outputs) / sizeof *(outputs)}

typedef struct {
  const OrtApi *api;
  const Operator *op;
  const OrtKernelInfo *info; /* while it is created, otherwise NULL */
  OrtKernelContext *context; /* while it runs, otherwise NULL */
  size_t given;              /* inputs while it runs; those after them are absent */
  OrtStatus *status;         /* what is wrong with the node, or NULL */
} Node;

/* An input. */
typedef struct {
  const char *name;
  int given;        /* 0 if an optional input is absent */
  const void *data; /* at a multiple of the size of its elements; any address if it has none */
  int type;         /* an ElementType */
  size_t rank;
  int64_t sizes[MAX_RANK];
} Tensor;

/* Return the node that is created, and check that it has all required inputs and outputs, and that its constant inputs have
 * the types that the operator defines. */
Node created_node(const OrtApi *api, const Operator *op, const OrtKernelInfo *info);

/* Return the node that runs. */
Node running_node(const OrtApi *api, const Operator *op, OrtKernelContext *context);

/* Set the status to an error with one of the ErrorCodes, unless there is one already. The message is formatted as by printf,
 * and the operator's name is put before it. */
void refuse(Node *node, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Refuse a node for which there is not enough memory. */
void refuse_memory(Node *node);

/* ---- while it is created ------------------------------------------------------------------------------------------ */

/* Return an integer attribute, or `absent` if the node does not have it. Check that it is from `least` to `most`, as the
 * result always is. */
int64_t integer_attribute(Node *node, const char *name, int64_t absent, int64_t least, int64_t most);

/* Return a float attribute, or `absent` if the node does not have it. */
float float_attribute(Node *node, const char *name, float absent);

/* Check that a text attribute, or a float attribute, is the only one that is supported; it is `absent` if the node does not have
 * it. */
void check_text_attribute(Node *node, const char *name, const char *absent, const char *wanted);
void check_float_attribute(Node *node, const char *name, float absent, float wanted);

/* Return whether the node has an input or output. */
int has_input(Node *node, size_t index);
int has_output(Node *node, size_t index);

/* Check that the node does not have an input or output, and say why. */
void check_no_input(Node *node, size_t index, const char *why);
void check_no_output(Node *node, size_t index, const char *why);

/* Return an input that is a constant of the graph. It counts as absent if it is computed. */
Tensor constant_input(Node *node, size_t index);

/* ---- while it runs ------------------------------------------------------------------------------------------------ */

/* Return an input. */
Tensor input(Node *node, size_t index);

/* Return the memory of an output of these sizes, or NULL if the node does not have it. */
void *output(Node *node, size_t index, const int64_t *sizes, size_t rank);

/* ---- both --------------------------------------------------------------------------------------------------------- */

/* Check that a tensor has elements of float32 or float16. */
void check_floats(Node *node, const Tensor *tensor);

/* Check that a tensor has these sizes, of which ANY_SIZE stands for every size. `meaning` names them in the message, such as
 * "[N, K]". */
void check_shape(Node *node, const Tensor *tensor, const char *meaning, const int64_t *sizes, size_t rank);

#define CHECK_SHAPE(node, tensor, meaning, ...) \
  check_shape(node, tensor, meaning, (const int64_t[]){__VA_ARGS__}, \
              sizeof((const int64_t[]){__VA_ARGS__}) / sizeof(int64_t))

/* Check that the last dimension of a tensor is `width`, which `meaning` names; return how many rows it has. */
int64_t check_rows(Node *node, const Tensor *tensor, const char *meaning, int64_t width);

/* Return the number of elements; INT64_MAX stands for more. */
int64_t element_count(const Tensor *tensor);

/* Return how many of the rows belong to one sequence: the last dimension but one. */
int64_t sequence_length(const Tensor *tensor);

#endif
