/* Matrix multiplication with NEON's SDOT, four products of signed bytes a lane. */
#include "common/processor.h"
#include "matmul/instructions.h"

#if HAVE_NEON

#define TARGET __attribute__((target("arch=armv8.2-a+dotprod")))
#define INLINE TARGET ALWAYS_INLINE
#define NAME neon_dotprod
#define LABEL "NEON-DotProd"
#define DOT(SUM, W, X, WORD) vdotq_laneq_s32(SUM, W, X, WORD)

static int supported(void) { return (instruction_sets() & HAS_DOTPROD) != 0; }

#include "matmul/neon.h"

#endif
