/* Matrix multiplication with AVX-VNNI: VPDPBUSD as in avx512.c, on 256 bits, for processors without AVX512. */
#include "common/processor.h"
#include "matmul/instructions.h"

#if HAVE_X86

#if (__GNUC__ >= 11 || __clang_major__ >= 12) && !defined(WITHOUT_AVX_VNNI)

#include <immintrin.h>

#define TARGET __attribute__((target("avx2,fma,f16c,avxvnni")))
#define INLINE TARGET ALWAYS_INLINE
#define NAME avx_vnni
#define LABEL "AVX-VNNI"
#define OFFSET 0

static int supported(void) { return (instruction_sets() & HAS_AVX_VNNI) != 0; }

INLINE __m256i stored(__m256i w) { return w; }

INLINE __m256i dot(__m256i sum, __m256i w, __m256i x, const int bits) {
  return (void)bits, _mm256_dpbusd_avx_epi32(sum, w, x);
}

INLINE __m256i dot_five(__m256i sum, const __m256i w[2], const __m256i x[2]) {
  return _mm256_dpbusd_avx_epi32(_mm256_dpbusd_avx_epi32(sum, w[0], x[0]), w[1], x[1]);
}

INLINE __m256i start_of(__m256i minus_zeros, __m256i pairs) { return _mm256_madd_epi16(minus_zeros, pairs); }

INLINE __m256i total(__m256i sum, const int bits) { return (void)bits, sum; }

#include "matmul/ymm.h"

#else

static int supported(void) { return 0; }

const Instructions avx_vnni = {.name = "AVX-VNNI", .supported = supported};

#endif

#endif
