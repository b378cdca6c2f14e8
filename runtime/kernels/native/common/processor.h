/* The processor: whether the kernels are written for it, and which instruction sets it has. */
#ifndef INTAGLIO_PROCESSOR_H
#define INTAGLIO_PROCESSOR_H

/* HAVE_X86 and HAVE_NEON say whose vector instructions can be used, through the extensions of GCC and Clang; HAVE_KERNELS,
 * whether any kernels are compiled. Where it is 0 every file compiles, and no operator is supported. */
#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#define HAVE_X86 1
#else
#define HAVE_X86 0
#endif

/* Compilers know AMX's instructions since GCC 11 and Clang 12, and only Linux is asked for their registers. */
#if HAVE_X86 && defined(__linux__) && (defined(__clang__) ? __clang_major__ >= 12 : __GNUC__ >= 11)
#define HAVE_AMX 1
#else
#define HAVE_AMX 0
#endif

#if defined(__aarch64__) && !defined(__AARCH64EB__) && (defined(__GNUC__) || defined(__clang__))
#define HAVE_NEON 1
#else
#define HAVE_NEON 0
#endif

#define HAVE_KERNELS (HAVE_X86 || HAVE_NEON)

enum {
  HAS_AVX2 = 1, /* with FMA and F16C */
  HAS_AVX_VNNI = 2,
  HAS_AVX512 = 4, /* F, BW, DQ and VL */
  HAS_AVX512_VNNI = 8,
  HAS_AMX_INT8 = 128, /* whether a process may use AMX, may_use_tiles says */
  HAS_AMX_BF16 = 256,
  HAS_NEON = 16,    /* every 64-bit ARM processor */
  HAS_DOTPROD = 32, /* FEAT_DotProd: SDOT */
  HAS_I8MM = 64,    /* FEAT_I8MM: USDOT, SMMLA and USMMLA */
};

/* Return the instruction sets that both the processor and the operating system support.
 *
 * Source: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 1, chapters 14 and 15; Linux,
 * Documentation/arch/arm64/elf_hwcaps.rst; Apple, Determining Instruction Set Characteristics; Microsoft,
 * IsProcessorFeaturePresent. */
unsigned instruction_sets(void);

/* Ask Linux for AMX's tile registers, for this process and all its threads, and return whether it gives them.
 *
 * Source: Linux, Documentation/arch/x86/xstate.rst. */
int may_use_tiles(void);

/* Return whether kernels for the instruction set of this name may be used: the environment variable INTAGLIO_KERNELS, if it is
 * set, names the only one, in letters of either case. */
int instruction_set_allowed(const char *name);

#endif
