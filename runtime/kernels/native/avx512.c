/* The products with AVX512-VNNI.
 *
 * VPDPBUSD adds, in each of 16 lanes, four products of an unsigned byte (a weight) and a signed byte (of x) to a 32-bit
 * sum. A lane stands for a row of W, so that a product needs no sum over lanes, and one load of scales serves a whole
 * block. With q = x / scale_x rounded, a block's part of a dot product is
 *
 *     scale_w * scale_x * (sum(w * q) - zero_point * sum(q)),
 *
 * so each sum starts at -zero_point * sum(q).
 */
#include "matmul.h"

#include "threads.h"

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))

#include <immintrin.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define TARGET __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,fma")))
#define INLINE TARGET static inline __attribute__((always_inline))

enum {
  LANES = 16,   /* rows of W in a tile */
  X_BLOCK = 32, /* elements of x that share a scale */
  ROWS = 12,    /* rows of x, at most, that share a loaded piece of W: their sums fill the registers */
  TILES = 4,    /* tiles of W that share the rows of x in the cache */
  SCALES_BYTES = LANES * sizeof(float),
  CHUNK = 64,   /* elements of a row that are packed together */
  HUGE_PAGE = 1 << 21,
};

/* Tiles of 16 rows of W one after the other, the last one filled up with copies of the last row. Memory is fastest when
 * it is read strictly in order, so a tile is its blocks one after the other, and a block is
 *
 *     zero points  [4 blocks][16 lanes] bytes, if there are any: before each fourth block
 *     scales       [16 lanes] float
 *     weights      [block_size / 4][16 lanes] words of four elements of 8 bits;
 *                  of 4 bits [block_size / 8][16 lanes], the first four elements in the low halves of the bytes
 */
struct PackedWeights {
  MatMulShape shape;
  int64_t padded; /* elements of a row, a multiple of CHUNK */
  size_t block_bytes, tile_bytes;
  int asymmetric;
  uint8_t *tiles;
};

int matmul_supported(void) {
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("fma");
}

static int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

static size_t aligned(size_t bytes) { return (bytes + 63) / 64 * 64; }

static int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

/* ---- packing ------------------------------------------------------------------------------------------------------ */

/* 16 rows of 16 words to 16 columns. */
INLINE void transpose_words(__m512i r[16]) {
  __m512i t[16];
  for (int i = 0; i < 8; i++) {
    t[2 * i] = _mm512_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
    t[2 * i + 1] = _mm512_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
  }
  for (int i = 0; i < 4; i++) {
    r[4 * i] = _mm512_unpacklo_epi64(t[4 * i], t[4 * i + 2]);
    r[4 * i + 1] = _mm512_unpackhi_epi64(t[4 * i], t[4 * i + 2]);
    r[4 * i + 2] = _mm512_unpacklo_epi64(t[4 * i + 1], t[4 * i + 3]);
    r[4 * i + 3] = _mm512_unpackhi_epi64(t[4 * i + 1], t[4 * i + 3]);
  }
  for (int i = 0; i < 4; i++) {
    t[i] = _mm512_shuffle_i32x4(r[i], r[4 + i], 0x88);
    t[4 + i] = _mm512_shuffle_i32x4(r[i], r[4 + i], 0xDD);
    t[8 + i] = _mm512_shuffle_i32x4(r[8 + i], r[12 + i], 0x88);
    t[12 + i] = _mm512_shuffle_i32x4(r[8 + i], r[12 + i], 0xDD);
  }
  for (int i = 0; i < 4; i++) {
    r[i] = _mm512_shuffle_i32x4(t[i], t[8 + i], 0x88);
    r[8 + i] = _mm512_shuffle_i32x4(t[i], t[8 + i], 0xDD);
    r[4 + i] = _mm512_shuffle_i32x4(t[4 + i], t[12 + i], 0x88);
    r[12 + i] = _mm512_shuffle_i32x4(t[4 + i], t[12 + i], 0xDD);
  }
}

/* 64 elements of a stored row of `bytes` bytes, from byte `at`, as bytes in their order. */
INLINE __m512i load_elements(const uint8_t *row, int64_t bytes, int64_t at, int bits) {
  const int64_t count = smaller(bytes - at, CHUNK * bits / 8);
  if (count <= 0) return _mm512_setzero_si512();
  const __mmask64 mask = count == 64 ? ~0ull : (1ull << count) - 1;
  if (bits == 8) return _mm512_maskz_loadu_epi8(mask, row + at);
  /* Each byte becomes 16 bits, and its high half moves up by one half: two elements in their order. */
  const __m512i wide = _mm512_cvtepu8_epi16(_mm256_maskz_loadu_epi8((__mmask32)mask, row + at));
  return _mm512_and_si512(_mm512_or_si512(wide, _mm512_slli_epi16(wide, 4)), _mm512_set1_epi16(0x0F0F));
}

static uint8_t zero_point(const uint8_t *row, int64_t block, int bits) {
  if (bits == 8) return row[block];
  return block % 2 ? row[block / 2] >> 4 : row[block / 2] & 15;
}

/* Where a block's scales are in its tile; its weights follow them. */
INLINE size_t block_at(const PackedWeights *packed, int64_t block) {
  return block * packed->block_bytes + (packed->asymmetric ? (block / 4 + 1) * 64 : 0);
}

/* Where the zero points of a block are in its tile: before the first of its four. */
INLINE size_t zero_points_at(const PackedWeights *packed, int64_t block) {
  return block_at(packed, block / 4 * 4) - 64 + block % 4 * LANES;
}

TARGET static void pack_tile(const PackedWeights *packed, const StoredWeights *stored, int64_t tile) {
  const MatMulShape *shape = &packed->shape;
  const int bits = shape->bits;
  const int64_t bytes = shape->blocks * shape->block_size * bits / 8, stride = ceil_div(shape->blocks * bits, 8);
  uint8_t *to = packed->tiles + tile * packed->tile_bytes;
  int64_t rows[LANES];
  for (int lane = 0; lane < LANES; lane++) rows[lane] = smaller(tile * LANES + lane, shape->n - 1);
  for (int64_t block = 0; block < shape->blocks; block++) {
    for (int lane = 0; lane < LANES; lane++) {
      ((float *)(to + block_at(packed, block)))[lane] = stored->scales[rows[lane] * shape->blocks + block];
      if (packed->asymmetric)
        to[zero_points_at(packed, block) + lane] = zero_point(stored->zero_points + rows[lane] * stride, block, bits);
    }
  }
  for (int64_t k = 0; k < shape->blocks * shape->block_size; k += CHUNK) {
    __m512i r[LANES];
    for (int lane = 0; lane < LANES; lane++)
      r[lane] = load_elements(stored->weights + rows[lane] * bytes, bytes, k * bits / 8, bits);
    transpose_words(r);
    for (int i = 0; i < 16; i++) {
      const int64_t element = k + 4 * i, block = element / shape->block_size;
      if (block >= shape->blocks || (bits == 4 && i % 2)) continue;
      const __m512i words = bits == 8 ? r[i] : _mm512_or_si512(r[i], _mm512_slli_epi16(r[i + 1], 4));
      uint8_t *weights = to + block_at(packed, block) + SCALES_BYTES;
      _mm512_store_si512(weights + element % shape->block_size * LANES * bits / 8, words);
    }
  }
}

/* Whole huge pages where that pays: one entry of the processor's page table then covers 2 MB. */
static uint8_t *allocate(size_t bytes) {
  uint8_t *memory = aligned_alloc(bytes >= HUGE_PAGE ? HUGE_PAGE : 64, bytes);
  if (memory != NULL && bytes >= HUGE_PAGE) madvise(memory, bytes, MADV_HUGEPAGE);
  return memory;
}

PackedWeights *matmul_pack(const MatMulShape *shape, const StoredWeights *stored) {
  PackedWeights *packed = malloc(sizeof *packed);
  if (packed == NULL) return NULL;
  packed->shape = *shape;
  packed->asymmetric = stored->zero_points != NULL;
  packed->padded = ceil_div(shape->k, CHUNK) * CHUNK;
  packed->block_bytes = SCALES_BYTES + shape->block_size * LANES * shape->bits / 8;
  packed->tile_bytes = shape->blocks * packed->block_bytes + (packed->asymmetric ? ceil_div(shape->blocks, 4) * 64 : 0);
  packed->tiles = allocate(ceil_div(shape->n, LANES) * packed->tile_bytes);
  if (packed->tiles == NULL) {
    free(packed);
    return NULL;
  }
  for (int64_t tile = 0; tile < ceil_div(shape->n, LANES); tile++) pack_tile(packed, stored, tile);
  return packed;
}

void matmul_free(PackedWeights *packed) {
  if (packed != NULL) free(packed->tiles);
  free(packed);
}

/* ---- x ------------------------------------------------------------------------------------------------------------ */

typedef struct {
  int64_t padded;
  int8_t *q;     /* [M, padded] */
  float *scales; /* [M, padded / 32] */
  int32_t *sums; /* [M, padded / step]: where the sums of a block start, but for the zero points if there are any */
} Quantized;

INLINE __mmask16 first_lanes(int64_t count) {
  return count >= 16 ? 0xFFFF : count <= 0 ? 0 : (__mmask16)((1u << count) - 1);
}

/* One row of x: each 32 elements as int8 in [-127, 127] and a scale, which is NaN where an element is no finite number,
 * so that the row's products are. */
INLINE void quantize_row(const Quantized *to, int64_t row, const float *x, int64_t k, int step, int factor) {
  for (int64_t at = 0; at < to->padded; at += X_BLOCK) {
    const __m512 a = _mm512_maskz_loadu_ps(first_lanes(k - at), x + at);
    const __m512 b = _mm512_maskz_loadu_ps(first_lanes(k - at - 16), x + at + 16);
    const __m512 size_a = _mm512_abs_ps(a), size_b = _mm512_abs_ps(b), infinity = _mm512_set1_ps(INFINITY);
    const int finite = _mm512_cmp_ps_mask(size_a, infinity, _CMP_LT_OQ) == 0xFFFF &&
                       _mm512_cmp_ps_mask(size_b, infinity, _CMP_LT_OQ) == 0xFFFF;
    const float largest = finite ? _mm512_reduce_max_ps(_mm512_max_ps(size_a, size_b)) : NAN;
    const __m512 inverse = _mm512_set1_ps(largest > 0 ? 127.0f / largest : 0.0f);
    const __m512i qa = _mm512_cvtps_epi32(_mm512_mul_ps(a, inverse));
    const __m512i qb = _mm512_cvtps_epi32(_mm512_mul_ps(b, inverse));
    int8_t *q = to->q + row * to->padded + at;
    _mm_storeu_si128((__m128i *)q, _mm512_cvtsepi32_epi8(qa));
    _mm_storeu_si128((__m128i *)(q + 16), _mm512_cvtsepi32_epi8(qb));
    to->scales[(row * to->padded + at) / X_BLOCK] = largest / 127.0f;
    int32_t *sums = to->sums + (row * to->padded + at) / step;
    if (step == 16) {
      sums[0] = factor * _mm512_reduce_add_epi32(qa);
      sums[1] = factor * _mm512_reduce_add_epi32(qb);
    } else {
      sums[0] = factor * _mm512_reduce_add_epi32(_mm512_add_epi32(qa, qb));
    }
  }
}

/* ---- products ----------------------------------------------------------------------------------------------------- */

typedef struct {
  const PackedWeights *w;
  const Quantized *x;
  const float *bias;
  float *y;
  int64_t m, tasks;
} Job;

/* y[row .. row + rows, 16 columns of a tile]. */
INLINE void multiply(const Job *job, int64_t tile, int64_t row, const int rows, const int bits, const int step,
                     const int asymmetric) {
  const PackedWeights *w = job->w;
  const int64_t padded = w->padded, n = tile * LANES;
  const uint8_t *base = w->tiles + tile * w->tile_bytes;
  const int8_t *q = job->x->q + row * padded;
  const float *x_scales = job->x->scales + row * (padded / X_BLOCK);
  const int32_t *sums = job->x->sums + row * (padded / step);
  const __m512i half = _mm512_set1_epi8(15);
  const int64_t block_size = w->shape.block_size;
  __m512 total[ROWS];
  for (int r = 0; r < rows; r++) total[r] = _mm512_setzero_ps();
  for (int64_t block = 0; block < w->shape.blocks; block++) {
    const uint8_t *at = base + block_at(w, block);
    const __m512 scale = _mm512_load_ps(at);
    __m512i zero = _mm512_setzero_si512();
    if (asymmetric) zero = _mm512_cvtepu8_epi32(_mm_load_si128((const __m128i *)(base + zero_points_at(w, block))));
    at += SCALES_BYTES;
    const int64_t end = smaller((block + 1) * block_size, w->shape.k);
    for (int64_t k = block * block_size; k < end; k += step, at += step * LANES * bits / 8) {
      __m512i v[8]; /* step / 4 words of each lane */
      if (bits == 4) {
        for (int i = 0; i < step / 8; i++) {
          const __m512i both = _mm512_load_si512(at + i * 64);
          v[2 * i] = _mm512_and_si512(both, half);
          v[2 * i + 1] = _mm512_and_si512(_mm512_srli_epi16(both, 4), half);
        }
      } else {
        for (int i = 0; i < step / 4; i++) v[i] = _mm512_load_si512(at + i * 64);
      }
      for (int r = 0; r < rows; r++) {
        const int8_t *four = q + r * padded + k;
        __m512i sum = _mm512_set1_epi32(sums[r * (padded / step) + k / step]);
        if (asymmetric) sum = _mm512_mullo_epi32(sum, zero);
        for (int i = 0; i < step / 4; i++) {
          int32_t word;
          memcpy(&word, four + 4 * i, 4);
          sum = _mm512_dpbusd_epi32(sum, v[i], _mm512_set1_epi32(word));
        }
        const __m512 both = _mm512_mul_ps(scale, _mm512_set1_ps(x_scales[r * (padded / X_BLOCK) + k / X_BLOCK]));
        total[r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), both, total[r]);
      }
    }
  }
  const __mmask16 mask = first_lanes(w->shape.n - n);
  const __m512 bias = job->bias ? _mm512_maskz_loadu_ps(mask, job->bias + n) : _mm512_setzero_ps();
  for (int r = 0; r < rows; r++)
    _mm512_mask_storeu_ps(job->y + (row + r) * w->shape.n + n, mask, _mm512_add_ps(total[r], bias));
}

/* All rows of x against tiles from .. to: few tiles at a time, so that what is read again is in the cache. */
INLINE void multiply_range(const Job *job, int64_t from, int64_t to, const int bits, const int step, const int zero) {
  for (int64_t first = from; first < to; first += TILES) {
    const int64_t last = smaller(first + TILES, to);
    int64_t rows;
    for (int64_t row = 0; row < job->m; row += rows) {
      const int64_t left = job->m - row;
      rows = left >= 12 ? 12 : left >= 8 ? 8 : left >= 4 ? 4 : left;
      for (int64_t tile = first; tile < last; tile++) {
        switch (rows) {
          case 1: multiply(job, tile, row, 1, bits, step, zero); break;
          case 2: multiply(job, tile, row, 2, bits, step, zero); break;
          case 3: multiply(job, tile, row, 3, bits, step, zero); break;
          case 4: multiply(job, tile, row, 4, bits, step, zero); break;
          case 8: multiply(job, tile, row, 8, bits, step, zero); break;
          case 12: multiply(job, tile, row, 12, bits, step, zero); break;
        }
      }
    }
  }
}

typedef void (*Range)(const Job *, int64_t, int64_t);

#define RANGE(B, S, Z) \
  TARGET static void range_##B##_##S##_##Z(const Job *job, int64_t from, int64_t to) { \
    multiply_range(job, from, to, B, S, Z); \
  }
RANGE(4, 16, 0) RANGE(4, 16, 1) RANGE(4, 32, 0) RANGE(4, 32, 1)
RANGE(8, 16, 0) RANGE(8, 16, 1) RANGE(8, 32, 0) RANGE(8, 32, 1)

static void multiply_part(void *data, size_t task) {
  static const Range ranges[2][2][2] = {
      {{range_4_16_0, range_4_16_1}, {range_4_32_0, range_4_32_1}},
      {{range_8_16_0, range_8_16_1}, {range_8_32_0, range_8_32_1}},
  };
  const Job *job = data;
  const PackedWeights *w = job->w;
  const int64_t tiles = ceil_div(w->shape.n, LANES);
  ranges[w->shape.bits == 8][w->shape.block_size > 16][w->asymmetric](job, tiles * (int64_t)task / job->tasks,
                                                                      tiles * ((int64_t)task + 1) / job->tasks);
}

typedef struct {
  const Quantized *to;
  const float *x;
  int64_t m, k, rows; /* rows: of a task */
  int step, factor;
} QuantizeJob;

TARGET static void quantize_part(void *data, size_t task) {
  const QuantizeJob *job = data;
  const int64_t from = (int64_t)task * job->rows, to = smaller(from + job->rows, job->m);
  for (int64_t row = from; row < to; row++)
    quantize_row(job->to, row, job->x + row * job->k, job->k, job->step, job->factor);
}

int matmul(const PackedWeights *w, const float *x, const float *bias, float *y, int64_t m, ParallelFor parallel,
           void *context) {
  const int step = w->shape.block_size == 16 ? 16 : 32;
  const size_t q_bytes = aligned(m * w->padded), scale_bytes = aligned(m * (w->padded / X_BLOCK) * sizeof(float));
  uint8_t *memory = aligned_alloc(64, q_bytes + scale_bytes + aligned(m * (w->padded / step) * sizeof(int32_t)));
  if (memory == NULL) return -1;
  Quantized quantized = {w->padded, (int8_t *)memory, (float *)(memory + q_bytes),
                         (int32_t *)(memory + q_bytes + scale_bytes)};
  QuantizeJob first = {&quantized, x, m, w->shape.k, ROWS, step, w->asymmetric ? -1 : w->shape.bits == 4 ? -8 : -128};
  if (m <= ROWS) quantize_part(&first, 0);
  else parallel(context, quantize_part, ceil_div(m, ROWS), &first);
  /* With few rows the weights are all that is read, each part of them in order: long parts, but more than there are
   * processors, since these are not equally free.
   * than there are processors, since these are not equally free. */
  const int64_t parts = usable_processors() * (m <= ROWS ? 4 : 16);
  Job job = {w, &quantized, bias, y, m, smaller(ceil_div(w->shape.n, LANES), parts)};
  parallel(context, multiply_part, job.tasks, &job);
  free(memory);
  return 0;
}

#else

int matmul_supported(void) { return 0; }

PackedWeights *matmul_pack(const MatMulShape *shape, const StoredWeights *stored) {
  return (void)shape, (void)stored, NULL;
}

void matmul_free(PackedWeights *packed) { (void)packed; }

int matmul(const PackedWeights *weights, const float *x, const float *bias, float *y, int64_t m, ParallelFor parallel,
           void *context) {
  return (void)weights, (void)x, (void)bias, (void)y, (void)m, (void)parallel, (void)context, -1;
}

#endif
