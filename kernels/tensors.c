// Many tensors of one dtype at once, a launch for up to COUNT of them: the sum of their squares, and multiplying them.
//
// Defines: NAME the symbol; X the dtype, X_BYTES its size; T computes; COUNT; POINTERS their parameters p0, p1, ...;
// PICKED(k) the pointer number k; BLOCK how many neighbouring elements of one tensor are a block.
//
// Tensors lie in memory without gaps, in any order of their elements. A block is a row to rows.h: an item does it on
// CPU-type devices, a group on GPUs.
//
// NAME_squares  the sum of the squares of each block, to `sums` from `place` on
// NAME_root     the square root of one number
// NAME_scale    every element times one number, in place; nothing is touched where that is 1
typedef struct {
    // first[k]: the block that tensor k begins with (all that are there, for a k that is not); n[k]: its elements;
    // offset[k]: where it begins; whole: whether they are aligned
    IDX blocks, place, whole, first[COUNT], n[COUNT], offset[COUNT];
} Tensors;

typedef struct {
    IDX whole, n;
} Row;

#define BLOCK_OF(par)                                                                                                 \
    IDX block = ROW;                                                                                                  \
    if (block >= of.blocks) return;                                                                                   \
    i32 which = 0;                                                                                                    \
    for (i32 k = 1; k < COUNT; k++) which = block >= of.first[k] ? k : which;                                         \
    IDX start = (block - of.first[which]) * BLOCK, left = of.n[which] - start, at = of.offset[which] + start;         \
    GLOBAL S(X) *x = PICKED(which);                                                                                   \
    Row par;                                                                                                          \
    par.n = left < BLOCK ? left : BLOCK;                                                                              \
    par.whole = of.whole ? par.n / WIDE * WIDE : 0;                                                                   \
    VECTOR_OF(v);

KERNEL void CAT(NAME, _squares)(POINTERS GLOBAL T *sums, Tensors of) {
    TOGETHER_IN(partial)
    BLOCK_OF(par)
    VECTOR_OF(sum);
    EACH sum[gg_j] = 0;
    FOR_WHOLE {
        FETCH(v, x, at + j)
        EACH sum[gg_j] += v[gg_j] * v[gg_j];
    }
    FOR_REST {
        T value = ONE(x, at + j);
        sum[0] += value * value;
    }
    GATHER(total, partial, ADD, sum)
    if (ITEM == 0) sums[of.place + block] = total;
}

KERNEL void CAT(NAME, _root)(GLOBAL const T *sum, GLOBAL T *out) {
    if (GLOBAL_ID == 0) out[0] = sqrt(sum[0]);
}

KERNEL void CAT(NAME, _scale)(POINTERS GLOBAL const T *factor, Tensors of) {
    BLOCK_OF(par)
    T times = factor[0];
    if (times == (T)1) return;
    FOR_WHOLE {
        FETCH(v, x, at + j)
        EACH v[gg_j] *= times;
        STORE(x, at + j, v)
    }
    FOR_REST ST(X, x, at + j, ONE(x, at + j) * times);
}
