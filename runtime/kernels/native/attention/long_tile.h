/* Queries of a long sequence that share their keys, and attention to all of these keys.
 *
 * A sequence is long as in matmul.h. `decode` and `prefill` (query_tile.h) are for the others, and for instruction sets
 * without a function for this.
 */
#ifndef INTAGLIO_LONG_TILE_H
#define INTAGLIO_LONG_TILE_H

#include <stdint.h>

/* Queries at most; keys and values are converted once for all of them. */
enum {
  LONG_ROWS = 256,    /* of any function */
  INTEGER_ROWS = 240, /* of those with products of int16 */
};

typedef struct {
  int64_t size, window;      /* E; keys that a query sees, 0 for all before it */
  float scale;               /* of the scores */
  const char *keys, *values; /* [C] rows of a KV cache */
  int int8;                  /* 1 if the rows are int8 */
  int64_t from, to;          /* the range of keys, those that at least one query sees */
  int64_t count;
  const float *vectors[LONG_ROWS]; /* [E] each, the queries */
  float *outputs[LONG_ROWS];       /* [E] each */
  int64_t positions[LONG_ROWS];    /* ascending */
} LongTile;

/* Fill the outputs with AMX's products of bfloat16; return 0, or -1 if there is not enough memory. */
int attend_amx(const LongTile *tile);

/* Likewise with AVX512-VNNI's or AVX-VNNI's products of int16. */
int attend_avx512_vnni(const LongTile *tile);
int attend_avx_vnni(const LongTile *tile);

/* Return whether this processor has AMX's products of bfloat16, and Linux lets this process use them. */
int amx_bfloat16_supported(void);

/* Return whether it has products of int16 on registers of 512 bits, and of 256. */
int avx512_vnni_supported(void);
int avx_vnni_supported(void);

#endif
