// Matrix times vector, the matrix by rows: [*batch, rows, k] and [*batch, k] give [*batch, rows]. A product with one
// column, or with one row and a transposed right operand, reads its matrix once: what matters is to read it in order.
//
// Defines: NAME the symbol; X the dtype, R that of the result, T computes. On CPU-type devices X and R are T, V a vector of VW of them, the rows
// contiguous, and an item does 4 rows: 2048 x 2048 under PoCL in a quarter of the time the tile of matmul.c takes. On
// GPUs a group of GROUP items does one row.
typedef struct {
    IDX items, rows, k, a_offset, b_offset, a_row, a_k, b_k;
    IDX batch, batch_shape[8], batch_stride[2][8];
} Rows;

#ifdef VW

#define FOUR(op) op(0) op(1) op(2) op(3)
// Rows beyond the last repeat it.
#define ROW(i)                                                                                                        \
    GLOBAL const T *a##i = a + from[0] + (first + i < par.rows ? first + i : par.rows - 1) * par.a_row;               \
    V sum##i = 0, whole##i = 0;
// Many short sums instead of a long one: of 16 million float32 products the error is 1e-7 instead of 1e-4.
#define FOLD(i) whole##i = whole##i + sum##i, sum##i = 0;
#define STEP(i) sum##i = sum##i + *(GLOBAL const Loose *)(a##i + at) * v;
#define FINISH(i)                                                                                                     \
    {                                                                                                                 \
        T total = 0;                                                                                                  \
        *(Loose *)part = whole##i;                                                                                    \
        for (i32 j = 0; j < VW; j++) total += part[j];                                                                \
        for (IDX rest = at; rest < par.k; rest++) total += a##i[rest] * b[from[1] + rest * par.b_k];                  \
        if (first + i < par.rows) out[target + i] = total;                                                            \
    }

KERNEL void NAME(GLOBAL const T *a, GLOBAL const T *b, GLOBAL T *out, Rows par) {
    IDX item = GLOBAL_ID;
    if (item >= par.items) return;
    IDX blocks = (par.rows + 3) / 4, which = item / blocks, first = (item - which * blocks) * 4;
    IDX target = which * par.rows + first, from[2] = {par.a_offset, par.b_offset};
    LOCATE(from, 2, which, par.batch, par.batch_shape, par.batch_stride)
    FOUR(ROW)
    T part[VW];
    IDX at = 0;
    while (at + VW <= par.k) {
        IDX stop = at + (IDX)1024 * VW < par.k ? at + (IDX)1024 * VW : par.k;
        for (; at + VW <= stop; at += VW) {
            V v;
            if (par.b_k == 1) {
                v = *(GLOBAL const Loose *)(b + from[1] + at);
            } else {
                for (i32 j = 0; j < VW; j++) part[j] = b[from[1] + (at + j) * par.b_k];
                v = *(Loose *)part;
            }
            FOUR(STEP)
        }
        FOUR(FOLD)
    }
    FOUR(FINISH)
}

#else

KERNEL void NAME(GLOBAL const S(X) *a, GLOBAL const S(X) *b, GLOBAL S(R) *out, Rows par) {
    LOCAL T totals[GROUP];
    IDX item = GROUP_ID, which = item / par.rows, row = item - which * par.rows;
    IDX from[2] = {par.a_offset + row * par.a_row, par.b_offset};
    LOCATE(from, 2, which, par.batch, par.batch_shape, par.batch_stride)
    T total = 0;
    for (IDX at = LOCAL_ID; at < par.k;) {  // in short sums, as above
        IDX stop = at + (IDX)1024 * GROUP;
        T sum = 0;
        for (; at < par.k && at < stop; at += GROUP)
            sum += (T)LD(X, a, from[0] + at * par.a_k) * (T)LD(X, b, from[1] + at * par.b_k);
        total += sum;
    }
    totals[LOCAL_ID] = total;
    BARRIER;
    for (i32 step = GROUP / 2; step > 0; step /= 2) {
        if (LOCAL_ID < step) totals[LOCAL_ID] += totals[LOCAL_ID + step];
        BARRIER;
    }
    if (LOCAL_ID == 0) ST(R, out, item, totals[0]);
}

#endif
