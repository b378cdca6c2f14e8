/* Attention with NEON, which every 64-bit ARM processor has. */
#include "attention/query_tile.h"
#include "common/processor.h"

#if HAVE_NEON

#define TARGET
#define INLINE static inline __attribute__((always_inline))
#define DECODE_VECTORS 4 /* of 32 registers, 24 are sums */
#define PREFILL_KEYS 8

#include "common/simd_neon.h"

#include "attention/decode.h"
#include "attention/prefill.h"

static int supported(void) { return (instruction_sets() & HAS_NEON) != 0; }

const AttentionFunctions neon_attention = {
    {"NEON-I8MM", "NEON-DotProd", "NEON"}, supported, attend_decode, attend_prefill, NULL, 0};

#endif
