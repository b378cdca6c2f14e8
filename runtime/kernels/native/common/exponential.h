/* A polynomial for 2^r, r in [-1/2, 1/2], found with the Remez exchange algorithm; it is 1 at 0. Its relative error is below
 * 2^-28, and below 2^-23 in float32. The coefficient of the highest power comes first. */
#ifndef INTAGLIO_EXPONENTIAL_H
#define INTAGLIO_EXPONENTIAL_H

#define LOG2_E 1.44269504f

#define MAX_EXPONENT 126.0f /* arguments are clamped to this, so that 2^x stays a normal number */

enum { EXPONENTIAL_TERMS = 7 };

static const float exponential_terms[EXPONENTIAL_TERMS] = {
    1.55946782e-4f, 1.34066439e-3f, 9.61769297e-3f, 5.55031055e-2f, 2.40226528e-1f, 6.93147215e-1f, 1.0f,
};

#endif
