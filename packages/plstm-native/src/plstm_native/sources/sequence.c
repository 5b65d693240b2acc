/* pLSTM on a sequence, step by step: the recurrence itself, and its adjoint.

   With C entering step t, JT matrices [DK, DV], and queries Q [JQ, DK], keys K [JK, DK], values V [JV, DV] of the step,

       C_out[a] = T[a, b] C[b] + S[a, j, w] K_j V_w^T         H[o] = M[o, q, a] C[a]^T Q_q + D[o, q, j, w] (Q_q.K_j) V_w

   and, given the cotangents R of C_out and e of H, with W[a, j] = S[a, j, w] V_w and F[q, a] = M[o, q, a] e[o],

       dC[b] = T[a, b] R[a] + Q_q F[q, b]^T                   dT[a, b] = <R[a], C[b]>
       dQ_q = C[a] F[q, a] + D (V.e) K                        dM[o, q, a] = (C[a]^T Q_q).e[o]
       dK_j = R[a] W[a, j] + D (V.e) Q                        dS[a, j, w] = (R[a]^T K_j).V_w
       dV_w = S[a, j, w] R[a]^T K_j + D (Q.K) e               dD[o, q, j, w] = (Q_q.K_j) (V_w.e[o])

   where letters that the left side does not have are summed over.

   Nothing is kept for the gradients: they walk a sequence once for the states between pieces of about sqrt(T) steps, and
   each piece once for those of its steps, on which the adjoint follows. Packed sequences know nothing of each other. */

#include "sequence.h"
#include "sequence_matrix.h"
#include "sequence_scalar.h"

enum { SCALAR_1, SCALAR_2, MATRIX_1, MATRIX_2, MATRIX_4, MATRIX_8, MATRIX_ANY, LEAST_PIECE = 16 };

static int kind_of(const sequence *g)
{
    if (g->jt * g->jk * g->jv * g->jo * g->jq == 1)
        return g->width == 1 ? SCALAR_1 : SCALAR_2;
    if (g->jk != 1 || g->jq != 1)
        return MATRIX_ANY;
    switch (g->jt) {
    case 1: return MATRIX_1;
    case 2: return MATRIX_2;
    case 4: return MATRIX_4;
    case 8: return MATRIX_8;
    default: return MATRIX_ANY;
    }
}

/* A copy of the code for each kind of sequence, in which its sizes are known. */
#define FOR_EACH_KIND(SCALAR, MATRIX)                                                                                      \
    switch (kind_of(w->g)) {                                                                                               \
    case SCALAR_1: SCALAR(1); break;                                                                                       \
    case SCALAR_2: SCALAR(2); break;                                                                                       \
    case MATRIX_1: MATRIX(1, 1, 1, 1); break;                                                                              \
    case MATRIX_2: MATRIX(1, 2, 1, 1); break;                                                                              \
    case MATRIX_4: MATRIX(1, 4, 1, 1); break;                                                                              \
    case MATRIX_8: MATRIX(1, 8, 1, 1); break;                                                                              \
    case MATRIX_ANY: MATRIX(0, w->g->jt, w->g->jk, w->g->jq); break;                                                       \
    }

/* From first to end, outputs written. */
static void run_steps(const walk *w, int64_t first, int64_t end, vec *state)
{
#define SCALAR(width) scalar_steps(w, first, end, state, NULL, 1, width)
#define MATRIX(...) matrix_steps(w, first, end, state, NULL, 1, __VA_ARGS__)
    FOR_EACH_KIND(SCALAR, MATRIX)
#undef SCALAR
#undef MATRIX
}

/* For the states alone. */
static void pass_steps(const walk *w, int64_t first, int64_t end, vec *state)
{
#define SCALAR(width) scalar_steps(w, first, end, state, NULL, 0, width)
#define MATRIX(...) matrix_steps(w, first, end, state, NULL, 0, __VA_ARGS__)
    FOR_EACH_KIND(SCALAR, MATRIX)
#undef SCALAR
#undef MATRIX
}

/* The states that enter each step are kept. */
static void keep_steps(const walk *w, int64_t first, int64_t end, vec *state, vec *kept)
{
#define SCALAR(width) scalar_steps(w, first, end, state, kept, 0, width)
#define MATRIX(...) matrix_steps(w, first, end, state, kept, 0, __VA_ARGS__)
    FOR_EACH_KIND(SCALAR, MATRIX)
#undef SCALAR
#undef MATRIX
}

static void run_steps_back(const walk *w, int64_t first, int64_t end, vec *back, const vec *kept)
{
#define SCALAR(width) scalar_steps_back(w, first, end, back, kept, width)
#define MATRIX(...) matrix_steps_back(w, first, end, back, kept, __VA_ARGS__)
    FOR_EACH_KIND(SCALAR, MATRIX)
#undef SCALAR
#undef MATRIX
}

INLINE int64_t length_of(const sequence *g, int64_t s) { return g->bounds[s + 1] - g->bounds[s]; }

static walk walk_of(const sequence *g, int64_t b, int64_t s, int64_t slice, int64_t part)
{
    return (walk){g, b, s, slice, part, b * g->length + g->bounds[s], slice * g->width * LANES, {0}};
}

/* The slice of a state [DK, DV, JT] as it is walked, [DK, width, JT] vectors; one of them is 1. */
static void enter(const walk *w, vec *to, const real *from)
{
    const sequence *g = w->g;
    if (!from) {
        memset(to, 0, sizeof(vec) * state_vectors(g));
        return;
    }
    for (int64_t k = 0; k < g->dk; k++)
        for (int64_t c = 0; c < g->width; c++, to += g->jt)
            load_columns(w, from, (w->b * g->sequences + w->s) * g->dk + k, c, g->jt, to);
}

static void leave(const walk *w, vec *from, real *to)
{
    const sequence *g = w->g;
    for (int64_t k = 0; to && k < g->dk; k++)
        for (int64_t c = 0; c < g->width; c++, from += g->jt)
            store_columns(w, to, from, (w->b * g->sequences + w->s) * g->dk + k, c, g->jt);
}

/* Scratch of a thread. */
typedef struct {
    vec *state, *back;
    vec *between; /* states that enter the pieces */
    vec *kept;    /* states that enter the steps of a piece */
    step_scratch steps;
} scratch;

/* Steps of a piece. */
static int64_t piece_steps(int64_t length)
{
    int64_t steps = LEAST_PIECE;
    while (steps * steps < length)
        steps += LEAST_PIECE;
    return steps;
}

static int64_t longest(const sequence *g)
{
    int64_t found = 1;
    for (int64_t s = 0; s < g->sequences; s++)
        found = length_of(g, s) > found ? length_of(g, s) : found;
    return found;
}

static void run_walk(walk w, const scratch *s)
{
    const sequence *g = w.g;
    w.scratch = s->steps;
    enter(&w, s->state, g->initial);
    run_steps(&w, 0, length_of(g, w.s), s->state);
    leave(&w, s->state, g->last);
}

static void zero(const walk *w, real *from, int64_t first, int64_t end, int64_t size)
{
    memset(own_part(w, from, w->first + first, size), 0, sizeof(real) * (end - first) * size);
}

/* What slices add to: right before the first one does, so that it stays near. */
static void zero_sums(const walk *w, int64_t first, int64_t end)
{
    const sequence *g = w->g;
    zero(w, g->d_query, first, end, g->dk * g->jq);
    zero(w, g->d_key, first, end, g->dk * g->jk);
    zero(w, g->d_source, first, end, g->jt * g->jk * g->jv);
    zero(w, g->d_transition, first, end, g->jt * g->jt);
    zero(w, g->d_mark, first, end, g->jo * g->jq * g->jt);
    zero(w, g->d_direct, first, end, g->jo * g->jq * g->jk * g->jv);
}

static void run_walk_back(walk w, const scratch *s, int is_first)
{
    const sequence *g = w.g;
    const int64_t size = state_vectors(g), length = length_of(g, w.s), steps = piece_steps(length);
    const int64_t pieces = (length + steps - 1) / steps;
    w.scratch = s->steps;
    enter(&w, s->state, g->initial);
    for (int64_t piece = 0; piece < pieces; piece++) {
        memcpy(s->between + piece * size, s->state, sizeof(vec) * size);
        if (piece + 1 < pieces)
            pass_steps(&w, piece * steps, (piece + 1) * steps, s->state);
    }
    enter(&w, s->back, g->d_last);
    for (int64_t piece = pieces - 1; piece >= 0; piece--) {
        const int64_t first = piece * steps, end = smaller(first + steps, length);
        if (is_first)
            zero_sums(&w, first, end);
        keep_steps(&w, first, end, s->between + piece * size, s->kept);
        run_steps_back(&w, first, end, s->back, s->kept);
    }
    leave(&w, s->back, g->d_initial);
}

/* All slices of one part of one sequence, one after the other, so that their sums need no lock. */
static void run_part_back(const sequence *g, int64_t b, int64_t s, int64_t part, const scratch *memory)
{
    const int64_t first = part * g->slices / g->parts, end = (part + 1) * g->slices / g->parts;
    for (int64_t slice = first; slice < end; slice++)
        run_walk_back(walk_of(g, b, s, slice, part), memory, slice == first);
}

/* Vectors of scratch, and where its parts begin. */
static int64_t lay_out(const sequence *g, vec *from, scratch *s, int gradients)
{
    const int64_t size = state_vectors(g), length = longest(g), steps = smaller(piece_steps(length), length);
    int64_t at = 0;
    s->state = from + at, at += size;
    s->back = from + at, at += gradients ? size : 0;
    s->between = from + at, at += gradients ? (length + steps - 1) / steps * size : 0;
    s->kept = from + at, at += gradients ? steps * size : 0;
    s->steps.value = from + at, at += g->jv;
    s->steps.of_value = from + at, at += g->jv;
    s->steps.for_query = from + at, at += g->jq * LANES;
    s->steps.for_key = from + at, at += g->jk * LANES;
    s->steps.output = from + at, at += g->jo;
    s->steps.written = from + at, at += g->jt * g->jk;
    s->steps.write = from + at, at += g->jt * g->jk;
    s->steps.reading = from + at, at += g->jq * g->jt;
    s->steps.read = from + at, at += g->jq * g->jt;
    s->steps.passed = from + at, at += g->jt;
    s->steps.of_transition = from + at, at += g->jt * g->jt;
    const int64_t own = (g->jq * g->jk + LANES - 1) / LANES, pairs = (g->jo * g->jv + LANES - 1) / LANES;
    s->steps.products = (real *)(from + at), at += own;
    s->steps.of_products = (real *)(from + at), at += own;
    s->steps.factors = (real *)(from + at), at += pairs;
    s->steps.value_output = (real *)(from + at), at += pairs;
    return at;
}

static int run_share(const sequence *g, int64_t *taken, int backwards)
{
    const int64_t tasks = sequence_tasks(g, backwards), pieces = backwards ? g->parts : g->slices;
    scratch memory;
    vec *from = new_vectors(lay_out(g, NULL, &memory, backwards));
    lay_out(g, from, &memory, backwards);
    if (!from)
        return 1;
    for (int64_t task = next_task(taken); task < tasks; task = next_task(taken)) {
        const int64_t row = task / pieces, b = row / g->sequences, s = row % g->sequences;
        if (backwards)
            run_part_back(g, b, s, task % pieces, &memory);
        else
            run_walk(walk_of(g, b, s, task % pieces, 0), &memory);
    }
    free(from);
    return 0;
}

int sequence_forward_share(const void *of, int64_t *taken) { return run_share(of, taken, 0); }
int sequence_gradients_share(const void *of, int64_t *taken) { return run_share(of, taken, 1); }

int sequence_forward(const sequence *g)
{
    return share_out(sequence_forward_share, g, sequence_tasks(g, 0), g->threads);
}

int sequence_gradients(const sequence *g)
{
    return share_out(sequence_gradients_share, g, sequence_tasks(g, 1), g->threads);
}
