/* The kernels for sequences as handlers of XLA. */

#include "sequence.h"
#include "xla.h"

enum { ARRAYS = 7 }; /* query, key, value, source, transition, mark, direct */

/* Where packed sequences begin and end, or the only one; checked here, since nobody may have known them before. */
static const char *read_bounds(const XLA_FFI_CallFrame *frame, sequence *g, course *c, int64_t reals)
{
    const int32_t *given = reals < frame->args.size ? indices_at(frame, reals) : NULL;
    g->sequences = given ? argument(frame, reals)->dims[1] - 1 : 1;
    int64_t *bounds = malloc(sizeof(int64_t) * (g->sequences + 1));
    c->scratch = bounds;
    c->failed |= !bounds;
    if (!bounds)
        return NULL;
    bounds[0] = given ? given[0] : 0;
    bounds[g->sequences] = given ? given[g->sequences] : g->length;
    if (bounds[0] != 0 || bounds[g->sequences] != g->length)
        return "cu_seqlens: expected boundaries from 0 to T";
    for (int64_t s = 1; s < g->sequences; s++)
        bounds[s] = given[s];
    for (int64_t s = 0; s < g->sequences; s++)
        if (bounds[s] > bounds[s + 1])
            return "cu_seqlens: expected boundaries that do not decrease";
    g->bounds = bounds;
    return NULL;
}

/* How the work is cut, as in sequence.py. */
static void cut(sequence *g, course *c, int backwards)
{
    const int64_t rows = g->batch * g->sequences;
    const int enough = rows >= 2 * g->threads || rows % g->threads == 0;
    const int scalar = g->jt * g->jk * g->jv * g->jo * g->jq == 1;
    g->width = scalar && enough && g->dv > LANES ? MAX_WIDTH : 1;
    g->slices = (g->dv + LANES * g->width - 1) / (LANES * g->width);
    c->parts = g->parts = enough ? 1 : g->slices;
    c->tasks = sequence_tasks(g, backwards);
}

/* Sizes and arguments of the forward pass, which are the first of both passes: the arrays, and perhaps the initial
   states. Last of all may come the boundaries of packed sequences. */
static const char *read_call(const XLA_FFI_CallFrame *frame, sequence *g, course *c, int backwards)
{
    const int64_t reals = reals_of(frame), of_states = backwards ? 2 : 1;
    const int with_states = reals == ARRAYS + backwards + of_states;
    if (!(with_states || reals == ARRAYS + backwards) || frame->args.size > reals + 1)
        return "arguments: expected the arrays of sequences, in the dtype of the kernels";
    const real **arrays[] = {&g->query, &g->key, &g->value, &g->source, &g->transition, &g->mark, &g->direct, &g->initial};
    for (int i = 0; i < ARRAYS + with_states; i++)
        *arrays[i] = argument(frame, i)->data;
    const int64_t *query = argument(frame, 0)->dims, *source = argument(frame, 3)->dims;
    g->batch = query[0], g->length = query[1], g->dk = query[2], g->jq = query[3];
    g->dv = argument(frame, 2)->dims[2], g->jo = argument(frame, 5)->dims[2];
    g->jt = source[2], g->jk = source[3], g->jv = source[4];
    const char *mistake = read_bounds(frame, g, c, reals);
    cut(g, c, backwards);
    return mistake;
}

/* Results: the output and, where states enter, the last ones. */
static const char *read_forward(const XLA_FFI_CallFrame *frame, sequence *g, course *c)
{
    const char *mistake = read_call(frame, g, c, 0);
    if (mistake)
        return mistake;
    if (frame->rets.size != 1 + !!g->initial)
        return "results: expected the output, and the last states where some enter";
    g->output = result(frame, 0)->data;
    g->last = g->initial ? result(frame, 1)->data : NULL;
    return NULL;
}

/* Behind the arguments of the forward pass stand the cotangents of its results; results: gradients of its arguments. */
static const char *read_gradients(const XLA_FFI_CallFrame *frame, sequence *g, course *c)
{
    const char *mistake = read_call(frame, g, c, 1);
    if (mistake)
        return mistake;
    const int64_t given = ARRAYS + !!g->initial;
    if (frame->rets.size != given)
        return "results: expected a gradient of every argument of the forward pass";
    g->d_output = argument(frame, given)->data;
    g->d_last = g->initial ? argument(frame, given + 1)->data : NULL;
    g->d_initial = g->initial ? result(frame, ARRAYS)->data : NULL;
    g->d_value = result(frame, 2)->data;
    real **sums[ARRAYS] = {&g->d_query, &g->d_key, NULL, &g->d_source, &g->d_transition, &g->d_mark, &g->d_direct};
    for (int i = 0; i < ARRAYS; i++)
        if (sums[i])
            *sums[i] = summed(c, result(frame, i));
    return NULL;
}

HANDLER(sequence_forward, sequence, read_forward)
HANDLER(sequence_gradients, sequence, read_gradients)
