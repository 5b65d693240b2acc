/* The kernels as XLA calls them: its buffers become the arguments of a call, and its own pool of threads does the work.

   XLA may run several calls at once, and OpenMP would give each of them threads of its own, as many as there are
   processors. So the calling thread takes tasks one by one until none are left, and threads of the pool that have nothing
   else to do help it. It never waits for a helper that has not begun, since all of the pool may be calls like this one. */

#ifndef XLA_H
#define XLA_H

#include <pthread.h>

#include "tasks.h"
#include "xla/ffi/api/c_api.h"

#ifdef IN_DOUBLE
#define REAL_OF_XLA XLA_FFI_DataType_F64
#else
#define REAL_OF_XLA XLA_FFI_DataType_F32
#endif

static XLA_FFI_Error *error(const XLA_FFI_CallFrame *frame, XLA_FFI_Error_Code code, const char *message)
{
    XLA_FFI_Error_Create_Args args = {XLA_FFI_Error_Create_Args_STRUCT_SIZE, NULL, message, code};
    return frame->api->XLA_FFI_Error_Create(&args);
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

/* Indices stand there once for each of a batch, all of them the same. */
static const int32_t *indices_at(const XLA_FFI_CallFrame *frame, int64_t i) { return argument(frame, i)->data; }

static int64_t numbers(const XLA_FFI_Buffer *buffer)
{
    int64_t product = 1;
    for (int64_t i = 0; i < buffer->rank; i++)
        product *= buffer->dims[i];
    return product;
}

/* Numbers come first, indices in int32 last: how many arguments are numbers, or -1 where there is anything else. */
static int64_t reals_of(const XLA_FFI_CallFrame *frame)
{
    int64_t reals = 0;
    while (reals < frame->args.size && argument(frame, reals)->dtype == REAL_OF_XLA)
        reals++;
    for (int64_t i = reals; i < frame->args.size; i++)
        if (argument(frame, i)->dtype != XLA_FFI_DataType_S32)
            return -1;
    for (int64_t i = 0; i < frame->rets.size; i++)
        if (result(frame, i)->dtype != REAL_OF_XLA)
            return -1;
    return reals;
}

enum { MOST_SUMS = 16 };

/* How a call is done. */
typedef struct {
    int64_t threads, tasks;
    int64_t parts; /* of results that are sums */
    sum sums[MOST_SUMS];
    int num_sums;
    void *scratch; /* to be freed at the end */
    int failed;    /* there is not enough memory */
} course;

/* What a walk adds to is the result itself, or several parts, which are added up afterwards. */
static real *summed(course *c, const XLA_FFI_Buffer *into)
{
    if (c->parts == 1)
        return into->data;
    const int64_t size = numbers(into);
    real *parts = new_numbers(size * c->parts);
    c->failed |= !parts;
    c->sums[c->num_sums++] = (sum){into->data, parts, size, c->parts};
    return parts;
}

/* Does a call, unless there is a mistake in it. */
static XLA_FFI_Error *finish(const XLA_FFI_CallFrame *frame, course *c, const char *mistake, share *work, const void *of)
{
    int failed = c->failed;
    if (!mistake && !failed)
        failed = run_tasks(frame, work, of, c->tasks, c->threads);
    for (int i = 0; i < c->num_sums; i++) {
        if (!mistake && !failed)
            failed = run_tasks(frame, sum_share, c->sums + i, (c->sums[i].number + SUMMED - 1) / SUMMED, c->threads);
        free((void *)c->sums[i].from);
    }
    free(c->scratch);
    if (mistake)
        return error(frame, XLA_FFI_Error_Code_INVALID_ARGUMENT, mistake);
    return failed ? error(frame, XLA_FFI_Error_Code_RESOURCE_EXHAUSTED, "there is no memory to work with") : NULL;
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

/* The handler xla_NAME, whose shares are those of NAME. `reads` fills in a call of some type, the course of it, and
   returns what is wrong with the buffers, or NULL. Each has to be named in xla.py, too. */
#define HANDLER(name, type, reads)                                                                                         \
    XLA_FFI_Error *xla_##name(XLA_FFI_CallFrame *frame)                                                                    \
    {                                                                                                                      \
        type call = {0};                                                                                                   \
        course c = {0};                                                                                                    \
        if (tells_version(frame))                                                                                          \
            return NULL;                                                                                                   \
        c.threads = call.threads = threads_of(frame);                                                                      \
        const char *mistake = reads(frame, &call, &c);                                                                     \
        return finish(frame, &c, mistake, name##_share, &call);                                                            \
    }

#endif
