/* Work in tasks that know nothing of each other, which threads take one by one. */

#ifndef TASKS_H
#define TASKS_H

#include "lanes.h"

/* One thread's share: it takes tasks, by counting `taken` up, until none are left. Returns 0, or 1 where there is not
   enough memory. */
typedef int share(const void *of, int64_t *taken);

INLINE int64_t next_task(int64_t *taken) { return __atomic_fetch_add(taken, 1, __ATOMIC_RELAXED); }

/* All shares, by the threads of OpenMP. */
static inline int share_out(share *work, const void *of, int64_t tasks, int64_t threads)
{
    int64_t taken = 0;
    int failed = 0;
#pragma omp parallel num_threads(smaller(threads, tasks)) reduction(| : failed)
    failed |= work(of, &taken);
    return failed;
}

#endif
