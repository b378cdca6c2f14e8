/* Numbers as one bfloat16, or as sums of two, x = high + low + rest with |rest| <= 2^-16 |x|: two vectors of floats at a time. The
 * words of a vector of bfloat16 are pairs: lane i of the first vector in the low half, lane i of the second in the high half.
 */
#ifndef INTAGLIO_BFLOAT16_H
#define INTAGLIO_BFLOAT16_H

#include "attention/vectors.h"

typedef struct {
  __m512i high, low;
} Split;

INLINE __m512i words_of(Vector v) { return _mm512_castps_si512(v); }

/* Return the high halves of two vectors' words: a's below b's. */
INLINE __m512i high_halves(__m512i a, __m512i b) {
  const __m512i mask = _mm512_set1_epi32((int)0xFFFF0000);
  return _mm512_ternarylogic_epi32(_mm512_srli_epi32(a, 16), b, mask, 0xF8); /* a >> 16 | (b & mask) */
}

/* Return the words plus half of what the low half counts, so that cutting it off rounds. */
INLINE __m512i plus_half(Vector v) { return _mm512_add_epi32(words_of(v), _mm512_set1_epi32(0x8000)); }

/* Return pairs of the nearest bfloat16. */
INLINE __m512i rounded_pair(Vector a, Vector b) { return high_halves(plus_half(a), plus_half(b)); }

/* Return x - high, where the high half of `words` is high. */
INLINE Vector without_high(Vector v, __m512i words) {
  return vector_subtract(v, _mm512_castsi512_ps(_mm512_and_si512(words, _mm512_set1_epi32((int)0xFFFF0000))));
}

INLINE Split split_pair(Vector a, Vector b) {
  const __m512i x = plus_half(a), y = plus_half(b);
  return (Split){high_halves(x, y), rounded_pair(without_high(a, x), without_high(b, y))};
}

/* Return the nearest bfloat16. */
INLINE Vector rounded(Vector v) {
  return _mm512_castsi512_ps(_mm512_and_si512(plus_half(v), _mm512_set1_epi32((int)0xFFFF0000)));
}

/* Return pairs of numbers that bfloat16 holds, such as int8. */
INLINE __m512i exact_pair(Vector a, Vector b) { return high_halves(words_of(a), words_of(b)); }

#endif
