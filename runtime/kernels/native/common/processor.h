/* The processor: whether the kernels are written for it, and which instruction sets it has. */
#ifndef INTAGLIO_PROCESSOR_H
#define INTAGLIO_PROCESSOR_H

/* 1 if the kernels are compiled: they use the vector instructions of x86-64 through the extensions of GCC and Clang.
 * On other processors every file compiles, and no operator is supported. */
#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#define HAVE_KERNELS 1
#else
#define HAVE_KERNELS 0
#endif

enum {
  HAS_AVX2 = 1, /* with FMA and F16C */
  HAS_AVX_VNNI = 2,
  HAS_AVX512 = 4, /* F, BW, DQ and VL */
  HAS_AVX512_VNNI = 8,
};

/* Return the instruction sets that both the processor and the operating system support.
 *
 * Source: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 1, chapters 14 and 15. */
unsigned instruction_sets(void);

#endif
