/* The kernels for grids as handlers of XLA. */

#include "grid.h"
#include "xla.h"

/* The gates of a mode, in the order in which they are arguments; returns their number. */
static int gates_of(int64_t mode, enum gate *found)
{
    int number = 0;
    for (int a = 0; a < GATES; a++) {
        const int without_dl = mode == P || mode == L || mode == STRAIGHT, without_ru = mode == P || mode == R || mode == STRAIGHT;
        if (!(a == DL && without_dl) && !(a == RU && without_ru) && !(a == MU && mode == P))
            found[number++] = a;
    }
    return number;
}

/* Into as many parts that threads are kept busy, each with results of its own. */
static int64_t parts_of(const grid *g)
{
    const int64_t fewest[] = {1, g->orientations};
    for (int i = 0; i < 2; i++)
        if (g->batch * fewest[i] >= 2 * g->threads || g->batch * fewest[i] % g->threads == 0)
            return fewest[i];
    return g->orientations * g->slices;
}

/* The mode, and from argument `first` on `direct` and the gates. */
static const char *read_gates(const XLA_FFI_CallFrame *frame, grid *g, int64_t first, enum gate *gates, int *num_gates)
{
    const XLA_FFI_Array *mode = attribute(frame, "mode"), *flips = attribute(frame, "flips");
    if (!mode || mode->size != 1 || !flips || flips->size % 2)
        return "attributes: expected the mode and the flips of a grid";
    g->mode = *(const int64_t *)mode->data;
    *num_gates = gates_of(g->mode, gates);
    if (frame->args.size <= first + *num_gates || reals_of(frame) != frame->args.size)
        return "arguments: expected the arrays of a grid, in the dtype of the kernels";
    const int64_t *nodes = argument(frame, first)->dims;
    g->flips = flips->data;
    g->batch = nodes[0], g->x = nodes[1], g->y = nodes[2];
    g->orientations = argument(frame, first + 1)->dims[1];
    if (flips->size != (size_t)(2 * g->orientations))
        return "flips: expected two for each orientation";
    g->direct = argument(frame, first)->data;
    for (int i = 0; i < *num_gates; i++)
        g->gates[gates[i]] = argument(frame, first + 1 + i)->data;
    return NULL;
}

/* Sizes and arguments of the forward pass, which are the first of both passes; `given` is their number. */
static const char *read_call(const XLA_FFI_CallFrame *frame, grid *g, course *c, enum gate *gates, int64_t *given)
{
    int num_gates;
    const char *mistake = read_gates(frame, g, 3, gates, &num_gates);
    if (mistake)
        return mistake;
    const int with_states = frame->args.size >= 6 + num_gates;
    *given = 4 + num_gates + 2 * with_states;
    g->dk = argument(frame, 0)->dims[3], g->dv = argument(frame, 2)->dims[3];
    if (g->dv % LANES)
        return "value: expected whole vectors of this machine";
    g->width = g->dv / LANES % MAX_WIDTH ? 1 : MAX_WIDTH;
    g->slices = g->dv / LANES / g->width;
    c->parts = g->parts = parts_of(g);
    c->tasks = grid_tasks(g);
    g->query = argument(frame, 0)->data, g->key = argument(frame, 1)->data, g->value = argument(frame, 2)->data;
    if (with_states)
        g->left = argument(frame, *given - 2)->data, g->top = argument(frame, *given - 1)->data;
    return NULL;
}

/* Arguments: query, key, value, direct, the gates of the mode, then left and top or neither; results: output, then right
   and bottom or neither. */
static const char *read_forward(const XLA_FFI_CallFrame *frame, grid *g, course *c)
{
    enum gate gates[GATES];
    int64_t given;
    const char *mistake = read_call(frame, g, c, gates, &given);
    if (mistake)
        return mistake;
    if (frame->args.size != given || frame->rets.size != 1 + 2 * !!g->left)
        return "results: expected the output, and the states that leave where some enter";
    if (g->left)
        g->right = result(frame, 1)->data, g->bottom = result(frame, 2)->data;
    g->output = summed(c, result(frame, 0));
    return NULL;
}

/* Arguments: those of the forward pass, then the cotangents of its results; results: gradients of its arguments. */
static const char *read_gradients(const XLA_FFI_CallFrame *frame, grid *g, course *c)
{
    enum gate gates[GATES];
    int64_t given;
    const char *mistake = read_call(frame, g, c, gates, &given);
    if (mistake)
        return mistake;
    const int64_t num_gates = given - 4 - 2 * !!g->left;
    if (frame->args.size != given + 1 + 2 * !!g->left || frame->rets.size != given)
        return "results: expected a gradient of every argument of the forward pass";
    g->d_output = argument(frame, given)->data;
    if (g->left) {
        g->d_right = argument(frame, given + 1)->data, g->d_bottom = argument(frame, given + 2)->data;
        g->d_left = result(frame, given - 2)->data, g->d_top = result(frame, given - 1)->data;
    }
    real **vectors[] = {&g->d_query, &g->d_key, &g->d_value, &g->d_direct};
    for (int i = 0; i < 4; i++)
        *vectors[i] = summed(c, result(frame, i));
    for (int i = 0; i < num_gates; i++)
        g->d_gates[gates[i]] = summed(c, result(frame, 4 + i));
    return NULL;
}

/* Arguments: direct and the gates of the mode; result: the mask. */
static const char *read_mask(const XLA_FFI_CallFrame *frame, grid *g, course *c)
{
    enum gate gates[GATES];
    int num_gates;
    const char *mistake = read_gates(frame, g, 0, gates, &num_gates);
    if (mistake)
        return mistake;
    if (frame->args.size != 1 + num_gates || frame->rets.size != 1)
        return "results: expected the mask";
    g->mask = result(frame, 0)->data;
    c->tasks = g->batch;
    return NULL;
}

/* Arguments: those of the mask, and its cotangent; results: gradients of its arguments. */
static const char *read_mask_gradients(const XLA_FFI_CallFrame *frame, grid *g, course *c)
{
    enum gate gates[GATES];
    int num_gates;
    const char *mistake = read_gates(frame, g, 0, gates, &num_gates);
    if (mistake)
        return mistake;
    if (frame->args.size != 2 + num_gates || frame->rets.size != 1 + num_gates)
        return "results: expected a gradient of every argument of the mask";
    g->d_mask = argument(frame, 1 + num_gates)->data;
    g->d_direct = result(frame, 0)->data;
    for (int i = 0; i < num_gates; i++)
        g->d_gates[gates[i]] = result(frame, 1 + i)->data;
    c->tasks = g->batch * g->orientations;
    return NULL;
}

/* Arguments: key, value, direct and the gates of the mode; result: the marks. */
static const char *read_marks(const XLA_FFI_CallFrame *frame, grid *g, course *c)
{
    enum gate gates[GATES];
    int num_gates;
    const char *mistake = read_gates(frame, g, 2, gates, &num_gates);
    if (mistake)
        return mistake;
    if (frame->args.size != 3 + num_gates || frame->rets.size != 1)
        return "results: expected the marks";
    g->key = argument(frame, 0)->data, g->value = argument(frame, 1)->data;
    g->dk = argument(frame, 0)->dims[3], g->dv = argument(frame, 1)->dims[3];
    g->marks = result(frame, 0)->data;
    c->tasks = g->batch;
    return NULL;
}

HANDLER(grid_forward, grid, read_forward)
HANDLER(grid_gradients, grid, read_gradients)
HANDLER(grid_mask, grid, read_mask)
HANDLER(grid_mask_gradients, grid, read_mask_gradients)
HANDLER(grid_marks, grid, read_marks)
