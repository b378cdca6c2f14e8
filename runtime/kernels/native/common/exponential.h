/* 2^r for r in [-1/2, 1/2]: a polynomial made by Remez' exchange that is 1 at 0 (relative error below 2^-28 of its own,
 * below 2^-23 as it is rounded). The highest power's coefficient first. */
#ifndef INTAGLIO_EXPONENTIAL_H
#define INTAGLIO_EXPONENTIAL_H

#define LOG2_E 1.44269504f

#define MOST_POWER 126.0f /* of two, in what is limited so that it stays a normal number */

enum { EXPONENTIAL_TERMS = 7 };

static const float exponential_terms[EXPONENTIAL_TERMS] = {
    1.55946782e-4f, 1.34066439e-3f, 9.61769297e-3f, 5.55031055e-2f, 2.40226528e-1f, 6.93147215e-1f, 1.0f,
};

#endif
