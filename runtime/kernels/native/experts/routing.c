#include "experts/routing.h"

#include <math.h>
#include <string.h>

/* Set `to` to the indices of the `count` largest of `all` numbers; a NaN counts as the least. Return whether there is one. */
static int find_largest(const float *numbers, int64_t all, int64_t count, int64_t *to, float *found) {
  int64_t there = 0;
  int bad = 0;
  for (int64_t i = 0; i < all; i++) {
    float number = numbers[i];
    if (isnan(number)) {
      number = -INFINITY;
      bad = 1;
    }
    if (there == count && number < found[count - 1]) continue;
    int64_t at = there < count ? there++ : count - 1;
    for (; at > 0 && number >= found[at - 1]; at--) {
      found[at] = found[at - 1];
      to[at] = to[at - 1];
    }
    found[at] = number;
    to[at] = i;
  }
  return bad;
}

void route(const Routing *routing, const float *logits, const float *weights, int64_t *to, float *factors) {
  const int64_t count = routing->chosen;
  const int bad = find_largest(logits, routing->experts, count, to, factors);
  const float most = factors[0];
  float sum = 0;
  for (int64_t i = 0; i < count; i++) {
    /* A float is the same from every library's double exponential. */
    const float given = weights != NULL ? weights[to[i]] : (float)exp((double)(factors[i] - most));
    factors[i] = bad ? NAN : given;
    sum += factors[i];
  }
  if (weights != NULL && !routing->normalized) return;
  const float inverse = sum == 0 ? 0 : 1 / sum;
  for (int64_t i = 0; i < count; i++) factors[i] *= inverse;
}
