#define _GNU_SOURCE
#include "common/processor.h"

#include <stdlib.h>

#if defined(_WIN32)
#include <string.h>
#define strcasecmp _stricmp
#else
#include <strings.h>
#endif

int instruction_set_allowed(const char *name) {
  const char *only = getenv("INTAGLIO_KERNELS");
  return only == NULL || strcasecmp(only, name) == 0;
}

#if HAVE_X86

#include <cpuid.h>

/* Bits of CPUID's registers, and of XCR0, the registers that the operating system saves. */
enum { FMA = 1u << 12, OSXSAVE = 1u << 27, AVX = 1u << 28, F16C = 1u << 29 };          /* leaf 1, ECX */
enum { AVX2 = 1u << 5, AVX512F = 1u << 16, AVX512DQ = 1u << 17, AVX512BW = 1u << 30 }; /* leaf 7, EBX */
#define AVX512VL (1u << 31)
enum { AVX512VNNI = 1u << 11 };                                         /* leaf 7, ECX */
enum { AMX_BF16 = 1u << 22, AMX_TILE = 1u << 24, AMX_INT8 = 1u << 25 }; /* leaf 7, EDX */
enum { AVX_VNNI = 1u << 4 };                                            /* leaf 7, subleaf 1, EAX */
enum { YMM_SAVED = 0x06, ZMM_SAVED = 0xE6, TILES_SAVED = 0x60000 };

static int all(unsigned word, unsigned bits) { return (word & bits) == bits; }

unsigned instruction_sets(void) {
  unsigned a, b, c, d, low, high, found = HAS_AVX2;
  if (!__get_cpuid(1, &a, &b, &c, &d) || !all(c, FMA | OSXSAVE | AVX | F16C)) return 0;
  __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  if (!all(low, YMM_SAVED) || !__get_cpuid_count(7, 0, &a, &b, &c, &d) || !all(b, AVX2)) return 0;
  if (all(low, ZMM_SAVED) && all(b, AVX512F | AVX512DQ | AVX512BW | AVX512VL))
    found |= HAS_AVX512 | (all(c, AVX512VNNI) ? HAS_AVX512_VNNI : 0);
  if (all(low, TILES_SAVED) && all(d, AMX_TILE | AMX_INT8)) found |= HAS_AMX_INT8;
  if (all(low, TILES_SAVED) && all(d, AMX_TILE | AMX_BF16)) found |= HAS_AMX_BF16;
  if (__get_cpuid_count(7, 1, &a, &b, &c, &d) && all(a, AVX_VNNI)) found |= HAS_AVX_VNNI;
  return found;
}

#if HAVE_AMX

#include <sys/syscall.h>
#include <unistd.h>

enum { REQUEST_PERMISSION = 0x1023, TILE_DATA = 18 }; /* ARCH_REQ_XCOMP_PERM and XFEATURE_XTILEDATA */

int may_use_tiles(void) { return syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0; }

#endif

#elif HAVE_NEON && defined(__linux__)

#include <sys/auxv.h>

/* Bits of the auxiliary vector, which headers older than the features do not name. */
enum { ASIMDDP = 1 << 20 /* AT_HWCAP */, I8MM = 1 << 13 /* AT_HWCAP2 */ };

unsigned instruction_sets(void) {
  return HAS_NEON | (getauxval(AT_HWCAP) & ASIMDDP ? HAS_DOTPROD : 0) | (getauxval(AT_HWCAP2) & I8MM ? HAS_I8MM : 0);
}

#elif HAVE_NEON && defined(__APPLE__)

#include <sys/sysctl.h>

static int has(const char *feature) {
  int value = 0;
  size_t bytes = sizeof value;
  return sysctlbyname(feature, &value, &bytes, NULL, 0) == 0 && value != 0;
}

unsigned instruction_sets(void) {
  return HAS_NEON | (has("hw.optional.arm.FEAT_DotProd") ? HAS_DOTPROD : 0) |
         (has("hw.optional.arm.FEAT_I8MM") ? HAS_I8MM : 0);
}

#elif HAVE_NEON && defined(_WIN32)

#include <windows.h>

/* PF_ARM_V82_DP_INSTRUCTIONS_AVAILABLE and PF_ARM_V82_I8MM_INSTRUCTIONS_AVAILABLE, which older headers do not name. */
enum { DOTPROD = 43, I8MM = 66 };

unsigned instruction_sets(void) {
  return HAS_NEON | (IsProcessorFeaturePresent(DOTPROD) ? HAS_DOTPROD : 0) |
         (IsProcessorFeaturePresent(I8MM) ? HAS_I8MM : 0);
}

#else

unsigned instruction_sets(void) { return HAVE_NEON ? HAS_NEON : 0; }

#endif
