// argmax and argmin along one axis: the first of equals; the first NaN beats all numbers.
//
// Defines: NAME the symbol; X the dtype read; T compares; BETTER(a, b), strict.
// The other dimensions are `m` lanes. A long axis is cut into `splits` parts of `chunk` elements.
//
// NAME_part  one item per part of a lane: the position of its best element, as [m, splits].
// NAME_pick  one item per lane: the best of its parts.
typedef struct {
    IDX m, n, chunk, splits, step, offset;
    IDX ndim, shape[8], stride[1][8];
} Lanes;

#define READ(i) CV(TD, LD(X, x, i))

KERNEL void CAT(NAME, _part)(GLOBAL const S(X) *x, GLOBAL i64 *out, Lanes par) {
    IDX item = GLOBAL_ID;
    if (item >= par.m * par.splits) return;
    IDX lane = item / par.splits, part = item - lane * par.splits;
    IDX at[1] = {par.offset};
    LOCATE(at, 1, lane, par.ndim, par.shape, par.stride)
    IDX first = part * par.chunk, end = first + par.chunk < par.n ? first + par.chunk : par.n;
    IDX where = first;
    T best = READ(at[0] + first * par.step);
    for (IDX i = first + 1; i < end; i++) {
        T value = READ(at[0] + i * par.step);
        if (BETTER(value, best)) {
            best = value;
            where = i;
        }
    }
    out[item] = where;
}

KERNEL void CAT(NAME, _pick)(GLOBAL const S(X) *x, GLOBAL const i64 *parts, GLOBAL i64 *out, Lanes par) {
    IDX item = GLOBAL_ID;
    if (item >= par.m) return;
    IDX lane = item, at[1] = {par.offset};
    LOCATE(at, 1, lane, par.ndim, par.shape, par.stride)
    i64 where = parts[item * par.splits];
    T best = READ(at[0] + (IDX)where * par.step);
    for (IDX s = 1; s < par.splits; s++) {
        i64 i = parts[item * par.splits + s];
        T value = READ(at[0] + (IDX)i * par.step);
        if (BETTER(value, best)) {
            best = value;
            where = i;
        }
    }
    out[item] = where;
}
