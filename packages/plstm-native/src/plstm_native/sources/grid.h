/* What a call on a grid is made of; every array is contiguous. */

#ifndef GRID_H
#define GRID_H

#include "tasks.h"

enum gate { SR, SD, RL, DU, DL, RU, ML, MU, GATES };
enum mode { GENERAL, P, L, R, STRAIGHT, MODES }; /* L: dl is zero, R: ru is zero, STRAIGHT: both are */

typedef struct {
    int64_t batch, orientations, x, y, dk, dv, width, slices, parts, threads, mode;
    const int64_t *flips;                /* [O, 2]: whether X, Y are walked backwards */
    const real *query, *key, *value;     /* [B, X, Y, DK or DV]; DV is whole slices */
    const real *direct;                  /* [B, X, Y] */
    const real *gates[GATES];            /* [B, O, X, Y], or none */
    const real *left, *top;              /* [B, O, Y or X, DK, DV], or none: zeros */
    real *output, *right, *bottom;       /* [parts, B, X, Y, DV]; as left and top, or none */
    const real *d_output, *d_right, *d_bottom; /* the last two as left and top, or none */
    real *d_query, *d_key, *d_value;     /* [parts, B, X, Y, DK or DV] */
    real *d_direct, *d_gates[GATES];     /* [parts, B, (O,) X, Y] */
    real *d_left, *d_top;                /* as left and top, or none */
    real *mask;                          /* [B, X * Y, X * Y] */
    const real *d_mask;
    real *marks;                         /* [B, X, Y] */
} grid;

INLINE int has_turn_down(int64_t mode) { return mode == GENERAL || mode == R; }
INLINE int has_turn_right(int64_t mode) { return mode == GENERAL || mode == L; }

/* Pieces of work that know nothing of each other. */
INLINE int64_t grid_tasks(const grid *g) { return g->batch * g->parts; }

share grid_forward_share, grid_gradients_share, grid_mask_share, grid_mask_gradients_share, grid_marks_share;

#endif
