/* The kernels as XLA calls them: its buffers become the arguments of a walk, and its own pool of threads does the work.

   XLA may run several calls at once, and OpenMP would give each of them threads of its own, as many as there are
   processors. So the calling thread takes tasks one by one until none are left, and threads of the pool that have nothing
   else to do help it. It never waits for a helper that has not begun, since all of the pool may be calls like this one. */

#include <pthread.h>

#include "grid.h"
#include "xla/ffi/api/c_api.h"

#ifdef IN_DOUBLE
#define REAL_OF_XLA XLA_FFI_DataType_F64
#else
#define REAL_OF_XLA XLA_FFI_DataType_F32
#endif

typedef int share(const void *of, int64_t *taken);

static XLA_FFI_Error *error(const XLA_FFI_CallFrame *frame, XLA_FFI_Error_Code code, const char *message)
{
    XLA_FFI_Error_Create_Args args = {XLA_FFI_Error_Create_Args_STRUCT_SIZE, NULL, message, code};
    return frame->api->XLA_FFI_Error_Create(&args);
}

static XLA_FFI_Error *wrong(const XLA_FFI_CallFrame *frame, const char *message)
{
    return error(frame, XLA_FFI_Error_Code_INVALID_ARGUMENT, message);
}

static void forget(const XLA_FFI_CallFrame *frame, XLA_FFI_Error *found)
{
    XLA_FFI_Error_Destroy_Args args = {XLA_FFI_Error_Destroy_Args_STRUCT_SIZE, NULL, found};
    frame->api->XLA_FFI_Error_Destroy(&args);
}

static int64_t threads_of(const XLA_FFI_CallFrame *frame)
{
    int64_t number = 1;
    XLA_FFI_ThreadPool_NumThreads_Args args = {XLA_FFI_ThreadPool_NumThreads_Args_STRUCT_SIZE, NULL, frame->ctx, &number};
    XLA_FFI_Error *failed = frame->api->XLA_FFI_ThreadPool_NumThreads(&args);
    if (!failed)
        return number > 1 ? number : 1;
    forget(frame, failed); /* there is no pool: the caller works alone */
    return 1;
}

/* What a call and its helpers know of each other. Helpers may come when the call has long returned: the last one frees it. */
typedef struct {
    pthread_mutex_t lock;
    pthread_cond_t idle;
    int64_t helping, holders, taken;
    int closed, failed;
    share *work;
    const void *of;
} job;

static void let_go(job *j) /* with the lock held */
{
    const int last = --j->holders == 0;
    pthread_mutex_unlock(&j->lock);
    if (!last)
        return;
    pthread_mutex_destroy(&j->lock);
    pthread_cond_destroy(&j->idle);
    free(j);
}

static void help(void *data)
{
    job *j = data;
    pthread_mutex_lock(&j->lock);
    if (!j->closed) {
        j->helping++;
        pthread_mutex_unlock(&j->lock);
        const int failed = j->work(j->of, &j->taken);
        pthread_mutex_lock(&j->lock);
        j->failed |= failed;
        if (--j->helping == 0)
            pthread_cond_signal(&j->idle);
    }
    let_go(j);
}

static void ask_for_help(const XLA_FFI_CallFrame *frame, job *j)
{
    XLA_FFI_ThreadPool_Schedule_Args args = {XLA_FFI_ThreadPool_Schedule_Args_STRUCT_SIZE, NULL, frame->ctx, help, j};
    pthread_mutex_lock(&j->lock);
    j->holders++;
    pthread_mutex_unlock(&j->lock);
    XLA_FFI_Error *failed = frame->api->XLA_FFI_ThreadPool_Schedule(&args);
    if (failed) {
        forget(frame, failed);
        pthread_mutex_lock(&j->lock);
        j->holders--;
        pthread_mutex_unlock(&j->lock);
    }
}

/* Does all tasks; returns 0, or what is not 0 where a share failed. */
static int run_tasks(const XLA_FFI_CallFrame *frame, share *work, const void *of, int64_t tasks, int64_t threads)
{
    job *j = malloc(sizeof(job));
    if (!j)
        return 1;
    *j = (job){.holders = 1, .work = work, .of = of};
    pthread_mutex_init(&j->lock, NULL);
    pthread_cond_init(&j->idle, NULL);
    for (int64_t i = 1; i < threads && i < tasks; i++)
        ask_for_help(frame, j);
    int failed = work(of, &j->taken);
    pthread_mutex_lock(&j->lock);
    j->closed = 1;
    while (j->helping)
        pthread_cond_wait(&j->idle, &j->lock);
    failed |= j->failed;
    let_go(j);
    return failed;
}

/* Results of several parts, to be added up. */
typedef struct {
    real *to;
    const real *from; /* [parts, number] */
    int64_t number, parts;
} sum;

enum { SUMMED = 1 << 15 }; /* numbers of a task */

static int sum_share(const void *of, int64_t *taken)
{
    const sum *s = of;
    for (;;) {
        const int64_t first = __atomic_fetch_add(taken, 1, __ATOMIC_RELAXED) * SUMMED;
        if (first >= s->number)
            return 0;
        const int64_t end = first + SUMMED < s->number ? first + SUMMED : s->number;
        for (int64_t i = first; i < end; i++)
            s->to[i] = s->from[i];
        for (int64_t part = 1; part < s->parts; part++)
            for (int64_t i = first; i < end; i++)
                s->to[i] += s->from[part * s->number + i];
    }
}

static const XLA_FFI_Buffer *argument(const XLA_FFI_CallFrame *frame, int64_t i) { return frame->args.args[i]; }
static const XLA_FFI_Buffer *result(const XLA_FFI_CallFrame *frame, int64_t i) { return frame->rets.rets[i]; }

static const XLA_FFI_Array *attribute(const XLA_FFI_CallFrame *frame, const char *name)
{
    for (int64_t i = 0; i < frame->attrs.size; i++) {
        const XLA_FFI_ByteSpan *found = frame->attrs.names[i];
        if (found->len == strlen(name) && !memcmp(found->ptr, name, found->len) &&
            frame->attrs.types[i] == XLA_FFI_AttrType_ARRAY)
            return frame->attrs.attrs[i];
    }
    return NULL;
}

static int64_t numbers(const XLA_FFI_Buffer *buffer)
{
    int64_t product = 1;
    for (int64_t i = 0; i < buffer->rank; i++)
        product *= buffer->dims[i];
    return product;
}

static int holds_reals(const XLA_FFI_CallFrame *frame)
{
    for (int64_t i = 0; i < frame->args.size; i++)
        if (argument(frame, i)->dtype != REAL_OF_XLA)
            return 0;
    for (int64_t i = 0; i < frame->rets.size; i++)
        if (result(frame, i)->dtype != REAL_OF_XLA)
            return 0;
    return 1;
}

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

/* The mode, and from argument `first` on `direct` and the gates; and how many threads there are. */
static const char *read_gates(const XLA_FFI_CallFrame *frame, grid *g, int64_t first, enum gate *gates, int *num_gates)
{
    const XLA_FFI_Array *mode = attribute(frame, "mode"), *flips = attribute(frame, "flips");
    if (!mode || mode->size != 1 || !flips || flips->size % 2)
        return "attributes: expected the mode and the flips of a grid";
    g->mode = *(const int64_t *)mode->data;
    *num_gates = gates_of(g->mode, gates);
    if (frame->args.size <= first + *num_gates || !holds_reals(frame))
        return "arguments: expected the arrays of a grid, in the dtype of the kernels";
    const int64_t *nodes = argument(frame, first)->dims;
    g->flips = flips->data;
    g->batch = nodes[0], g->x = nodes[1], g->y = nodes[2];
    g->orientations = argument(frame, first + 1)->dims[1];
    if (flips->size != (size_t)(2 * g->orientations))
        return "flips: expected two for each orientation";
    g->threads = threads_of(frame);
    g->direct = argument(frame, first)->data;
    for (int i = 0; i < *num_gates; i++)
        g->gates[gates[i]] = argument(frame, first + 1 + i)->data;
    return NULL;
}

/* Sizes and arguments of the forward pass, which are the first of both passes. */
static const char *read_call(const XLA_FFI_CallFrame *frame, grid *g, enum gate *gates, int *num_gates, int *with_states)
{
    const char *mistake = read_gates(frame, g, 3, gates, num_gates);
    if (mistake)
        return mistake;
    *with_states = frame->args.size >= 6 + *num_gates;
    g->dk = argument(frame, 0)->dims[3], g->dv = argument(frame, 2)->dims[3];
    if (g->dv % LANES)
        return "value: expected whole vectors of this machine";
    g->width = g->dv / LANES % MAX_WIDTH ? 1 : MAX_WIDTH;
    g->slices = g->dv / LANES / g->width;
    g->parts = parts_of(g);
    g->query = argument(frame, 0)->data, g->key = argument(frame, 1)->data, g->value = argument(frame, 2)->data;
    return NULL;
}

enum { MOST_SUMS = 4 + GATES };

/* What a walk adds to is the result itself, or several parts, which are added up afterwards. */
static real *summed(const grid *g, const XLA_FFI_Buffer *into, sum *sums, int *number)
{
    if (g->parts == 1)
        return into->data;
    const int64_t size = numbers(into);
    real *parts = malloc(sizeof(real) * size * g->parts);
    sums[(*number)++] = (sum){into->data, parts, size, g->parts};
    return parts;
}

static XLA_FFI_Error *finish(const XLA_FFI_CallFrame *frame, const grid *g, share *work, int64_t tasks, sum *sums, int number)
{
    int failed = 0;
    for (int i = 0; i < number; i++)
        failed |= !sums[i].from;
    if (!failed)
        failed = run_tasks(frame, work, g, tasks, g->threads);
    for (int i = 0; i < number; i++) {
        if (!failed)
            failed = run_tasks(frame, sum_share, sums + i, (sums[i].number + SUMMED - 1) / SUMMED, g->threads);
        free((void *)sums[i].from);
    }
    return failed ? error(frame, XLA_FFI_Error_Code_RESOURCE_EXHAUSTED, "there is no memory to work with") : NULL;
}

static int forward_share(const void *of, int64_t *taken) { return grid_forward_share(of, taken); }
static int gradients_share(const void *of, int64_t *taken) { return grid_gradients_share(of, taken); }
static int mask_share(const void *of, int64_t *taken) { return grid_mask_share(of, taken); }
static int mask_gradients_share(const void *of, int64_t *taken) { return grid_mask_gradients_share(of, taken); }

/* Arguments: query, key, value, direct, the gates of the mode, then left and top or neither; results: output, then right
   and bottom or neither. */
static XLA_FFI_Error *run_forward(const XLA_FFI_CallFrame *frame)
{
    grid g = {0};
    sum sums[MOST_SUMS];
    enum gate gates[GATES];
    int num_gates, with_states, num_sums = 0;
    const char *mistake = read_call(frame, &g, gates, &num_gates, &with_states);
    if (mistake)
        return wrong(frame, mistake);
    if (frame->args.size != 4 + num_gates + 2 * with_states || frame->rets.size != 1 + 2 * with_states)
        return wrong(frame, "results: expected the output, and the states that leave where some enter");
    if (with_states) {
        g.left = argument(frame, 4 + num_gates)->data, g.top = argument(frame, 5 + num_gates)->data;
        g.right = result(frame, 1)->data, g.bottom = result(frame, 2)->data;
    }
    g.output = summed(&g, result(frame, 0), sums, &num_sums);
    return finish(frame, &g, forward_share, grid_tasks(&g), sums, num_sums);
}

/* Arguments: those of the forward pass, then the cotangents of its results; results: gradients of its arguments. */
static XLA_FFI_Error *run_gradients(const XLA_FFI_CallFrame *frame)
{
    grid g = {0};
    sum sums[MOST_SUMS];
    enum gate gates[GATES];
    int num_gates, with_states, num_sums = 0;
    const char *mistake = read_call(frame, &g, gates, &num_gates, &with_states);
    if (mistake)
        return wrong(frame, mistake);
    const int64_t given = 4 + num_gates + 2 * with_states;
    if (frame->args.size != given + 1 + 2 * with_states || frame->rets.size != given)
        return wrong(frame, "results: expected a gradient of every argument of the forward pass");
    g.d_output = argument(frame, given)->data;
    if (with_states) {
        g.left = argument(frame, given - 2)->data, g.top = argument(frame, given - 1)->data;
        g.d_right = argument(frame, given + 1)->data, g.d_bottom = argument(frame, given + 2)->data;
        g.d_left = result(frame, given - 2)->data, g.d_top = result(frame, given - 1)->data;
    }
    real **vectors[] = {&g.d_query, &g.d_key, &g.d_value, &g.d_direct};
    for (int i = 0; i < 4; i++)
        *vectors[i] = summed(&g, result(frame, i), sums, &num_sums);
    for (int i = 0; i < num_gates; i++)
        g.d_gates[gates[i]] = summed(&g, result(frame, 4 + i), sums, &num_sums);
    return finish(frame, &g, gradients_share, grid_tasks(&g), sums, num_sums);
}

/* Arguments: direct and the gates of the mode; result: the mask. */
static XLA_FFI_Error *run_mask(const XLA_FFI_CallFrame *frame)
{
    grid g = {0};
    enum gate gates[GATES];
    int num_gates;
    const char *mistake = read_gates(frame, &g, 0, gates, &num_gates);
    if (mistake)
        return wrong(frame, mistake);
    if (frame->args.size != 1 + num_gates || frame->rets.size != 1)
        return wrong(frame, "results: expected the mask");
    g.mask = result(frame, 0)->data;
    return finish(frame, &g, mask_share, g.batch, NULL, 0);
}

/* Arguments: those of the mask, and its cotangent; results: gradients of its arguments. */
static XLA_FFI_Error *run_mask_gradients(const XLA_FFI_CallFrame *frame)
{
    grid g = {0};
    enum gate gates[GATES];
    int num_gates;
    const char *mistake = read_gates(frame, &g, 0, gates, &num_gates);
    if (mistake)
        return wrong(frame, mistake);
    if (frame->args.size != 2 + num_gates || frame->rets.size != 1 + num_gates)
        return wrong(frame, "results: expected a gradient of every argument of the mask");
    g.d_mask = argument(frame, 1 + num_gates)->data;
    g.d_direct = result(frame, 0)->data;
    for (int i = 0; i < num_gates; i++)
        g.d_gates[gates[i]] = result(frame, 1 + i)->data;
    return finish(frame, &g, mask_gradients_share, g.batch * g.orientations, NULL, 0);
}

/* XLA asks each handler once which version of the interface it was compiled for. */
static int tells_version(const XLA_FFI_CallFrame *frame)
{
    if (!frame->extension_start || frame->extension_start->type != XLA_FFI_Extension_Metadata)
        return 0;
    XLA_FFI_Metadata *about = ((XLA_FFI_Metadata_Extension *)frame->extension_start)->metadata;
    about->api_version.major_version = XLA_FFI_API_MAJOR;
    about->api_version.minor_version = XLA_FFI_API_MINOR;
    return 1;
}

/* Each has to be named in xla.py, too. */
#define HANDLER(name, run)                                                                                                 \
    XLA_FFI_Error *name(XLA_FFI_CallFrame *frame) { return tells_version(frame) ? NULL : run(frame); }

HANDLER(xla_grid_forward, run_forward)
HANDLER(xla_grid_gradients, run_gradients)
HANDLER(xla_grid_mask, run_mask)
HANDLER(xla_grid_mask_gradients, run_mask_gradients)
