/* Attention with AVX2, for processors without AVX512, and beside AVX-VNNI. */
#include "attention/query_tile.h"
#include "common/processor.h"

#if HAVE_X86

#define TARGET __attribute__((target("avx2,fma,f16c")))
#define INLINE TARGET static inline __attribute__((always_inline))
#define DECODE_VECTORS 2 /* of 16 registers, 12 are sums */
#define PREFILL_KEYS 4

#include "common/simd256.h"

#include "attention/decode.h"
#include "attention/prefill.h"

static int supported(void) { return (instruction_sets() & HAS_AVX2) != 0; }

const AttentionFunctions avx2_attention = {{"AVX-VNNI", "AVX2"}, supported, attend_decode, attend_prefill, NULL, 0};

/* What is not a long sequence is that of AVX2. */
const AttentionFunctions avx_vnni_attention = {{"AVX-VNNI"},   avx_vnni_supported, attend_decode,
                                               attend_prefill, attend_avx_vnni,    INTEGER_ROWS};

#endif
