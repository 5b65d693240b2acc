/* Whom something that is not finite reaches on a grid.

   A mask lets one NaN reach every node, since zero times NaN is NaN. So who works with masks puts zeros in the place of
   what is not finite, and multiplies the outputs by these marks: NaN where a walk would have led it, and 1 elsewhere. */

#include "grid.h"

INLINE int is_spoilt(const real *from, int64_t number)
{
    real sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < number; i++)
        sum += 0 * from[i]; /* NaN, unless it is finite */
    return sum != 0;
}

INLINE int gate_is_spoilt(const grid *g, enum gate a, int64_t at) { return g->gates[a] && is_spoilt(g->gates[a] + at, 1); }

/* One orientation; reached is set at the nodes that read what is spoilt, left holds a flag for each row. */
static void walk(const grid *g, int64_t b, int64_t o, const char *inputs, char *reached, char *left)
{
    const int turns_right = has_turn_right(g->mode) || g->mode == P, turns_down = has_turn_down(g->mode) || g->mode == P;
    const int64_t nodes = g->x * g->y;
    memset(left, 0, g->y);
    for (int64_t i = 0; i < g->x; i++) {
        const int64_t x = g->flips[2 * o] ? g->x - 1 - i : i;
        int above = 0;
        for (int64_t j = 0; j < g->y; j++) {
            const int64_t y = g->flips[2 * o + 1] ? g->y - 1 - j : j, n = x * g->y + y;
            const int64_t at = (b * g->orientations + o) * nodes + n;
            const int from_left = left[y], from_above = above;
            int right = inputs[n] | from_left | (turns_right && from_above), down = inputs[n] | from_above | (turns_down && from_left);
            right |= gate_is_spoilt(g, SR, at) | gate_is_spoilt(g, RL, at) | gate_is_spoilt(g, RU, at);
            down |= gate_is_spoilt(g, SD, at) | gate_is_spoilt(g, DU, at) | gate_is_spoilt(g, DL, at);
            reached[n] |= from_left | from_above | gate_is_spoilt(g, ML, at) | gate_is_spoilt(g, MU, at);
            left[y] = (char)right, above = down;
        }
    }
}

int grid_marks_share(const void *of, int64_t *taken)
{
    const grid *g = of;
    const int64_t nodes = g->x * g->y;
    char *inputs = malloc(2 * nodes + g->y), *reached = inputs + nodes;
    if (!inputs)
        return 1;
    for (int64_t b = next_task(taken); b < g->batch; b = next_task(taken)) {
        for (int64_t n = 0; n < nodes; n++) {
            const int64_t at = b * nodes + n;
            inputs[n] = is_spoilt(g->key + at * g->dk, g->dk) || is_spoilt(g->value + at * g->dv, g->dv);
            reached[n] = inputs[n] || is_spoilt(g->direct + at, 1);
        }
        for (int64_t o = 0; o < g->orientations; o++)
            walk(g, b, o, inputs, reached, reached + nodes);
        for (int64_t n = 0; n < nodes; n++)
            g->marks[b * nodes + n] = reached[n] ? (real)__builtin_nan("") : 1;
    }
    free(inputs);
    return 0;
}

int grid_marks(const grid *g) { return share_out(grid_marks_share, g, g->batch, g->threads); }
