/* pLSTM on a grid, node by node: the recurrence itself, and its adjoint.

   With r arriving at a node from (i-1, j) and d from (i, j-1), both [DK, DV], and k v^T the node's own input,

       r_out = rl r + ru d + sr k v^T         h = ml r^T q + mu d^T q + direct (q.k) v
       d_out = du d + dl r + sd k v^T

   and, given the cotangents R of r_out, D of d_out and e of h,

       dr = rl R + dl D + ml q e^T     dq = ml r e + mu d e + direct (v.e) k     drl = <R, r>   dml = (r^T q).e
       dd = ru R + du D + mu q e^T     dk = sr R v + sd D v + direct (v.e) q     dru = <R, d>   dmu = (d^T q).e
                                       dv = sr R^T k + sd D^T k                  dsr = (R^T k).v
                                            + direct (q.k) e                     ddirect = (q.k) (v.e)

   In P-mode r and d are treated alike, so only their sum is kept: r of a node stands for r + d.

   Strips of nodes along Y keep the states between columns near. Nothing is kept for the gradients: they walk the grid for
   the states d that cross from strip to strip, each strip for the states r between tiles of its columns, and each tile
   for those of its nodes, on which the adjoint follows. */

#include "grid.h"

enum { STRIP = 16, TILE_BYTES = 1 << 21 };

/* One orientation of one grid, and one slice of its states. */
typedef struct {
    const grid *g;
    int64_t b, o, slice, flip_x, flip_y, part;
} walk;

/* What a node is made of; `direct` is zero but in the walk that adds the node's own input. */
typedef struct {
    const real *q, *k;
    real gate[GATES], direct;
    vec v[MAX_WIDTH];
    int64_t at, with_o;
} node;

/* About as many strips as nodes in one, so that what crosses between strips grows with X sqrt(Y). */
INLINE int64_t strips_of(const grid *g)
{
    int64_t nodes = STRIP;
    while (nodes * nodes < g->y)
        nodes += STRIP;
    return (g->y + nodes - 1) / nodes;
}
INLINE int64_t strip_nodes(const grid *g) { return (g->y + strips_of(g) - 1) / strips_of(g); }

static node node_at(const walk *w, int64_t i, int64_t j)
{
    const grid *g = w->g;
    const int64_t mode = g->mode, width = g->width;
    const int64_t x = w->flip_x ? g->x - 1 - i : i, y = w->flip_y ? g->y - 1 - j : j;
    node n;
    n.at = (w->b * g->x + x) * g->y + y;
    n.with_o = ((w->b * g->orientations + w->o) * g->x + x) * g->y + y;
    n.q = g->query + n.at * g->dk;
    n.k = g->key + n.at * g->dk;
    n.direct = w->o == 0 ? g->direct[n.at] : 0;
    for (int a = 0; a < GATES; a++)
        n.gate[a] = 0;
    n.gate[SR] = g->gates[SR][n.with_o];
    n.gate[SD] = g->gates[SD][n.with_o];
    n.gate[RL] = g->gates[RL][n.with_o];
    n.gate[DU] = g->gates[DU][n.with_o];
    n.gate[ML] = g->gates[ML][n.with_o];
    if (has_turn_down(mode))
        n.gate[DL] = g->gates[DL][n.with_o];
    if (has_turn_right(mode))
        n.gate[RU] = g->gates[RU][n.with_o];
    if (mode != P)
        n.gate[MU] = g->gates[MU][n.with_o];
    for (int64_t c = 0; c < width; c++)
        n.v[c] = load(g->value + n.at * g->dv + (w->slice * width + c) * LANES);
    return n;
}

/* The states that enter a node become those that leave it; adds to h what it reads of them, and keeps them in `kept`:
   DK rows of r (in P-mode of r + d), behind them, in other modes, DK rows of d. */
INLINE void step_as(const node *n, const int64_t dk, vec *restrict r, vec *restrict d, vec *restrict h, vec *restrict kept,
                    const int mode, const int width)
{
    vec by_r[MAX_WIDTH], by_d[MAX_WIDTH], read_r[MAX_WIDTH], read_d[MAX_WIDTH];
    for (int c = 0; c < width; c++) {
        by_r[c] = n->gate[SR] * n->v[c];
        by_d[c] = n->gate[SD] * n->v[c];
        read_r[c] = read_d[c] = (vec){0};
    }
    const real rl = n->gate[RL], du = n->gate[DU], dl = n->gate[DL], ru = n->gate[RU];
    for (int64_t k = 0; k < dk; k++) {
        const real q_k = n->q[k], k_k = n->k[k];
        for (int c = 0; c < width; c++) {
            const int64_t a = k * width + c;
            const vec from_r = mode == P ? r[a] + d[a] : r[a], from_d = mode == P ? from_r : d[a];
            if (kept) {
                kept[a] = from_r;
                if (mode != P)
                    kept[dk * width + a] = from_d;
            }
            if (h) {
                read_r[c] += q_k * from_r;
                if (mode != P)
                    read_d[c] += q_k * from_d;
            }
            vec r_out = rl * from_r + k_k * by_r[c], d_out = du * from_d + k_k * by_d[c];
            if (has_turn_right(mode))
                r_out += ru * from_d;
            if (has_turn_down(mode))
                d_out += dl * from_r;
            r[a] = r_out;
            d[a] = d_out;
        }
    }
    for (int c = 0; h && c < width; c++)
        h[c] += n->gate[ML] * read_r[c] + (mode == P ? (vec){0} : n->gate[MU] * read_d[c]);
}

/* The cotangents of the states that leave a node become those of the states that enter it. `down` may be another place
   than `d`: in P-mode both become the same, and only r is written. */
INLINE void step_back_as(const walk *w, const node *n, vec *restrict r, vec *d, const vec *restrict kept,
                         const int mode, const int width)
{
    const grid *g = w->g;
    const int64_t dk = g->dk, column = w->slice * width * LANES, all_nodes = g->batch * g->x * g->y;
    const real sr = n->gate[SR], sd = n->gate[SD], rl = n->gate[RL], du = n->gate[DU], dl = n->gate[DL], ru = n->gate[RU],
               ml = n->gate[ML], mu = n->gate[MU];
    vec e[MAX_WIDTH], ml_e[MAX_WIDTH], mu_e[MAX_WIDTH], sr_v[MAX_WIDTH], sd_v[MAX_WIDTH];
    vec read_r[MAX_WIDTH], read_d[MAX_WIDTH], write_r[MAX_WIDTH], write_d[MAX_WIDTH];
    vec of_rl = {0}, of_du = {0}, of_dl = {0}, of_ru = {0};
    for (int c = 0; c < width; c++) {
        e[c] = load(g->d_output + n->at * g->dv + column + c * LANES);
        ml_e[c] = ml * e[c];
        mu_e[c] = mu * e[c];
        sr_v[c] = sr * n->v[c];
        sd_v[c] = sd * n->v[c];
        read_r[c] = read_d[c] = write_r[c] = write_d[c] = (vec){0};
    }
    real *d_query = g->d_query + (w->part * all_nodes + n->at) * dk;
    real *d_key = g->d_key + (w->part * all_nodes + n->at) * dk;
    vec for_queries[LANES], for_keys[LANES]; /* of as many k as their lanes are summed at once */
    for (int64_t k = 0; k < dk; k++) {
        const real q_k = n->q[k], k_k = n->k[k];
        vec for_query = {0}, for_key = {0};
        for (int c = 0; c < width; c++) {
            const int64_t a = k * width + c;
            const vec back_r = r[a], back_d = d[a], from_r = kept[a], from_d = mode == P ? from_r : kept[dk * width + a];
            read_r[c] += q_k * from_r;
            write_r[c] += k_k * back_r;
            write_d[c] += k_k * back_d;
            of_rl += back_r * from_r;
            of_du += back_d * from_d;
            for_query += from_r * ml_e[c];
            for_key += back_r * sr_v[c] + back_d * sd_v[c];
            vec to_r = rl * back_r + q_k * ml_e[c], to_d = du * back_d;
            if (mode == P) {
                r[a] = to_r + to_d;
                continue;
            }
            read_d[c] += q_k * from_d;
            for_query += from_d * mu_e[c];
            to_d += q_k * mu_e[c];
            if (has_turn_right(mode)) {
                of_ru += back_r * from_d;
                to_d += ru * back_r;
            }
            if (has_turn_down(mode)) {
                of_dl += back_d * from_r;
                to_r += dl * back_d;
            }
            r[a] = to_r;
            d[a] = to_d;
        }
        for_queries[k % LANES] = for_query;
        for_keys[k % LANES] = for_key;
        if (k % LANES == LANES - 1 || k == dk - 1) {
            add_lanes_sums(d_query + k / LANES * LANES, for_queries, k % LANES + 1);
            add_lanes_sums(d_key + k / LANES * LANES, for_keys, k % LANES + 1);
        }
    }
    vec of_ml = {0}, of_mu = {0}, of_sr = {0}, of_sd = {0}, value_e = {0};
    real *d_value = g->d_value + (w->part * all_nodes + n->at) * g->dv + column;
    const real own = w->o == 0 ? dot(n->q, n->k, dk) : 0;
    for (int c = 0; c < width; c++) {
        of_ml += read_r[c] * e[c];
        of_mu += read_d[c] * e[c];
        of_sr += write_r[c] * n->v[c];
        of_sd += write_d[c] * n->v[c];
        vec to_value = load(d_value + c * LANES) + sr * write_r[c] + sd * write_d[c];
        if (w->o == 0) {
            value_e += n->v[c] * e[c];
            to_value += n->direct * own * e[c];
        }
        store(d_value + c * LANES, to_value);
    }
    const vec found[GATES] = {of_sr, of_sd, of_rl, of_du, of_dl, of_ru, of_ml, of_mu};
    for (int a = 0; a < GATES; a++)
        if (g->d_gates[a])
            g->d_gates[a][w->part * all_nodes * g->orientations + n->with_o] += lanes_sum(found[a]);
    if (w->o == 0) {
        const real both = lanes_sum(value_e);
        g->d_direct[w->part * all_nodes + n->at] += own * both;
        add_multiple(d_query, n->direct * both, n->k, dk);
        add_multiple(d_key, n->direct * both, n->q, dk);
    }
}

/* A copy of the code for each mode and width, in which both are known. */
#define FOR_EACH_KIND(CALL)                                                                                                \
    switch (g->mode * MAX_WIDTH + g->width - 1) {                                                                          \
    case 2 * GENERAL: CALL(GENERAL, 1); break;                                                                             \
    case 2 * GENERAL + 1: CALL(GENERAL, 2); break;                                                                         \
    case 2 * P: CALL(P, 1); break;                                                                                         \
    case 2 * P + 1: CALL(P, 2); break;                                                                                     \
    case 2 * L: CALL(L, 1); break;                                                                                         \
    case 2 * L + 1: CALL(L, 2); break;                                                                                     \
    case 2 * R: CALL(R, 1); break;                                                                                         \
    case 2 * R + 1: CALL(R, 2); break;                                                                                     \
    case 2 * STRAIGHT: CALL(STRAIGHT, 1); break;                                                                           \
    case 2 * STRAIGHT + 1: CALL(STRAIGHT, 2); break;                                                                       \
    }

static void step_and_read(const grid *g, const node *n, vec *r, vec *d, vec *h)
{
#define STEP(mode, width) step_as(n, g->dk, r, d, h, NULL, mode, width)
    FOR_EACH_KIND(STEP)
#undef STEP
}

static void step_and_keep(const grid *g, const node *n, vec *r, vec *d, vec *kept)
{
#define STEP(mode, width) step_as(n, g->dk, r, d, NULL, kept, mode, width)
    FOR_EACH_KIND(STEP)
#undef STEP
}

static void step(const grid *g, const node *n, vec *r, vec *d)
{
#define STEP(mode, width) step_as(n, g->dk, r, d, NULL, NULL, mode, width)
    FOR_EACH_KIND(STEP)
#undef STEP
}

static void step_back(const walk *w, const node *n, vec *r, vec *d, const vec *kept)
{
    const grid *g = w->g;
#define STEP(mode, width) step_back_as(w, n, r, d, kept, mode, width)
    FOR_EACH_KIND(STEP)
#undef STEP
}

/* The slice of a state at a border of the grid, `place` in the order of the walk, of `length` places. */
INLINE int64_t border_at(const walk *w, int64_t place, int64_t length, int64_t flipped)
{
    const grid *g = w->g;
    const int64_t at = flipped ? length - 1 - place : place;
    return ((w->b * g->orientations + w->o) * length + at) * g->dk * g->dv + w->slice * g->width * LANES;
}

static void enter(const walk *w, vec *to, const real *from, int64_t place, int64_t length, int64_t flipped)
{
    const grid *g = w->g;
    if (!from) {
        memset(to, 0, sizeof(vec) * g->dk * g->width);
        return;
    }
    from += border_at(w, place, length, flipped);
    for (int64_t k = 0; k < g->dk; k++)
        for (int64_t c = 0; c < g->width; c++)
            to[k * g->width + c] = load(from + k * g->dv + c * LANES);
}

static void leave(const walk *w, const vec *from, real *to, int64_t place, int64_t length, int64_t flipped)
{
    const grid *g = w->g;
    if (!to)
        return;
    to += border_at(w, place, length, flipped);
    for (int64_t k = 0; k < g->dk; k++)
        for (int64_t c = 0; c < g->width; c++)
            store(to + k * g->dv + c * LANES, from[k * g->width + c]);
}

/* Scratch of a thread: r of the nodes of a strip, d of all columns. */
static void run_walk(const walk *w, vec *r, vec *d)
{
    const grid *g = w->g;
    const int64_t state = g->dk * g->width;
    for (int64_t i = 0; i < g->x; i++)
        enter(w, d + i * state, g->top, i, g->x, w->flip_x);
    for (int64_t strip = 0; strip < strips_of(g); strip++) {
        const int64_t first = strip * strip_nodes(g), nodes = smaller(strip_nodes(g), g->y - first);
        for (int64_t j = 0; j < nodes; j++)
            enter(w, r + j * state, g->left, first + j, g->y, w->flip_y);
        for (int64_t i = 0; i < g->x; i++)
            for (int64_t j = 0; j < nodes; j++) {
                const node n = node_at(w, i, first + j);
                real *output = g->output + (w->part * g->batch * g->x * g->y + n.at) * g->dv + w->slice * g->width * LANES;
                const real own = w->o == 0 ? n.direct * dot(n.q, n.k, g->dk) : 0;
                vec h[MAX_WIDTH];
                for (int64_t c = 0; c < g->width; c++)
                    h[c] = load(output + c * LANES) + (w->o == 0 ? own * n.v[c] : (vec){0});
                step_and_read(g, &n, r + j * state, d + i * state, h);
                for (int64_t c = 0; c < g->width; c++)
                    store(output + c * LANES, h[c]);
            }
        for (int64_t j = 0; j < nodes; j++)
            leave(w, r + j * state, g->right, first + j, g->y, w->flip_y);
    }
    for (int64_t i = 0; i < g->x; i++)
        leave(w, d + i * state, g->bottom, i, g->x, w->flip_x);
}

INLINE int64_t states_per_node(int mode) { return mode == P ? 1 : 2; }

/* Columns of a tile: what its nodes keep stays in a near cache. */
INLINE int64_t tile_columns(const grid *g)
{
    const int64_t bytes = strip_nodes(g) * states_per_node(g->mode) * g->dk * g->width * sizeof(vec);
    return smaller(TILE_BYTES / bytes + 1, g->x);
}

/* Scratch of a thread for the gradients. */
typedef struct {
    vec *r, *d;           /* of the nodes of a strip, of one column */
    vec *crossing;        /* d between strips: [strips - 1, X] */
    vec *between;         /* r between the tiles of a strip: [tiles, nodes] */
    vec *kept;            /* of the nodes of a tile */
    vec *back_r, *back_d; /* cotangents: of the nodes of a strip, of all columns */
} scratch;

/* Walks down a column of a strip, whose states r are in s->r, and leaves what comes out of it in s->d. */
static void run_column(const walk *w, const scratch *s, int64_t strip, int64_t i, int64_t nodes, vec *kept)
{
    const grid *g = w->g;
    const int64_t state = g->dk * g->width, first = strip * strip_nodes(g);
    if (strip)
        memcpy(s->d, s->crossing + ((strip - 1) * g->x + i) * state, sizeof(vec) * state);
    else
        enter(w, s->d, g->top, i, g->x, w->flip_x);
    for (int64_t j = 0; j < nodes; j++) {
        const node n = node_at(w, i, first + j);
        if (kept)
            step_and_keep(g, &n, s->r + j * state, s->d, kept + j * state * states_per_node(g->mode));
        else
            step(g, &n, s->r + j * state, s->d);
    }
}

/* The states that cross from strip to strip. */
static void run_strips(const walk *w, const scratch *s)
{
    const grid *g = w->g;
    const int64_t state = g->dk * g->width, nodes = strip_nodes(g);
    for (int64_t strip = 0; strip + 1 < strips_of(g); strip++) {
        for (int64_t j = 0; j < nodes; j++)
            enter(w, s->r + j * state, g->left, strip * nodes + j, g->y, w->flip_y);
        for (int64_t i = 0; i < g->x; i++) {
            run_column(w, s, strip, i, nodes, NULL);
            memcpy(s->crossing + (strip * g->x + i) * state, s->d, sizeof(vec) * state);
        }
    }
}

static void run_column_back(const walk *w, const scratch *s, int64_t first, int64_t i, int64_t nodes, const vec *kept)
{
    const grid *g = w->g;
    const int64_t state = g->dk * g->width;
    vec *down = s->back_d + i * state;
    for (int64_t j = nodes - 1; j >= 0; j--) {
        const node n = node_at(w, i, first + j);
        vec *r = s->back_r + j * state;
        step_back(w, &n, r, down, kept + j * state * states_per_node(g->mode));
        if (g->mode == P)
            down = r;
    }
    if (g->mode == P)
        memcpy(s->back_d + i * state, down, sizeof(vec) * state);
}

static void run_walk_back(const walk *w, const scratch *s)
{
    const grid *g = w->g;
    const int64_t state = g->dk * g->width;
    run_strips(w, s);
    for (int64_t i = 0; i < g->x; i++)
        enter(w, s->back_d + i * state, g->d_bottom, i, g->x, w->flip_x);
    for (int64_t strip = strips_of(g) - 1; strip >= 0; strip--) {
        const int64_t first = strip * strip_nodes(g), nodes = smaller(strip_nodes(g), g->y - first);
        const int64_t columns = tile_columns(g), tiles = (g->x + columns - 1) / columns;
        for (int64_t j = 0; j < nodes; j++) {
            enter(w, s->r + j * state, g->left, first + j, g->y, w->flip_y);
            enter(w, s->back_r + j * state, g->d_right, first + j, g->y, w->flip_y);
        }
        for (int64_t tile = 0; tile < tiles; tile++) {
            memcpy(s->between + tile * nodes * state, s->r, sizeof(vec) * nodes * state);
            for (int64_t i = tile * columns; tile + 1 < tiles && i < (tile + 1) * columns; i++)
                run_column(w, s, strip, i, nodes, NULL);
        }
        for (int64_t tile = tiles - 1; tile >= 0; tile--) {
            const int64_t start = tile * columns, end = smaller(start + columns, g->x);
            const int64_t column = nodes * state * states_per_node(g->mode);
            memcpy(s->r, s->between + tile * nodes * state, sizeof(vec) * nodes * state);
            for (int64_t i = start; i < end; i++)
                run_column(w, s, strip, i, nodes, s->kept + (i - start) * column);
            for (int64_t i = end - 1; i >= start; i--)
                run_column_back(w, s, first, i, nodes, s->kept + (i - start) * column);
        }
        for (int64_t j = 0; j < nodes; j++)
            leave(w, s->back_r + j * state, g->d_left, first + j, g->y, w->flip_y);
    }
    for (int64_t i = 0; i < g->x; i++)
        leave(w, s->back_d + i * state, g->d_top, i, g->x, w->flip_x);
}

static void zero(real *from, int64_t at, int64_t number)
{
    if (from)
        memset(from + at * number, 0, sizeof(real) * number);
}

/* All walks of one part of one grid, one after the other, so that their sums need no lock. */
static void run_part(const grid *g, int64_t b, int64_t part, vec *r, vec *d, const scratch *s)
{
    const int64_t walks = g->orientations * g->slices, nodes = g->x * g->y, at = part * g->batch + b;
    if (s) {
        zero(g->d_query, at, nodes * g->dk);
        zero(g->d_key, at, nodes * g->dk);
        zero(g->d_value, at, nodes * g->dv);
        zero(g->d_direct, at, nodes);
        for (int a = 0; a < GATES; a++)
            zero(g->d_gates[a], at, nodes * g->orientations);
    } else {
        zero(g->output, at, nodes * g->dv);
    }
    for (int64_t i = part * walks / g->parts; i < (part + 1) * walks / g->parts; i++) {
        const int64_t o = i / g->slices;
        const walk w = {g, b, o, i % g->slices, g->flips[2 * o], g->flips[2 * o + 1], part};
        if (s)
            run_walk_back(&w, s);
        else
            run_walk(&w, r, d);
    }
}

/* Vectors of scratch for the gradients, and where its parts begin. */
INLINE int64_t lay_out(const grid *g, vec *from, scratch *s)
{
    const int64_t state = g->dk * g->width, nodes = strip_nodes(g);
    const int64_t columns = tile_columns(g), tiles = (g->x + columns - 1) / columns;
    int64_t at = 0;
    s->r = from + at, at += nodes * state;
    s->d = from + at, at += state;
    s->crossing = from + at, at += (strips_of(g) - 1) * g->x * state;
    s->between = from + at, at += tiles * nodes * state;
    s->kept = from + at, at += columns * nodes * state * states_per_node(g->mode);
    s->back_r = from + at, at += nodes * state;
    s->back_d = from + at, at += g->x * state;
    return at;
}

int grid_forward_share(const void *of, int64_t *taken)
{
    const grid *g = of;
    const int64_t state = g->dk * g->width, nodes = strip_nodes(g);
    vec *r = new_vectors((nodes + g->x) * state);
    if (!r)
        return 1;
    for (int64_t task = next_task(taken); task < grid_tasks(g); task = next_task(taken))
        run_part(g, task / g->parts, task % g->parts, r, r + nodes * state, NULL);
    free(r);
    return 0;
}

int grid_gradients_share(const void *of, int64_t *taken)
{
    const grid *g = of;
    scratch s;
    vec *from = new_vectors(lay_out(g, NULL, &s));
    lay_out(g, from, &s);
    if (!from)
        return 1;
    for (int64_t task = next_task(taken); task < grid_tasks(g); task = next_task(taken))
        run_part(g, task / g->parts, task % g->parts, NULL, NULL, &s);
    free(from);
    return 0;
}

int grid_forward(const grid *g) { return share_out(grid_forward_share, g, grid_tasks(g), g->threads); }
int grid_gradients(const grid *g) { return share_out(grid_gradients_share, g, grid_tasks(g), g->threads); }
