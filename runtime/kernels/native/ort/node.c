#include "ort/node.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "common/sizes.h"
#include "ort/ort.h"

enum {
  MESSAGE_BYTES = 512,
  SHAPE_BYTES = 224, /* MAX_RANK numbers of 20 digits */
  TEXT_BYTES = 64,   /* of an attribute, in a message */
};

/* ---- refusals ----------------------------------------------------------------------------------------------------- */

void refuse(Node *node, int code, const char *format, ...) {
  if (node->status != NULL) return;
  char message[MESSAGE_BYTES];
  const int start = snprintf(message, sizeof message, "intaglio: %s: ", node->op->name);
  va_list values;
  va_start(values, format);
  vsnprintf(message + start, sizeof message - (size_t)start, format, values);
  va_end(values);
  node->status = fail(node->api, code, message);
}

void refuse_memory(Node *node) {
  if (node->status == NULL) node->status = fail(node->api, ORT_FAIL, "intaglio: failed to allocate memory");
}

static const char *type_name(int type) {
  switch (type) {
    case FLOAT: return "float32";
    case UINT8: return "uint8";
    case INT8: return "int8";
    case INT32: return "int32";
    case INT64: return "int64";
    case FLOAT16: return "float16";
    default: return "another type";
  }
}

static size_t type_bytes(int type) {
  return type == INT64 ? 8 : type == FLOAT || type == INT32 ? 4 : type == FLOAT16 ? 2 : 1;
}

static void print_sizes(char *to, const int64_t *sizes, size_t rank) {
  size_t at = (size_t)snprintf(to, SHAPE_BYTES, "[");
  for (size_t axis = 0; axis < rank; axis++) {
    const char *comma = axis == 0 ? "" : ", ";
    if (sizes[axis] == ANY_SIZE) at += (size_t)snprintf(to + at, SHAPE_BYTES - at, "%s?", comma);
    else at += (size_t)snprintf(to + at, SHAPE_BYTES - at, "%s%" PRId64, comma, sizes[axis]);
  }
  snprintf(to + at, SHAPE_BYTES - at, "]");
}

void check_shape(Node *node, const Tensor *tensor, const char *meaning, const int64_t *sizes, size_t rank) {
  if (node->status != NULL) return;
  int fits = tensor->rank == rank;
  for (size_t axis = 0; fits && axis < rank; axis++)
    fits = sizes[axis] == ANY_SIZE || sizes[axis] == tensor->sizes[axis];
  if (fits) return;
  char found[SHAPE_BYTES], wanted[SHAPE_BYTES];
  print_sizes(found, tensor->sizes, tensor->rank);
  print_sizes(wanted, sizes, rank);
  refuse(node, ORT_INVALID_ARGUMENT, "input %s has the shape %s; it must be %s = %s", tensor->name, found, meaning,
         wanted);
}

void check_floats(Node *node, const Tensor *tensor) {
  if (tensor->type != FLOAT && tensor->type != FLOAT16)
    refuse(node, ORT_NOT_IMPLEMENTED, "input %s has elements of %s; they must be float32 or float16", tensor->name,
           type_name(tensor->type));
}

int64_t check_rows(Node *node, const Tensor *tensor, const char *meaning, int64_t width) {
  if (node->status != NULL) return 0;
  if (tensor->rank > 0 && tensor->sizes[tensor->rank - 1] == width) return count_of(tensor->sizes, tensor->rank - 1);
  char found[SHAPE_BYTES];
  print_sizes(found, tensor->sizes, tensor->rank);
  refuse(node, ORT_INVALID_ARGUMENT, "input %s has the shape %s; its last dimension must be %s = %" PRId64,
         tensor->name, found, meaning, width);
  return 0;
}

int64_t element_count(const Tensor *tensor) { return count_of(tensor->sizes, tensor->rank); }

int64_t sequence_length(const Tensor *tensor) { return tensor->rank > 1 ? tensor->sizes[tensor->rank - 2] : 1; }

/* ---- inputs and outputs ------------------------------------------------------------------------------------------- */

/* Check that data is at a multiple of the size of its elements. `kind` is "input" or "output". */
static void check_address(Node *node, const char *kind, const Value *value, const void *data, int type) {
  const size_t bytes = type_bytes(type);
  if ((uintptr_t)data % bytes != 0)
    refuse(node, ORT_INVALID_ARGUMENT, "%s %s begins at an address that is not a multiple of %d; store it at one", kind,
           value->name, (int)bytes);
}

/* Read a value as an input of the node. */
static Tensor read_tensor(Node *node, size_t index, const OrtValue *value) {
  const Value *defined = &node->op->inputs[index];
  Tensor tensor = {.name = defined->name};
  OrtShapeInfo *info = NULL;
  void *data = NULL;
  size_t rank = 0;
  OrtStatus *status = get_data(node->api, value, &data);
  if (status == NULL) status = get_shape_info(node->api, value, &info);
  if (status == NULL) status = get_type_and_rank(node->api, info, &tensor.type, &rank);
  if (status == NULL && rank <= MAX_RANK) status = get_sizes(node->api, info, tensor.sizes, rank);
  release_shape_info(node->api, info);
  if (status != NULL) {
    node->status = status;
    return tensor;
  }
  if (rank > MAX_RANK)
    refuse(node, ORT_NOT_IMPLEMENTED, "input %s has %d dimensions; at most %d are supported", tensor.name, (int)rank,
           MAX_RANK);
  if (defined->type != ANY && tensor.type != defined->type)
    refuse(node, ORT_INVALID_ARGUMENT, "input %s has elements of %s; they must be %s", tensor.name,
           type_name(tensor.type), type_name(defined->type));
  if (node->status != NULL) return tensor;
  tensor.rank = rank;
  tensor.data = data;
  tensor.given = 1;
  if (element_count(&tensor) > 0) check_address(node, "input", defined, data, tensor.type);
  return tensor;
}

Tensor constant_input(Node *node, size_t index) {
  const Tensor absent = {.name = node->op->inputs[index].name};
  if (node->status != NULL || !has_input(node, index)) return absent;
  const OrtValue *value = get_constant(node->api, node->info, index);
  return value == NULL ? absent : read_tensor(node, index, value);
}

Tensor input(Node *node, size_t index) {
  const Value *defined = &node->op->inputs[index];
  const Tensor absent = {.name = defined->name};
  const OrtValue *value = NULL;
  if (node->status == NULL && index < node->given) node->status = get_input(node->api, node->context, index, &value);
  if (node->status != NULL) return absent;
  if (value != NULL) return read_tensor(node, index, value);
  if (defined->kind == REQUIRED) refuse(node, ORT_INVALID_ARGUMENT, "input %s is missing", defined->name);
  return absent;
}

void *output(Node *node, size_t index, const int64_t *sizes, size_t rank) {
  void *data = NULL;
  if (node->status == NULL) node->status = get_output(node->api, node->context, index, sizes, rank, &data);
  if (count_of(sizes, rank) > 0)
    check_address(node, "output", &node->op->outputs[index], data, node->op->outputs[index].type);
  return data;
}

int has_input(Node *node, size_t index) {
  return node->status == NULL && is_connected(node->api, node->info, 1, index);
}

int has_output(Node *node, size_t index) {
  return node->status == NULL && is_connected(node->api, node->info, 0, index);
}

void check_no_input(Node *node, size_t index, const char *why) {
  if (has_input(node, index))
    refuse(node, ORT_NOT_IMPLEMENTED, "input %s is given, and %s", node->op->inputs[index].name, why);
}

void check_no_output(Node *node, size_t index, const char *why) {
  if (has_output(node, index))
    refuse(node, ORT_NOT_IMPLEMENTED, "output %s is read, and %s", node->op->outputs[index].name, why);
}

/* ---- attributes --------------------------------------------------------------------------------------------------- */

int64_t integer_attribute(Node *node, const char *name, int64_t absent, int64_t least, int64_t most) {
  int64_t value = absent;
  if (node->status == NULL && !get_integer(node->api, node->info, name, &value))
    refuse(node, ORT_INVALID_ARGUMENT, "attribute %s is not an integer", name);
  if (least == most && value != least)
    refuse(node, ORT_NOT_IMPLEMENTED, "attribute %s is %" PRId64 "; it must be %" PRId64, name, value, least);
  if (value < least || value > most)
    refuse(node, ORT_NOT_IMPLEMENTED, "attribute %s is %" PRId64 "; it must be from %" PRId64 " to %" PRId64, name,
           value, least, most);
  return node->status == NULL ? value : least;
}

float float_attribute(Node *node, const char *name, float absent) {
  float value = absent;
  if (node->status == NULL && !get_float(node->api, node->info, name, &value))
    refuse(node, ORT_INVALID_ARGUMENT, "attribute %s is not a float", name);
  return value;
}

void check_text_attribute(Node *node, const char *name, const char *absent, const char *wanted) {
  char value[TEXT_BYTES];
  snprintf(value, sizeof value, "%s", absent);
  if (node->status == NULL && !get_text(node->api, node->info, name, value, sizeof value))
    refuse(node, ORT_INVALID_ARGUMENT, "attribute %s is not a text", name);
  if (strcmp(value, wanted) != 0)
    refuse(node, ORT_NOT_IMPLEMENTED, "attribute %s is \"%s\"; it must be \"%s\"", name, value, wanted);
}

void check_float_attribute(Node *node, const char *name, float absent, float wanted) {
  const float value = float_attribute(node, name, absent);
  if (value != wanted)
    refuse(node, ORT_NOT_IMPLEMENTED, "attribute %s is %g; it must be %g", name, (double)value, (double)wanted);
}

/* ---- nodes -------------------------------------------------------------------------------------------------------- */

Node created_node(const OrtApi *api, const Operator *op, const OrtKernelInfo *info) {
  Node node = {.api = api, .op = op, .info = info};
  for (size_t index = 0; index < op->input_count; index++) {
    if (op->inputs[index].kind == REQUIRED && !has_input(&node, index))
      refuse(&node, ORT_INVALID_ARGUMENT, "input %s is missing", op->inputs[index].name);
    constant_input(&node, index);
  }
  for (size_t index = 0; index < op->output_count; index++)
    if (op->outputs[index].kind == REQUIRED && !has_output(&node, index))
      refuse(&node, ORT_INVALID_ARGUMENT, "output %s is missing", op->outputs[index].name);
  return node;
}

Node running_node(const OrtApi *api, const Operator *op, OrtKernelContext *context) {
  Node node = {.api = api, .op = op, .context = context};
  node.status = get_input_count(api, context, &node.given);
  return node;
}
