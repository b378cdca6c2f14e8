/* Vectors of floats in registers of 512 bits. A file defines TARGET and INLINE before it includes this.
 *
 * simd512.h and simd256.h define the same names, so that one source is compiled for each instruction set. Operations round as
 * IEEE 754 says, and all instruction sets return the same bits; a NaN may be another NaN.
 */
#ifndef INTAGLIO_SIMD_H
#define INTAGLIO_SIMD_H

#include <immintrin.h>
#include <stdint.h>

#include "common/exponential.h"
#include "common/lanes512.h"

enum { WIDTH = 16 /* floats of a vector */ };

typedef __m512 Vector;
typedef __mmask16 Mask; /* one truth value for each float */

/* Loops over registers must be unrolled, or their values are in memory. */
#define UNROLL _Pragma("GCC unroll 16")

/* Memory needs no alignment. */
INLINE Vector vector_load(const float *from) { return _mm512_loadu_ps(from); }
INLINE void vector_store(float *to, Vector v) { _mm512_storeu_ps(to, v); }
INLINE Vector vector_of(float x) { return _mm512_set1_ps(x); }
INLINE Vector vector_zero(void) { return _mm512_setzero_ps(); }
INLINE float vector_first(Vector v) { return _mm512_cvtss_f32(v); }

/* Return WIDTH bytes as floats. */
INLINE Vector vector_from_int8(const int8_t *from) {
  return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)from)));
}

INLINE Vector vector_add(Vector a, Vector b) { return _mm512_add_ps(a, b); }
INLINE Vector vector_subtract(Vector a, Vector b) { return _mm512_sub_ps(a, b); }
INLINE Vector vector_multiply(Vector a, Vector b) { return _mm512_mul_ps(a, b); }
INLINE Vector vector_divide(Vector a, Vector b) { return _mm512_div_ps(a, b); }
INLINE Vector vector_fma(Vector a, Vector b, Vector c) { return _mm512_fmadd_ps(a, b, c); } /* a * b + c */
INLINE Vector vector_fms(Vector a, Vector b, Vector c) { return _mm512_fmsub_ps(a, b, c); } /* a * b - c */
INLINE Vector vector_max(Vector a, Vector b) { return _mm512_max_ps(a, b); }                /* a > b ? a : b */

INLINE Mask vector_at_most(Vector a, Vector b) { return _mm512_cmp_ps_mask(a, b, _CMP_LE_OQ); } /* a <= b */
INLINE Mask mask_and(Mask a, Mask b) { return a & b; }
INLINE Vector vector_select(Mask mask, Vector yes, Vector no) { return _mm512_mask_blend_ps(mask, no, yes); }

/* Return 2^x for x <= 0, and 0 for -inf: x = n + r; at -inf r is NaN, and scalef returns 2^n = 0. */
INLINE Vector vector_power_of_two(Vector x) {
  const Vector n = _mm512_roundscale_ps(x, 0), r = _mm512_sub_ps(x, n);
  Vector sum = vector_of(exponential_terms[0]);
  UNROLL for (int i = 1; i < EXPONENTIAL_TERMS; i++) sum = vector_fma(sum, r, vector_of(exponential_terms[i]));
  return _mm512_scalef_ps(sum, n);
}

/* Return the sum, and the maximum, of the 16 floats of 16 / WIDTH vectors: lane i and lane i + 8 first, then by quarters. */
INLINE float sum_of_16(const Vector *v) { return _mm512_reduce_add_ps(*v); }
INLINE float max_of_16(const Vector *v) { return _mm512_reduce_max_ps(*v); }

/* Transpose WIDTH rows of WIDTH floats. */
INLINE void vector_transpose(Vector r[WIDTH]) {
  __m512i words[WIDTH];
  UNROLL for (int i = 0; i < WIDTH; i++) words[i] = _mm512_castps_si512(r[i]);
  transpose_words(words);
  UNROLL for (int i = 0; i < WIDTH; i++) r[i] = _mm512_castsi512_ps(words[i]);
}

#endif
