// Matrix products on GPUs: [*batch, m, k] @ [*batch, k, n], any strides. A group computes a block BM x BN of the result,
// an item TM x TN of it in registers; both operands pass through local memory BK deep, the next part being fetched
// while this one is multiplied.
//
// Defines: NAME the symbol; X the dtype, U a type of its size that variables may have, R the dtype stored, T computes;
// BM, BN, BK, TM, TN. For each operand how it is read: LEFT_LOAD, RIGHT_LOAD elements at a time, LEFT_ALONG,
// RIGHT_ALONG whether neighbours in memory are neighbours in k. Sums run over k in order whatever the block is, so that
// all blocks give the same bits; `share` is how much of k a group does, the host adds the parts up.
typedef struct {
    IDX m, n, k, tiles_m, tiles_n, share, batches, a_offset, b_offset;
    IDX a_m, a_k, b_k, b_n;  // strides of the matrices
    IDX batch, batch_shape[8], batch_stride[2][8];
} Product;

#define ITEMS (BM / TM * (BN / TN))
#define LEFT_COUNT (BM * BK / LEFT_LOAD / ITEMS)
#define RIGHT_COUNT (BN * BK / RIGHT_LOAD / ITEMS)
#define GAP 4  // at the end of a line of local memory, so that a column of it does not lie in one bank

#if LEFT_LOAD > 1
typedef struct __attribute__((aligned(LEFT_LOAD * sizeof(U)))) {
    U v[LEFT_LOAD];
} Left;
#define LEFT_GET(at) (*(GLOBAL const Left *)(a + (at)))
#define LEFT_VALUE(c, j) ((T)LD(X, (const S(X) *)(c).v, j))
#else
typedef T Left;
#define LEFT_GET(at) ((T)LD(X, a, at))
#define LEFT_VALUE(c, j) (c)
#endif
#if RIGHT_LOAD > 1
typedef struct __attribute__((aligned(RIGHT_LOAD * sizeof(U)))) {
    U v[RIGHT_LOAD];
} Right;
#define RIGHT_GET(at) (*(GLOBAL const Right *)(b + (at)))
#define RIGHT_VALUE(c, j) ((T)LD(X, (const S(X) *)(c).v, j))
#else
typedef T Right;
#define RIGHT_GET(at) ((T)LD(X, b, at))
#define RIGHT_VALUE(c, j) (c)
#endif

// The item's loads: number u begins at a line (a row of a, a column of b) and so far down in k. Wholly inside or out,
// as the host asks for wider loads only where they divide the lines.
#define PLACE(u, LINES, LOAD, ALONG)                                                                                  \
    i32 number = item + (u) * ITEMS;                                                                                  \
    i32 line = ALONG ? number / (BK / LOAD) : number % (LINES / LOAD) * LOAD;                                         \
    i32 down = ALONG ? number % (BK / LOAD) * LOAD : number / (LINES / LOAD);
#define FETCH(k0)                                                                                                     \
    _Pragma("unroll") for (i32 u = 0; u < LEFT_COUNT; u++) {                                                          \
        PLACE(u, BM, LEFT_LOAD, LEFT_ALONG)                                                                           \
        inside_left[u] = tile_m + line < par.m && (k0) + down < last;                                                 \
        IDX at = inside_left[u] ? from[0] + (tile_m + line) * par.a_m + ((k0) + down) * par.a_k : from[0];            \
        got_left[u] = LEFT_GET(at);                                                                                   \
    }                                                                                                                 \
    _Pragma("unroll") for (i32 u = 0; u < RIGHT_COUNT; u++) {                                                         \
        PLACE(u, BN, RIGHT_LOAD, RIGHT_ALONG)                                                                         \
        inside_right[u] = tile_n + line < par.n && (k0) + down < last;                                                \
        IDX at = inside_right[u] ? from[1] + (tile_n + line) * par.b_n + ((k0) + down) * par.b_k : from[1];           \
        got_right[u] = RIGHT_GET(at);                                                                                 \
    }
#define PUT(stage)                                                                                                     \
    _Pragma("unroll") for (i32 u = 0; u < LEFT_COUNT; u++) {                                                          \
        PLACE(u, BM, LEFT_LOAD, LEFT_ALONG)                                                                           \
        _Pragma("unroll") for (i32 j = 0; j < LEFT_LOAD; j++)                                                         \
            left[stage][down + (LEFT_ALONG ? j : 0)][line + (LEFT_ALONG ? 0 : j)] =                                    \
                inside_left[u] ? LEFT_VALUE(got_left[u], j) : (T)0;                                                   \
    }                                                                                                                 \
    _Pragma("unroll") for (i32 u = 0; u < RIGHT_COUNT; u++) {                                                         \
        PLACE(u, BN, RIGHT_LOAD, RIGHT_ALONG)                                                                         \
        _Pragma("unroll") for (i32 j = 0; j < RIGHT_LOAD; j++)                                                        \
            right[stage][down + (RIGHT_ALONG ? j : 0)][line + (RIGHT_ALONG ? 0 : j)] =                                 \
                inside_right[u] ? RIGHT_VALUE(got_right[u], j) : (T)0;                                                \
    }

// An item's rows and columns: runs of up to four, the runs of neighbouring items side by side.
#define RUN_M (TM < 4 ? TM : 4)
#define RUN_N (TN < 4 ? TN : 4)
#define ROW_OF(i) ((i) / RUN_M * (RUN_M * (BM / TM)) + item / (BN / TN) * RUN_M + (i) % RUN_M)
#define COLUMN_OF(j) ((j) / RUN_N * (RUN_N * (BN / TN)) + item % (BN / TN) * RUN_N + (j) % RUN_N)

KERNEL void NAME(GLOBAL const S(X) *a, GLOBAL const S(X) *b, GLOBAL S(R) *out, Product par) {
    LOCAL T left[2][BK][BM + GAP];
    LOCAL T right[2][BK][BN + GAP];
    i32 item = LOCAL_ID;
    IDX group = GROUP_ID;
    IDX tile_n = group % par.tiles_n * BN;
    group /= par.tiles_n;
    IDX tile_m = group % par.tiles_m * BM;
    group /= par.tiles_m;
    IDX target = group * par.m * par.n;  // the parts of k lie one after another
    IDX which = group % par.batches, first = group / par.batches * par.share;
    IDX last = first + par.share < par.k ? first + par.share : par.k;
    IDX from[2] = {par.a_offset, par.b_offset};
    LOCATE(from, 2, which, par.batch, par.batch_shape, par.batch_stride)
    T total[TM][TN];
    _Pragma("unroll") for (i32 i = 0; i < TM; i++)
        _Pragma("unroll") for (i32 j = 0; j < TN; j++) total[i][j] = 0;
    Left got_left[LEFT_COUNT];
    Right got_right[RIGHT_COUNT];
    i32 inside_left[LEFT_COUNT], inside_right[RIGHT_COUNT], stage = 0;
    FETCH(first)
    PUT(0)
    BARRIER;
    for (IDX k0 = first; k0 < last; k0 += BK) {
        if (k0 + BK < last) {
            FETCH(k0 + BK)
        }
        _Pragma("unroll") for (i32 q = 0; q < BK; q++) {
            T x[TM], y[TN];
            _Pragma("unroll") for (i32 i = 0; i < TM; i++) x[i] = left[stage][q][ROW_OF(i)];
            _Pragma("unroll") for (i32 j = 0; j < TN; j++) y[j] = right[stage][q][COLUMN_OF(j)];
            _Pragma("unroll") for (i32 i = 0; i < TM; i++)
                _Pragma("unroll") for (i32 j = 0; j < TN; j++) total[i][j] += x[i] * y[j];
        }
        stage = 1 - stage;
        if (k0 + BK < last) {
            PUT(stage)
        }
        BARRIER;
    }
    _Pragma("unroll") for (i32 i = 0; i < TM; i++)
        _Pragma("unroll") for (i32 j = 0; j < TN; j++) {
            IDX row = tile_m + ROW_OF(i), column = tile_n + COLUMN_OF(j);
            if (row < par.m && column < par.n) ST(R, out, target + row * par.n + column, total[i][j]);
        }
}
