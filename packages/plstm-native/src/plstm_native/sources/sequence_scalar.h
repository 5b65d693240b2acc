/* Steps of a sequence whose J dimensions are all 1.

   A few steps at a time: each vector of the state is loaded once, taken through them, and stored. */

#include "sequence.h"

enum { AHEAD = 4, BACK = 2 }; /* steps at a time */

/* From the states that enter these steps to those that leave them. They are put into `kept`, one after the other, or
   nowhere; with `reads`, outputs are written. */
INLINE void scalar_group(const walk *w, const int64_t step, vec *restrict state, vec *restrict kept, const int reads,
                         const int width, const int steps)
{
    const sequence *g = w->g;
    const int64_t dk = g->dk, at = w->first + step;
    const real *q = g->query + at * dk, *k = g->key + at * dk, *t = g->transition + at;
    vec v[AHEAD][MAX_WIDTH], written[AHEAD][MAX_WIDTH], read[AHEAD][MAX_WIDTH];
    for (int u = 0; u < steps; u++)
        for (int c = 0; c < width; c++) {
            load_columns(w, g->value, at + u, c, 1, &v[u][c]);
            written[u][c] = g->source[at + u] * v[u][c];
            read[u][c] = (vec){0};
        }
    for (int64_t i = 0; i < dk; i++)
        for (int c = 0; c < width; c++) {
            const int64_t a = i * width + c;
            vec now = state[a];
            for (int u = 0; u < steps; u++) {
                if (kept)
                    kept[u * dk * width + a] = now;
                if (reads)
                    read[u][c] += q[u * dk + i] * now;
                now = t[u] * now + k[u * dk + i] * written[u][c];
            }
            state[a] = now;
        }
    for (int u = 0; reads && u < steps; u++) {
        const real own = g->direct[at + u] * dot(q + u * dk, k + u * dk, dk);
        for (int c = 0; c < width; c++) {
            vec h = g->mark[at + u] * read[u][c] + own * v[u][c];
            store_columns(w, g->output, &h, at + u, c, 1);
        }
    }
}

INLINE void scalar_steps(const walk *w, int64_t step, const int64_t end, vec *restrict state, vec *restrict kept,
                         const int reads, const int width)
{
    const int64_t size = w->g->dk * width;
    for (; step + AHEAD <= end; step += AHEAD) {
        scalar_group(w, step, state, kept, reads, width, AHEAD);
        kept = kept ? kept + AHEAD * size : NULL;
    }
    for (; step < end; step++) {
        scalar_group(w, step, state, kept, reads, width, 1);
        kept = kept ? kept + size : NULL;
    }
}

/* What the slice of a step is made of, and what its gradients are added up from. */
typedef struct {
    const real *q, *k;
    real *d_q, *d_k;
    real s, t, m, own_value, own_query; /* direct (q.k), direct (v.e) */
    vec v[MAX_WIDTH], e[MAX_WIDTH], written[MAX_WIDTH], reading[MAX_WIDTH]; /* sv, me */
    vec write[MAX_WIDTH], of_t[MAX_WIDTH], of_m;
} back_step;

INLINE void begin_back(const walk *w, const int64_t at, back_step *b, const int width)
{
    const sequence *g = w->g;
    const int64_t dk = g->dk;
    b->q = g->query + at * dk;
    b->k = g->key + at * dk;
    b->d_q = own_part(w, g->d_query, at, dk);
    b->d_k = own_part(w, g->d_key, at, dk);
    b->s = g->source[at];
    b->t = g->transition[at];
    b->m = g->mark[at];
    vec value_e = {0};
    for (int c = 0; c < width; c++) {
        load_columns(w, g->value, at, c, 1, &b->v[c]);
        load_columns(w, g->d_output, at, c, 1, &b->e[c]);
        b->written[c] = b->s * b->v[c];
        b->reading[c] = b->m * b->e[c];
        b->write[c] = b->of_t[c] = (vec){0};
        value_e += b->v[c] * b->e[c];
    }
    b->of_m = (vec){0};
    const real q_k = dot(b->q, b->k, dk), v_e = lanes_sum(value_e);
    b->own_value = g->direct[at] * q_k;
    b->own_query = g->direct[at] * v_e;
    *own_part(w, g->d_direct, at, 1) += q_k * v_e;
}

/* The gradients of n queries and keys: their sums over columns are the lanes' sums of these vectors. */
INLINE void put_queries(back_step *b, const int64_t i, const int64_t n, vec *for_q, vec *for_k)
{
    for (int64_t a = n; a < LANES; a++)
        for_q[a] = for_k[a] = (vec){0};
    const vec q = load_part(b->q + i, n, 1), k = load_part(b->k + i, n, 1), read = lanes_sums(for_q);
    b->of_m += q * read;
    const vec d_q = load_part(b->d_q + i, n, 1) + b->m * read + b->own_query * k;
    const vec d_k = load_part(b->d_k + i, n, 1) + lanes_sums(for_k) + b->own_query * q;
    store_part(b->d_q + i, d_q, n, 1);
    store_part(b->d_k + i, d_k, n, 1);
}

INLINE void end_back(const walk *w, const int64_t at, const back_step *b, const int width)
{
    const sequence *g = w->g;
    vec of_s = {0}, of_t = {0};
    for (int c = 0; c < width; c++) {
        of_s += b->write[c] * b->v[c];
        of_t += b->of_t[c];
        vec d_v = b->s * b->write[c] + b->own_value * b->e[c];
        store_columns(w, g->d_value, &d_v, at, c, 1);
    }
    *own_part(w, g->d_source, at, 1) += lanes_sum(of_s);
    *own_part(w, g->d_transition, at, 1) += lanes_sum(of_t);
    *own_part(w, g->d_mark, at, 1) += lanes_sum(b->of_m);
}

/* From the cotangents of the states that leave these steps to those of the states that enter them. */
INLINE void scalar_group_back(const walk *w, const int64_t step, vec *restrict back, const vec *restrict kept,
                              const int width, const int steps)
{
    const int64_t dk = w->g->dk, at = w->first + step;
    back_step group[BACK];
    vec for_q[BACK][LANES], for_k[BACK][LANES];
    for (int u = 0; u < steps; u++) {
        prefetch_step(w, at + u - BACK);
        begin_back(w, at + u, &group[u], width);
    }
    for (int64_t start = 0; start < dk; start += LANES) {
        const int64_t n = smaller(LANES, dk - start);
        for (int64_t i = 0; i < n; i++) {
            vec of_q[BACK] = {{0}}, of_k[BACK] = {{0}};
            for (int c = 0; c < width; c++) {
                const int64_t a = (start + i) * width + c;
                vec now = back[a];
                for (int u = steps - 1; u >= 0; u--) {
                    back_step *b = &group[u];
                    const vec before = kept[u * dk * width + a];
                    b->write[c] += b->k[start + i] * now;
                    b->of_t[c] += now * before;
                    of_q[u] += before * b->e[c];
                    of_k[u] += now * b->written[c];
                    now = b->t * now + b->q[start + i] * b->reading[c];
                }
                back[a] = now;
            }
            for (int u = 0; u < steps; u++) {
                for_q[u][i] = of_q[u];
                for_k[u][i] = of_k[u];
            }
        }
        for (int u = 0; u < steps; u++)
            put_queries(&group[u], start, n, for_q[u], for_k[u]);
    }
    for (int u = 0; u < steps; u++)
        end_back(w, at + u, &group[u], width);
}

INLINE void scalar_steps_back(const walk *w, const int64_t first, int64_t end, vec *restrict back,
                              const vec *restrict kept, const int width)
{
    const int64_t size = w->g->dk * width;
    for (; end - BACK >= first; end -= BACK)
        scalar_group_back(w, end - BACK, back, kept + (end - BACK - first) * size, width, BACK);
    for (; end > first; end--)
        scalar_group_back(w, end - 1, back, kept + (end - 1 - first) * size, width, 1);
}
