/* Vectors of floats in NEON's registers of 128 bits. A file defines TARGET and INLINE before it includes this. The names are
 * those of simd512.h, which documents them.
 */
#ifndef INTAGLIO_SIMD_H
#define INTAGLIO_SIMD_H

#include <arm_neon.h>
#include <stdint.h>
#include <string.h>

#include "common/exponential.h"

enum { WIDTH = 4 /* floats of a vector */ };

typedef float32x4_t Vector;
typedef uint32x4_t Mask;

#define UNROLL _Pragma("GCC unroll 16")

INLINE Vector vector_load(const float *from) { return vld1q_f32(from); }
INLINE void vector_store(float *to, Vector v) { vst1q_f32(to, v); }
INLINE Vector vector_of(float x) { return vdupq_n_f32(x); }
INLINE Vector vector_zero(void) { return vdupq_n_f32(0.0f); }
INLINE float vector_first(Vector v) { return vgetq_lane_f32(v, 0); }

INLINE Vector vector_from_int8(const int8_t *from) {
  uint32_t four;
  memcpy(&four, from, sizeof four);
  const int16x4_t wide = vget_low_s16(vmovl_s8(vreinterpret_s8_u32(vdup_n_u32(four))));
  return vcvtq_f32_s32(vmovl_s16(wide));
}

INLINE Vector vector_add(Vector a, Vector b) { return vaddq_f32(a, b); }
INLINE Vector vector_subtract(Vector a, Vector b) { return vsubq_f32(a, b); }
INLINE Vector vector_multiply(Vector a, Vector b) { return vmulq_f32(a, b); }
INLINE Vector vector_divide(Vector a, Vector b) { return vdivq_f32(a, b); }
INLINE Vector vector_fma(Vector a, Vector b, Vector c) { return vfmaq_f32(c, a, b); }
INLINE Vector vector_fms(Vector a, Vector b, Vector c) { return vfmaq_f32(vnegq_f32(c), a, b); }

/* FMAX would return a NaN where either operand is one, and 0 of 0 and -0. */
INLINE Vector vector_max(Vector a, Vector b) { return vbslq_f32(vcgtq_f32(a, b), a, b); }

INLINE Mask vector_at_most(Vector a, Vector b) { return vcleq_f32(a, b); }
INLINE Mask mask_and(Mask a, Mask b) { return vandq_u32(a, b); }
INLINE Vector vector_select(Mask mask, Vector yes, Vector no) { return vbslq_f32(mask, yes, no); }

/* As in simd256.h: 2^n is two factors. */
#define LEAST_EXPONENT -252.0f
INLINE Vector vector_power_of_two(Vector x) {
  x = vector_max(vector_of(LEAST_EXPONENT), x);
  const Vector n = vrndnq_f32(x), r = vsubq_f32(x, n);
  Vector sum = vector_of(exponential_terms[0]);
  UNROLL for (int i = 1; i < EXPONENTIAL_TERMS; i++) sum = vector_fma(sum, r, vector_of(exponential_terms[i]));
  const int32x4_t whole = vcvtq_s32_f32(n), half = vshrq_n_s32(whole, 1), one = vreinterpretq_s32_f32(vector_of(1.0f));
  const int32x4_t first = vaddq_s32(one, vshlq_n_s32(half, 23));
  const int32x4_t second = vaddq_s32(one, vshlq_n_s32(vsubq_s32(whole, half), 23));
  return vmulq_f32(vmulq_f32(sum, vreinterpretq_f32_s32(first)), vreinterpretq_f32_s32(second));
}

INLINE float sum_of_16(const Vector *v) {
  const Vector four = vaddq_f32(vaddq_f32(v[0], v[2]), vaddq_f32(v[1], v[3]));
  const float32x2_t two = vadd_f32(vget_low_f32(four), vget_high_f32(four));
  return vget_lane_f32(two, 0) + vget_lane_f32(two, 1);
}

INLINE float max_of_16(const Vector *v) {
  const Vector four = vector_max(vector_max(v[0], v[2]), vector_max(v[1], v[3]));
  const Vector two = vector_max(four, vextq_f32(four, four, 2));
  return vector_first(vector_max(two, vextq_f32(two, two, 1)));
}

INLINE void vector_transpose(Vector r[WIDTH]) {
  const float64x2_t a = vreinterpretq_f64_f32(vtrn1q_f32(r[0], r[1])),
                    b = vreinterpretq_f64_f32(vtrn2q_f32(r[0], r[1]));
  const float64x2_t c = vreinterpretq_f64_f32(vtrn1q_f32(r[2], r[3])),
                    d = vreinterpretq_f64_f32(vtrn2q_f32(r[2], r[3]));
  r[0] = vreinterpretq_f32_f64(vzip1q_f64(a, c));
  r[1] = vreinterpretq_f32_f64(vzip1q_f64(b, d));
  r[2] = vreinterpretq_f32_f64(vzip2q_f64(a, c));
  r[3] = vreinterpretq_f32_f64(vzip2q_f64(b, d));
}

#endif
