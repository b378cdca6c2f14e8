/* Matrix multiplication with NEON's SMMLA for several rows of x, and SDOT for one. */
#include "common/processor.h"
#include "matmul/instructions.h"

#if HAVE_NEON

#define TARGET __attribute__((target("arch=armv8.2-a+dotprod+i8mm")))
#define INLINE TARGET ALWAYS_INLINE
#define NAME neon_i8mm
#define LABEL "NEON-I8MM"
#define DOT(SUM, W, X, WORD) vdotq_laneq_s32(SUM, W, X, WORD)
#define MAX_ROWS 8
#define SMMLA

static int supported(void) { return (instruction_sets() & HAS_I8MM) && (instruction_sets() & HAS_DOTPROD); }

#include "matmul/neon.h"

#endif
