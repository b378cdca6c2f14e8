/* What attention does before it attends: queries are rotated, keys too, and keys and values appended to a cache. */
#ifndef INTAGLIO_ATTENTION_APPEND_H
#define INTAGLIO_ATTENTION_APPEND_H

#include "attention/attention.h"

/* New tokens, and the cache that they come to. */
typedef struct {
  int int8;                                                  /* what the cache holds */
  int64_t batch, tokens, heads, kv_heads, head_size;         /* B, S, H, K, E */
  int64_t past_rows, rows;                                   /* of past, of present */
  int64_t query_stride, key_stride;                          /* floats from token to token */
  int64_t row_bytes;                                         /* of the cache */
  int64_t angles;                                            /* of a row of cos; 0 for no rotation */
  const float *query, *key, *value, *cos, *sin;
  const float *key_sizes; /* [K, E], or NULL */
  const char *past_key, *past_value;
  float *rotated;         /* [B, S, H, E] */
  char *present_key, *present_value;
  const int64_t *past; /* [B] */
} NewTokens;

/* How large each channel of keys is, [K, E]; the same for both of a pair that rotation mixes. One of `bias`, [K, E], and
 * `norm`, the weight of the keys' norm, [E], is known, the other NULL. */
void find_key_sizes(const NewTokens *tokens, const float *bias, const float *norm, float *sizes);

/* Fills `rotated` and the rows of present. */
void append(const NewTokens *tokens, ParallelFor parallel, void *context);

#endif
