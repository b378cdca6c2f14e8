/* Attention of long sequences with AVX512-VNNI. */
#include "attention/long_tile.h"
#include "common/processor.h"

#if HAVE_X86

#define TARGET __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,fma")))
#define INLINE TARGET static inline __attribute__((always_inline))
#define LONG_KEYS 8 /* of 32 registers, 24 are sums */

#include "common/simd512.h"

typedef __m512i Ints;

INLINE Ints ints_zero(void) { return _mm512_setzero_si512(); }
INLINE Ints ints_load(const int32_t *at) { return _mm512_loadu_si512(at); }
INLINE void ints_store(int32_t *at, Ints a) { _mm512_storeu_si512(at, a); }
INLINE Ints ints_of(int32_t word) { return _mm512_set1_epi32(word); }
INLINE Ints add_products(Ints sum, Ints a, Ints b) { return _mm512_dpwssd_epi32(sum, a, b); }
INLINE Ints nearest(Vector v) { return _mm512_cvtps_epi32(v); }
INLINE Vector floats_of(Ints a) { return _mm512_cvtepi32_ps(a); }
INLINE Ints pairs_of(Ints low, Ints high) {
  return _mm512_mask_blend_epi16(0xAAAAAAAA, low, _mm512_slli_epi32(high, 16));
}
INLINE void store_int16(int16_t *to, Ints a) { _mm256_storeu_si256((__m256i *)to, _mm512_cvtepi32_epi16(a)); }
INLINE Ints words_of(Vector v) { return _mm512_castps_si512(v); }
INLINE Vector float_words(Ints a) { return _mm512_castsi512_ps(a); }

#include "attention/integers.h"

TARGET int attend_avx512_vnni(const LongTile *tile) { return attend_integers(tile); }

int avx512_vnni_supported(void) {
  const unsigned needed = HAS_AVX512 | HAS_AVX512_VNNI;
  return (instruction_sets() & needed) == needed;
}

#endif
