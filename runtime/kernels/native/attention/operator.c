/* The operators GroupQueryAttention and GroupQueryAttentionInt8: rotation, the KV cache, attention.
 *
 * GroupQueryAttention is supported for float32, heads of a multiple of 16, and half-split rotation. Keys and values are
 * appended in place if past and present are the same memory. With sliding_window_cache, past and present have the rows that
 * sliding.h describes. Where several tokens are read and rows are dropped, they are attended to in memory of the call.
 *
 * GroupQueryAttentionInt8 is the same with an int8 cache, [B, K, C, E + SCALE_BYTES]. Keys have channels that are large
 * for every token, which would take the precision of the others: those of a bias (Qwen2), or of a large weight in the keys'
 * norm (EXAONE 4.0). So each channel of the keys is divided by a scale and that of the queries multiplied by it. Both
 * channels of a rotated pair have the same scale, so that it commutes with rotation. The scales are computed from one of
 * two further inputs: the keys' bias, [K * E], or packed as the query is; or the weight of the keys' norm, [E].
 */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

#include "attention/append.h"
#include "attention/cache.h"
#include "attention/sliding.h"
#include "common/memory.h"
#include "common/sizes.h"
#include "ort/operator.h"
#include "ort/operators.h"

enum { QUERY, KEY, VALUE, PAST_KEY, PAST_VALUE, SEQUENCE_LENGTHS, TOTAL_LENGTH, COS, SIN, KEY_BIAS, KEY_NORM, INPUTS };
enum { OUTPUT, PRESENT_KEY, PRESENT_VALUE, OUTPUTS };

#define INPUTS_WITH(cache) \
  {"query", FLOAT, REQUIRED}, {"key", FLOAT, OPTIONAL}, {"value", FLOAT, OPTIONAL}, {"past_key", cache, OPTIONAL}, \
      {"past_value", cache, OPTIONAL}, {"seqlens_k", INT32, REQUIRED}, {"total_sequence_length", INT32, REQUIRED}, \
      {"cos_cache", FLOAT, OPTIONAL}, { \
    "sin_cache", FLOAT, OPTIONAL \
  }
#define OUTPUTS_WITH(cache) \
  {"output", FLOAT, REQUIRED}, {"present_key", cache, OPTIONAL}, { "present_value", cache, OPTIONAL }
static const Value inputs[] = {INPUTS_WITH(FLOAT)};
static const Value outputs[] = {OUTPUTS_WITH(FLOAT)};
static const Value int8_inputs[] = {INPUTS_WITH(INT8), {"key_bias", FLOAT, OPTIONAL}, {"key_norm", FLOAT, OPTIONAL}};
static const Value int8_outputs[] = {OUTPUTS_WITH(INT8)};
static const Operator definition = DEFINE("GroupQueryAttention", inputs, outputs);
static const Operator int8_definition = DEFINE("GroupQueryAttentionInt8", int8_inputs, int8_outputs);

typedef struct {
  const OrtApi *api;
  const Operator *op;
  const AttentionFunctions *with;
  int int8;    /* 1 if the cache is int8 */
  int rounded; /* 1 if a long sequence may be computed with rounded products */
  int64_t heads, kv_heads, window;
  int slides;  /* 1 if the cache keeps the window alone */
  float scale; /* 0 for 1 / sqrt(E) */
  int rotates;
} Kernel;

/* ---- creation ----------------------------------------------------------------------------------------------------- */

/* Check that two optional inputs or outputs are both there or both absent. */
static void check_both(Node *node, int first, const char *first_name, int second, const char *second_name) {
  if (node->status == NULL && first != second)
    refuse(node, ORT_INVALID_ARGUMENT, "%s is given without %s", first ? first_name : second_name,
           first ? second_name : first_name);
}

/* Check that no attribute asks for what is not supported. */
static void check_attributes(Node *node, const Kernel *kernel) {
  integer_attribute(node, "rotary_interleaved", 0, 0, 0);
  integer_attribute(node, "causal", 1, 1, 1);
  integer_attribute(node, "smooth_softmax", 0, INT64_MIN, 0);
  integer_attribute(node, "qk_output", 0, 0, 0);
  integer_attribute(node, "kv_cache_bit_width", 0, 0, 0);
  const float softcap = float_attribute(node, "softcap", 0.0f);
  if (softcap != 0.0f) refuse(node, ORT_NOT_IMPLEMENTED, "attribute softcap is %g; it must be 0", (double)softcap);
  if (!(kernel->scale >= 0.0f))
    refuse(node, ORT_NOT_IMPLEMENTED, "attribute scale is %g; it must be 0 or more", (double)kernel->scale);
  if (kernel->window == 0)
    refuse(node, ORT_NOT_IMPLEMENTED, "attribute local_window_size is 0; it must be -1 or at least 1");
  if (kernel->slides && kernel->window < 0)
    refuse(node, ORT_INVALID_ARGUMENT,
           "attribute local_window_size is -1; with sliding_window_cache it must be at least 1");
  if (kernel->heads % kernel->kv_heads != 0 || kernel->heads / kernel->kv_heads > MAX_GROUP)
    refuse(node, ORT_NOT_IMPLEMENTED,
           "attribute num_heads is %" PRId64 "; it must be a multiple of kv_num_heads, %" PRId64
           ", and at most %d times as many",
           kernel->heads, kernel->kv_heads, MAX_GROUP);
}

static OrtStatus *create_kind(const OrtApi *api, const OrtKernelInfo *info, const Operator *op, int rounded,
                              void **out) {
  Node node = created_node(api, op, info);
  const Kernel made = {
      .api = api,
      .op = op,
      .with = attention_functions(),
      .int8 = op == &int8_definition,
      .rounded = rounded,
      .heads = integer_attribute(&node, "num_heads", 0, 1, INT32_MAX),
      .kv_heads = integer_attribute(&node, "kv_num_heads", 0, 1, INT32_MAX),
      .window = integer_attribute(&node, "local_window_size", -1, -1, INT32_MAX),
      .slides = integer_attribute(&node, "sliding_window_cache", 0, 0, 1) == 1,
      .scale = float_attribute(&node, "scale", 0.0f),
      .rotates = integer_attribute(&node, "do_rotary", 0, 0, 1) == 1,
  };
  if (made.with == NULL) refuse(&node, ORT_NOT_IMPLEMENTED, "this processor lacks the instructions of the kernel");
  check_attributes(&node, &made);
  check_both(&node, has_input(&node, KEY), "key", has_input(&node, VALUE), "value");
  check_both(&node, has_input(&node, PAST_KEY), "past_key", has_input(&node, PAST_VALUE), "past_value");
  check_both(&node, has_input(&node, COS), "cos_cache", has_input(&node, SIN), "sin_cache");
  check_both(&node, has_output(&node, PRESENT_KEY), "present_key", has_output(&node, PRESENT_VALUE), "present_value");
  if (made.slides && node.status == NULL && !has_input(&node, PAST_KEY))
    refuse(&node, ORT_INVALID_ARGUMENT, "attribute sliding_window_cache is 1, and input past_key is missing");
  if (made.rotates && node.status == NULL && !has_input(&node, COS))
    refuse(&node, ORT_INVALID_ARGUMENT, "attribute do_rotary is 1, and input cos_cache is missing");
  Kernel *kernel = node.status == NULL ? malloc(sizeof *kernel) : NULL;
  if (kernel == NULL) {
    refuse_memory(&node);
    return node.status;
  }
  *kernel = made;
  *out = kernel;
  return NULL;
}

static OrtStatus *create(const OrtCustomOp *op, const OrtApi *api, const OrtKernelInfo *info, void **out) {
  return (void)op, create_kind(api, info, &definition, 0, out);
}

static OrtStatus *create_rounded(const OrtCustomOp *op, const OrtApi *api, const OrtKernelInfo *info, void **out) {
  return (void)op, create_kind(api, info, &definition, 1, out);
}

static OrtStatus *create_int8(const OrtCustomOp *op, const OrtApi *api, const OrtKernelInfo *info, void **out) {
  return (void)op, create_kind(api, info, &int8_definition, 0, out);
}

static OrtStatus *create_int8_rounded(const OrtCustomOp *op, const OrtApi *api, const OrtKernelInfo *info, void **out) {
  return (void)op, create_kind(api, info, &int8_definition, 1, out);
}

/* ---- checks of a call --------------------------------------------------------------------------------------------- */

/* Set what the call takes from query, key and value, and check them. */
static void read_new_tokens(Node *node, const Kernel *kernel, const Tensor *in, NewTokens *call) {
  const Tensor *query = &in[QUERY], *key = &in[KEY], *value = &in[VALUE];
  check_both(node, key->given, "input key", value->given, "input value");
  CHECK_SHAPE(node, query, "[B, S, width]", ANY_SIZE, ANY_SIZE, ANY_SIZE);
  if (node->status != NULL) return;
  const int packed = !key->given;
  const int64_t width = query->sizes[2], heads = packed ? kernel->heads + 2 * kernel->kv_heads : kernel->heads;
  const int64_t size = width / heads, narrow = kernel->kv_heads * size;
  call->batch = query->sizes[0];
  call->tokens = query->sizes[1];
  call->head_size = size;
  if (width % heads != 0 || size % 16 != 0 || size < 16 || size > MAX_HEAD_SIZE)
    refuse(node, ORT_INVALID_ARGUMENT,
           "input query has the width %" PRId64 " for %" PRId64
           " heads; that must be a multiple of 16 for each, at most %d",
           width, heads, MAX_HEAD_SIZE);
  if (call->tokens == 0) refuse(node, ORT_INVALID_ARGUMENT, "input query has 0 tokens; at least one is needed");
  for (int index = KEY; !packed && index <= VALUE; index++)
    CHECK_SHAPE(node, &in[index], "[B, S, kv_num_heads * head_size]", call->batch, call->tokens, narrow);
  if (node->status != NULL) return;
  call->query_stride = width;
  call->key_stride = packed ? width : narrow;
  if (call->batch == 0) return;
  call->query = query->data;
  call->key = packed ? call->query + kernel->heads * size : key->data;
  call->value = packed ? call->key + narrow : value->data;
}

/* Set the capacity of past and present, and check the caches. `columns` is the size of a row in elements of the cache. */
static void read_past(Node *node, const Kernel *kernel, const Tensor *in, int64_t total, int64_t columns,
                      NewTokens *call) {
  const Tensor *key = &in[PAST_KEY], *value = &in[PAST_VALUE];
  check_both(node, key->given, "input past_key", value->given, "input past_value");
  if (key->given) {
    CHECK_SHAPE(node, key, "[B, kv_num_heads, capacity, row]", call->batch, kernel->kv_heads, ANY_SIZE, columns);
    check_shape(node, value, "the shape of past_key", key->sizes, key->rank);
    call->past_rows = key->sizes[2];
    call->past_key = key->data;
    call->past_value = value->data;
  }
  if (kernel->slides && call->past_rows < kernel->window)
    refuse(node, ORT_INVALID_ARGUMENT,
           "input past_key has %" PRId64 " rows; with sliding_window_cache it must have local_window_size, %" PRId64
           ", or more",
           call->past_rows, kernel->window);
  call->rows = call->past_rows > total || kernel->slides ? call->past_rows : total;
  if (!kernel->slides && total > call->past_rows && total != call->past_rows + call->tokens)
    refuse(node, ORT_INVALID_ARGUMENT,
           "input total_sequence_length is %" PRId64 "; it must be at most the past's %" PRId64
           ", or that and the %" PRId64 " new tokens",
           total, call->past_rows, call->tokens);
}

static int64_t read_total(Node *node, const Tensor *tensor) {
  if (tensor->rank > 0) CHECK_SHAPE(node, tensor, "[1]", 1);
  if (node->status != NULL) return 0;
  const int64_t total = *(const int32_t *)tensor->data;
  if (total < 1)
    refuse(node, ORT_INVALID_ARGUMENT, "input total_sequence_length is %" PRId64 "; it must be positive", total);
  return total;
}

/* Set the tables of cos and sin, and check that they have an angle for each position. */
static void read_angles(Node *node, const Kernel *kernel, const Tensor *in, int64_t total, NewTokens *call) {
  const Tensor *cos = &in[COS], *sin = &in[SIN];
  check_both(node, cos->given, "input cos_cache", sin->given, "input sin_cache");
  if (node->status != NULL || !cos->given) return;
  CHECK_SHAPE(node, cos, "[positions, angles]", ANY_SIZE, ANY_SIZE);
  check_shape(node, sin, "the shape of cos_cache", cos->sizes, cos->rank);
  if (node->status != NULL) return;
  if (cos->sizes[0] < total)
    refuse(node, ORT_INVALID_ARGUMENT, "input cos_cache has %" PRId64 " positions; total_sequence_length is %" PRId64,
           cos->sizes[0], total);
  if (cos->sizes[1] % 8 != 0 || cos->sizes[1] > call->head_size / 2)
    refuse(node, ORT_INVALID_ARGUMENT,
           "input cos_cache has %" PRId64
           " angles; they must be a multiple of 8 and at most half of head_size, %" PRId64,
           cos->sizes[1], call->head_size);
  if (!kernel->rotates) return;
  call->angles = cos->sizes[1];
  call->cos = cos->data;
  call->sin = sin->data;
}

/* Check the bias of the keys and the weight of their norm. */
static void check_key_scales(Node *node, const Kernel *kernel, const Tensor *in, const NewTokens *call) {
  const Tensor *bias = &in[KEY_BIAS], *norm = &in[KEY_NORM];
  const int64_t width = in[KEY].given ? kernel->kv_heads * call->head_size : call->query_stride;
  if (bias->given) CHECK_SHAPE(node, bias, "[width of the keys, or of the packed query]", width);
  if (norm->given) CHECK_SHAPE(node, norm, "[head_size]", call->head_size);
}

/* Check the number of tokens of one sequence, these included, and return how many are before these. */
static int64_t read_length(Node *node, const Kernel *kernel, int64_t b, int64_t last, int64_t total,
                           const NewTokens *call) {
  if (last < 0 || last >= total)
    refuse(node, ORT_INVALID_ARGUMENT,
           "input seqlens_k is %" PRId64 " for sequence %" PRId64 "; it must be below total_sequence_length, %" PRId64,
           last, b, total);
  if (kernel->slides) {
    if (last + 1 < call->tokens)
      refuse(node, ORT_INVALID_ARGUMENT,
             "input seqlens_k is %" PRId64 " for sequence %" PRId64 ", which has %" PRId64
             " new tokens; with sliding_window_cache none of them can be padding",
             last, b, call->tokens);
    return last + 1 - call->tokens;
  }
  const int64_t past = call->tokens == total ? 0 : last + 1 - call->tokens;
  if (past < 0 || past > call->past_rows)
    refuse(node, ORT_INVALID_ARGUMENT,
           "input seqlens_k is %" PRId64 " for sequence %" PRId64 ", which has %" PRId64
           " new tokens; the past holds 0 to %" PRId64,
           last, b, call->tokens, call->past_rows);
  return past;
}

/* Set the number of tokens of each sequence before these, and the positions of the first rows; check the numbers. Return
 * their memory. */
static int64_t *read_lengths(Node *node, const Kernel *kernel, const Tensor *lengths, int64_t total, NewTokens *call) {
  if (lengths->rank == 0 || element_count(lengths) != call->batch)
    refuse(node, ORT_INVALID_ARGUMENT, "input seqlens_k has %" PRId64 " elements; query has %" PRId64 " sequences",
           lengths->rank == 0 ? (int64_t)0 : element_count(lengths), call->batch);
  if (call->tokens != total && call->tokens > 1 && call->batch > 1)
    refuse(node, ORT_INVALID_ARGUMENT,
           "input query has %" PRId64 " sequences of %" PRId64
           " tokens; it must have one sequence when several tokens follow a past",
           call->batch, call->tokens);
  if (node->status != NULL) return NULL;
  int64_t *past = allocate_aligned(times(call->batch, 3 * sizeof *past));
  if (past == NULL) {
    refuse_memory(node);
    return NULL;
  }
  int64_t *past_first = past + call->batch, *first = past_first + call->batch;
  for (int64_t b = 0; node->status == NULL && b < call->batch; b++) {
    past[b] = read_length(node, kernel, b, ((const int32_t *)lengths->data)[b], total, call);
    const int64_t window = kernel->window, rows = call->past_rows;
    past_first[b] = kernel->slides ? first_kept(past[b], window, rows) : 0;
    first[b] = kernel->slides ? first_kept(past[b] + call->tokens, window, rows) : 0;
  }
  call->past = past;
  call->past_first = past_first;
  call->first = first;
  return past;
}

/* ---- the call ----------------------------------------------------------------------------------------------------- */

/* Set the memory of present. Without these outputs it is local to this call, and `local` is set to it. */
static void open_present(Node *node, const Kernel *kernel, int64_t columns, NewTokens *call, char **local) {
  const int64_t sizes[4] = {call->batch, kernel->kv_heads, call->rows, columns};
  call->present_key = output(node, PRESENT_KEY, sizes, 4);
  call->present_value = output(node, PRESENT_VALUE, sizes, 4);
  if (node->status != NULL || call->batch == 0) return;
  if (call->present_key == NULL) {
    const size_t bytes = times(times(times(call->batch, kernel->kv_heads), call->rows), call->row_bytes);
    *local = allocate_aligned(times(bytes, 2));
    if (*local == NULL) {
      refuse_memory(node);
      return;
    }
    call->present_key = *local;
    call->present_value = *local + bytes;
  }
  const int shared = call->present_key == call->past_key || call->present_value == call->past_value;
  if (shared && call->rows != call->past_rows)
    refuse(node, ORT_INVALID_ARGUMENT,
           "output present_key is the memory of past_key, which has %" PRId64 " rows and not %" PRId64, call->past_rows,
           call->rows);
}

/* Return the rows of memory in place of present, or 0 where present has room for past and all new tokens. */
static int64_t rows_beside(const NewTokens *call) {
  int64_t rows = 0;
  int drops = 0;
  for (int64_t b = 0; b < call->batch; b++) {
    const int64_t needed = call->past[b] + call->tokens - call->past_first[b];
    rows = needed > rows ? needed : rows;
    drops |= call->first[b] != call->past_first[b];
  }
  return drops && call->tokens > 1 ? rows : 0; /* before a single token, those that it does not see are dropped */
}

/* Append the tokens to the cache and attend to it. */
static int attend_tokens(const Kernel *kernel, const NewTokens *call, Pool *pool, float *to) {
  append(call, run_parallel, pool);
  const Attention attention = {
      .with = kernel->with,
      .batch = call->batch,
      .tokens = call->tokens,
      .heads = kernel->heads,
      .kv_heads = kernel->kv_heads,
      .head_size = call->head_size,
      .capacity = call->rows,
      .window = kernel->window > 0 ? kernel->window : 0,
      .scale = kernel->scale != 0.0f ? kernel->scale : 1.0f / sqrtf((float)call->head_size),
      .past = call->past,
      .first = call->first,
      .queries = call->rotated,
      .keys = call->present_key,
      .values = call->present_value,
      .int8 = kernel->int8,
      .rounded = kernel->rounded,
      .output = to,
  };
  return attend(&attention, run_parallel, pool);
}

/* Do the same with rows of memory in place of present, [2, B, K, `rows`]. */
static int attend_beside(const Kernel *kernel, const NewTokens *call, int64_t rows, char *memory, Pool *pool,
                         float *to) {
  NewTokens beside = *call;
  beside.present_key = memory;
  beside.present_value = memory + call->batch * call->kv_heads * rows * call->row_bytes;
  beside.rows = rows;
  beside.first = call->past_first;
  beside.clear = 0;
  if (attend_tokens(kernel, &beside, pool, to) != 0) return -1;
  keep_window(&(Kept){&beside, call->rows, call->present_key, call->present_value}, run_parallel, pool);
  return 0;
}

static void attend_call(Node *node, const Kernel *kernel, const Tensor *in, NewTokens *call, float *to) {
  const int64_t size = call->head_size, rows = rows_beside(call);
  const Tensor *bias = &in[KEY_BIAS], *norm = &in[KEY_NORM];
  const int scaled = bias->given || norm->given;
  const size_t queries = times(times(times(call->batch, call->tokens), kernel->heads * size), sizeof(float));
  const size_t channels = scaled ? times(kernel->kv_heads * size, sizeof(float)) : 0;
  const size_t beside = times(times(times(call->batch, kernel->kv_heads), rows), 2 * call->row_bytes);
  char *memory = allocate_aligned(plus(plus(queries, channels), beside));
  if (memory == NULL) {
    refuse_memory(node);
    return;
  }
  call->rotated = (float *)memory;
  if (scaled) {
    float *key_scales = (float *)(memory + queries);
    const int64_t before = in[KEY].given ? 0 : kernel->heads * size;
    compute_key_scales(call, bias->given ? (const float *)bias->data + before : NULL, norm->data, key_scales);
    call->key_scales = key_scales;
  }
  Pool pool = {kernel->api, node->context};
  const int failed = rows > 0 ? attend_beside(kernel, call, rows, memory + queries + channels, &pool, to)
                              : attend_tokens(kernel, call, &pool, to);
  if (failed) refuse_memory(node);
  free_aligned(memory);
}

static OrtStatus *compute(void *state, OrtKernelContext *context) {
  const Kernel *kernel = state;
  Node node = running_node(kernel->api, kernel->op, context);
  Tensor in[INPUTS] = {0};
  for (size_t index = 0; index < kernel->op->input_count; index++) in[index] = input(&node, index);
  NewTokens call = {.int8 = kernel->int8, .heads = kernel->heads, .kv_heads = kernel->kv_heads, .clear = 1};
  call.window = kernel->slides ? kernel->window : 0;
  read_new_tokens(&node, kernel, in, &call);
  call.row_bytes = cache_row_bytes(call.head_size, kernel->int8);
  const int64_t columns = kernel->int8 ? call.row_bytes : call.head_size;
  const int64_t total = read_total(&node, &in[TOTAL_LENGTH]);
  read_past(&node, kernel, in, total, columns, &call);
  read_angles(&node, kernel, in, total, &call);
  check_key_scales(&node, kernel, in, &call);
  int64_t *past = read_lengths(&node, kernel, &in[SEQUENCE_LENGTHS], total, &call);
  const int64_t sizes[3] = {call.batch, call.tokens, kernel->heads * call.head_size};
  float *to = output(&node, OUTPUT, sizes, 3);
  char *local = NULL;
  open_present(&node, kernel, columns, &call, &local);
  if (node.status == NULL && call.batch > 0) attend_call(&node, kernel, in, &call, to);
  free_aligned(local);
  free_aligned(past);
  return node.status;
}

OPERATOR(group_query_attention, definition, create, compute, free)
OPERATOR(group_query_attention_rounded, definition, create_rounded, compute, free)
OPERATOR(group_query_attention_int8, int8_definition, create_int8, compute, free)
OPERATOR(group_query_attention_int8_rounded, int8_definition, create_int8_rounded, compute, free)
