// softmax, log_softmax and their gradients along one dimension of dense arrays, in one launch.
//
// Defines: NAME the symbol; X the dtype, X_BYTES its size; T computes; LOGARITHM for log_softmax.
// Arrays are [outer, n, inner], along n. All passes start from the largest element, so nothing overflows.
//
// NAME_row, NAME_row_backward        inner is 1: see rows.h.
// NAME_column, NAME_column_backward  COLUMNS neighbouring positions of inner per item.
typedef struct {
    IDX rows, n, whole, inner, pieces, x, y;  // rows: of work; x, y: where the inputs begin
} Softmax;

#ifdef LOGARITHM
#define FINISH(total) total = log(total);
#define VALUE(EXP, v) ((v) - best - total)
#define SHARE(g, y) (g)
#define SLOPE(EXP, g, y) ((g) - EXP(y) * total)
#else
#define FINISH(total) total = (T)1 / total;
#define VALUE(EXP, v) (EXP((v) - best) * total)
#define SHARE(g, y) ((g) * (y))
#define SLOPE(EXP, g, y) (((g) - total) * (y))
#endif

// On a CPU exponentials cost more than to write them and read them again, if that loses no digits.
#if defined(GG_CPU) && !defined(LOGARITHM) && (X_BYTES == 4 || X_BYTES == 8)
#define KEEPS
#endif

KERNEL void CAT(NAME, _row)(GLOBAL const S(X) *x, GLOBAL S(X) *out, Softmax par) {
    TOGETHER_IN(partial)
    IDX row = ROW;
    if (row >= par.rows) return;
    IDX in = par.x + row * par.n, to = row * par.n;
    VECTOR_OF(v);
    VECTOR_OF(top);
    VECTOR_OF(sum);
    EACH top[gg_j] = EVERY(-GG_INF);
    EACH sum[gg_j] = EVERY(0);
    FOR_WHOLE {
        FETCH(v, x, in + j)
        EACH top[gg_j] = LARGER(top[gg_j], v[gg_j]);
    }
    FOR_REST FIRST_OF(top) = GG_MAX(FIRST_OF(top), ONE(x, in + j));
    GATHER(best, partial, GG_MAX, top)
#ifdef KEEPS
    FOR_WHOLE {
        FETCH(v, x, in + j)
        EACH v[gg_j] = EXP_EACH(v[gg_j] - best);
        EACH sum[gg_j] += v[gg_j];
        STORE(out, to + j, v)
    }
    FOR_REST {
        T value = EXP(ONE(x, in + j) - best);
        FIRST_OF(sum) += value;
        ST(X, out, to + j, value);
    }
    GATHER(total, partial, ADD, sum)
    FINISH(total)
    FOR_WHOLE {
        FETCH(v, out, to + j)
        EACH v[gg_j] *= total;
        STORE(out, to + j, v)
    }
    FOR_REST ST(X, out, to + j, ONE(out, to + j) * total);
#else
    FOR_WHOLE {
        FETCH(v, x, in + j)
        EACH sum[gg_j] += EXP_EACH(v[gg_j] - best);
    }
    FOR_REST FIRST_OF(sum) += EXP(ONE(x, in + j) - best);
    GATHER(total, partial, ADD, sum)
    FINISH(total)
    FOR_WHOLE {
        FETCH(v, x, in + j)
        EACH v[gg_j] = VALUE(EXP_EACH, v[gg_j]);
        STORE(out, to + j, v)
    }
    FOR_REST ST(X, out, to + j, VALUE(EXP, ONE(x, in + j)));
#endif
}

KERNEL void CAT(NAME, _row_backward)(GLOBAL const S(X) *g, GLOBAL const S(X) *y, GLOBAL S(X) *out, Softmax par) {
    TOGETHER_IN(partial)
    IDX row = ROW;
    if (row >= par.rows) return;
    IDX in = par.x + row * par.n, at = par.y + row * par.n, to = row * par.n;
    VECTOR_OF(v);
    VECTOR_OF(w);
    VECTOR_OF(sum);
    EACH sum[gg_j] = EVERY(0);
    FOR_WHOLE {
        FETCH(v, g, in + j)
        FETCH(w, y, at + j)
        EACH sum[gg_j] += SHARE(v[gg_j], w[gg_j]);
    }
    FOR_REST FIRST_OF(sum) += SHARE(ONE(g, in + j), ONE(y, at + j));
    GATHER(total, partial, ADD, sum)
    FOR_WHOLE {
        FETCH(v, g, in + j)
        FETCH(w, y, at + j)
        EACH v[gg_j] = SLOPE(EXP_EACH, v[gg_j], w[gg_j]);
        STORE(out, to + j, v)
    }
    FOR_REST ST(X, out, to + j, SLOPE(EXP, ONE(g, in + j), ONE(y, at + j)));
}

// Of COLUMNS positions all are there but at the end of a row of inner.
#ifdef GG_CPU
#define EACH_COLUMN _Pragma("clang loop unroll(disable)") for (i32 c = 0; c < COLUMNS; c++)
#else
#define EACH_COLUMN for (i32 c = 0; c < COLUMNS; c++)
#endif
#define FOR_COLUMNS                                                                                                   \
    if (count == COLUMNS) {                                                                                           \
        EACH_COLUMN BODY                                                                                              \
    } else {                                                                                                          \
        for (i32 c = 0; c < count; c++) BODY                                                                          \
    }

#define PLACE                                                                                                         \
    IDX item = GLOBAL_ID;                                                                                             \
    if (item >= par.rows) return;                                                                                     \
    IDX outer = item / par.pieces, first = (item - outer * par.pieces) * COLUMNS;                                     \
    IDX count = par.inner - first < COLUMNS ? par.inner - first : COLUMNS;                                            \
    IDX start = outer * par.n * par.inner + first, end = start + par.n * par.inner;

KERNEL void CAT(NAME, _column)(GLOBAL const S(X) *x, GLOBAL S(X) *out, Softmax par) {
    PLACE
    x += par.x;
    T tops[COLUMNS], sums[COLUMNS];
    EACH_COLUMN tops[c] = -GG_INF;
    EACH_COLUMN sums[c] = 0;
    for (IDX at = start; at < end; at += par.inner) {
#define BODY tops[c] = GG_MAX(tops[c], ONE(x, at + c));
        FOR_COLUMNS
#undef BODY
    }
    for (IDX at = start; at < end; at += par.inner) {
#define BODY sums[c] += EXP(ONE(x, at + c) - tops[c]);
        FOR_COLUMNS
#undef BODY
    }
    EACH_COLUMN {
        FINISH(sums[c])
    }
    for (IDX at = start; at < end; at += par.inner) {
#define BODY                                                                                                          \
    {                                                                                                                 \
        T best = tops[c], total = sums[c];                                                                            \
        ST(X, out, at + c, VALUE(EXP, ONE(x, at + c)));                                                                    \
    }
        FOR_COLUMNS
#undef BODY
    }
}

KERNEL void CAT(NAME, _column_backward)(GLOBAL const S(X) *g, GLOBAL const S(X) *y, GLOBAL S(X) *out, Softmax par) {
    PLACE
    g += par.x;
    y += par.y;
    T sums[COLUMNS];
    EACH_COLUMN sums[c] = 0;
    for (IDX at = start; at < end; at += par.inner) {
#define BODY sums[c] += SHARE(ONE(g, at + c), ONE(y, at + c));
        FOR_COLUMNS
#undef BODY
    }
    for (IDX at = start; at < end; at += par.inner) {
#define BODY                                                                                                          \
    {                                                                                                                 \
        T total = sums[c];                                                                                            \
        ST(X, out, at + c, SLOPE(EXP, ONE(g, at + c), ONE(y, at + c)));                                                    \
    }
        FOR_COLUMNS
#undef BODY
    }
}
