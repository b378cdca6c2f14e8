/* What every instruction set shares: how the weights lie in memory, what x becomes, and what is to be multiplied. */
#ifndef INTAGLIO_INSTRUCTIONS_H
#define INTAGLIO_INSTRUCTIONS_H

#include <stddef.h>
#include <stdint.h>

#include "weights.h"

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
  int64_t first;  /* the number of the first of the */
  uint8_t *tiles;
};

/* What a block's sum of x's elements is multiplied by where a product's sum starts: the zero point, to be multiplied on
 * if each block has its own, less 0. */
enum Sums { TIMES_1, TIMES_8, TIMES_128, SUMS };

/* x, each `step` elements of a row as int8 in [-127, 127] and a scale, which is NaN where an element is no finite number,
 * so that the row's products are. */
typedef struct {
  int64_t padded;
  int step;
  int8_t *q;            /* [M, padded] */
  float *scales;        /* [M, padded / step] */
  int32_t *sums[SUMS];  /* [M, padded / step] each, the sums of q times -1, -8 and -128; NULL where they are not needed */
} Quantized;

/* One product; y's columns from `first_column` on lie from `y` on. */
typedef struct {
  const PackedWeights *w;
  const Quantized *x;
  const int32_t *sums; /* those of x where the products' start */
  const float *bias;
  float *y;
  int64_t stride, first_column, m;
  int *failed; /* becomes 1 where memory did not suffice */
} Job;

/* All rows of x against tiles from .. to. */
typedef void (*Range)(const Job *job, int64_t from, int64_t to);

struct Instructions {
  const char *name;
  int64_t wide_rows; /* of x from which on weights of 4 bits are multiplied as those of 8; 0 for never */
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
