// Reductions over any axes: sum, prod, max, min, any, all.
//
// Defines: NAME the symbol; X the dtype read, R the dtype written; T accumulates; JOIN(a, b) and START (neutral).
// Every element of the result has a fixed tree of partial results, which depends on the layout alone. What one item adds
// up in a row it adds up in runs of RUNS, and those: the error of a long sum then grows with a fourth of its length's root.
// The dimensions kept and the dimensions reduced are described apart; both run in C order. A long reduction
// is cut into `splits` parts of `chunk` elements and finished by a second launch over the parts.
//
// NAME_short   one item per element of the result: many short rows.
// NAME_row     a group of GROUP items per row part (on CPU-type devices one item, LANES accumulators wide). On GPUs with
//              `wide` WIDTH elements are read at once: the reduced dimension has unit stride, and rows begin at multiples.
// NAME_column  the innermost dimension is kept: one item for COLUMNS neighbouring results, so that reads coalesce.
//              Parts lie as [splits, m] here, as [m, splits] in NAME_row.
typedef struct {
    IDX m, n, chunk, splits, pieces, wide, offset;
    IDX kept, kept_shape[8], kept_stride[1][8];
    IDX reduced, reduced_shape[8], reduced_stride[1][8];
} Reduce;

#define READ(i) CV(TD, LD(X, x, i))
#define RUNS 16

KERNEL void CAT(NAME, _short)(GLOBAL const S(X) *x, GLOBAL S(R) *out, Reduce par) {
    IDX item = GLOBAL_ID;
    if (item >= par.m) return;
    IDX base[1] = {par.offset}, rest = item;
    LOCATE(base, 1, rest, par.kept, par.kept_shape, par.kept_stride)
    IDX inner = par.reduced_shape[par.reduced - 1], step = par.reduced_stride[0][par.reduced - 1];
    T total = START;
    for (IDX q = 0; q * inner < par.n; q++) {
        IDX at[1] = {base[0]}, index = q;
        LOCATE(at, 1, index, par.reduced - 1, par.reduced_shape, par.reduced_stride)
        for (IDX j = 0; j < inner; j++) total = JOIN(total, READ(at[0] + j * step));
    }
    ST(R, out, item, total);
}

#ifdef GG_CPU

KERNEL void CAT(NAME, _row)(GLOBAL const S(X) *x, GLOBAL S(R) *out, Reduce par) {
    IDX item = GLOBAL_ID;
    if (item >= par.m * par.splits) return;
    IDX row = item / par.splits, part = item - row * par.splits;
    IDX base[1] = {par.offset};
    LOCATE(base, 1, row, par.kept, par.kept_shape, par.kept_stride)
    IDX inner = par.reduced_shape[par.reduced - 1], step = par.reduced_stride[0][par.reduced - 1];
    IDX r = part * par.chunk, end = r + par.chunk < par.n ? r + par.chunk : par.n;
    T lane[LANES];
    for (i32 l = 0; l < LANES; l++) lane[l] = START;
    while (r < end) {  // one piece of the innermost dimension after the other
        IDX q = r / inner, i = r - q * inner;
        IDX count = inner - i < end - r ? inner - i : end - r;
        IDX at[1] = {base[0] + i * step}, j = 0;
        LOCATE(at, 1, q, par.reduced - 1, par.reduced_shape, par.reduced_stride)
        if (step == 1) {
            for (; j + RUNS * LANES <= count; j += RUNS * LANES) {
                T part[LANES];
                for (i32 l = 0; l < LANES; l++) part[l] = READ(at[0] + j + l);
                for (i32 k = 1; k < RUNS; k++)
                    for (i32 l = 0; l < LANES; l++) part[l] = JOIN(part[l], READ(at[0] + j + k * LANES + l));
                for (i32 l = 0; l < LANES; l++) lane[l] = JOIN(lane[l], part[l]);
            }
            for (; j + LANES <= count; j += LANES)
                for (i32 l = 0; l < LANES; l++) lane[l] = JOIN(lane[l], READ(at[0] + j + l));
        } else
            for (; j + LANES <= count; j += LANES)
                for (i32 l = 0; l < LANES; l++) lane[l] = JOIN(lane[l], READ(at[0] + (j + l) * step));
        for (i32 l = 0; j + l < count; l++) lane[l] = JOIN(lane[l], READ(at[0] + (j + l) * step));
        r += count;
    }
    for (i32 half_ = LANES / 2; half_ > 0; half_ /= 2)
        for (i32 l = 0; l < half_; l++) lane[l] = JOIN(lane[l], lane[l + half_]);
    ST(R, out, item, lane[0]);
}

#else

#define WIDTH 4
typedef struct __attribute__((aligned(WIDTH * sizeof(S(X))))) {
    S(X) held[WIDTH];
} Bundle;

KERNEL void CAT(NAME, _row)(GLOBAL const S(X) *x, GLOBAL S(R) *out, Reduce par) {
    LOCAL T partial[GROUP];
    i32 lane = LOCAL_ID;
    IDX row = GROUP_ID / par.splits, part = GROUP_ID - row * par.splits;
    IDX base[1] = {par.offset};
    LOCATE(base, 1, row, par.kept, par.kept_shape, par.kept_stride)
    IDX end = (part + 1) * par.chunk < par.n ? (part + 1) * par.chunk : par.n;
    T total = START;
    IDX r = part * par.chunk;
    if (par.wide) {  // one dimension of neighbours
        GLOBAL const Bundle *from = (GLOBAL const Bundle *)(x + base[0] + r);
        IDX whole = (end - r) / WIDTH;
        for (IDX b = lane; b < whole; b += GROUP) {
            Bundle bundle = from[b];
            for (i32 l = 0; l < WIDTH; l++) total = JOIN(total, CV(TD, LD(X, bundle.held, l)));
        }
        r += whole * WIDTH;
    }
    for (r += lane; r < end; r += GROUP) {
        IDX at[1] = {base[0]}, index = r;
        LOCATE(at, 1, index, par.reduced, par.reduced_shape, par.reduced_stride)
        total = JOIN(total, READ(at[0]));
    }
#ifdef SHUFFLE
    for (i32 half_ = 16; half_ > 0; half_ /= 2) total = JOIN(total, (T)SHUFFLE(total, half_));
    if (lane % 32 == 0) partial[lane / 32] = total;
    BARRIER;
    for (i32 l = 1; l < GROUP / 32 && lane == 0; l++) total = JOIN(total, partial[l]);
    if (lane == 0) ST(R, out, GROUP_ID, total);
#else
    partial[lane] = total;
    BARRIER;
    for (i32 half_ = GROUP / 2; half_ > 0; half_ /= 2) {
        if (lane < half_) partial[lane] = JOIN(partial[lane], partial[lane + half_]);
        BARRIER;
    }
    if (lane == 0) ST(R, out, GROUP_ID, partial[0]);
#endif
}

#endif

KERNEL void CAT(NAME, _column)(GLOBAL const S(X) *x, GLOBAL S(R) *out, Reduce par) {
    IDX item = GLOBAL_ID;
    IDX width = par.kept_shape[par.kept - 1], step = par.kept_stride[0][par.kept - 1];
    IDX blocks = par.m / width * par.pieces;  // per part
    if (item >= blocks * par.splits) return;
    IDX part = item / blocks, block = item - part * blocks;
    IDX row = block / par.pieces, first = (block - row * par.pieces) * COLUMNS;
    IDX count = width - first < COLUMNS ? width - first : COLUMNS;
    IDX target = part * par.m + row * width + first;
    IDX base[1] = {par.offset + first * step};
    LOCATE(base, 1, row, par.kept - 1, par.kept_shape, par.kept_stride)
    IDX inner = par.reduced_shape[par.reduced - 1], down = par.reduced_stride[0][par.reduced - 1];
    IDX r = part * par.chunk, end = r + par.chunk < par.n ? r + par.chunk : par.n;
    T total[COLUMNS], run[COLUMNS];
    i32 rows = 0;  // in the run
    for (i32 c = 0; c < COLUMNS; c++) total[c] = run[c] = START;
    while (r < end) {
        IDX q = r / inner, i = r - q * inner;
        IDX length = inner - i < end - r ? inner - i : end - r;
        IDX at[1] = {base[0] + i * down};
        LOCATE(at, 1, q, par.reduced - 1, par.reduced_shape, par.reduced_stride)
        for (IDX j = 0; j < length; j++) {
            IDX c = 0, from = at[0] + j * down;
#ifdef GG_CPU
            if (step == 1) {
                for (; c + VECTOR <= count; c += VECTOR)
                    EACH run[c + gg_j] = JOIN(run[c + gg_j], READ(from + c + gg_j));
            }
#endif
            for (; c < count; c++) run[c] = JOIN(run[c], READ(from + c * step));
            if (++rows < RUNS) continue;
            rows = 0;
            for (c = 0; c < count; c++) {
                total[c] = JOIN(total[c], run[c]);
                run[c] = START;
            }
        }
        r += length;
    }
    for (i32 c = 0; c < count; c++) {
        T whole = JOIN(total[c], run[c]);
        ST(R, out, target + c, whole);
    }
}
