/* Steps of a sequence of any J dimensions.

   Rows of the state and what is summed over all k are [.., J..] vectors of one column. Sums over J dimensions that do not
   meet the state are taken once a step, in this order: values with sources, cotangents with marks.

   JT is known at compile time where a function gets it as a constant, 0 stands for any other. If it is and JK and JQ are
   1, what is summed over k stays in registers. */

#include "sequence.h"

enum { NEAR = 8, NEAR_SUMS = 16 }; /* JT, and sums of a loop, that arrays of known size hold */

/* written[t, j] = S[t, j] V, the values V [JV] */
INLINE void load_written(const walk *w, const int64_t at, vec *written, const int64_t jt, const int64_t jk)
{
    const sequence *g = w->g;
    const real *source = g->source + at * jt * jk * g->jv;
    load_columns(w, g->value, at, 0, g->jv, w->scratch.value);
    for (int64_t a = 0; a < jt * jk; a++) {
        vec sum = {0};
        for (int64_t j = 0; j < g->jv; j++)
            sum += source[a * g->jv + j] * w->scratch.value[j];
        written[a] = sum;
    }
}

/* products[q, j] = Q_q.K_j, factors[o, w] = D[o, q, j, w] products[q, j] */
INLINE void load_factors(const walk *w, const int64_t at)
{
    const sequence *g = w->g;
    const int64_t own = g->jq * g->jk, jv = g->jv;
    const real *q = g->query + at * g->dk * g->jq, *k = g->key + at * g->dk * g->jk;
    const real *direct = g->direct + at * g->jo * own * jv;
    real *products = w->scratch.products, *factors = w->scratch.factors;
    for (int64_t a = 0; own > 1 && a < own; a++) {
        real sum = 0;
        for (int64_t i = 0; i < g->dk; i++)
            sum += q[i * g->jq + a / g->jk] * k[i * g->jk + a % g->jk];
        products[a] = sum;
    }
    if (own == 1)
        products[0] = dot(q, k, g->dk);
    for (int64_t o = 0; o < g->jo; o++)
        for (int64_t j = 0; j < jv; j++) {
            real sum = products[0] * direct[o * own * jv + j];
            for (int64_t a = 1; a < own; a++)
                sum += products[a] * direct[(o * own + a) * jv + j];
            factors[o * jv + j] = sum;
        }
}

/* H[o] = M[o] read + factors[o] V */
INLINE void put_output(const walk *w, const int64_t at, const vec *read)
{
    const sequence *g = w->g;
    const int64_t from = g->jq * g->jt;
    const real *mark = g->mark + at * g->jo * from, *factors = w->scratch.factors;
    load_factors(w, at);
    for (int64_t o = 0; o < g->jo; o++) {
        vec h = {0};
        for (int64_t a = 0; a < from; a++)
            h += mark[o * from + a] * read[a];
        for (int64_t j = 0; j < g->jv; j++)
            h += factors[o * g->jv + j] * w->scratch.value[j];
        w->scratch.output[o] = h;
    }
    store_columns(w, g->output, w->scratch.output, at, 0, g->jo);
}

/* As for scalar gates, one step. */
INLINE void matrix_step(const walk *w, const int64_t step, vec *restrict state, vec *restrict kept, const int reads,
                        const int known, const int64_t jt, const int64_t jk, const int64_t jq)
{
    const sequence *g = w->g;
    const int64_t at = w->first + step, dk = g->dk;
    const real *restrict q = g->query + at * dk * jq, *restrict k = g->key + at * dk * jk;
    const real *restrict t = g->transition + at * jt * jt;
    vec near_now[NEAR], near_written[NEAR], near_read[NEAR];
    vec *now = known ? near_now : w->scratch.passed, *written = known ? near_written : w->scratch.written;
    vec *read = known ? near_read : w->scratch.read;
    load_written(w, at, written, jt, jk);
    for (int64_t a = 0; reads && a < jq * jt; a++)
        read[a] = (vec){0};
    for (int64_t i = 0; i < dk; i++) {
#pragma GCC unroll 8
        for (int64_t a = 0; a < jt; a++) {
            now[a] = state[i * jt + a];
            if (kept)
                kept[i * jt + a] = now[a];
            for (int64_t b = 0; reads && b < jq; b++)
                read[b * jt + a] += q[i * jq + b] * now[a];
        }
#pragma GCC unroll 8
        for (int64_t a = 0; a < jt; a++) {
            vec sum = k[i * jk] * written[a * jk];
            for (int64_t b = 1; b < jk; b++)
                sum += k[i * jk + b] * written[a * jk + b];
#pragma GCC unroll 8
            for (int64_t b = 0; b < jt; b++)
                sum += t[a * jt + b] * now[b];
            state[i * jt + a] = sum;
        }
    }
    if (reads)
        put_output(w, at, read);
}

/* dD[o, q, j, w] = products[q, j] (V_w.e[o]), and d_products[q, j] = D[o, q, j, w] (V_w.e[o]) */
INLINE void direct_back(const walk *w, const int64_t at)
{
    const sequence *g = w->g;
    const int64_t own = g->jq * g->jk, jv = g->jv, pairs = g->jo * jv;
    const real *direct = g->direct + at * pairs * own, *products = w->scratch.products;
    real *d_direct = own_part(w, g->d_direct, at, pairs * own), *d_products = w->scratch.of_products;
    real *v_e = w->scratch.value_output;
    sums rows;
    memset(v_e, 0, sizeof(real) * pairs);
    begin_sums(&rows, v_e);
    for (int64_t o = 0; o < g->jo; o++)
        for (int64_t j = 0; j < jv; j++)
            add_row_sum(&rows, w->scratch.value[j] * w->scratch.output[o]);
    finish_sums(&rows);
    if (own == 1) {
        add_multiple(d_direct, products[0], v_e, pairs);
        d_products[0] = dot(direct, v_e, pairs);
        return;
    }
    memset(d_products, 0, sizeof(real) * own);
    for (int64_t o = 0; o < g->jo; o++)
        for (int64_t a = 0; a < own; a++)
            for (int64_t j = 0; j < jv; j++) {
                const int64_t place = (o * own + a) * jv + j;
                d_direct[place] += products[a] * v_e[o * jv + j];
                d_products[a] += direct[place] * v_e[o * jv + j];
            }
}

/* dQ_q += sum_j d_products[q, j] K_j, and the other way round */
INLINE void products_back(const walk *w, const int64_t at, real *d_q, real *d_k)
{
    const sequence *g = w->g;
    const int64_t jq = g->jq, jk = g->jk;
    const real *q = g->query + at * g->dk * jq, *k = g->key + at * g->dk * jk, *d_products = w->scratch.of_products;
    if (jq == 1 && jk == 1) {
        add_multiple(d_q, d_products[0], k, g->dk);
        add_multiple(d_k, d_products[0], q, g->dk);
        return;
    }
    for (int64_t i = 0; i < g->dk; i++)
        for (int64_t a = 0; a < jq; a++)
            for (int64_t b = 0; b < jk; b++) {
                d_q[i * jq + a] += d_products[a * jk + b] * k[i * jk + b];
                d_k[i * jk + b] += d_products[a * jk + b] * q[i * jq + a];
            }
}

/* found[a, b] = R_a C_b, summed over k, for a few rows a: R are the cotangents of what leaves, C what enters. */
INLINE void row_products(const vec *restrict back, const vec *restrict kept, const int64_t dk, vec *restrict found,
                         const int known, const int64_t rows, const int64_t jt)
{
    vec near[NEAR_SUMS], *sum = known ? near : found;
    for (int64_t a = 0; a < rows * jt; a++)
        sum[a] = (vec){0};
    for (int64_t i = 0; i < dk; i++)
#pragma GCC unroll 8
        for (int64_t a = 0; a < rows; a++)
#pragma GCC unroll 8
            for (int64_t b = 0; b < jt; b++)
                sum[a * jt + b] += back[i * jt + a] * kept[i * jt + b];
    for (int64_t a = 0; known && a < rows * jt; a++)
        found[a] = sum[a];
}

/* Functions of their own, as their sums would not stay in registers within a larger one. */
#define ROW_PRODUCTS(name, rows, jt)                                                                                       \
    static __attribute__((noinline)) void name(const vec *back, const vec *kept, int64_t dk, vec *found)                   \
    {                                                                                                                      \
        row_products(back, kept, dk, found, 1, rows, jt);                                                                  \
    }
ROW_PRODUCTS(row_products_1, 1, 1)
ROW_PRODUCTS(row_products_2, 2, 2)
ROW_PRODUCTS(row_products_4, 4, 4)
ROW_PRODUCTS(row_products_8, 2, 8)

/* dT[a, b] += <R_a, C_b>; few rows a at a time, so that their sums stay in registers. */
INLINE void transition_back(const walk *w, const int64_t at, const vec *restrict back, const vec *restrict kept,
                            const int known, const int64_t jt)
{
    const int64_t dk = w->g->dk, rows = known ? smaller(jt, NEAR_SUMS / jt) : jt;
    vec *found = w->scratch.of_transition;
    sums d_transition;
    begin_sums(&d_transition, own_part(w, w->g->d_transition, at, jt * jt));
    for (int64_t first = 0; first < jt; first += rows) {
        switch (known ? jt : 0) {
        case 1: row_products_1(back + first, kept, dk, found); break;
        case 2: row_products_2(back + first, kept, dk, found); break;
        case 4: row_products_4(back + first, kept, dk, found); break;
        case 8: row_products_8(back + first, kept, dk, found); break;
        default: row_products(back, kept, dk, found, 0, jt, jt);
        }
        for (int64_t a = 0; a < rows * jt; a++)
            add_row_sum(&d_transition, found[a]);
    }
    finish_sums(&d_transition);
}

/* Adds the sums of the lanes of n vectors to numbers that are `stride` apart. */
INLINE void put_lanes_sums(real *to, vec *rows, const int64_t n, const int64_t stride)
{
    for (int64_t i = n; i < LANES; i++)
        rows[i] = (vec){0};
    store_part(to, load_part(to, n, stride) + lanes_sums(rows), n, stride);
}

/* The cotangents of the state that enters a step from those of the one that leaves it, the gradients of queries and keys,
   LANES k at a time, and in scratch what else is summed over k. */
INLINE void state_back(const walk *w, const int64_t at, vec *restrict back, const vec *restrict kept, const int known,
                       const int64_t jt, const int64_t jk, const int64_t jq)
{
    const step_scratch *s = &w->scratch;
    const int64_t dk = w->g->dk;
    const real *q = w->g->query + at * dk * jq, *k = w->g->key + at * dk * jk, *t = w->g->transition + at * jt * jt;
    real *d_q = own_part(w, w->g->d_query, at, dk * jq), *d_k = own_part(w, w->g->d_key, at, dk * jk);
    vec near[5][NEAR], near_for_q[LANES], near_for_k[LANES];
    vec *now = known ? near[0] : s->passed, *written = known ? near[1] : s->written, *write = known ? near[2] : s->write;
    vec *reading = known ? near[3] : s->reading, *read = known ? near[4] : s->read;
    vec *for_q = known ? near_for_q : s->for_query, *for_k = known ? near_for_k : s->for_key;
    for (int64_t a = 0; a < jt * jk; a++) {
        written[a] = s->written[a];
        write[a] = (vec){0};
    }
    for (int64_t a = 0; a < jq * jt; a++) {
        reading[a] = s->reading[a];
        read[a] = (vec){0};
    }
    for (int64_t start = 0; start < dk; start += LANES) {
        const int64_t n = smaller(LANES, dk - start);
        for (int64_t i = start; i < start + n; i++) {
            for (int64_t c = 0; c < jq; c++) {
                vec sum = {0};
#pragma GCC unroll 8
                for (int64_t a = 0; a < jt; a++) {
                    const vec before = kept[i * jt + a];
                    sum += before * reading[c * jt + a];
                    read[c * jt + a] += q[i * jq + c] * before;
                }
                for_q[c * LANES + i - start] = sum;
            }
            for (int64_t c = 0; c < jk; c++) {
                vec sum = {0};
#pragma GCC unroll 8
                for (int64_t a = 0; a < jt; a++) {
                    const vec after = back[i * jt + a];
                    sum += after * written[a * jk + c];
                    write[a * jk + c] += k[i * jk + c] * after;
                }
                for_k[c * LANES + i - start] = sum;
            }
        }
        for (int64_t i = start; i < start + n; i++) {
#pragma GCC unroll 8
            for (int64_t a = 0; a < jt; a++)
                now[a] = back[i * jt + a];
#pragma GCC unroll 8
            for (int64_t a = 0; a < jt; a++) {
                vec sum = q[i * jq] * reading[a];
                for (int64_t c = 1; c < jq; c++)
                    sum += q[i * jq + c] * reading[c * jt + a];
#pragma GCC unroll 8
                for (int64_t c = 0; c < jt; c++)
                    sum += t[c * jt + a] * now[c];
                back[i * jt + a] = sum;
            }
        }
        for (int64_t c = 0; c < jq; c++)
            put_lanes_sums(d_q + start * jq + c, for_q + c * LANES, n, jq);
        for (int64_t c = 0; c < jk; c++)
            put_lanes_sums(d_k + start * jk + c, for_k + c * LANES, n, jk);
    }
    products_back(w, at, d_q, d_k);
    for (int64_t a = 0; a < jt * jk; a++)
        s->write[a] = write[a];
    for (int64_t a = 0; a < jq * jt; a++)
        s->read[a] = read[a];
}

/* The gradients of source, mark and value, given what is summed over k, and the factors of a step's own input. */
INLINE void gates_back(const walk *w, const int64_t at, const int64_t written, const int64_t read)
{
    const sequence *g = w->g;
    const int64_t jv = g->jv, jo = g->jo;
    const real *source = g->source + at * written * jv;
    const vec *value = w->scratch.value, *e = w->scratch.output;
    vec *d_value = w->scratch.of_value;
    sums d_source, d_mark;
    begin_sums(&d_source, own_part(w, g->d_source, at, written * jv));
    begin_sums(&d_mark, own_part(w, g->d_mark, at, jo * read));
    for (int64_t a = 0; a < written; a++)
        for (int64_t j = 0; j < jv; j++)
            add_row_sum(&d_source, w->scratch.write[a] * value[j]);
    for (int64_t o = 0; o < jo; o++)
        for (int64_t a = 0; a < read; a++)
            add_row_sum(&d_mark, w->scratch.read[a] * e[o]);
    finish_sums(&d_source);
    finish_sums(&d_mark);
    for (int64_t j = 0; j < jv; j++) {
        vec sum = {0};
        for (int64_t a = 0; a < written; a++)
            sum += source[a * jv + j] * w->scratch.write[a];
        for (int64_t o = 0; o < jo; o++)
            sum += w->scratch.factors[o * jv + j] * e[o];
        d_value[j] = sum;
    }
    store_columns(w, g->d_value, d_value, at, 0, jv);
}

INLINE void matrix_step_back(const walk *w, const int64_t step, vec *restrict back, const vec *restrict kept,
                             const int known, const int64_t jt, const int64_t jk, const int64_t jq)
{
    const sequence *g = w->g;
    const step_scratch *s = &w->scratch;
    const int64_t at = w->first + step, jo = g->jo, from = jq * jt;
    const real *mark = g->mark + at * jo * from;
    prefetch_step(w, at - 1);
    load_written(w, at, s->written, jt, jk);
    load_columns(w, g->d_output, at, 0, jo, s->output);
    for (int64_t a = 0; a < from; a++) {
        vec sum = {0};
        for (int64_t o = 0; o < jo; o++)
            sum += mark[o * from + a] * s->output[o];
        s->reading[a] = sum;
    }
    transition_back(w, at, back, kept, known, jt);
    load_factors(w, at);
    direct_back(w, at);
    state_back(w, at, back, kept, known, jt, jk, jq);
    gates_back(w, at, jt * jk, from);
}

/* Walks of all kinds, with JT known or not. */
INLINE void matrix_steps(const walk *w, const int64_t first, const int64_t end, vec *state, vec *kept, const int reads,
                         const int known, const int64_t jt, const int64_t jk, const int64_t jq)
{
    for (int64_t step = first; step < end; step++)
        matrix_step(w, step, state, kept ? kept + (step - first) * w->g->dk * jt : NULL, reads, known, jt, jk, jq);
}

INLINE void matrix_steps_back(const walk *w, const int64_t first, const int64_t end, vec *back, const vec *kept,
                              const int known, const int64_t jt, const int64_t jk, const int64_t jq)
{
    for (int64_t step = end - 1; step >= first; step--)
        matrix_step_back(w, step, back, kept + (step - first) * w->g->dk * jt, known, jt, jk, jq);
}
