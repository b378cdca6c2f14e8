/* What all instruction sets share: the layout of packed weights and of quantized x, and the functions that each implements. */
#ifndef INTAGLIO_INSTRUCTIONS_H
#define INTAGLIO_INSTRUCTIONS_H

#include <stddef.h>
#include <stdint.h>

#include "common/weight_file.h"
#include "matmul/weights.h"

#define ALWAYS_INLINE static inline __attribute__((always_inline))

#define LEAST 0x1p-120f /* a step of x whose numbers are all below this is 0, since 127 / x would be infinite */

enum {
  LANES = 16, /* rows of W in a tile */
  CHUNK = 64, /* elements; rows of x, and rows of W while they are packed, are padded to a multiple */
  LINE = 64,  /* bytes of a cache line; weights start at a multiple */
  TILES = 4,  /* multiplied with all rows of x while they are in the cache */
};

/* The functions of one instruction set. All return the same bits. */
typedef struct Instructions Instructions;

/* W in consecutive tiles of 16 rows; the last one is filled up with copies of the last row. Memory is fastest when it is read
 * in order, so a tile is its consecutive blocks, and a block is
 *
 *     zero points  [4 blocks][16 lanes] bytes, if there are any, before each fourth block
 *     scales       [2 blocks][16 lanes] float16, before each second block; if `wide`, [16 lanes] float32 before each block
 *     weights      [block_size / 4][16 lanes] words of four elements of 8 bits, less an offset that `pack` chooses;
 *                  of 4 bits [block_size / 8][16 lanes], the first four elements in the low halves of the bytes;
 *                  of 5 bits, for every 32 elements, [16 lanes] words of their lowest bits, which are as they are stored, and
 *                  [4][16 lanes] words of the others, as those of 4 bits
 */
struct PackedWeights {
  const Instructions *with;
  MatMulShape shape;
  int64_t padded;                 /* elements of a row, a multiple of CHUNK */
  size_t block_bytes, tile_bytes; /* of the weights of a block; of a tile */
  int asymmetric;
  int wide; /* scales are float32, since float16 does not hold all of them */
  uint8_t *tiles;
  WeightFile *file; /* that the tiles are in; NULL where they are memory of this process alone */
};

/* The header of each `step` elements of a row of x. */
typedef struct {
  float scale;   /* of the elements; NaN if one is not finite, so that the results are NaN */
  int32_t sum;   /* of the elements */
  int32_t start; /* -128 * sum: the start of sums with bytes whose zero point is 128 */
  union {
    int32_t start_4;  /* -8 * sum, for elements of 4 bits; only with AVX512 */
    int16_t pairs[2]; /* the sums of the elements 0 and 1, and 2 and 3, of each four; only with 256 bits */
  };
} StepHeader;

/* x quantized: each `step` elements of a row are a StepHeader and int8 in [-127, 127]; or panels (repacked.h). */
typedef struct {
  int64_t padded; /* elements of a row, a multiple of CHUNK */
  int step;       /* 16 or 32, or REPACK_STEP for panels */
  uint8_t *rows;  /* [M, padded / step, sizeof(StepHeader) + step] */
} Quantized;

ALWAYS_INLINE int64_t row_bytes(int64_t padded, int step) {
  return padded / step * ((int64_t)sizeof(StepHeader) + step);
}

/* Rows of x to be multiplied with columns of W. `y` points to the first row and column. */
typedef struct {
  const PackedWeights *w;
  const Quantized *x;
  const float *bias;
  const uint8_t *repacked; /* the output of `repack`, for `multiply_repacked` */
  float *y;
  int64_t stride, first_column, first_row, last_row;
} Job;

/* Multiply with tiles from .. to. */
typedef void (*MultiplyTiles)(const Job *job, int64_t from, int64_t to);

struct Instructions {
  const char *name;
  int (*supported)(void);
  /* Pack the weights of 16 rows, each of `bytes` bytes, into a tile. */
  void (*pack)(const PackedWeights *packed, const uint8_t *const rows[LANES], int64_t bytes, uint8_t *tile);
  /* Quantize `count` elements of one row of x, at `column` of the row, and zeros after them up to `end`. */
  void (*quantize)(const Quantized *to, int64_t row, int64_t column, const float *x, int64_t count, int64_t end);
  /* RMS norm of a row: sum = x + skip, to = sum / rms(sum) * weight; `skip` and `sum` may be NULL. */
  void (*normalize)(const float *x, const float *skip, const float *weight, float epsilon, int64_t k, float *sum,
                    float *to);
  void (*gate)(const float *gates, float *y, int64_t count); /* y *= silu(gates) */
  MultiplyTiles multiply[3][2][2]; /* of 4, 8, 5 bits; in steps of 16, 32 elements; without, with zero points */
  /* GEMM with weights in another form: of 4 bits and unpacked (unpacked.h), or repacked to int8 (repacked.h); or NULL. */
  size_t (*repacked_tile_bytes)(const PackedWeights *packed);
  void (*repack)(const PackedWeights *packed, int64_t from, int64_t to, uint8_t *memory);
  MultiplyTiles multiply_repacked; /* tiles from .. to, which are the tiles that were repacked */
  /* Quantize x for repacked weights; NULL if the other form takes x as `quantize` stores it, and gives the same bits. */
  void (*quantize_panels)(const Quantized *to, int64_t row, int64_t column, const float *x, int64_t count, int64_t end);
};

extern const Instructions amx_int8, avx512_vnni, avx_vnni, avx2; /* of x86-64 */
extern const Instructions neon_i8mm, neon_dotprod, neon;         /* of 64-bit ARM */

ALWAYS_INLINE int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
ALWAYS_INLINE int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }
ALWAYS_INLINE int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

/* Return the place of a number of bits in `multiply` of Instructions. */
ALWAYS_INLINE int place_of(int bits) { return bits == 4 ? 0 : bits == 8 ? 1 : 2; }

/* Return the offset of a block's weights in its tile. */
ALWAYS_INLINE size_t block_at(const PackedWeights *packed, int64_t block) {
  const int64_t scales = (packed->wide ? block : block / 2) + 1, zero_points = packed->asymmetric ? block / 4 + 1 : 0;
  return block * packed->block_bytes + (scales + zero_points) * LINE;
}

/* Return the offset of its scales: float32 before it, or float16 before the first block of its two. */
ALWAYS_INLINE size_t scales_at(const PackedWeights *packed, int64_t block) {
  if (packed->wide) return block_at(packed, block) - LINE;
  return block_at(packed, block / 2 * 2) - LINE + block % 2 * LANES * sizeof(uint16_t);
}

/* Return the offset of its zero points, before the scales of the first block of its four. */
ALWAYS_INLINE size_t zero_points_at(const PackedWeights *packed, int64_t block) {
  return block_at(packed, block / 4 * 4) - 2 * LINE + block % 4 * LANES;
}

/* Return the offset of the low bits of an element's 32, of 5 bits. */
ALWAYS_INLINE size_t low_bits_at(const PackedWeights *packed, int64_t element) {
  const int64_t size = packed->shape.block_size;
  return block_at(packed, element / size) + element % size / LOW_STEP * LOW_STEP * LANES * FIVE_BITS / 8;
}

/* Return the offset of an element's word in its tile, for the first element of a word. */
ALWAYS_INLINE size_t word_at(const PackedWeights *packed, int64_t element) {
  const int64_t size = packed->shape.block_size;
  if (packed->shape.bits == FIVE_BITS) return low_bits_at(packed, element) + LINE + element % LOW_STEP * LANES / 2;
  return block_at(packed, element / size) + element % size * LANES * packed->shape.bits / 8;
}

#endif
