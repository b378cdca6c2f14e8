/* Attention of long sequences with AVX-VNNI: VPDPWSSD as in avx512_vnni.c, on 256 bits. */
#include "attention/long_tile.h"
#include "common/processor.h"

#if HAVE_X86

#if (__GNUC__ >= 11 || __clang_major__ >= 12) && !defined(WITHOUT_AVX_VNNI)

#define TARGET __attribute__((target("avx2,fma,f16c,avxvnni")))
#define INLINE TARGET static inline __attribute__((always_inline))
#define LONG_KEYS 4 /* of 16 registers, 12 are sums */

#include "common/simd256.h"

typedef __m256i Ints;

INLINE Ints ints_zero(void) { return _mm256_setzero_si256(); }
INLINE Ints ints_load(const int32_t *at) { return _mm256_loadu_si256((const __m256i *)at); }
INLINE void ints_store(int32_t *at, Ints a) { _mm256_storeu_si256((__m256i *)at, a); }
INLINE Ints ints_of(int32_t word) { return _mm256_set1_epi32(word); }
INLINE Ints add_products(Ints sum, Ints a, Ints b) { return _mm256_dpwssd_avx_epi32(sum, a, b); }
INLINE Ints nearest(Vector v) { return _mm256_cvtps_epi32(v); }
INLINE Vector floats_of(Ints a) { return _mm256_cvtepi32_ps(a); }
INLINE Ints pairs_of(Ints low, Ints high) { return _mm256_blend_epi16(low, _mm256_slli_epi32(high, 16), 0xAA); }
INLINE void store_int16(int16_t *to, Ints a) {
  _mm_storeu_si128((__m128i *)to, _mm_packs_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1)));
}
INLINE Ints words_of(Vector v) { return _mm256_castps_si256(v); }
INLINE Vector float_words(Ints a) { return _mm256_castsi256_ps(a); }

#include "attention/integers.h"

TARGET int attend_avx_vnni(const LongTile *tile) { return attend_integers(tile); }

int avx_vnni_supported(void) { return (instruction_sets() & HAS_AVX_VNNI) != 0; }

#else

int attend_avx_vnni(const LongTile *tile) { return (void)tile, -1; }

int avx_vnni_supported(void) { return 0; }

#endif

#endif
