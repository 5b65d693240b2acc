/* The kernels for graphs as handlers of XLA. */

#include "graph.h"
#include "xla.h"

enum { ARRAYS = 6, WIDE = 4096 }; /* query, key, value, source, transition, mark; _WIDE of graph.py */

/* Pairs of int32 [.., 2]. Edges of nodes that there are not, and line edges of edges that there are not, fill up arrays. */
typedef struct {
    const int32_t (*edges)[2], (*line_edges)[2], *node_graph;
} topology;

INLINE int is_edge(const graph *g, const topology *t, int64_t e)
{
    return e < g->edges && t->edges[e][0] < g->nodes && t->edges[e][1] < g->nodes;
}

/* Walks stay where they should only if this is so. */
static const char *mistake_in(const graph *g, const topology *t)
{
    if (g->graphs < 0 || g->graphs > INT32_MAX) /* whose indices are of this type */
        return "graphs: expected their number";
    for (int64_t e = 0; e < g->edges; e++) {
        const int64_t tail = t->edges[e][0], head = t->edges[e][1];
        if (tail < 0 || head < 0)
            return "edges: expected indices of nodes";
        if (!is_edge(g, t, e))
            continue;
        if (tail == head)
            return "edges: expected no edge from a node to itself";
        const int64_t graph_of = t->node_graph[tail];
        if (graph_of < 0 || graph_of >= g->graphs || graph_of != t->node_graph[head])
            return "edges: expected both nodes of an edge in one graph";
    }
    for (int64_t l = 0; l < g->lines; l++) {
        const int64_t from = t->line_edges[l][0], to = t->line_edges[l][1];
        if (from < 0 || to < 0)
            return "line_edges: expected indices of edges";
        if (!is_edge(g, t, from) || !is_edge(g, t, to))
            continue;
        if (from >= to)
            return "line_edges: expected edges in topological order";
        if (t->edges[from][1] != t->edges[to][0]) /* those that meet are of one graph */
            return "line_edges: expected edges that meet in a node";
    }
    return NULL;
}

/* Sorts those of `number` things that have a key, by keys below `keys`; first: where each key begins [keys+1]. */
static void sort(int64_t number, const int64_t *key, int64_t keys, int64_t *first, int64_t *sorted)
{
    memset(first, 0, sizeof(int64_t) * (keys + 1));
    for (int64_t i = 0; i < number; i++)
        if (key[i] >= 0)
            first[key[i] + 1]++;
    for (int64_t k = 0; k < keys; k++)
        first[k + 1] += first[k];
    for (int64_t i = 0; i < number; i++)
        if (key[i] >= 0)
            sorted[first[key[i]]++] = i;
    for (int64_t k = keys; k > 0; k--) /* each has become where the next one begins */
        first[k] = first[k - 1];
    first[0] = 0;
}

/* What walks need to know of the graphs: made for each call, since XLA may only know the topology now. */
static void index_graphs(graph *g, const topology *t, int64_t *memory)
{
    int64_t *tail = memory, *head = tail + g->edges, *order = head + g->edges, *place = order + g->edges;
    int64_t *incoming = place + g->edges, *outgoing = incoming + g->lines;
    int64_t *by_outgoing = outgoing + g->lines, *by_incoming = by_outgoing + g->lines;
    int64_t *into = by_incoming + g->lines, *out_of = into + g->edges + 1, *first = out_of + g->edges + 1;
    for (int64_t e = 0; e < g->edges; e++) {
        tail[e] = t->edges[e][0], head[e] = t->edges[e][1];
        place[e] = is_edge(g, t, e) ? t->node_graph[tail[e]] : -1; /* first the key of the sort */
    }
    for (int64_t l = 0; l < g->lines; l++) {
        const int there = is_edge(g, t, t->line_edges[l][0]) && is_edge(g, t, t->line_edges[l][1]);
        incoming[l] = there ? t->line_edges[l][0] : -1, outgoing[l] = there ? t->line_edges[l][1] : -1;
    }
    sort(g->edges, place, g->graphs, first, order);
    for (int64_t i = 0; i < first[g->graphs]; i++)
        place[order[i]] = i;
    sort(g->lines, outgoing, g->edges, into, by_outgoing);
    sort(g->lines, incoming, g->edges, out_of, by_incoming);
    g->tail = tail, g->head = head, g->order = order, g->place = place, g->first = first;
    g->incoming = incoming, g->outgoing = outgoing, g->into = into, g->out_of = out_of;
    g->by_outgoing = by_outgoing, g->by_incoming = by_incoming;
}

/* Edges that fill up arrays hand on what enters them. */
static void fill_up(const graph *g, const topology *t, const real *from, real *to)
{
    const int64_t size = g->dk * g->dv;
    for (int64_t e = 0; to && e < g->edges; e++)
        for (int64_t h = 0; !is_edge(g, t, e) && h < g->heads; h++)
            memcpy(to + (h * g->edges + e) * size, from + (h * g->edges + e) * size, sizeof(real) * size);
}

/* Sizes and arguments of the forward pass, which are the first of both passes: the arrays, and perhaps the initial
   states. Last come edges, line edges and the graph of each node. */
static const char *read_call(const XLA_FFI_CallFrame *frame, graph *g, course *c, topology *t, int backwards)
{
    const int64_t reals = reals_of(frame), of_states = backwards ? 2 : 1;
    const int with_states = reals == ARRAYS + backwards + of_states;
    const XLA_FFI_Array *graphs = attribute(frame, "graphs");
    if (!(with_states || reals == ARRAYS + backwards) || frame->args.size != reals + 3 || !graphs || graphs->size != 1)
        return "arguments: expected the arrays of graphs, in the dtype of the kernels";
    const real **arrays[] = {&g->query, &g->key, &g->value, &g->source, &g->transition, &g->mark, &g->initial};
    for (int i = 0; i < ARRAYS + with_states; i++)
        *arrays[i] = argument(frame, i)->data;
    const int64_t *query = argument(frame, 0)->dims;
    g->heads = query[0], g->nodes = query[1], g->dk = query[2], g->dv = argument(frame, 2)->dims[2];
    g->edges = argument(frame, 3)->dims[1], g->lines = argument(frame, 4)->dims[1];
    g->graphs = *(const int64_t *)graphs->data;
    t->edges = (const void *)indices_at(frame, reals), t->line_edges = (const void *)indices_at(frame, reals + 1);
    t->node_graph = indices_at(frame, reals + 2);
    const char *mistake = mistake_in(g, t);
    if (mistake)
        return mistake;
    int64_t *memory = malloc(sizeof(int64_t) * (6 * g->edges + 4 * g->lines + g->graphs + 3));
    c->scratch = memory;
    c->failed |= !memory;
    if (!memory)
        return NULL;
    index_graphs(g, t, memory);
    g->width = g->dv > LANES && largest_graph(g) <= WIDE ? MAX_WIDTH : 1;
    g->slices = (g->dv + LANES * g->width - 1) / (LANES * g->width);
    c->parts = 1, c->tasks = graph_tasks(g);
    return NULL;
}

/* Results: what the nodes read and, where states enter, those of the edges. */
static const char *read_forward(const XLA_FFI_CallFrame *frame, graph *g, course *c)
{
    topology t;
    const char *mistake = read_call(frame, g, c, &t, 0);
    if (mistake)
        return mistake;
    if (frame->rets.size != 1 + !!g->initial)
        return "results: expected what is read, and the states where some enter";
    g->read = result(frame, 0)->data;
    g->states = g->initial ? result(frame, 1)->data : NULL;
    memset(g->read, 0, sizeof(real) * numbers(result(frame, 0)));
    fill_up(g, &t, g->initial, g->states);
    return NULL;
}

/* Behind the arguments of the forward pass stand the cotangents of its results; results: gradients of its arguments. */
static const char *read_gradients(const XLA_FFI_CallFrame *frame, graph *g, course *c)
{
    topology t;
    const char *mistake = read_call(frame, g, c, &t, 1);
    if (mistake)
        return mistake;
    const int64_t given = ARRAYS + !!g->initial;
    if (frame->rets.size != given)
        return "results: expected a gradient of every argument of the forward pass";
    g->d_read = argument(frame, given)->data;
    g->d_states = g->initial ? argument(frame, given + 1)->data : NULL;
    g->d_initial = g->initial ? result(frame, ARRAYS)->data : NULL;
    real **sums[ARRAYS] = {&g->d_query, &g->d_key, &g->d_value, &g->d_source, &g->d_transition, &g->d_mark};
    for (int i = 0; i < ARRAYS; i++) {
        *sums[i] = result(frame, i)->data;
        memset(*sums[i], 0, sizeof(real) * numbers(result(frame, i)));
    }
    fill_up(g, &t, g->d_states, g->d_initial);
    return NULL;
}

HANDLER(graph_forward, graph, read_forward)
HANDLER(graph_gradients, graph, read_gradients)
