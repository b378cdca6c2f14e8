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
#include "instructions.h"

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))

#include <immintrin.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define TARGET __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,fma")))
#define INLINE TARGET ALWAYS_INLINE
#define MOST_ROWS 12 /* of x that share a loaded piece of W: their sums fill the registers */
#define PAIR_ROWS 5  /* that share two tiles of it */
#define WIDE_ROWS 32 /* for which weights of 4 bits become those of 8 once, not for every five rows */

#include "exponential.h"
#include "rows.h"
#include "transpose.h"

static int supported(void) {
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("fma");
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

TARGET static void pack(const PackedWeights *packed, const uint8_t *const rows[LANES], int64_t bytes, uint8_t *tile) {
  const MatMulShape *shape = &packed->shape;
  const int bits = shape->bits;
  for (int64_t k = 0; k < shape->blocks * shape->block_size; k += CHUNK) {
    __m512i r[LANES];
    for (int lane = 0; lane < LANES; lane++) r[lane] = load_elements(rows[lane], bytes, k * bits / 8, bits);
    transpose_words(r);
    for (int i = 0; i < 16; i++) {
      const int64_t element = k + 4 * i;
      if (element >= shape->blocks * shape->block_size || (bits == 4 && i % 2)) continue;
      const __m512i words = bits == 8 ? r[i] : _mm512_or_si512(r[i], _mm512_slli_epi16(r[i + 1], 4));
      _mm512_store_si512(tile + word_at(packed, element), words);
    }
  }
}

INLINE __mmask16 first_lanes(int64_t count) {
  return count >= 16 ? 0xFFFF : count <= 0 ? 0 : (__mmask16)((1u << count) - 1);
}

INLINE void quantize_in_steps(const Quantized *to, int64_t row, int64_t column, const float *x, int64_t count,
                              int64_t end, const int step) {
  const __m512 infinity = _mm512_set1_ps(INFINITY);
  int8_t *q = to->q + row * to->padded + column;
  int64_t index = (row * to->padded + column) / step;
  for (int64_t at = 0; at < end; at += step, index++) {
    const __m512 a = _mm512_maskz_loadu_ps(first_lanes(count - at), x + at);
    const __m512 b = step == 16 ? _mm512_setzero_ps() : _mm512_maskz_loadu_ps(first_lanes(count - at - 16), x + at + 16);
    const __m512 size_a = _mm512_abs_ps(a), size_b = _mm512_abs_ps(b);
    const int finite = _mm512_cmp_ps_mask(size_a, infinity, _CMP_LT_OQ) == 0xFFFF &&
                       _mm512_cmp_ps_mask(size_b, infinity, _CMP_LT_OQ) == 0xFFFF;
    const float largest = finite ? _mm512_reduce_max_ps(_mm512_max_ps(size_a, size_b)) : NAN;
    const __m512 inverse = _mm512_set1_ps(largest > 0 ? 127.0f / largest : 0.0f);
    const __m512i qa = _mm512_cvtps_epi32(_mm512_mul_ps(a, inverse));
    const __m512i qb = _mm512_cvtps_epi32(_mm512_mul_ps(b, inverse));
    _mm_storeu_si128((__m128i *)(q + at), _mm512_cvtsepi32_epi8(qa));
    if (step > 16) _mm_storeu_si128((__m128i *)(q + at + 16), _mm512_cvtsepi32_epi8(qb));
    to->scales[index] = largest / 127.0f;
    store_sums(to, index, _mm512_reduce_add_epi32(_mm512_add_epi32(qa, qb)));
  }
}

TARGET static void quantize(const Quantized *to, int64_t row, int64_t column, const float *x, int64_t count,
                            int64_t end) {
  if (to->step == 16) quantize_in_steps(to, row, column, x, count, end, 16);
  else quantize_in_steps(to, row, column, x, count, end, 32);
}

/* Loops over registers must be unrolled, or those lie in memory; twelve rows of one tile are faster as a loop. */
#define UNROLL _Pragma("GCC unroll 16")
#define UNROLL_ROWS _Pragma("GCC unroll 5")

/* y[row .. row + rows, 16 columns of each of `tiles` tiles], at most two. */
INLINE void multiply_tiles(const Job *job, int64_t tile, const int tiles, int64_t row, const int rows, const int bits,
                           const int step, const int asymmetric) {
  const PackedWeights *w = job->w;
  const int64_t padded = w->padded;
  const uint8_t *base[2];
  UNROLL for (int t = 0; t < tiles; t++) base[t] = w->tiles + (tile + t - w->first) * w->tile_bytes;
  const int8_t *q = job->x->q + row * padded;
  const float *x_scales = job->x->scales + row * (padded / step);
  const int32_t *sums = job->sums + row * (padded / step);
  const __m512i half = _mm512_set1_epi8(15);
  const int64_t block_size = w->shape.block_size;
  __m512 total[2][MOST_ROWS];
  UNROLL for (int t = 0; t < tiles; t++)
    UNROLL_ROWS for (int r = 0; r < rows; r++) total[t][r] = _mm512_setzero_ps();
  for (int64_t block = 0; block < w->shape.blocks; block++) {
    size_t at = block_at(w, block);
    __m512 scale[2];
    __m512i zero[2];
    UNROLL for (int t = 0; t < tiles; t++) {
      scale[t] = _mm512_cvtph_ps(_mm256_load_si256((const __m256i *)(base[t] + scales_at(w, block))));
      if (asymmetric)
        zero[t] = _mm512_cvtepu8_epi32(_mm_load_si128((const __m128i *)(base[t] + zero_points_at(w, block))));
    }
    const int64_t end = smaller((block + 1) * block_size, w->shape.k);
    for (int64_t k = block * block_size; k < end; k += step, at += step * LANES * bits / 8) {
      __m512i v[2][8]; /* of each tile, step / 4 words of each lane */
      UNROLL for (int t = 0; t < tiles; t++) {
        UNROLL for (int i = 0; i < step / 4; i += 8 / bits) {
          const __m512i words = _mm512_load_si512(base[t] + at + i * LANES * bits / 2);
          v[t][i] = bits == 8 ? words : _mm512_and_si512(words, half);
          if (bits == 4) v[t][i + 1] = _mm512_and_si512(_mm512_srli_epi16(words, 4), half);
        }
      }
      UNROLL_ROWS for (int r = 0; r < rows; r++) {
        const int8_t *four = q + r * padded + k;
        const __m512i from = _mm512_set1_epi32(sums[r * (padded / step) + k / step]);
        const __m512 x_scale = _mm512_set1_ps(x_scales[r * (padded / step) + k / step]);
        __m512i sum[2];
        /* Both numbers fit 16 bits, the zero point with nothing above them. */
        UNROLL for (int t = 0; t < tiles; t++) sum[t] = asymmetric ? _mm512_madd_epi16(from, zero[t]) : from;
        UNROLL for (int i = 0; i < step / 4; i++) {
          int32_t word;
          memcpy(&word, four + 4 * i, 4);
          const __m512i x = _mm512_set1_epi32(word);
          UNROLL for (int t = 0; t < tiles; t++) sum[t] = _mm512_dpbusd_epi32(sum[t], v[t][i], x);
        }
        UNROLL for (int t = 0; t < tiles; t++)
          total[t][r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum[t]), _mm512_mul_ps(scale[t], x_scale), total[t][r]);
      }
    }
  }
  UNROLL for (int t = 0; t < tiles; t++) {
    const int64_t n = (tile + t) * LANES;
    const __mmask16 mask = first_lanes(w->shape.n - n);
    const __m512 bias = job->bias ? _mm512_maskz_loadu_ps(mask, job->bias + n) : _mm512_setzero_ps();
    UNROLL_ROWS for (int r = 0; r < rows; r++)
      _mm512_mask_storeu_ps(job->y + (row + r) * job->stride + n - job->first_column, mask,
                            _mm512_add_ps(total[t][r], bias));
  }
}

INLINE void multiply(const Job *job, int64_t tile, int64_t row, const int rows, const int bits, const int step,
                     const int zeros) {
  multiply_tiles(job, tile, 1, row, rows, bits, step, zeros);
}

INLINE void multiply_pair(const Job *job, int64_t tile, int64_t row, const int rows, const int bits, const int step,
                          const int zeros) {
  multiply_tiles(job, tile, 2, row, rows, bits, step, zeros);
}

/* Tiles from .. to of 4 bits as tiles of 8 without zero points: w - zero_point + 128, the same numbers. */
TARGET static void widen(const PackedWeights *w, int64_t from, int64_t to, const PackedWeights *wide) {
  const __m512i half = _mm512_set1_epi8(15), to_every_byte = _mm512_set1_epi32(0x01010101);
  for (int64_t tile = from; tile < to; tile++) {
    const uint8_t *source = w->tiles + (tile - w->first) * w->tile_bytes;
    uint8_t *target = wide->tiles + (tile - wide->first) * wide->tile_bytes;
    for (int64_t block = 0; block < w->shape.blocks; block++) {
      if (block % 2 == 0) memcpy(target + scales_at(wide, block), source + scales_at(w, block), LINE);
      __m512i zero = _mm512_set1_epi8(8);
      if (w->asymmetric) {
        const __m128i zeros = _mm_load_si128((const __m128i *)(source + zero_points_at(w, block)));
        zero = _mm512_mullo_epi32(_mm512_cvtepu8_epi32(zeros), to_every_byte);
      }
      const __m512i add = _mm512_sub_epi8(_mm512_set1_epi8(-128), zero);
      const uint8_t *words = source + block_at(w, block);
      uint8_t *at = target + block_at(wide, block);
      for (size_t i = 0; i < w->block_bytes; i += LINE) {
        const __m512i both = _mm512_load_si512(words + i), high = _mm512_srli_epi16(both, 4);
        _mm512_store_si512(at + 2 * i, _mm512_add_epi8(_mm512_and_si512(both, half), add));
        _mm512_store_si512(at + 2 * i + LINE, _mm512_add_epi8(_mm512_and_si512(high, half), add));
      }
    }
  }
}

/* g / (1 + e^-g). */
INLINE __m512 silu(__m512 g) {
  const __m512 most = _mm512_set1_ps(MOST_POWER), power = _mm512_mul_ps(g, _mm512_set1_ps(-LOG2_E));
  const __m512 x = _mm512_max_ps(_mm512_set1_ps(-MOST_POWER), _mm512_min_ps(most, power));
  const __m512 n = _mm512_roundscale_ps(x, 0), r = _mm512_sub_ps(x, n);
  __m512 e = _mm512_set1_ps(exponential_terms[0]);
  UNROLL for (int i = 1; i < EXPONENTIAL_TERMS; i++)
    e = _mm512_fmadd_ps(e, r, _mm512_set1_ps(exponential_terms[i]));
  const __m512i scaled = _mm512_add_epi32(_mm512_castps_si512(e), _mm512_slli_epi32(_mm512_cvtps_epi32(n), 23));
  return _mm512_div_ps(g, _mm512_add_ps(_mm512_set1_ps(1.0f), _mm512_castsi512_ps(scaled)));
}

TARGET static void gate(const float *gates, float *y, int64_t count) {
  for (int64_t at = 0; at < count; at += 16) {
    const __mmask16 mask = first_lanes(count - at);
    const __m512 factor = silu(_mm512_maskz_loadu_ps(mask, gates + at));
    _mm512_mask_storeu_ps(y + at, mask, _mm512_mul_ps(_mm512_maskz_loadu_ps(mask, y + at), factor));
  }
}

#include "ranges.h"

const Instructions avx512_vnni = {"AVX512-VNNI", WIDE_ROWS, supported, pack, quantize, normalize, gate, RANGES};

#endif
