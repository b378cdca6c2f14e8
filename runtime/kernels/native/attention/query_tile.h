/* A tile of queries that share their keys, and attention over a range of these keys with an online softmax.
 *
 * `decode` serves few queries (GEMV), `prefill` many (GEMM). Both return the same bits: for a query they do
 * the same operations in the same order. The order depends on the query's position and window alone, since blocks of keys
 * start at multiples of KEY_BLOCK.
 */
#ifndef INTAGLIO_QUERY_TILE_H
#define INTAGLIO_QUERY_TILE_H

#include <stdint.h>

#include "attention/attention.h"
#include "attention/long_tile.h"

enum {
  KEY_BLOCK = 64,   /* keys for which scores are in memory at once */
  DECODE_ROWS = 12, /* queries that `decode` takes at most */
  MAX_ROWS = 48,    /* queries that `prefill` takes at most */
};

typedef struct {
  int64_t size, window;      /* E; keys that a query sees, 0 for all before it */
  float scale;               /* of the scores */
  const char *keys, *values; /* [C] rows of a KV cache */
  int int8;                  /* 1 if the rows are int8 */
  int64_t from, to;          /* the range of keys, those that at least one query sees */
  int count;
  const float *vectors[MAX_ROWS]; /* [E] each, the queries */
  int64_t positions[MAX_ROWS];    /* ascending */
  /* Results: the values of each query weighted by 2^(x - maximum), where x is the score times log2 e; and the sum of the
   * weights. */
  float *sums[MAX_ROWS]; /* [E] each */
  float maxima[MAX_ROWS], totals[MAX_ROWS];
} QueryTile;

enum { MAX_NAMES = 3 };

/* The functions of one instruction set. All return the same bits, but for `attend_long`. */
struct AttentionFunctions {
  const char *names[MAX_NAMES]; /* of INTAGLIO_KERNELS' instruction sets, any of which stands for this one; or NULL */
  int (*supported)(void);
  /* Fill the results; return 0, or -1 if there is not enough memory. */
  int (*decode)(QueryTile *queries);
  int (*prefill)(QueryTile *queries);
  int (*attend_long)(const LongTile *queries); /* for long sequences, in place of these two; or NULL */
  int64_t long_rows;                           /* queries that `attend_long` takes at most */
};

/* Those of x86-64, and of 64-bit ARM. */
extern const AttentionFunctions amx_attention, avx512_vnni_attention, avx512_attention, avx_vnni_attention,
    avx2_attention;
extern const AttentionFunctions neon_attention;

#endif
