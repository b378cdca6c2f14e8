/* The division of a mixture of experts into tasks. */
#include "experts/experts.h"
#include "common/processor.h"

#if HAVE_KERNELS

#include <string.h>

#include "common/memory.h"
#include "common/threads.h"
#include "matmul/operand.h"

enum {
  MOST_ROWS = 8192,   /* of all experts in a pass, which bounds the memory, unless a token has more */
  READING_ROWS = 4,   /* reading the weights takes as long as multiplying with so many rows */
  HIDDEN = LANES / 2, /* columns of the hidden state in a tile of gate and up */
};

/* Tokens that are multiplied at once, with a row for each of a token's experts, sorted by expert. */
typedef struct {
  const Experts *experts;
  const Tokens *all;
  int64_t start, m; /* tokens, of which each has k rows */
  int64_t tasks;
  int64_t *chosen, *row_of; /* [m, k]: experts, and the rows with them */
  float *factors;           /* [m, k] */
  int64_t *first, *count;   /* [X]: the rows of each expert */
  int64_t *token_of;        /* [rows] */
  float *factor_of;         /* [rows] */
  Quantized x, hidden;      /* [rows, D], [rows, F] */
  int failed;
} Pass;

static const PackedWeights *any_up(const Pass *pass) { return pass->experts->up[0]; }
static const PackedWeights *any_down(const Pass *pass) { return pass->experts->down[0]; }

/* ---- rows ----------------------------------------------------------------------------------------------------------- */

static void route_part(void *data, size_t task) {
  const Pass *pass = data;
  const Routing *routing = &pass->experts->routing;
  const int64_t from = (int64_t)task * GEMV_ROWS, to = smaller(from + GEMV_ROWS, pass->m);
  for (int64_t token = from; token < to; token++) {
    const int64_t at = (pass->start + token) * routing->experts;
    const float *weights = pass->all->weights == NULL ? NULL : pass->all->weights + at;
    route(routing, pass->all->logits + at, weights, pass->chosen + token * routing->chosen,
          pass->factors + token * routing->chosen);
  }
}

/* Sort the tokens by expert; an expert's are in their order. */
static void sort_rows(Pass *pass) {
  const int64_t experts = pass->experts->routing.experts, k = pass->experts->routing.chosen;
  memset(pass->count, 0, experts * sizeof *pass->count);
  for (int64_t i = 0; i < pass->m * k; i++) pass->count[pass->chosen[i]]++;
  int64_t rows = 0;
  for (int64_t expert = 0; expert < experts; expert++) {
    pass->first[expert] = rows;
    rows += pass->count[expert];
    pass->count[expert] = 0;
  }
  for (int64_t i = 0; i < pass->m * k; i++) {
    const int64_t expert = pass->chosen[i], row = pass->first[expert] + pass->count[expert]++;
    pass->row_of[i] = row;
    pass->token_of[row] = i / k;
    pass->factor_of[row] = pass->factors[i];
  }
}

static void quantize_part(void *data, size_t task) {
  const Pass *pass = data;
  const Quantized *x = &pass->x;
  const int64_t d = pass->experts->d, k = pass->experts->routing.chosen;
  const int64_t from = (int64_t)task * GEMV_ROWS, to = smaller(from + GEMV_ROWS, pass->m);
  const size_t bytes = row_bytes(x->padded, x->step);
  for (int64_t token = from; token < to; token++) {
    const float *source = pass->all->x + (pass->start + token) * d;
    const int64_t *rows = pass->row_of + token * k;
    any_up(pass)->with->quantize(x, rows[0], 0, source, d, x->padded);
    for (int64_t i = 1; i < k; i++) memcpy(x->rows + rows[i] * bytes, x->rows + rows[0] * bytes, bytes);
  }
}

/* ---- gate and up ---------------------------------------------------------------------------------------------------- */

/* Return how many tiles of gate and up are not divided: those of a step of the hidden state. */
static int64_t up_unit(const Pass *pass) { return pass->hidden.step / HIDDEN; }

/* Compute the hidden state of an expert's rows, for tiles from .. to of gate and up, and quantize it. */
static void multiply_up(Pass *pass, int64_t expert, int64_t from, int64_t to) {
  const PackedWeights *w = pass->experts->up[expert];
  const Quantized *hidden = &pass->hidden;
  const int64_t begin = pass->first[expert], m = pass->count[expert], tiles = ceil_div(w->shape.n, LANES);
  const int64_t together = m > GEMV_ROWS ? smaller(tiles_at_once(w), to - from) : to - from, width = together * LANES;
  const int64_t rows = smaller(m, ROWS_IN_CACHE); /* and the rest, if it is small */
  const size_t repacked = repacked_bytes(w, m, 0, together);
  const size_t y_bytes = times(times(rows + GEMV_ROWS, width), sizeof(float));
  uint8_t *memory = allocate_aligned(plus(plus(repacked, y_bytes), times(width, sizeof(float))));
  if (memory == NULL) {
    pass->failed = 1;
    return;
  }
  const Operand operand = {w, &pass->x, NULL, repacked > 0 ? memory : NULL};
  float *both = (float *)(memory + repacked), *gates = (float *)((uint8_t *)both + y_bytes), *ups = gates + width / 2;
  for (int64_t first = from; first < to; first += together) {
    const int64_t last = smaller(first + together, to), column = first * HIDDEN, count = (last - first) * HIDDEN;
    if (operand.repacked != NULL) w->with->repack(w, first, last, operand.repacked);
    for (int64_t top = 0, end; top < m; top = end) {
      end = m - top <= rows + GEMV_ROWS ? m : top + rows;
      multiply(&operand, begin + top, begin + end, first, last, both, width);
      for (int64_t row = top; row < end; row++) {
        const float *pairs = both + (row - top) * width;
        for (int64_t i = 0; i < count; i++) {
          gates[i] = pairs[2 * i];
          ups[i] = pairs[2 * i + 1];
        }
        w->with->gate(gates, ups, count);
        /* Pad with zeros after the last column. */
        w->with->quantize(hidden, begin + row, column, ups, count, last == tiles ? hidden->padded - column : count);
      }
    }
  }
  free_aligned(memory);
}

/* Return what a unit of an expert's tiles takes, in rows. */
static int64_t cost(const Pass *pass, int64_t expert) {
  return pass->count[expert] == 0 ? 0 : pass->count[expert] + READING_ROWS;
}

static int64_t up_units(const Pass *pass) { return ceil_div(2 * pass->experts->f, LANES * up_unit(pass)); }

static int64_t up_work(const Pass *pass) {
  int64_t all = 0;
  for (int64_t expert = 0; expert < pass->experts->routing.experts; expert++) all += cost(pass, expert);
  return all * up_units(pass);
}

/* Run a task: a part of the tiles of all experts, counted over one expert after the other. */
static void up_part(void *data, size_t task) {
  Pass *pass = data;
  const int64_t together = up_unit(pass), units = up_units(pass), all = up_work(pass);
  const int64_t tiles = ceil_div(2 * pass->experts->f, LANES);
  const int64_t begin = all / pass->tasks * (int64_t)task + smaller((int64_t)task, all % pass->tasks);
  const int64_t end = begin + all / pass->tasks + ((int64_t)task < all % pass->tasks);
  int64_t before = 0;
  for (int64_t expert = 0; expert < pass->experts->routing.experts && before < end; expert++) {
    const int64_t each = cost(pass, expert);
    if (each == 0) continue;
    const int64_t first = smaller(ceil_div(larger(begin - before, 0), each), units);
    const int64_t last = smaller(ceil_div(larger(end - before, 0), each), units);
    before += units * each;
    const int64_t from = first * together, to = smaller(last * together, tiles);
    if (from < to) multiply_up(pass, expert, from, to);
  }
}

/* ---- down ----------------------------------------------------------------------------------------------------------- */

/* Add an expert's result to y, for tiles from .. to. */
static void multiply_down(Pass *pass, int64_t expert, int64_t from, int64_t to) {
  const PackedWeights *w = pass->experts->down[expert];
  const int64_t begin = pass->first[expert], m = pass->count[expert], d = pass->experts->d;
  const int64_t together = m > GEMV_ROWS ? smaller(tiles_at_once(w), to - from) : to - from, width = together * LANES;
  const int64_t rows = smaller(m, ROWS_IN_CACHE); /* and the rest, if it is small */
  const size_t repacked = repacked_bytes(w, m, 0, together);
  uint8_t *memory = allocate_aligned(plus(repacked, times(times(rows + GEMV_ROWS, width), sizeof(float))));
  if (memory == NULL) {
    pass->failed = 1;
    return;
  }
  const Operand operand = {w, &pass->hidden, NULL, repacked > 0 ? memory : NULL};
  float *made = (float *)(memory + repacked);
  for (int64_t first = from; first < to; first += together) {
    const int64_t last = smaller(first + together, to), column = first * LANES;
    const int64_t count = smaller(d - column, (last - first) * LANES);
    if (operand.repacked != NULL) w->with->repack(w, first, last, operand.repacked);
    for (int64_t top = 0, end; top < m; top = end) {
      end = m - top <= rows + GEMV_ROWS ? m : top + rows;
      multiply(&operand, begin + top, begin + end, first, last, made, width);
      for (int64_t row = top; row < end; row++) {
        const float factor = pass->factor_of[begin + row], *from_row = made + (row - top) * width;
        float *y = pass->all->y + (pass->start + pass->token_of[begin + row]) * d + column;
        for (int64_t i = 0; i < count; i++) y[i] += factor * from_row[i];
      }
    }
  }
  free_aligned(memory);
}

/* Run a task: some columns of y, for all experts in the order of their indices. */
static void down_part(void *data, size_t task) {
  Pass *pass = data;
  const int64_t d = pass->experts->d, tiles = ceil_div(d, LANES);
  const int64_t from = tiles * (int64_t)task / pass->tasks, to = tiles * ((int64_t)task + 1) / pass->tasks;
  const int64_t count = smaller(to * LANES, d) - from * LANES;
  if (from >= to) return;
  for (int64_t token = 0; token < pass->m; token++)
    memset(pass->all->y + (pass->start + token) * d + from * LANES, 0, count * sizeof(float));
  for (int64_t expert = 0; expert < pass->experts->routing.experts; expert++)
    if (pass->count[expert] > 0) multiply_down(pass, expert, from, to);
}

/* ---- passes --------------------------------------------------------------------------------------------------------- */

/* Return memory of `count` elements, and move *memory past them. */
static void *place(uint8_t **memory, size_t count, size_t bytes) {
  void *at = *memory;
  *memory += aligned(times(count, bytes));
  return at;
}

/* Run a pass with tokens start .. start + m; return 0, or -1 if there is not enough memory. */
static int run_pass(Pass *pass, ParallelFor parallel, void *context) {
  const Experts *experts = pass->experts;
  const int64_t x = experts->routing.experts, m = pass->m, chosen = m * experts->routing.chosen;
  const int up_step = step_of(any_up(pass), 0), down_step = step_of(any_down(pass), 0);
  size_t bytes = plus(quantized_bytes(chosen, experts->d, up_step), quantized_bytes(chosen, experts->f, down_step));
  const size_t indices = aligned(times(chosen, sizeof(int64_t))), factors = aligned(times(chosen, sizeof(float)));
  bytes = plus(bytes, plus(times(3, indices), times(2, factors)));
  bytes = plus(bytes, times(2, aligned(times(x, sizeof(int64_t)))));
  uint8_t *memory = allocate_aligned(bytes), *at = memory;
  if (memory == NULL) return -1;
  pass->chosen = place(&at, chosen, sizeof(int64_t));
  pass->row_of = place(&at, chosen, sizeof(int64_t));
  pass->factors = place(&at, chosen, sizeof(float));
  pass->first = place(&at, x, sizeof(int64_t));
  pass->count = place(&at, x, sizeof(int64_t));
  pass->token_of = place(&at, chosen, sizeof(int64_t));
  pass->factor_of = place(&at, chosen, sizeof(float));
  pass->x = place_rows(&at, chosen, experts->d, up_step);
  pass->hidden = place_rows(&at, chosen, experts->f, down_step);
  const int64_t groups = ceil_div(m, GEMV_ROWS), processors = usable_processors();
  if (groups == 1) route_part(pass, 0);
  else parallel(context, route_part, groups, pass);
  sort_rows(pass);
  if (groups == 1) quantize_part(pass, 0);
  else parallel(context, quantize_part, groups, pass);
  /* In decode tasks are long, to read in order, but more than there are processors, since some may be busy. */
  pass->tasks = smaller(up_work(pass), processors * (groups == 1 ? 4 : 16));
  parallel(context, up_part, pass->tasks, pass);
  /* Tasks are few, since each reads the hidden state of all rows. */
  pass->tasks = smaller(ceil_div(experts->d, LANES), processors * 4);
  if (!pass->failed) parallel(context, down_part, pass->tasks, pass);
  free_aligned(memory);
  return pass->failed ? -1 : 0;
}

int run_experts(const Experts *experts, const Tokens *tokens, ParallelFor parallel, void *context) {
  const int64_t most = larger(MOST_ROWS / experts->routing.chosen, GEMV_ROWS);
  for (int64_t start = 0; start < tokens->tokens; start += most) {
    Pass pass = {
        .experts = experts,
        .all = tokens,
        .start = start,
        .m = smaller(most, tokens->tokens - start),
    };
    if (run_pass(&pass, parallel, context) != 0) return -1;
  }
  return 0;
}

#else

int run_experts(const Experts *experts, const Tokens *tokens, ParallelFor parallel, void *context) {
  return (void)experts, (void)tokens, (void)parallel, (void)context, -1;
}

#endif
