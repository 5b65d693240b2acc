/* A call of pLSTM on graphs; every array is contiguous. */

#ifndef GRAPH_H
#define GRAPH_H

#include "tasks.h"

typedef struct {
    int64_t heads, nodes, edges, lines, graphs, dk, dv, width, slices, threads;
    const int64_t *tail, *head;               /* nodes of the edges [E] */
    const int64_t *order, *first;             /* edges graph by graph, each after those that lead into it [E]; [G+1] */
    const int64_t *place;                     /* of an edge in the order [E] */
    const int64_t *into, *incoming;           /* first place of an edge's own [E+1] among line edges by where they lead;
                                                 where line edges come from [L] */
    const int64_t *by_outgoing;               /* line edges by where they lead [L], or none: they stand so */
    const int64_t *out_of, *by_incoming, *outgoing; /* first place of an edge's own [E+1] among line edges by where they
                                                       come from [L]; where line edges lead [L] */
    const real *query, *key, *value;          /* [H, N, DK or DV] */
    const real *source, *transition, *mark;   /* [H, E], [H, L], [H, E] */
    const real *initial;                      /* [H, E, DK, DV], or none: zeros */
    real *read, *states;                      /* [H, N, DV]; as initial, or none */
    const real *d_read, *d_states;            /* the second may be none */
    real *d_query, *d_key, *d_value, *d_source, *d_transition, *d_mark;
    real *d_initial;                          /* as initial, or none */
} graph;

share graph_forward_share, graph_gradients_share;

/* Pieces of work that know nothing of each other. */
INLINE int64_t graph_tasks(const graph *g) { return g->heads * g->graphs; }

INLINE int64_t largest_graph(const graph *g)
{
    int64_t edges = 0;
    for (int64_t i = 0; i < g->graphs; i++)
        edges = g->first[i + 1] - g->first[i] > edges ? g->first[i + 1] - g->first[i] : edges;
    return edges;
}

#endif
