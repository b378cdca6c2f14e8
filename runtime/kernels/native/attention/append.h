/* The step before attention: queries and keys are rotated, keys and values are appended to the KV cache. */
#ifndef INTAGLIO_ATTENTION_APPEND_H
#define INTAGLIO_ATTENTION_APPEND_H

#include "attention/attention.h"

/* New tokens, and the KV cache that they are appended to: present, or memory of the call in its place. */
typedef struct {
  int int8;                                          /* 1 if the cache is int8 */
  int64_t batch, tokens, heads, kv_heads, head_size; /* B, S, H, K, E */
  int64_t window;                                    /* tokens that the cache keeps at least; 0 if it keeps all */
  int64_t past_rows, rows;                           /* capacity of past and of present */
  int64_t query_stride, key_stride;                  /* floats from token to token */
  int64_t row_bytes;                                 /* of the cache */
  int64_t angles;                                    /* columns of cos and sin; 0 for no rotation */
  const float *query, *key, *value, *cos, *sin;
  const float *key_scales; /* [K, E], or NULL */
  const char *past_key, *past_value;
  float *rotated; /* [B, S, H, E] */
  char *present_key, *present_value;
  int clear;                         /* 1 to set the rows of present without tokens to 0, where it is not past */
  const int64_t *past;               /* [B], tokens before these */
  const int64_t *past_first, *first; /* [B], the positions of the first row of past and of present */
} NewTokens;

/* Compute a scale for each channel of the keys, [K, E], the same for both channels that rotation mixes. One of `bias`,
 * [K, E], and `norm`, the weight of the keys' norm, [E], is given, and the other is NULL. */
void compute_key_scales(const NewTokens *tokens, const float *bias, const float *norm, float *scales);

/* Fill `rotated`, and present with rows of past and the new ones. */
void append(const NewTokens *tokens, ParallelFor parallel, void *context);

/* Copy what a cache of a window keeps after these tokens from `present_key` and `present_value`, which have all, to caches of
 * `rows` rows; set the rest to 0. */
typedef struct {
  const NewTokens *tokens;
  int64_t rows;
  char *key, *value;
} Kept;
void keep_window(const Kept *kept, ParallelFor parallel, void *context);

#endif
