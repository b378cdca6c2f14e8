/* Attention of some rows, queries that share their keys, over a range of keys: in pieces, with a running maximum.
 *
 * Two functions, for few rows and for many, with the same bits: for a row they do the same operations in the same order.
 * Those depend on its position and window alone, since pieces start at multiples of PIECE whatever is asked.
 */
#ifndef INTAGLIO_ATTENTION_ROWS_H
#define INTAGLIO_ATTENTION_ROWS_H

#include <stdint.h>

enum {
  PIECE = 64,     /* keys */
  FEW_ROWS = 12,  /* `attend_few` takes these at most, */
  MOST_ROWS = 48, /* `attend_many` these */
};

typedef struct {
  int64_t size, window;       /* E; keys that a row sees, 0 for all before it */
  float scale;                /* of the scores */
  const char *keys, *values;  /* [C] rows of a cache, */
  int int8;                   /* of this kind */
  int64_t from, to;           /* of the keys, those that any of the rows sees */
  int rows;
  const float *queries[MOST_ROWS]; /* [E] each */
  int64_t positions[MOST_ROWS];    /* ascending */
  /* What is found: each row's values by weight 2^(x - maximum), x its score by log2 e, and the sum of its weights. */
  float *sums[MOST_ROWS]; /* [E] each */
  float maxima[MOST_ROWS], totals[MOST_ROWS];
} Rows;

/* 0, or -1 where memory did not suffice. */
int attend_few(Rows *rows);
int attend_many(Rows *rows);

#endif
