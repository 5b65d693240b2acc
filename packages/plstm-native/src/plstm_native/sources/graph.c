/* pLSTM on directed acyclic graphs, edge by edge.

   With C of an edge from node n to node m, [DK, DV], and the line edges l that lead into it,

       C = initial + sum over l of T_l C_l + S k_n v_n^T             h_m = sum over edges into m of M C^T q_m

   and, given the cotangents e of h_m and A of C, which collects what the line edges out of it say,

       A = dC + M q_m e^T + sum over l of T_l A_l        dT_l = <A_l, C>        dM = (C^T q_m).e        dS = (A^T k_n).v_n
       dq_m = sum over edges into m of M C e             dk_n = sum over edges out of n of S A v_n      dv_n alike: S A^T k_n

   A graph is walked by one thread, in one slice of its states after the other. Nothing is kept for the gradients: they
   walk forwards again, then backwards. */

#include "graph.h"

/* One graph of one head, and one slice of its states; scratch for those of all its edges. */
typedef struct {
    const graph *g;
    int64_t h, first, last, column;
    vec *states, *adjoints;
} walk;

/* What an edge is made of. */
typedef struct {
    const real *q, *k;
    real source, mark;
    int64_t at, head, tail; /* places in arrays with heads */
    vec *state;
} edge;

INLINE int64_t state_of(const walk *w, int64_t e) { return (w->g->place[e] - w->first) * w->g->dk * w->g->width; }

INLINE edge edge_at(const walk *w, int64_t e)
{
    const graph *g = w->g;
    edge found = {.at = w->h * g->edges + e, .head = w->h * g->nodes + g->head[e], .tail = w->h * g->nodes + g->tail[e]};
    found.q = g->query + found.head * g->dk;
    found.k = g->key + found.tail * g->dk;
    found.source = g->source[found.at];
    found.mark = g->mark[found.at];
    found.state = w->states + state_of(w, e);
    return found;
}

INLINE void load_slice(const walk *w, const real *from, int64_t at, vec *to, const int width)
{
    for (int c = 0; c < width; c++)
        to[c] = load_part(from + at * w->g->dv + w->column + c * LANES, w->g->dv - w->column - c * LANES, 1);
}

INLINE void add_slice(const walk *w, real *to, int64_t at, const vec *what, const int width)
{
    for (int c = 0; c < width; c++) {
        const int64_t left = w->g->dv - w->column - c * LANES;
        real *row = to + at * w->g->dv + w->column + c * LANES;
        store_part(row, load_part(row, left, 1) + what[c], left, 1);
    }
}

INLINE void store_state(const walk *w, real *to, int64_t at, const vec *from, const int width)
{
    const graph *g = w->g;
    for (int64_t k = 0; to && k < g->dk; k++)
        for (int c = 0; c < width; c++) {
            const int64_t column = w->column + c * LANES;
            if (column < g->dv)
                store_part(to + (at * g->dk + k) * g->dv + column, from[k * width + c], g->dv - column, 1);
        }
}

/* to = factor row what^T, and what lies at `at` of an array of states, if there. */
INLINE void begin_state(const walk *w, vec *to, const real *row, const vec *what, const real *more, int64_t at, const int width)
{
    const graph *g = w->g;
    for (int64_t k = 0; k < g->dk; k++) {
        vec start[MAX_WIDTH] = {{0}};
        if (more)
            load_slice(w, more, at * g->dk + k, start, width);
        for (int c = 0; c < width; c++)
            to[k * width + c] = row[k] * what[c] + start[c];
    }
}

INLINE void add_state(vec *restrict to, real factor, const vec *restrict from, int64_t vectors)
{
    for (int64_t a = 0; a < vectors; a++)
        to[a] += factor * from[a];
}

/* sum over k of row[k] state[k]. */
INLINE void contract(const real *row, const vec *state, int64_t dk, vec *sums, const int width)
{
    for (int c = 0; c < width; c++)
        sums[c] = (vec){0};
    for (int64_t k = 0; k < dk; k++)
        for (int c = 0; c < width; c++)
            sums[c] += row[k] * state[k * width + c];
}

/* row[k] += factor state[k].what */
INLINE void add_products(real *row, real factor, const vec *state, const vec *what, int64_t dk, const int width)
{
    vec rows[LANES], scaled[MAX_WIDTH];
    for (int c = 0; c < width; c++)
        scaled[c] = factor * what[c];
    for (int64_t start = 0; start < dk; start += LANES) {
        const int64_t count = smaller(LANES, dk - start);
        for (int64_t k = 0; k < count; k++) {
            rows[k] = (vec){0};
            for (int c = 0; c < width; c++)
                rows[k] += state[(start + k) * width + c] * scaled[c];
        }
        for (int64_t k = count; k < LANES; k++)
            rows[k] = (vec){0};
        add_lanes_sums(row + start, rows, count);
    }
}

INLINE real inner(const vec *a, const vec *b, int64_t vectors)
{
    vec sums = {0};
    for (int64_t i = 0; i < vectors; i++)
        sums += a[i] * b[i];
    return lanes_sum(sums);
}

INLINE void walk_edges(const walk *w, int with_outputs, const int width)
{
    const graph *g = w->g;
    for (int64_t i = w->first; i < w->last; i++) {
        const int64_t e = g->order[i];
        const edge one = edge_at(w, e);
        vec v[MAX_WIDTH], read[MAX_WIDTH];
        load_slice(w, g->value, one.tail, v, width);
        for (int c = 0; c < width; c++)
            v[c] *= one.source;
        begin_state(w, one.state, one.k, v, g->initial, one.at, width);
        for (int64_t j = g->into[e]; j < g->into[e + 1]; j++) {
            const int64_t l = g->by_outgoing ? g->by_outgoing[j] : j;
            add_state(one.state, g->transition[w->h * g->lines + l], w->states + state_of(w, g->incoming[l]), g->dk * width);
        }
        if (!with_outputs)
            continue;
        contract(one.q, one.state, g->dk, read, width);
        for (int c = 0; c < width; c++)
            read[c] *= one.mark;
        add_slice(w, g->read, one.head, read, width);
        store_state(w, g->states, one.at, one.state, width);
    }
}

INLINE void walk_back(const walk *w, const int width)
{
    const graph *g = w->g;
    const int64_t vectors = g->dk * width;
    for (int64_t i = w->last - 1; i >= w->first; i--) {
        const int64_t e = g->order[i];
        const edge one = edge_at(w, e);
        vec d[MAX_WIDTH], v[MAX_WIDTH], back[MAX_WIDTH], read[MAX_WIDTH], written[MAX_WIDTH];
        vec *adjoint = w->adjoints + state_of(w, e), of_mark = {0}, of_source = {0};
        load_slice(w, g->d_read, one.head, d, width);
        load_slice(w, g->value, one.tail, v, width);
        for (int c = 0; c < width; c++)
            back[c] = one.mark * d[c];
        begin_state(w, adjoint, one.q, back, g->d_states, one.at, width);
        for (int64_t j = g->out_of[e]; j < g->out_of[e + 1]; j++) {
            const int64_t l = g->by_incoming[j], at = w->h * g->lines + l;
            const vec *later = w->adjoints + state_of(w, g->outgoing[l]);
            g->d_transition[at] += inner(later, one.state, vectors);
            add_state(adjoint, g->transition[at], later, vectors);
        }
        add_products(g->d_query + one.head * g->dk, one.mark, one.state, d, g->dk, width);
        add_products(g->d_key + one.tail * g->dk, one.source, adjoint, v, g->dk, width);
        contract(one.q, one.state, g->dk, read, width);
        contract(one.k, adjoint, g->dk, written, width);
        for (int c = 0; c < width; c++) {
            of_mark += read[c] * d[c];
            of_source += written[c] * v[c];
            written[c] *= one.source;
        }
        g->d_mark[one.at] += lanes_sum(of_mark);
        g->d_source[one.at] += lanes_sum(of_source);
        add_slice(w, g->d_value, one.tail, written, width);
        store_state(w, g->d_initial, one.at, adjoint, width);
    }
}

/* A copy of the code for each width, in which it is known. */
static void run_slice(const walk *w, int backwards)
{
    if (w->g->width == 1) {
        walk_edges(w, !backwards, 1);
        if (backwards)
            walk_back(w, 1);
    } else {
        walk_edges(w, !backwards, 2);
        if (backwards)
            walk_back(w, 2);
    }
}

static int run_share(const graph *g, int64_t *taken, int backwards)
{
    const int64_t states = largest_graph(g) * g->dk * g->width;
    vec *scratch = new_vectors(states * (backwards ? 2 : 1));
    if (!scratch)
        return 1;
    for (int64_t task = next_task(taken); task < graph_tasks(g); task = next_task(taken))
        for (int64_t slice = 0; slice < g->slices; slice++) {
            const int64_t i = task % g->graphs;
            const walk w = {g, task / g->graphs, g->first[i], g->first[i + 1], slice * g->width * LANES, scratch,
                            scratch + states};
            run_slice(&w, backwards);
        }
    free(scratch);
    return 0;
}

/* What is added up holds zeros before. */
int graph_forward_share(const void *of, int64_t *taken) { return run_share(of, taken, 0); }
int graph_gradients_share(const void *of, int64_t *taken) { return run_share(of, taken, 1); }

int graph_forward(const graph *g) { return share_out(graph_forward_share, g, graph_tasks(g), g->threads); }
int graph_gradients(const graph *g) { return share_out(graph_gradients_share, g, graph_tasks(g), g->threads); }
