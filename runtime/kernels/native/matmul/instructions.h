/* What every instruction set shares: how the weights lie in memory, what x becomes, and what is to be multiplied. */
#ifndef INTAGLIO_INSTRUCTIONS_H
#define INTAGLIO_INSTRUCTIONS_H

#include <stddef.h>
#include <stdint.h>

#include "matmul/weights.h"

#define ALWAYS_INLINE static inline __attribute__((always_inline))

enum {
  LANES = 16,   /* rows of W in a tile */
  CHUNK = 64,   /* elements that a row of x, or a row of W while it is packed, is filled up to a multiple of */
  LINE = 64,    /* bytes of the memory that is read at once: weights start at multiples of it */
  TILES = 4,    /* that share many rows of x in the cache */
};

/* The functions of one instruction set. All give the same bits. */
typedef struct Instructions Instructions;

/* Tiles of 16 rows of W one after the other, the last one filled up with copies of the last row. Memory is fastest when
 * it is read strictly in order, so a tile is its blocks one after the other, and a block is
 *
 *     zero points  [4 blocks][16 lanes] bytes, if there are any: before each fourth block
 *     scales       [2 blocks][16 lanes] float16: before each second block
 *     weights      [block_size / 4][16 lanes] words of four elements of 8 bits, less what `pack` finds convenient;
 *                  of 4 bits [block_size / 8][16 lanes], the first four elements in the low halves of the bytes
 */
struct PackedWeights {
  const Instructions *with;
  MatMulShape shape;
  int64_t padded; /* elements of a row, a multiple of CHUNK */
  size_t block_bytes, tile_bytes; /* a block's weights alone, and all of a tile */
  int asymmetric;
  uint8_t *tiles;
};

/* What stands before each `step` elements of a row of x. */
typedef struct {
  float scale;   /* what the elements are multiples of; NaN where one is no finite number, so that the row's products are */
  int32_t sum;   /* of the elements */
  int32_t start; /* -128 times that: where sums with bytes begin whose zero point is 128 */
  int32_t unused;
} Head;

/* x, each `step` elements of a row as int8 in [-127, 127] behind their Head. */
typedef struct {
  int64_t padded; /* elements of a row, a multiple of CHUNK */
  int step;       /* 16 or 32 */
  uint8_t *rows;  /* [M, padded / step, sizeof(Head) + step] */
} Quantized;

ALWAYS_INLINE int64_t row_bytes(int64_t padded, int step) { return padded / step * ((int64_t)sizeof(Head) + step); }

/* Some rows of x against some columns of W; y's rows and columns from the first ones on lie from `y` on. */
typedef struct {
  const PackedWeights *w;
  const Quantized *x;
  const float *bias;
  const uint8_t *coarse; /* what `coarsen` made of W, for `multiply_coarse` */
  float *y;
  int64_t stride, first_column, first_row, last_row;
} Job;

/* Against tiles from .. to. */
typedef void (*Range)(const Job *job, int64_t from, int64_t to);

struct Instructions {
  const char *name;
  int (*supported)(void);
  /* The weights of 16 rows, each of `bytes` bytes, into a tile. */
  void (*pack)(const PackedWeights *packed, const uint8_t *const rows[LANES], int64_t bytes, uint8_t *tile);
  /* `count` elements of one row of x, which are those from `column` on, and zeros behind them up to `end`. */
  void (*quantize)(const Quantized *to, int64_t row, int64_t column, const float *x, int64_t count, int64_t end);
  /* A row x + skip, which is kept in `sum`, over its root mean square, times `weight`; `skip` and `sum` may be NULL. */
  void (*normalize)(const float *x, const float *skip, const float *weight, float epsilon, int64_t k, float *sum,
                    float *to);
  void (*gate)(const float *gates, float *y, int64_t count); /* y *= silu(gates) */
  Range multiply[2][2][2]; /* of 4, 8 bits; in steps of 16, 32 elements; without, with zero points */
  /* Weights of 4 bits for many rows of x, in steps of 32: made bytes of, which are multiplied; or NULL. */
  size_t (*coarse_tile_bytes)(const PackedWeights *packed);
  void (*coarsen)(const PackedWeights *packed, int64_t from, int64_t to, uint8_t *memory);
  Range multiply_coarse; /* tiles from .. to, which are all that were made */
};

extern const Instructions avx512_vnni, avx_vnni, avx2;

ALWAYS_INLINE int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
ALWAYS_INLINE int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }
ALWAYS_INLINE int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

/* Where a block's weights are in its tile. */
ALWAYS_INLINE size_t block_at(const PackedWeights *packed, int64_t block) {
  return block * packed->block_bytes + (block / 2 + 1 + (packed->asymmetric ? block / 4 + 1 : 0)) * LINE;
}

/* Where its scales are: before the first of its two. */
ALWAYS_INLINE size_t scales_at(const PackedWeights *packed, int64_t block) {
  return block_at(packed, block / 2 * 2) - LINE + block % 2 * LANES * sizeof(uint16_t);
}

/* Where its zero points are: before the first of its four, and the scales there. */
ALWAYS_INLINE size_t zero_points_at(const PackedWeights *packed, int64_t block) {
  return block_at(packed, block / 4 * 4) - 2 * LINE + block % 4 * LANES;
}

/* Where an element's word is in its tile, for elements that begin a word. */
ALWAYS_INLINE size_t word_at(const PackedWeights *packed, int64_t element) {
  const int64_t size = packed->shape.block_size;
  return block_at(packed, element / size) + element % size * LANES * packed->shape.bits / 8;
}

#endif
