/* Lanes of 32 bits in registers of 256. A file defines INLINE before it includes this. */
#ifndef INTAGLIO_LANES256_H
#define INTAGLIO_LANES256_H

#include <immintrin.h>
#include <stdint.h>

/* Return the mask of the first `count` lanes. */
INLINE __m256i first_lanes(int64_t count) {
  const int few = count > 8 ? 8 : count < 0 ? 0 : (int)count;
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(few), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

/* Transpose 8 rows of 8 words. */
INLINE void transpose_words(__m256i r[8]) {
  __m256i t[8];
  for (int i = 0; i < 4; i++) {
    t[2 * i] = _mm256_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
    t[2 * i + 1] = _mm256_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
  }
  for (int i = 0; i < 2; i++) {
    r[4 * i] = _mm256_unpacklo_epi64(t[4 * i], t[4 * i + 2]);
    r[4 * i + 1] = _mm256_unpackhi_epi64(t[4 * i], t[4 * i + 2]);
    r[4 * i + 2] = _mm256_unpacklo_epi64(t[4 * i + 1], t[4 * i + 3]);
    r[4 * i + 3] = _mm256_unpackhi_epi64(t[4 * i + 1], t[4 * i + 3]);
  }
  for (int i = 0; i < 4; i++) t[i] = r[i];
  for (int i = 0; i < 4; i++) {
    r[i] = _mm256_permute2x128_si256(t[i], r[4 + i], 0x20);
    r[4 + i] = _mm256_permute2x128_si256(t[i], r[4 + i], 0x31);
  }
}

#endif
