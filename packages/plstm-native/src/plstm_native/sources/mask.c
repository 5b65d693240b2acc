/* The gating matrix of a small grid: what each node hears of each other, all orientations summed.

   It is the recurrence of grid.c, in which the states are vectors over all sources m and a node writes one number, at
   its own place:

       G[n, m] = ml r[m] + mu d[m] + [m = n] direct       r_out[m] = rl r[m] + ru d[m] + [m = n] sr       (d_out alike)

   A source reaches columns that come later on the walk alone, so a node of column i has to do with the columns up to i:
   one stretch of sources, since the nodes of a column lie side by side. */

#include "grid.h"

/* One orientation of one grid. */
typedef struct {
    const grid *g;
    int64_t b, o, flip_x, flip_y;
} walk;

typedef struct {
    int64_t at;          /* the node among those of its grid */
    int64_t with_o;      /* the place of its gates */
    int64_t first, last; /* the sources that may reach it, and itself */
    real gate[GATES];
} node;

static walk walk_of(const grid *g, int64_t b, int64_t o)
{
    return (walk){g, b, o, g->flips[2 * o], g->flips[2 * o + 1]};
}

static node node_at(const walk *w, int64_t i, int64_t j)
{
    const grid *g = w->g;
    const int64_t x = w->flip_x ? g->x - 1 - i : i, y = w->flip_y ? g->y - 1 - j : j;
    node n = {.at = x * g->y + y, .first = w->flip_x ? x * g->y : 0, .last = w->flip_x ? g->x * g->y : (x + 1) * g->y};
    n.with_o = (w->b * g->orientations + w->o) * g->x * g->y + n.at;
    for (int a = 0; a < GATES; a++)
        n.gate[a] = g->gates[a] ? g->gates[a][n.with_o] : 0;
    if (g->mode == P) { /* what comes from both sides is treated alike */
        n.gate[DL] = n.gate[DU];
        n.gate[RU] = n.gate[RL];
        n.gate[MU] = n.gate[ML];
    }
    return n;
}

/* The states that enter a node become those that leave it; adds to `row`, if there, what it reads of them. */
INLINE void step(const node *n, real *restrict row, real *restrict r, real *restrict d)
{
    const real rl = n->gate[RL], ru = n->gate[RU], du = n->gate[DU], dl = n->gate[DL], ml = n->gate[ML], mu = n->gate[MU];
    for (int64_t m = n->first; m < n->last; m++) {
        const real from_r = r[m], from_d = d[m];
        if (row)
            row[m] += ml * from_r + mu * from_d;
        r[m] = rl * from_r + ru * from_d;
        d[m] = du * from_d + dl * from_r;
    }
    r[n->at] += n->gate[SR];
    d[n->at] += n->gate[SD];
}

/* Adds to the rows of the mask; or, where they are to be kept, keeps the states that enter each node, [N, 2, N]. Scratch:
   r of the nodes of a column, d. */
static void run_walk(const walk *w, real *rs, real *d, real *kept)
{
    const grid *g = w->g;
    const int64_t nodes = g->x * g->y;
    memset(rs, 0, sizeof(real) * g->y * nodes);
    for (int64_t i = 0; i < g->x; i++) {
        memset(d, 0, sizeof(real) * nodes);
        for (int64_t j = 0; j < g->y; j++) {
            const node n = node_at(w, i, j);
            real *r = rs + j * nodes;
            if (kept) {
                const int64_t size = sizeof(real) * (n.last - n.first);
                memcpy(kept + 2 * n.at * nodes + n.first, r + n.first, size);
                memcpy(kept + (2 * n.at + 1) * nodes + n.first, d + n.first, size);
                step(&n, NULL, r, d);
            } else {
                step(&n, g->mask + (w->b * nodes + n.at) * nodes, r, d);
            }
        }
    }
}

/* The cotangents of the states that leave a node become those of the states that enter it; e is that of its row. */
INLINE void step_back(const grid *g, const node *n, real *restrict r, real *restrict d, const real *restrict e,
                      const real *restrict from_r, const real *restrict from_d)
{
    const real rl = n->gate[RL], ru = n->gate[RU], du = n->gate[DU], dl = n->gate[DL], ml = n->gate[ML], mu = n->gate[MU];
    real of_rl = 0, of_ru = 0, of_du = 0, of_dl = 0, of_ml = 0, of_mu = 0;
    const real of_sr = r[n->at], of_sd = d[n->at];
#pragma omp simd reduction(+ : of_rl, of_ru, of_du, of_dl, of_ml, of_mu)
    for (int64_t m = n->first; m < n->last; m++) {
        const real back_r = r[m], back_d = d[m];
        of_rl += back_r * from_r[m];
        of_ru += back_r * from_d[m];
        of_du += back_d * from_d[m];
        of_dl += back_d * from_r[m];
        of_ml += e[m] * from_r[m];
        of_mu += e[m] * from_d[m];
        r[m] = rl * back_r + dl * back_d + ml * e[m];
        d[m] = du * back_d + ru * back_r + mu * e[m];
    }
    if (g->mode == P) {
        of_rl += of_ru;
        of_du += of_dl;
        of_ml += of_mu;
    }
    const real found[GATES] = {of_sr, of_sd, of_rl, of_du, of_dl, of_ru, of_ml, of_mu};
    for (int a = 0; a < GATES; a++)
        if (g->d_gates[a])
            g->d_gates[a][n->with_o] = found[a];
}

static void run_walk_back(const walk *w, real *rs, real *d, real *kept)
{
    const grid *g = w->g;
    const int64_t nodes = g->x * g->y;
    run_walk(w, rs, d, kept);
    memset(rs, 0, sizeof(real) * g->y * nodes);
    for (int64_t i = g->x - 1; i >= 0; i--) {
        memset(d, 0, sizeof(real) * nodes);
        for (int64_t j = g->y - 1; j >= 0; j--) {
            const node n = node_at(w, i, j);
            const real *from = kept + 2 * n.at * nodes, *e = g->d_mask + (w->b * nodes + n.at) * nodes;
            step_back(g, &n, rs + j * nodes, d, e, from, from + nodes);
            if (w->o == 0)
                g->d_direct[w->b * nodes + n.at] = e[n.at];
        }
    }
}

/* All orientations of one grid, whose rows they share. */
static void fill(const grid *g, int64_t b, real *rs, real *d)
{
    const int64_t nodes = g->x * g->y;
    real *mask = g->mask + b * nodes * nodes;
    memset(mask, 0, sizeof(real) * nodes * nodes);
    for (int64_t n = 0; n < nodes; n++)
        mask[n * nodes + n] = g->direct[b * nodes + n];
    for (int64_t o = 0; o < g->orientations; o++) {
        const walk w = walk_of(g, b, o);
        run_walk(&w, rs, d, NULL);
    }
}

int grid_mask_share(const void *of, int64_t *taken)
{
    const grid *g = of;
    const int64_t nodes = g->x * g->y;
    real *scratch = new_numbers((g->y + 1) * nodes);
    if (!scratch)
        return 1;
    for (int64_t b = next_task(taken); b < g->batch; b = next_task(taken))
        fill(g, b, scratch, scratch + g->y * nodes);
    free(scratch);
    return 0;
}

int grid_mask_gradients_share(const void *of, int64_t *taken)
{
    const grid *g = of;
    const int64_t nodes = g->x * g->y;
    real *scratch = new_numbers((g->y + 1 + 2 * nodes) * nodes);
    if (!scratch)
        return 1;
    for (int64_t i = next_task(taken); i < g->batch * g->orientations; i = next_task(taken)) {
        const walk w = walk_of(g, i / g->orientations, i % g->orientations);
        run_walk_back(&w, scratch, scratch + g->y * nodes, scratch + (g->y + 1) * nodes);
    }
    free(scratch);
    return 0;
}

int grid_mask(const grid *g) { return share_out(grid_mask_share, g, g->batch, g->threads); }
int grid_mask_gradients(const grid *g)
{
    return share_out(grid_mask_gradients_share, g, g->batch * g->orientations, g->threads);
}
