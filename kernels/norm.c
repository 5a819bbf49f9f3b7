// Layer norm and RMS norm of contiguous rows, and their gradients: each in one launch. See rows.h.
//
// Defines: NAME the symbol; X the dtype, X_BYTES its size; T computes; CENTRED for layer norm.
// `has` says which of the optional arrays are there, as bits: 1 weight, 2 bias. Others are not touched.
// In `moments` each row's mean comes first, with CENTRED, then each row's mean square of what is normalised.
//
// NAME_forward   a row each.
// NAME_backward  a block of rows each: dx by rows, while the block's sums over rows for the gradients of weight and
//                bias grow in `sums`, [blocks, 2, n] (without CENTRED [blocks, 1, n]). `has`: 1 weight, 2 dx is
//                wanted, 4 that of the weight, 8 that of the bias.
typedef struct {
    IDX rows, n, whole, block, blocks, has, x, g, weight, bias;
} Norm;

#ifdef CENTRED
#define VECTORS 2
#define SQUARES (par.rows)
#define FROM_MEAN(v) ((v) - mean)
#else
#define VECTORS 1
#define SQUARES 0
#define FROM_MEAN(v) (v)
#endif

KERNEL void CAT(NAME, _forward)(GLOBAL const S(X) *x, GLOBAL const S(X) *weight, GLOBAL const S(X) *bias,
                                GLOBAL S(X) *out, GLOBAL T *moments, T eps, Norm par) {
    TOGETHER_IN(partial)
    IDX row = ROW;
    if (row >= par.rows) return;
    IDX in = par.x + row * par.n, to = row * par.n;
    VECTOR_OF(v);
    VECTOR_OF(w);
    VECTOR_OF(sum);
#ifdef CENTRED
    EACH sum[gg_j] = 0;
    FOR_WHOLE {
        FETCH(v, x, in + j)
        EACH sum[gg_j] += v[gg_j];
    }
    FOR_REST sum[0] += ONE(x, in + j);
    GATHER(mean, partial, ADD, sum)
    mean /= (T)par.n;
    if (ITEM == 0) moments[row] = mean;
#endif
    EACH sum[gg_j] = 0;
    FOR_WHOLE {
        FETCH(v, x, in + j)
        EACH sum[gg_j] += FROM_MEAN(v[gg_j]) * FROM_MEAN(v[gg_j]);
    }
    FOR_REST {
        T value = FROM_MEAN(ONE(x, in + j));
        sum[0] += value * value;
    }
    GATHER(square, partial, ADD, sum)
    square /= (T)par.n;
    if (ITEM == 0) moments[SQUARES + row] = square;
    T scale = (T)1 / sqrt(square + eps);
    FOR_WHOLE {
        FETCH(v, x, in + j)
        EACH v[gg_j] = FROM_MEAN(v[gg_j]) * scale;
        if (par.has & 1) {
            FETCH(w, weight, par.weight + j)
            EACH v[gg_j] *= w[gg_j];
        }
        if (par.has & 2) {
            FETCH(w, bias, par.bias + j)
            EACH v[gg_j] += w[gg_j];
        }
        STORE(out, to + j, v)
    }
    FOR_REST {
        T value = FROM_MEAN(ONE(x, in + j)) * scale;
        if (par.has & 1) value *= ONE(weight, par.weight + j);
        if (par.has & 2) value += ONE(bias, par.bias + j);
        ST(X, out, to + j, value);
    }
}

// The first row of a block sets its sums, the others add to them; an item meets the same columns in each row.
#define GROW(at, value) sums[at] = row == first ? (value) : sums[at] + (value);

KERNEL void CAT(NAME, _backward)(GLOBAL const S(X) *g, GLOBAL const S(X) *x, GLOBAL const S(X) *weight,
                                 GLOBAL const T *moments, GLOBAL S(X) *dx, GLOBAL T *sums, T eps, Norm par) {
    TOGETHER_IN(partial)
    IDX block = ROW;
    if (block >= par.blocks) return;
    IDX first = block * par.block, last = first + par.block < par.rows ? first + par.block : par.rows;
    IDX own = block * VECTORS * par.n, other = own + par.n;
    VECTOR_OF(v);
    VECTOR_OF(h);
    VECTOR_OF(w);
    VECTOR_OF(old);
    VECTOR_OF(level);
    VECTOR_OF(slope);
    EACH w[gg_j] = 1;
    for (IDX row = first; row < last; row++) {
        IDX in = par.x + row * par.n, from = par.g + row * par.n, to = row * par.n;
#ifdef CENTRED
        T mean = moments[row];
#endif
        T scale = (T)1 / sqrt(moments[SQUARES + row] + eps);
        EACH level[gg_j] = 0;
        EACH slope[gg_j] = 0;
        FOR_WHOLE {
            FETCH(v, g, from + j)
            FETCH(h, x, in + j)
            EACH h[gg_j] = FROM_MEAN(h[gg_j]) * scale;
            if (par.has & 4) {
                EACH old[gg_j] = row == first ? 0 : sums[own + j + gg_j];
                EACH sums[own + j + gg_j] = old[gg_j] + v[gg_j] * h[gg_j];
            }
#ifdef CENTRED
            if (par.has & 8) {
                EACH old[gg_j] = row == first ? 0 : sums[other + j + gg_j];
                EACH sums[other + j + gg_j] = old[gg_j] + v[gg_j];
            }
#endif
            if (par.has & 1) {
                FETCH(w, weight, par.weight + j)
            }
            EACH level[gg_j] += v[gg_j] * w[gg_j];
            EACH slope[gg_j] += v[gg_j] * w[gg_j] * h[gg_j];
        }
        FOR_REST {
            T value = ONE(g, from + j), normal = FROM_MEAN(ONE(x, in + j)) * scale;
            if (par.has & 4) GROW(own + j, value * normal)
#ifdef CENTRED
            if (par.has & 8) GROW(other + j, value)
#endif
            if (par.has & 1) value *= ONE(weight, par.weight + j);
            level[0] += value;
            slope[0] += value * normal;
        }
#ifdef CENTRED
        GATHER(even, partial, ADD, level)
        even /= (T)par.n;
#else
        T even = 0;
#endif
        GATHER(steep, partial, ADD, slope)
        steep /= (T)par.n;
        if (par.has & 2) {  // and not `continue` before: PoCL loses its way where a jump passes by a barrier
            FOR_WHOLE {
                FETCH(v, g, from + j)
                FETCH(h, x, in + j)
                if (par.has & 1) {
                    FETCH(w, weight, par.weight + j)
                }
                EACH v[gg_j] = (v[gg_j] * w[gg_j] - even - FROM_MEAN(h[gg_j]) * scale * steep) * scale;
                STORE(dx, to + j, v)
            }
            FOR_REST {
                T value = ONE(g, from + j), normal = FROM_MEAN(ONE(x, in + j)) * scale;
                if (par.has & 1) value *= ONE(weight, par.weight + j);
                ST(X, dx, to + j, (value - even - normal * steep) * scale);
            }
        }
    }
}
