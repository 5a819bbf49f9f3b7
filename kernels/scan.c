// Inclusive scans along one axis: cumsum, cumprod, cummax, cummin.
//
// Defines: NAME the symbol; X the dtype read, R the dtype written; T accumulates; JOIN(a, b) and START; COMPENSATED for
// sums of floating numbers.
// The other dimensions are `m` lanes. An item takes one part, `chunk` elements, of one lane; neighbouring items
// take neighbouring lanes.
//
// NAME_total  what each part joins to, as [m, splits]. The host scans that in turn, so that
// NAME_apply  can start each part from the inclusive total of the part before it.
typedef struct {
    IDX m, n, chunk, splits, x_step, out_step, x_offset;
    IDX ndim, shape[8], stride[2][8];
} Scan;

#define READ(i) CV(TD, LD(X, x, i))

#ifdef COMPENSATED
// What an addition rounds off goes into the next one (W. Kahan, "Further remarks on reducing truncation errors", CACM 8,
// 1965): the error of 2 million float32 numbers' running sums is 1e-7, added up plainly 1e-5. Infinities lose nothing.
#define BEGIN T lost = 0;
#define STEP(total, value)                                                                                            \
    {                                                                                                                 \
        T gg_value = (value) - lost, gg_sum = total + gg_value;                                                       \
        lost = (gg_sum - total) - gg_value;                                                                           \
        lost = lost == lost ? lost : (T)0;                                                                            \
        total = gg_sum;                                                                                               \
    }
#else
#define BEGIN
#define STEP(total, value) total = JOIN(total, value);
#endif

KERNEL void CAT(NAME, _total)(GLOBAL const S(X) *x, GLOBAL T *totals, Scan par) {
    IDX item = GLOBAL_ID;
    if (item >= par.m * par.splits) return;
    IDX part = item / par.m, lane = item - part * par.m, rest = lane;
    IDX at[2] = {par.x_offset, 0};
    LOCATE(at, 2, rest, par.ndim, par.shape, par.stride)
    IDX first = part * par.chunk, end = first + par.chunk < par.n ? first + par.chunk : par.n;
    T total = START;
    BEGIN
    for (IDX i = first; i < end; i++) STEP(total, READ(at[0] + i * par.x_step))
    totals[lane * par.splits + part] = total;
}

KERNEL void CAT(NAME, _apply)(GLOBAL const S(X) *x, GLOBAL const T *totals, GLOBAL S(R) *out, Scan par) {
    IDX item = GLOBAL_ID;
    if (item >= par.m * par.splits) return;
    IDX part = item / par.m, lane = item - part * par.m, rest = lane;
    IDX at[2] = {par.x_offset, 0};
    LOCATE(at, 2, rest, par.ndim, par.shape, par.stride)
    IDX first = part * par.chunk, end = first + par.chunk < par.n ? first + par.chunk : par.n;
    T total = START;
    if (part > 0) total = totals[lane * par.splits + part - 1];
    BEGIN
    for (IDX i = first; i < end; i++) {
        STEP(total, READ(at[0] + i * par.x_step))
        ST(R, out, at[1] + i * par.out_step, total);
    }
}
