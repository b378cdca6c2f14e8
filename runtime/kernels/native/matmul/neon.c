/* Matrix multiplication with the NEON that every 64-bit ARM processor has, for those without SDOT.
 *
 * Products of signed bytes fill 16 bits, and so do sums of two: at most 2 * 128 * 127 < 2^15.
 */
#include "common/processor.h"
#include "matmul/instructions.h"

#if HAVE_NEON

#include <arm_neon.h>

#define TARGET
#define INLINE ALWAYS_INLINE
#define NAME neon
#define LABEL "NEON"
#define DOT(SUM, W, X, WORD) dot(SUM, W, vreinterpretq_s8_s32(vdupq_laneq_s32(vreinterpretq_s32_s8(X), WORD)))

static int supported(void) { return (instruction_sets() & HAS_NEON) != 0; }

INLINE int32x4_t dot(int32x4_t sum, int8x16_t w, int8x16_t x) {
  const int16x8_t low = vmull_s8(vget_low_s8(w), vget_low_s8(x)), high = vmull_high_s8(w, x);
  return vpadalq_s16(sum, vpaddq_s16(low, high));
}

#include "matmul/neon.h"

#endif
