// Matrix products: [*batch, m, k] @ [*batch, k, n], any strides.
//
// Defines: NAME the symbol, X the dtype, R that of the result, T the accumulating type, TILE.
// NAME_tile   the textbook tile: TILE x TILE items share a tile of each operand in local memory.
// NAME_panel  for CPU-type devices, which run items one after another and have caches instead of local memory: an
//             item keeps 6 rows by up to 4 vectors of the result in registers and walks down k. Same result as
//             NAME_tile up to the order of sums. f32, n = 1024, two AVX-512 cores under PoCL: 320 GFLOP/s, the tile 5.
// NAME_pack   copies b into columns as wide as a vector, zeros beyond the edge, where its rows are not contiguous.
//             With these: VW the width of a vector, V its type, and b's own layout, as given or packed;
//             PACK_ROWS how many rows an item does.
#ifndef VW
typedef struct {
    IDX m, n, k, tiles_m, tiles_n, a_offset, b_offset;
    IDX a_m, a_k, b_k, b_n;  // strides of the matrices
    IDX batch, batch_shape[8], batch_stride[2][8];
} Product;

KERNEL void CAT(NAME, _tile)(GLOBAL const S(X) *a, GLOBAL const S(X) *b, GLOBAL S(R) *out, Product par) {
    LOCAL T left[TILE][TILE + 1];
    LOCAL T right[TILE][TILE + 1];
    i32 row = LOCAL_ID / TILE, column = LOCAL_ID % TILE;
    IDX group = GROUP_ID;
    IDX tile_n = group % par.tiles_n;
    group /= par.tiles_n;
    IDX tile_m = group % par.tiles_m, which = group / par.tiles_m;
    IDX target = which * par.m * par.n, at[2] = {par.a_offset, par.b_offset};
    LOCATE(at, 2, which, par.batch, par.batch_shape, par.batch_stride)
    IDX i = tile_m * TILE + row, j = tile_n * TILE + column;
    T total = 0;
    for (IDX first = 0; first < par.k; first += TILE) {
        IDX ka = first + column, kb = first + row;
        left[row][column] = i < par.m && ka < par.k ? (T)LD(X, a, at[0] + i * par.a_m + ka * par.a_k) : (T)0;
        right[row][column] = kb < par.k && j < par.n ? (T)LD(X, b, at[1] + kb * par.b_k + j * par.b_n) : (T)0;
        BARRIER;
        for (i32 q = 0; q < TILE; q++) total += left[row][q] * right[q][column];
        BARRIER;
    }
    if (i < par.m && j < par.n) ST(R, out, target + i * par.n + j, total);
}

#else

typedef struct {
    IDX items, pieces, k, n, vectors, b_offset, b_k, b_n;
    IDX batch, batch_shape[8], batch_stride[1][8];
} Pack;

KERNEL void CAT(NAME, _pack)(GLOBAL const S(X) *b, GLOBAL T *out, Pack par) {
    IDX item = GLOBAL_ID;
    if (item >= par.items) return;
    IDX q = item / par.pieces, first = (item - q * par.pieces) * PACK_ROWS;
    IDX which = q / par.vectors, column = (q - which * par.vectors) * VW;
    IDX rows = item - q * par.pieces + 1 == par.pieces ? par.k - first : PACK_ROWS;  // the last piece may be longer
    IDX columns = par.n - column < VW ? par.n - column : VW;
    IDX at[1] = {par.b_offset + first * par.b_k + column * par.b_n};
    LOCATE(at, 1, which, par.batch, par.batch_shape, par.batch_stride)
    GLOBAL T *target = out + (q * par.k + first) * VW;
    GLOBAL const S(X) *source = b + at[0];
    if (par.b_k == 1 && par.k >= VW) {  // a transposed matrix, a square at a time; the last one moved back to fit
        for (IDX done = 0; done < rows; done += VW) {
            IDX shift = done + VW <= rows ? done : rows - VW;
            V v[VW], w[VW];
#pragma unroll
            for (i32 c = 0; c < VW; c++) v[c] = c < columns ? *(GLOBAL const Loose *)(source + c * par.b_n + shift) : 0;
            TRANSPOSE(v, w)
#pragma unroll
            for (i32 r = 0; r < VW; r++) *(GLOBAL Loose *)(target + (shift + r) * VW) = v[r];
        }
        return;
    }
    for (IDX r = 0; r < rows; r++)
        for (IDX c = 0; c < VW; c++)
            target[r * VW + c] = c < columns ? source[r * par.b_k + c * par.b_n] : (T)0;
}

typedef struct {
    IDX items, m, n, k, row_blocks, rows, panels;
    IDX a_offset, a_m, a_k;
    IDX b_offset, b_step, b_vector;  // from one row of a vector to the next, from one vector to the next
    IDX packed;
    IDX batch, batch_shape[8], batch_stride[2][8];
} Panel;

// What a row of the tile in registers stores.
#define STORE_4(i)                                                                                                    \
    {                                                                                                                 \
        GLOBAL T *to = out + target + r##i * par.n;                                                                   \
        *(GLOBAL Loose *)(to + j0) = c##i##0;                                                                         \
        *(GLOBAL Loose *)(to + j1) = c##i##1;                                                                         \
        *(GLOBAL Loose *)(to + j2) = c##i##2;                                                                         \
        *(GLOBAL Loose *)(to + j3) = c##i##3;                                                                         \
    }
#define STORE_1(i)                                                                                                    \
    {                                                                                                                 \
        GLOBAL T *to = out + target + r##i * par.n + j0;                                                              \
        if (width == VW) {                                                                                            \
            *(GLOBAL Loose *)to = c##i##0;                                                                            \
        } else {                                                                                                      \
            T part[VW];                                                                                               \
            *(Loose *)part = c##i##0;                                                                                 \
            for (IDX q = 0; q < width; q++) to[q] = part[q];                                                          \
        }                                                                                                             \
    }
// Rows beyond the last repeat it: the same values are stored once more.
#define ROW(i)                                                                                                        \
    IDX r##i = row + i < par.m ? row + i : par.m - 1;                                                                 \
    GLOBAL const T *a##i = a + from[0] + r##i * par.a_m;
#define VECTOR_AT(q) (*(GLOBAL const Loose *)(b##q##_ + down))

KERNEL void CAT(NAME, _panel)(GLOBAL const T *a, GLOBAL const T *b, GLOBAL T *out, Panel par) {
    IDX item = GLOBAL_ID;
    if (item >= par.items) return;
    IDX q = item / par.row_blocks, block = item - q * par.row_blocks;
    IDX which = q / par.panels, panel = q - which * par.panels;
    IDX target = which * par.m * par.n, from[2] = {par.a_offset, par.b_offset};
    LOCATE(from, 2, which, par.batch, par.batch_shape, par.batch_stride)
    IDX last_row = (block + 1) * par.rows < par.m ? (block + 1) * par.rows : par.m;
    IDX first_vector = panel * 4, vectors = (par.n + VW - 1) / VW;
    IDX last_vector = panel + 1 == par.panels ? vectors : first_vector + 4;
    // Unpacked, the last vector of a row is moved back so as to end with it; what it repeats comes out the same.
    IDX last_start = par.packed || par.n < VW ? (vectors - 1) * VW : par.n - VW;
    for (IDX row = block * par.rows; row < last_row; row += 6) {
        SIX(ROW)
        IDX v = first_vector;
        for (; v + 4 <= last_vector; v += 4) {
            IDX j0 = v * VW, j1 = j0 + VW, j2 = j1 + VW, j3 = j2 + VW;
            if (par.packed && j3 + VW > par.n) break;
            if (j3 > last_start) j3 = last_start;
            GLOBAL const T *b0_ = b + from[1] + v * par.b_vector;
            GLOBAL const T *b1_ = b0_ + par.b_vector, *b2_ = b1_ + par.b_vector;
            GLOBAL const T *b3_ = par.packed ? b2_ + par.b_vector : b + from[1] + j3;
            SIX(DECLARE_4)
            IDX at = 0, down = 0;
            for (IDX kk = 0; kk < par.k; kk++) {
                V b0 = VECTOR_AT(0), b1 = VECTOR_AT(1), b2 = VECTOR_AT(2), b3 = VECTOR_AT(3);
                SIX(STEP_4)
                at += par.a_k;
                down += par.b_step;
            }
            SIX(STORE_4)
        }
        for (; v < last_vector; v++) {
            IDX j0 = v * VW;
            if (j0 > last_start) j0 = last_start;
            IDX width = par.n - j0 < VW ? par.n - j0 : VW;
            GLOBAL const T *b0_ = par.packed ? b + from[1] + v * par.b_vector : b + from[1] + j0;
            SIX(DECLARE_1)
            IDX at = 0, down = 0;
            for (IDX kk = 0; kk < par.k; kk++) {
                V b0 = VECTOR_AT(0);
                SIX(STEP_1)
                at += par.a_k;
                down += par.b_step;
            }
            SIX(STORE_1)
        }
    }
}

#endif
