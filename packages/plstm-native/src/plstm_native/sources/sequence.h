/* A call of pLSTM on a sequence, and one walk of it. */

#ifndef SEQUENCE_H
#define SEQUENCE_H

#include "tasks.h"

/* Arrays are laid out as the op has them, J dimensions last. */
typedef struct {
    int64_t batch, length, sequences, dk, dv, jt, jk, jv, jo, jq, width, slices, parts, threads;
    const int64_t *bounds;                 /* [S+1]: where packed sequences begin and end */
    const real *query, *key, *value;       /* [B, T, DK, JQ], [B, T, DK, JK], [B, T, DV, JV] */
    const real *source, *transition;       /* [B, T, JT, JK, JV], [B, T, JT, JT] */
    const real *mark, *direct;             /* [B, T, JO, JQ, JT], [B, T, JO, JQ, JK, JV] */
    const real *initial;                   /* [B, S, DK, DV, JT], or none: zeros */
    real *output, *last;                   /* [B, T, DV, JO]; as initial, or none */
    const real *d_output, *d_last;         /* the second may be none */
    real *d_query, *d_key;                 /* [parts, B, T, DK, JQ or JK] */
    real *d_value;                         /* as value */
    real *d_source, *d_transition, *d_mark, *d_direct; /* with parts in front */
    real *d_initial;                       /* as initial, or none */
} sequence;

/* What a step of a walk works with besides the state, one column of vectors: matrix gates alone need it. */
typedef struct {
    vec *value, *output, *written, *write, *reading, *read, *passed, *of_transition, *of_value, *for_query, *for_key;
    real *products, *of_products, *factors, *value_output;
} step_scratch;

/* One sequence, and one slice of its states. */
typedef struct {
    const sequence *g;
    int64_t b, s, slice, part;
    int64_t first;   /* place of its first step in arrays [B, T] */
    int64_t column;  /* first column of the slice */
    step_scratch scratch;
} walk;

share sequence_forward_share, sequence_gradients_share;

/* Pieces of work that know nothing of each other. */
INLINE int64_t sequence_tasks(const sequence *g, int backwards)
{
    return g->batch * g->sequences * (backwards ? g->parts : g->slices);
}

INLINE int64_t state_vectors(const sequence *g) { return g->dk * g->jt * g->width; }

/* Where the gradients of this walk are added up, in an array of `size` numbers a step. */
INLINE real *own_part(const walk *w, real *from, int64_t at, int64_t size)
{
    return from + (w->part * w->g->batch * w->g->length + at) * size;
}

/* Columns of a slice, of an array [.., DV, J], one vector for each J; zeros where DV ends. */
INLINE void load_columns(const walk *w, const real *from, int64_t at, int64_t c, const int64_t size, vec *to)
{
    const int64_t column = w->column + c * LANES, left = w->g->dv - column;
    from += (at * w->g->dv + column) * size;
    switch (size) {
    case 1: *to = load_part(from, left, 1); break;
    case 4: load_turned(from, left, 4, to); break;
    default: load_turned(from, left, size, to);
    }
}

/* What a walk backwards reads next: rows of arrays whose sizes are powers of two push each other out of the caches. */
INLINE void prefetch_step(const walk *w, int64_t at)
{
    const sequence *g = w->g;
    if (at < w->first)
        return;
    prefetch(g->query + at * g->dk * g->jq, g->dk * g->jq);
    prefetch(g->key + at * g->dk * g->jk, g->dk * g->jk);
    prefetch(g->value + (at * g->dv + w->column) * g->jv, g->width * LANES * g->jv);
    prefetch(g->d_output + (at * g->dv + w->column) * g->jo, g->width * LANES * g->jo);
}

/* The vectors may be overwritten. */
INLINE void store_columns(const walk *w, real *to, vec *from, int64_t at, int64_t c, const int64_t size)
{
    const int64_t column = w->column + c * LANES, left = w->g->dv - column;
    to += (at * w->g->dv + column) * size;
    switch (size) {
    case 1: store_part(to, *from, left, 1); break;
    case 4: store_turned(to, left, 4, from); break;
    default: store_turned(to, left, size, from);
    }
}

#endif
