/* Vectors as wide as the machine's, and what both passes of every op do with them.

   A state [DK, DV] is walked in slices of SLICE columns of DV: DK rows of `width` vectors each. Slices know nothing of
   each other, since transitions are scalars; one slice is small enough to stay in the nearest cache while it moves. */

#ifndef LANES_H
#define LANES_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#ifdef IN_DOUBLE
typedef double real;
typedef int64_t index_of_lane;
#define REAL_BYTES 8
#else
typedef float real;
typedef int32_t index_of_lane;
#define REAL_BYTES 4
#endif

#ifdef __AVX512F__
#define VECTOR_BYTES 64
#elif defined(__AVX__)
#define VECTOR_BYTES 32
#else
#define VECTOR_BYTES 16
#endif
#define LANES (VECTOR_BYTES / REAL_BYTES)

#define INLINE static inline __attribute__((always_inline))

typedef real vec __attribute__((vector_size(VECTOR_BYTES)));
typedef real loose __attribute__((vector_size(VECTOR_BYTES), aligned(sizeof(real)), may_alias));

enum { MAX_WIDTH = 2, CACHE_LINE = 64 };

INLINE vec load(const real *from) { return *(const loose *)from; }
INLINE void store(real *to, vec from) { *(loose *)to = from; }

INLINE int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

/* A shuffle takes its lanes from a and, counted on, from b; which ones has to be a constant. */
#if LANES == 16
#define ALL_LANES(F, s) F(0, s), F(1, s), F(2, s), F(3, s), F(4, s), F(5, s), F(6, s), F(7, s), MORE_LANES(F, s)
#define MORE_LANES(F, s) F(8, s), F(9, s), F(10, s), F(11, s), F(12, s), F(13, s), F(14, s), F(15, s)
#elif LANES == 8
#define ALL_LANES(F, s) F(0, s), F(1, s), F(2, s), F(3, s), F(4, s), F(5, s), F(6, s), F(7, s)
#elif LANES == 4
#define ALL_LANES(F, s) F(0, s), F(1, s), F(2, s), F(3, s)
#else
#define ALL_LANES(F, s) F(0, s), F(1, s)
#endif
#define KEPT(i, s) ((i) & (s) ? LANES + (i) : (i))
#define MOVED(i, s) ((i) & (s) ? LANES + ((i) ^ (s)) : (i) ^ (s))
#ifdef __clang__
#define SHUFFLE(a, b, F, s) __builtin_shufflevector(a, b, ALL_LANES(F, s))
#else
typedef index_of_lane indices __attribute__((vector_size(VECTOR_BYTES)));
#define SHUFFLE(a, b, F, s) __builtin_shuffle(a, b, (indices){ALL_LANES(F, s)})
#endif

/* Lane i of PAIRS(a, b, s): a[i] + a[i ^ s] where bit s of i is not set, b[i] + b[i ^ s] where it is. */
#define PAIRS(a, b, s) (SHUFFLE(a, b, KEPT, s) + SHUFFLE(a, b, MOVED, s))
#define HALVE(s)                                                                                                       \
    for (int i = 0; i < LANES; i += 2 * s)                                                                             \
        sums[i] = PAIRS(sums[i], sums[i + s], s);

#define SWAPPED(i, s) ((i) ^ (s))

INLINE real lanes_sum(vec a)
{
#if LANES > 8
    a += SHUFFLE(a, a, SWAPPED, 8);
#endif
#if LANES > 4
    a += SHUFFLE(a, a, SWAPPED, 4);
#endif
#if LANES > 2
    a += SHUFFLE(a, a, SWAPPED, 2);
#endif
    a += SHUFFLE(a, a, SWAPPED, 1);
    return a[0];
}

/* The sums of the lanes of LANES vectors, as one vector: sum of vector i in lane i. */
INLINE vec lanes_sums(const vec *rows)
{
    vec sums[LANES];
    for (int i = 0; i < LANES; i++)
        sums[i] = rows[i];
    HALVE(1)
#if LANES > 2
    HALVE(2)
#endif
#if LANES > 4
    HALVE(4)
#endif
#if LANES > 8
    HALVE(8)
#endif
    return sums[0];
}

/* row[i] += the sum of the lanes of rows[i], for i < n <= LANES. */
INLINE void add_lanes_sums(real *row, const vec *rows, int64_t n)
{
    const vec sums = lanes_sums(rows);
    if (n == LANES)
        store(row, load(row) + sums);
    for (int64_t i = 0; n < LANES && i < n; i++)
        row[i] += sums[i];
}

/* The first n of LANES numbers, `stride` apart; zeros behind them. */
INLINE vec load_part(const real *from, int64_t n, int64_t stride)
{
    vec found = {0};
    if (n >= LANES && stride == 1)
        return load(from);
    if (n >= LANES)
        for (int i = 0; i < LANES; i++)
            found[i] = from[i * stride];
    for (int64_t i = 0; n < LANES && i < n; i++)
        found[i] = from[i * stride];
    return found;
}

INLINE void store_part(real *to, vec from, int64_t n, int64_t stride)
{
    if (n >= LANES && stride == 1)
        store(to, from);
    else
        for (int64_t i = 0; i < smaller(n, LANES); i++)
            to[i * stride] = from[i];
}

#define EVEN(i, s) (2 * (i))
#define ODD(i, s) (2 * (i) + 1)
#define LOW(i, s) ((i) / 2 + (i) % 2 * LANES)
#define HIGH(i, s) ((LANES + (i)) / 2 + (i) % 2 * LANES)

/* The first n of LANES rows of `size` numbers, as one vector for each column. */
INLINE void load_turned(const real *from, int64_t n, const int64_t size, vec *to)
{
    if (n < LANES || (size != 2 && size != 4 && size != 8)) {
        for (int64_t j = 0; j < size; j++)
            to[j] = load_part(from + j, n, size);
        return;
    }
    for (int64_t j = 0; j < size; j++)
        to[j] = load(from + j * LANES);
    for (int64_t rounds = size; rounds > 1; rounds /= 2) { /* each sorts by one more bit of the place in a row */
        vec sorted[8];
        for (int64_t j = 0; j < size / 2; j++) {
            sorted[j] = SHUFFLE(to[2 * j], to[2 * j + 1], EVEN, 0);
            sorted[size / 2 + j] = SHUFFLE(to[2 * j], to[2 * j + 1], ODD, 0);
        }
        for (int64_t j = 0; j < size; j++)
            to[j] = sorted[j];
    }
}

/* The way back. Columns are overwritten. */
INLINE void store_turned(real *to, int64_t n, const int64_t size, vec *from)
{
    if (n < LANES || (size != 2 && size != 4 && size != 8)) {
        for (int64_t j = 0; j < size; j++)
            store_part(to + j, from[j], n, size);
        return;
    }
    for (int64_t rounds = size; rounds > 1; rounds /= 2) {
        vec sorted[8];
        for (int64_t j = 0; j < size / 2; j++) {
            sorted[2 * j] = SHUFFLE(from[j], from[size / 2 + j], LOW, 0);
            sorted[2 * j + 1] = SHUFFLE(from[j], from[size / 2 + j], HIGH, 0);
        }
        for (int64_t j = 0; j < size; j++)
            from[j] = sorted[j];
    }
    for (int64_t j = 0; j < size; j++)
        store(to + j * LANES, from[j]);
}

/* Asks for numbers that are to be read soon. */
INLINE void prefetch(const real *from, int64_t n)
{
    for (int64_t i = 0; i < n; i += CACHE_LINE / REAL_BYTES)
        __builtin_prefetch(from + i);
}

/* Vectors whose lanes are to be summed: as soon as there are LANES of them, the sums are added to a row. */
typedef struct {
    real *row;
    int64_t count;
    vec rows[LANES];
} sums;

INLINE void begin_sums(sums *s, real *row)
{
    s->row = row;
    s->count = 0;
}

INLINE void add_row_sum(sums *s, vec row)
{
    s->rows[s->count++] = row;
    if (s->count == LANES) {
        add_lanes_sums(s->row, s->rows, LANES);
        s->row += LANES;
        s->count = 0;
    }
}

INLINE void finish_sums(sums *s)
{
    if (!s->count)
        return;
    for (int64_t i = s->count; i < LANES; i++)
        s->rows[i] = (vec){0};
    add_lanes_sums(s->row, s->rows, s->count);
}

INLINE real dot(const real *a, const real *b, int64_t n)
{
    vec sums = {0};
    int64_t k = 0;
    for (; k + LANES <= n; k += LANES)
        sums += load(a + k) * load(b + k);
    real sum = lanes_sum(sums);
    for (; k < n; k++)
        sum += a[k] * b[k];
    return sum;
}

INLINE void add_multiple(real *to, real factor, const real *from, int64_t n)
{
    int64_t k = 0;
    for (; k + LANES <= n; k += LANES)
        store(to + k, load(to + k) + factor * load(from + k));
    for (; k < n; k++)
        to[k] += factor * from[k];
}

/* At the start of a line of the cache; null where there is no memory. */
INLINE void *new_bytes(int64_t number)
{
    return aligned_alloc(CACHE_LINE, (number / CACHE_LINE + 1) * CACHE_LINE);
}

INLINE vec *new_vectors(int64_t number) { return new_bytes(number * (int64_t)sizeof(vec)); }
INLINE real *new_numbers(int64_t number) { return new_bytes(number * (int64_t)sizeof(real)); }

#endif
