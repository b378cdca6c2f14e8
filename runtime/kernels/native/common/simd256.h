/* Vectors of floats in registers of 256 bits, with FMA. A file defines TARGET and INLINE before it includes this. The names are
 * those of simd512.h, which documents them.
 */
#ifndef INTAGLIO_SIMD_H
#define INTAGLIO_SIMD_H

#include <immintrin.h>
#include <stdint.h>

#include "common/exponential.h"
#include "common/lanes256.h"

enum { WIDTH = 8 /* floats of a vector */ };

typedef __m256 Vector;
typedef __m256 Mask;

#define UNROLL _Pragma("GCC unroll 16")

INLINE Vector vector_load(const float *from) { return _mm256_loadu_ps(from); }
INLINE void vector_store(float *to, Vector v) { _mm256_storeu_ps(to, v); }
INLINE Vector vector_of(float x) { return _mm256_set1_ps(x); }
INLINE Vector vector_zero(void) { return _mm256_setzero_ps(); }
INLINE float vector_first(Vector v) { return _mm256_cvtss_f32(v); }

INLINE Vector vector_from_int8(const int8_t *from) {
  return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)from)));
}

INLINE Vector vector_add(Vector a, Vector b) { return _mm256_add_ps(a, b); }
INLINE Vector vector_subtract(Vector a, Vector b) { return _mm256_sub_ps(a, b); }
INLINE Vector vector_multiply(Vector a, Vector b) { return _mm256_mul_ps(a, b); }
INLINE Vector vector_divide(Vector a, Vector b) { return _mm256_div_ps(a, b); }
INLINE Vector vector_fma(Vector a, Vector b, Vector c) { return _mm256_fmadd_ps(a, b, c); }
INLINE Vector vector_fms(Vector a, Vector b, Vector c) { return _mm256_fmsub_ps(a, b, c); }
INLINE Vector vector_max(Vector a, Vector b) { return _mm256_max_ps(a, b); }

INLINE Mask vector_at_most(Vector a, Vector b) { return _mm256_cmp_ps(a, b, _CMP_LE_OQ); }
INLINE Mask mask_and(Mask a, Mask b) { return _mm256_and_ps(a, b); }
INLINE Vector vector_select(Mask mask, Vector yes, Vector no) { return _mm256_blendv_ps(no, yes, mask); }

/* x = n + r. 2^n is two factors, since its exponent may be too small for one: the product with the first is exact where the
 * result is not 0. Below LEAST_EXPONENT it is 0; a NaN passes the maximum, which returns its second operand then. */
#define LEAST_EXPONENT -252.0f
INLINE Vector vector_power_of_two(Vector x) {
  x = _mm256_max_ps(vector_of(LEAST_EXPONENT), x);
  const Vector n = _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC), r = _mm256_sub_ps(x, n);
  Vector sum = vector_of(exponential_terms[0]);
  UNROLL for (int i = 1; i < EXPONENTIAL_TERMS; i++) sum = vector_fma(sum, r, vector_of(exponential_terms[i]));
  const __m256i whole = _mm256_cvtps_epi32(n), half = _mm256_srai_epi32(whole, 1);
  const __m256i one = _mm256_castps_si256(vector_of(1.0f));
  const __m256i first = _mm256_add_epi32(one, _mm256_slli_epi32(half, 23));
  const __m256i second = _mm256_add_epi32(one, _mm256_slli_epi32(_mm256_sub_epi32(whole, half), 23));
  return _mm256_mul_ps(_mm256_mul_ps(sum, _mm256_castsi256_ps(first)), _mm256_castsi256_ps(second));
}

INLINE float sum_of_16(const Vector *v) {
  const __m256 eight = _mm256_add_ps(v[0], v[1]);
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

INLINE float max_of_16(const Vector *v) {
  const __m256 eight = _mm256_max_ps(v[0], v[1]);
  const __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}

INLINE void vector_transpose(Vector r[WIDTH]) {
  __m256i words[WIDTH];
  UNROLL for (int i = 0; i < WIDTH; i++) words[i] = _mm256_castps_si256(r[i]);
  transpose_words(words);
  UNROLL for (int i = 0; i < WIDTH; i++) r[i] = _mm256_castsi256_ps(words[i]);
}

#endif
