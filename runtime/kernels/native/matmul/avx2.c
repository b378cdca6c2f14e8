/* Matrix multiplication with AVX2, for processors without VNNI.
 *
 * VPMADDUBSW multiplies unsigned bytes by signed bytes and adds pairs of products to 16 bits, which saturate. A weight of 4
 * bits is at most 15, so 16 products are at most 16 * 15 * 127 < 2^15, and the eight words of a step are summed in 16 bits
 * before they are widened; two words of weights of 5 bits are. Weights of 8 bits are stored as w - 128. Their absolute
 * value is multiplied by x with their sign: 2 * 128 * 127 < 2^15.
 */
#include "common/processor.h"
#include "matmul/instructions.h"

#if HAVE_X86

#include <immintrin.h>

#define TARGET __attribute__((target("avx2,fma,f16c")))
#define INLINE TARGET ALWAYS_INLINE
#define NAME avx2
#define LABEL "AVX2"
#define OFFSET 128

static int supported(void) { return (instruction_sets() & HAS_AVX2) != 0; }

INLINE __m256i stored(__m256i w) { return _mm256_xor_si256(w, _mm256_set1_epi8(-128)); }

INLINE __m256i widened(__m256i pairs) { return _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)); }

/* Return a sum that the compiler does not take apart: it would add the products of a step in another order, and have all of
 * them in memory before. */
INLINE __m256i whole_sum(__m256i sum) {
  __asm__("" : "+x"(sum));
  return sum;
}

INLINE __m256i dot(__m256i sum, __m256i w, __m256i x, const int bits) {
  if (bits == 4) return whole_sum(_mm256_add_epi16(sum, _mm256_maddubs_epi16(w, x)));
  const __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(x, w));
  return whole_sum(_mm256_add_epi32(sum, widened(pairs)));
}

INLINE __m256i dot_five(__m256i sum, const __m256i w[2], const __m256i x[2]) {
  const __m256i pairs = _mm256_add_epi16(_mm256_maddubs_epi16(w[0], x[0]), _mm256_maddubs_epi16(w[1], x[1]));
  return whole_sum(_mm256_add_epi32(sum, widened(pairs)));
}

INLINE __m256i start_of(__m256i minus_zeros, __m256i pairs) { return _mm256_mullo_epi16(minus_zeros, pairs); }

INLINE __m256i total(__m256i sum, const int bits) { return bits == 4 ? widened(sum) : sum; }

#include "matmul/ymm.h"

#endif
