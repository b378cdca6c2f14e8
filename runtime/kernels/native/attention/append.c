#include "attention/append.h"

#include <math.h>
#include <string.h>

#include "attention/cache.h"
#include "attention/sliding.h"

enum { TOKENS_PER_TASK = 16 };

#define BIAS_MARGIN 3.0f /* what a key's channel varies by around its bias; quality is the same with 8 */

static void rotate(const NewTokens *t, const float *from, int64_t position, float *to) {
  const int64_t half = t->angles;
  const float *cos = t->cos + position * half, *sin = t->sin + position * half;
  for (int64_t e = 0; e < half; e++) {
    const float a = from[e], b = from[half + e];
    to[e] = a * cos[e] - b * sin[e];
    to[half + e] = b * cos[e] + a * sin[e];
  }
  memcpy(to + 2 * half, from + 2 * half, (t->head_size - 2 * half) * sizeof(float));
}

/* Multiply or divide channels by their scales, if there are any. */
static void multiply(float *x, const float *scales, int64_t count) {
  for (int64_t e = 0; scales != NULL && e < count; e++) x[e] *= scales[e];
}

static void divide(float *x, const float *scales, int64_t count) {
  for (int64_t e = 0; scales != NULL && e < count; e++) x[e] /= scales[e];
}

static const float *scales_of(const NewTokens *t, int64_t kv_head) {
  return t->key_scales == NULL ? NULL : t->key_scales + kv_head * t->head_size;
}

static void store_row(const NewTokens *t, const float *from, char *to) {
  if (t->int8) store_int8_row(from, t->head_size, to);
  else memcpy(to, from, t->row_bytes);
}

/* Rotate the queries of one token, and append its keys and values. */
static void append_token(const NewTokens *t, int64_t token) {
  const int64_t size = t->head_size, group = t->heads / t->kv_heads;
  const int64_t b = token / t->tokens, position = t->past[b] + token % t->tokens;
  for (int64_t head = 0; head < t->heads; head++) {
    float *to = t->rotated + (token * t->heads + head) * size;
    rotate(t, t->query + token * t->query_stride + head * size, position, to);
    multiply(to, scales_of(t, head / group), size);
  }
  for (int64_t head = 0; head < t->kv_heads; head++) {
    const int64_t at = ((b * t->kv_heads + head) * t->rows + position - t->first[b]) * t->row_bytes;
    float key[MAX_HEAD_SIZE];
    rotate(t, t->key + token * t->key_stride + head * size, position, key);
    divide(key, scales_of(t, head), size);
    store_row(t, key, t->present_key + at);
    store_row(t, t->value + token * t->key_stride + head * size, t->present_value + at);
  }
}

static void append_part(void *data, size_t task) {
  const NewTokens *t = data;
  const int64_t from = (int64_t)task * TOKENS_PER_TASK, all = t->batch * t->tokens;
  for (int64_t token = from; token < from + TOKENS_PER_TASK && token < all; token++) append_token(t, token);
}

/* Copy the rows of past that present keeps to its beginning, for one sequence and head. */
static void copy_rows(const NewTokens *t, int64_t head, const char *past, char *present) {
  const int64_t b = head / t->kv_heads, dropped = t->first[b] - t->past_first[b];
  const int64_t kept = (t->past[b] - t->first[b]) * t->row_bytes;
  char *to = present + head * t->rows * t->row_bytes;
  if (kept > 0) memmove(to, past + (head * t->past_rows + dropped) * t->row_bytes, kept);
  if (t->clear && past != present) memset(to + kept, 0, t->rows * t->row_bytes - kept);
}

static void copy_past(void *data, size_t head) {
  const NewTokens *t = data;
  copy_rows(t, (int64_t)head, t->past_key, t->present_key);
  copy_rows(t, (int64_t)head, t->past_value, t->present_value);
}

/* Return whether the rows of past have to be copied or moved. */
static int past_moves(const NewTokens *t) {
  if (t->past_key != t->present_key || t->past_value != t->present_value) return 1;
  for (int64_t b = 0; b < t->batch; b++)
    if (t->first[b] != t->past_first[b]) return 1;
  return 0;
}

static void keep_rows(const Kept *kept, int64_t head, const char *from, char *to) {
  const NewTokens *t = kept->tokens;
  const int64_t b = head / t->kv_heads, total = t->past[b] + t->tokens;
  const int64_t first = first_kept(total, t->window, kept->rows), bytes = (total - first) * t->row_bytes;
  to += head * kept->rows * t->row_bytes;
  memcpy(to, from + (head * t->rows + first - t->first[b]) * t->row_bytes, bytes);
  memset(to + bytes, 0, kept->rows * t->row_bytes - bytes);
}

static void keep_head(void *data, size_t head) {
  const Kept *kept = data;
  keep_rows(kept, (int64_t)head, kept->tokens->present_key, kept->key);
  keep_rows(kept, (int64_t)head, kept->tokens->present_value, kept->value);
}

void keep_window(const Kept *kept, ParallelFor parallel, void *context) {
  parallel(context, keep_head, kept->tokens->batch * kept->tokens->kv_heads, (void *)kept);
}

void compute_key_scales(const NewTokens *t, const float *bias, const float *norm, float *scales) {
  const int64_t size = t->head_size, half = t->angles;
  for (int64_t head = 0; head < t->kv_heads; head++, scales += size) {
    for (int64_t e = 0; e < size; e++)
      scales[e] = fmaxf(bias != NULL ? fabsf(bias[head * size + e]) + BIAS_MARGIN : fabsf(norm[e]), FLT_MIN);
    for (int64_t e = 0; e < half; e++) scales[e] = scales[half + e] = fmaxf(scales[e], scales[half + e]);
  }
}

void append(const NewTokens *t, ParallelFor parallel, void *context) {
  if (past_moves(t)) parallel(context, copy_past, t->batch * t->kv_heads, (void *)t);
  parallel(context, append_part, (t->batch * t->tokens + TOKENS_PER_TASK - 1) / TOKENS_PER_TASK, (void *)t);
}
