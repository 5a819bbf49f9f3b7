// Layer norm and RMS norm of contiguous rows, and their gradients: each in one launch. See rows.h.
//
// Defines: NAME the symbol; X the dtype, X_BYTES its size; T computes; CENTRED for layer norm.
// `has` says which of the optional arrays are there, as bits: 1 weight, 2 bias, 4 residual. Others are not touched.
// In `moments` each row's mean comes first, with CENTRED, then each row's mean square of what is normalised.
//
// NAME_forward   a row each. With a residual it is the norm of x + residual, which is written to `total`: an item reads
//                again what it wrote itself, so that the norm is that of the sum as it was rounded.
// NAME_backward  a block of rows each: dx by rows, while the block's sums over rows for the gradients of weight and
//                bias grow in `sums`, [blocks, 2, n] (without CENTRED [blocks, 1, n]). `has`: 1 weight, 2 dx is
//                wanted, 4 that of the weight, 8 that of the bias, 16 `beside` is added to dx.
typedef struct {
    IDX rows, n, whole, block, blocks, has, x, g, weight, bias, beside;  // `beside`: where that or the residual begins
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

// What is to be normalised, as the first pass over a row reads it.
#define FETCH_FIRST(v, j)                                                                                             \
    if (par.has & 4) {                                                                                                \
        FETCH(v, x, par.x + to + (j))                                                                                 \
        FETCH(w, residual, par.beside + to + (j))                                                                     \
        EACH v[gg_j] += w[gg_j];                                                                                      \
        STORE(total, to + (j), v)                                                                                     \
    }                                                                                                                 \
    FETCH(v, from, in + (j))
#define ONE_FIRST(value, j)                                                                                           \
    if (par.has & 4) ST(X, total, to + (j), ONE(x, par.x + to + (j)) + ONE(residual, par.beside + to + (j)));         \
    T value = ONE(from, in + (j));

KERNEL void CAT(NAME, _forward)(GLOBAL const S(X) *x, GLOBAL const S(X) *weight, GLOBAL const S(X) *bias,
                                GLOBAL const S(X) *residual, GLOBAL S(X) *total, GLOBAL S(X) *out, GLOBAL T *moments,
                                T eps, Norm par) {
    TOGETHER_IN(partial)
    IDX row = ROW;
    if (row >= par.rows) return;
    IDX to = row * par.n, in = par.has & 4 ? to : par.x + to;
    GLOBAL const S(X) *from = par.has & 4 ? total : x;
    VECTOR_OF(v);
    VECTOR_OF(w);
    VECTOR_OF(sum);
#ifdef CENTRED
    EACH sum[gg_j] = EVERY(0);
    FOR_WHOLE {
        FETCH_FIRST(v, j)
        EACH sum[gg_j] += v[gg_j];
    }
    FOR_REST {
        ONE_FIRST(value, j)
        FIRST_OF(sum) += value;
    }
    GATHER(mean, partial, ADD, sum)
    mean /= (T)par.n;
    if (ITEM == 0) moments[row] = mean;
#endif
    EACH sum[gg_j] = EVERY(0);
    FOR_WHOLE {
#ifdef CENTRED
        FETCH(v, from, in + j)
#else
        FETCH_FIRST(v, j)
#endif
        EACH sum[gg_j] += FROM_MEAN(v[gg_j]) * FROM_MEAN(v[gg_j]);
    }
    FOR_REST {
#ifdef CENTRED
        T value = FROM_MEAN(ONE(from, in + j));
#else
        ONE_FIRST(value, j)
#endif
        FIRST_OF(sum) += value * value;
    }
    GATHER(square, partial, ADD, sum)
    square /= (T)par.n;
    if (ITEM == 0) moments[SQUARES + row] = square;
    T scale = (T)1 / sqrt(square + eps);
    FOR_WHOLE {
        FETCH(v, from, in + j)
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
        T value = FROM_MEAN(ONE(from, in + j)) * scale;
        if (par.has & 1) value *= ONE(weight, par.weight + j);
        if (par.has & 2) value += ONE(bias, par.bias + j);
        ST(X, out, to + j, value);
    }
}

// The first row of a block sets its sums, the others add to them; an item meets the same columns in each row.
#define GROW(at, value) sums[at] = row == first ? (value) : sums[at] + (value);

KERNEL void CAT(NAME, _backward)(GLOBAL const S(X) *g, GLOBAL const S(X) *x, GLOBAL const S(X) *weight,
                                 GLOBAL const S(X) *beside, GLOBAL const T *moments, GLOBAL S(X) *dx, GLOBAL T *sums,
                                 T eps, Norm par) {
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
    EACH w[gg_j] = EVERY(1);
    for (IDX row = first; row < last; row++) {
        IDX in = par.x + row * par.n, from = par.g + row * par.n, to = row * par.n;
#ifdef CENTRED
        T mean = moments[row];
#endif
        T scale = (T)1 / sqrt(moments[SQUARES + row] + eps);
        EACH level[gg_j] = EVERY(0);
        EACH slope[gg_j] = EVERY(0);
        FOR_WHOLE {
            FETCH(v, g, from + j)
            FETCH(h, x, in + j)
            EACH h[gg_j] = FROM_MEAN(h[gg_j]) * scale;
            if (par.has & 4) {
                EACH old[gg_j] = row == first ? EVERY(0) : GROWN(sums, own + j);
                EACH GROWN(sums, own + j) = old[gg_j] + v[gg_j] * h[gg_j];
            }
#ifdef CENTRED
            if (par.has & 8) {
                EACH old[gg_j] = row == first ? EVERY(0) : GROWN(sums, other + j);
                EACH GROWN(sums, other + j) = old[gg_j] + v[gg_j];
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
            FIRST_OF(level) += value;
            FIRST_OF(slope) += value * normal;
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
                if (par.has & 16) {
                    FETCH(h, beside, par.beside + to + j)
                    EACH v[gg_j] += h[gg_j];
                }
                STORE(dx, to + j, v)
            }
            FOR_REST {
                T value = ONE(g, from + j), normal = FROM_MEAN(ONE(x, in + j)) * scale;
                if (par.has & 1) value *= ONE(weight, par.weight + j);
                T slope_ = (value - even - normal * steep) * scale;
                if (par.has & 16) slope_ += ONE(beside, par.beside + to + j);
                ST(X, dx, to + j, slope_);
            }
        }
    }
}
