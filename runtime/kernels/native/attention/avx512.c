/* Attention with AVX512, and beside VNNI and AMX. */
#include "attention/query_tile.h"
#include "common/processor.h"

#if HAVE_X86

#define TARGET __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,fma")))
#define INLINE TARGET static inline __attribute__((always_inline))
#define DECODE_VECTORS 4 /* of 32 registers, 24 are sums */
#define PREFILL_KEYS 8

#include "common/simd512.h"

#include "attention/decode.h"
#include "attention/prefill.h"

static int supported(void) { return (instruction_sets() & HAS_AVX512) != 0; }

const AttentionFunctions avx512_attention = {{"AVX512-VNNI", "AMX"}, supported, attend_decode, attend_prefill, NULL, 0};

/* What is not a long sequence is that of AVX512. */
const AttentionFunctions avx512_vnni_attention = {{"AVX512-VNNI", "AMX"}, avx512_vnni_supported, attend_decode,
                                                  attend_prefill,         attend_avx512_vnni,    INTEGER_ROWS};
const AttentionFunctions amx_attention = {{"AMX"},  amx_bfloat16_supported, attend_decode, attend_prefill, attend_amx,
                                          LONG_ROWS};

#endif
