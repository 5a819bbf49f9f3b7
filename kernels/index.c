// Reading and writing at positions that a tensor of integers gives.
//
// Defines: NAME the symbol; I the dtype of the index; and
// for gather: U an unsigned type as wide as an element;
// for scatter (SCATTER): X the dtype; T combines; JOIN(a, b).
// A position outside [0, n) is reported through the flags and touches nothing.
//
// NAME_gather   one item per piece of at most RUN elements of a row of the result; take() is a gather whose index
//               does not move along the other dimensions.
// NAME_combine  positions sorted beforehand, with the order that sorts them: one item finds the first of a run of
//               equal positions and combines the whole run, in order, for at most RUN neighbouring elements. No two
//               items write the same element, so the result does not depend on timing.
#ifndef SCATTER

typedef struct {
    IDX items, pieces, inner, ndim, shape[8];
    IDX offset[3], step[3], stride[3][8];  // of the array (not along the axis), the index, the result
    IDX axis_step, n;
} Gather;

KERNEL void CAT(NAME, _gather)(GLOBAL const U *x, GLOBAL const S(I) *index, GLOBAL U *out, Gather par,
                               GLOBAL i64 *flags, i32 check_id) {
    IDX item = GLOBAL_ID;
    if (item >= par.items) return;
    IDX row = item / par.pieces;
    IDX first = (item - row * par.pieces) * RUN;
    IDX count = par.inner - first < RUN ? par.inner - first : RUN;
    IDX at[3];
    for (i32 k = 0; k < 3; k++) at[k] = par.offset[k] + first * par.step[k];
    LOCATE(at, 3, row, par.ndim, par.shape, par.stride)
    if (par.step[1] == 0) {
        i64 where = (i64)index[at[1]];
        if (where < 0 || where >= (i64)par.n) {
            gg_report(flags, check_id, where);
            return;
        }
        IDX from = at[0] + (IDX)where * par.axis_step;
        for (IDX j = 0; j < count; j++) out[at[2] + j * par.step[2]] = x[from + j * par.step[0]];
        return;
    }
    for (IDX j = 0; j < count; j++) {
        i64 where = (i64)index[at[1] + j * par.step[1]];
        if (where < 0 || where >= (i64)par.n)
            gg_report(flags, check_id, where);
        else
            out[at[2] + j * par.step[2]] = x[at[0] + j * par.step[0] + (IDX)where * par.axis_step];
    }
}

#else

typedef struct {
    IDX items, pieces, inner, count, n;
    IDX offset[2], axis_step[2], step[2];  // of the target and the source
    IDX lanes, lane_shape[8], lane_stride[2][8];
    IDX rows, row_items, row_shape[8], row_stride[2][8];
} Combine;

KERNEL void CAT(NAME, _combine)(GLOBAL S(X) *out, GLOBAL const S(I) *sorted, GLOBAL const i64 *order,
                                GLOBAL const S(X) *source, Combine par, GLOBAL i64 *flags, i32 check_id) {
    IDX item = GLOBAL_ID;
    if (item >= par.items) return;
    IDX key = item / par.row_items, piece = item - key * par.row_items;
    IDX lane = key / par.count, p = key - lane * par.count;
    GLOBAL const S(I) *keys = sorted + lane * par.count;
    GLOBAL const i64 *from = order + lane * par.count;
    i64 where = (i64)keys[p];
    if (p > 0 && (i64)keys[p - 1] == where) return;
    if (where < 0 || where >= (i64)par.n) {
        gg_report(flags, check_id, where);
        return;
    }
    IDX row = piece / par.pieces;
    IDX first = (piece - row * par.pieces) * RUN;
    IDX count = par.inner - first < RUN ? par.inner - first : RUN;
    IDX at[2];
    for (i32 k = 0; k < 2; k++) at[k] = par.offset[k] + first * par.step[k];
    LOCATE(at, 2, lane, par.lanes, par.lane_shape, par.lane_stride)
    LOCATE(at, 2, row, par.rows, par.row_shape, par.row_stride)
    IDX target = at[0] + (IDX)where * par.axis_step[0];
    T total[RUN];
    for (i32 j = 0; j < count; j++) total[j] = CV(TD, LD(X, out, target + j * par.step[0]));
    for (; p < par.count && (i64)keys[p] == where; p++) {
        IDX s = at[1] + (IDX)from[p] * par.axis_step[1];
        for (i32 j = 0; j < count; j++) total[j] = JOIN(total[j], CV(TD, LD(X, source, s + j * par.step[1])));
    }
    for (i32 j = 0; j < count; j++) ST(X, out, target + j * par.step[0], total[j]);
}

#endif
