/* Vector functions of attention in decode and in prefill. */
#ifndef INTAGLIO_ATTENTION_VECTORS_H
#define INTAGLIO_ATTENTION_VECTORS_H

#include <immintrin.h>
#include <math.h>

#define TARGET __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,fma")))
#define INLINE TARGET static inline __attribute__((always_inline))

#include "attention/cache.h"
#include "attention/query_tile.h"
#include "common/exponential.h"
#include "common/transpose.h"

static inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

/* Return 2^x for x <= 0, and 0 for -inf: x = n + r; at -inf r is NaN, and scalef returns 2^n = 0. */
INLINE __m512 power_of_two(__m512 x) {
  const __m512 n = _mm512_roundscale_ps(x, 0), r = _mm512_sub_ps(x, n);
  __m512 sum = _mm512_set1_ps(exponential_terms[0]);
  _Pragma("GCC unroll 8") for (int i = 1; i < EXPONENTIAL_TERMS; i++) sum =
      _mm512_fmadd_ps(sum, r, _mm512_set1_ps(exponential_terms[i]));
  return _mm512_scalef_ps(sum, n);
}

/* Return the running maximum, or 0 where no key was seen yet and it is -inf. */
INLINE __m512 finite_or_zero(__m512 maximum) {
  const __mmask16 none = _mm512_cmp_ps_mask(maximum, _mm512_set1_ps(-INFINITY), _CMP_EQ_OQ);
  return _mm512_mask_mov_ps(maximum, none, _mm512_setzero_ps());
}

/* Return `count` rows of a KV cache from row `first` on as float32, [count, E]: in place, or converted in `memory`. */
INLINE const float *load_floats(const char *cache, const QueryTile *queries, int64_t first, int64_t count,
                                float *memory) {
  const char *row = cache + first * cache_row_bytes(queries->size, queries->int8);
  if (!queries->int8) return (const float *)row;
  for (int64_t i = 0; i < count; i++, row += cache_row_bytes(queries->size, 1)) {
    float scale;
    memcpy(&scale, row + queries->size, SCALE_BYTES);
    for (int64_t e = 0; e < queries->size; e += 16) {
      const __m512i whole = _mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(row + e)));
      _mm512_store_ps(memory + i * queries->size + e, _mm512_mul_ps(_mm512_cvtepi32_ps(whole), _mm512_set1_ps(scale)));
    }
  }
  return memory;
}

/* Load 16 rows of 16 floats, of which `count` exist and the others are 0, transposed. */
INLINE void load_transposed(__m512i r[16], const float *const *rows, int64_t at, int count) {
  for (int i = 0; i < 16; i++) r[i] = i < count ? _mm512_loadu_si512(rows[i] + at) : _mm512_setzero_si512();
  transpose_words(r);
}

#endif
