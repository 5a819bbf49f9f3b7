// Cross-entropy of contiguous rows of logits with classes, and its gradient: each in one launch. See rows.h.
//
// Defines: NAME the symbol; X the dtype, X_BYTES its size; T computes.
// `stats` is [3, rows]: a row's largest element, the sum of exp(x - largest), and its share, which is the weight of its
// class (1 without weights), or 0 where the class is `ignore`.
typedef struct {
    IDX rows, n, whole, weighted, x, target, weight, g, g_step;
} CrossEntropy;

KERNEL void CAT(NAME, _forward)(GLOBAL const S(X) *x, GLOBAL const i64 *target, GLOBAL const S(X) *weight,
                                GLOBAL T *loss, GLOBAL T *stats, i64 ignore, CrossEntropy par, GLOBAL i64 *flags,
                                i32 check_id) {
    TOGETHER_IN(partial)
    IDX row = ROW;
    if (row >= par.rows) return;
    IDX in = par.x + row * par.n;
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
    FOR_WHOLE {
        FETCH(v, x, in + j)
        EACH sum[gg_j] += EXP_EACH(v[gg_j] - best);
    }
    FOR_REST FIRST_OF(sum) += EXP(ONE(x, in + j) - best);
    GATHER(total, partial, ADD, sum)
    if (ITEM != 0) return;
    i64 class_ = target[par.target + row];
    T share = 0, cost = 0;
    if (class_ != ignore) {
        if (class_ < 0 || class_ >= (i64)par.n) {
            gg_report(flags, check_id, class_);
        } else {
            share = par.weighted ? ONE(weight, par.weight + (IDX)class_) : (T)1;
            cost = (log(total) - (ONE(x, in + (IDX)class_) - best)) * share;
        }
    }
    loss[row] = cost;
    stats[row] = best;
    stats[par.rows + row] = total;
    stats[2 * par.rows + row] = share;
}

KERNEL void CAT(NAME, _backward)(GLOBAL const T *g, GLOBAL const S(X) *x, GLOBAL const i64 *target,
                                 GLOBAL const T *stats, GLOBAL S(X) *dx, CrossEntropy par) {
    IDX row = ROW;
    if (row >= par.rows) return;
    IDX in = par.x + row * par.n, to = row * par.n;
    T best = stats[row], share = stats[2 * par.rows + row];
    T factor = share == 0 ? 0 : g[par.g + row * par.g_step] * share, scale = factor / stats[par.rows + row];
    IDX class_ = (IDX)target[par.target + row];
    VECTOR_OF(v);
    if (share == 0) {  // whatever x is there
        EACH v[gg_j] = EVERY(0);
        FOR_WHOLE {
            STORE(dx, to + j, v)
        }
        FOR_REST ST(X, dx, to + j, (T)0);
        return;
    }
    FOR_WHOLE {
        FETCH(v, x, in + j)
        EACH v[gg_j] = EXP_EACH(v[gg_j] - best) * scale;
        STORE(dx, to + j, v)
        if (class_ >= j && class_ < j + WIDE) ST(X, dx, to + class_, EXP(ONE(x, in + class_) - best) * scale - factor);
    }
    FOR_REST {
        T value = EXP(ONE(x, in + j) - best) * scale;
        ST(X, dx, to + j, class_ == j ? value - factor : value);
    }
}
