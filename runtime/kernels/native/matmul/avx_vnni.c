/* The products with AVX-VNNI: VPDPBUSD as in avx512.c, in registers of 256 bits, on processors without AVX512. */
#include "matmul/instructions.h"

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))

#if __GNUC__ >= 11 || __clang_major__ >= 12

#include <cpuid.h>
#include <immintrin.h>

#define TARGET __attribute__((target("avx2,fma,f16c,avxvnni")))
#define INLINE TARGET ALWAYS_INLINE
#define NAME avx_vnni
#define LABEL "AVX-VNNI"
#define OFFSET 0

/* Asked of the processor itself: compilers learned to tell it later than to use it. */
static int supported(void) {
  unsigned a = 0, b = 0, c = 0, d = 0;
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c") &&
         __get_cpuid_count(7, 1, &a, &b, &c, &d) &&
         (a & 1 << 4) != 0;
}

INLINE __m256i stored(__m256i w) { return w; }

INLINE __m256i dot(__m256i sum, __m256i w, __m256i x, const int bits) {
  return (void)bits, _mm256_dpbusd_avx_epi32(sum, w, x);
}

INLINE __m256i total(__m256i sum, const int bits) { return (void)bits, sum; }

#include "matmul/ymm.h"

#else

static int supported(void) { return 0; }

const Instructions avx_vnni = {.name = "AVX-VNNI", .supported = supported};

#endif

#endif
