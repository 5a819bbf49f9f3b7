// Inclusive scans along one axis: cumsum, cumprod, cummax, cummin.
//
// Defines: NAME the symbol; X the dtype read, R the dtype written; T accumulates; JOIN(a, b) and START; COMPENSATED for
// sums of floating numbers; PAIRED if what is read and written are such sums of parts themselves.
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
// What each addition rounds off is added up apart (D. Knuth's exact error of a sum, TAOCP 2, 4.2.2; T. Ogita, S. Rump and
// S. Oishi, "Accurate sum and dot product", SIAM J. Sci. Comput. 26, 2005), and goes from part to part beside the sum: so
// each element is off by its own rounding alone, 3e-8 of 16 million float32 numbers where plain addition is off by 1e-5.
// It takes less time than Kahan's summation, where each addition waits for the one before it three times over.
// Infinities and NaN round nothing off.
#define WORDS 2
#define BEGIN T low = 0;
#define JOINED(value)                                                                                                  \
    {                                                                                                                  \
        T gg_value = value, gg_sum = total + gg_value, gg_rest = gg_sum - total;                                       \
        T gg_error = (total - (gg_sum - gg_rest)) + (gg_value - gg_rest);                                              \
        low += gg_error == gg_error ? gg_error : (T)0;                                                                 \
        total = gg_sum;                                                                                                \
    }
#define WHOLE (total + low)
#define KEEP(at) totals[at] = total, totals[(at) + 1] = low
#define RESUME(at) total = totals[at], low = totals[(at) + 1]
#else
#define WORDS 1
#define BEGIN
#define JOINED(value) total = JOIN(total, value);
#define WHOLE total
#define KEEP(at) totals[at] = total
#define RESUME(at) total = totals[at]
#endif
#ifdef PAIRED
#define STEP(i)                                                                                                        \
    JOINED(x[i])                                                                                                       \
    low += x[(i) + 1];
#define WRITE(i) out[i] = total, out[(i) + 1] = low
#else
#define STEP(i) JOINED(READ(i))
#define WRITE(i) ST(R, out, i, WHOLE)
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
    for (IDX i = first; i < end; i++) {
        STEP(at[0] + i * par.x_step)
    }
    KEEP((lane * par.splits + part) * WORDS);
}

KERNEL void CAT(NAME, _apply)(GLOBAL const S(X) *x, GLOBAL const T *totals, GLOBAL S(R) *out, Scan par) {
    IDX item = GLOBAL_ID;
    if (item >= par.m * par.splits) return;
    IDX part = item / par.m, lane = item - part * par.m, rest = lane;
    IDX at[2] = {par.x_offset, 0};
    LOCATE(at, 2, rest, par.ndim, par.shape, par.stride)
    IDX first = part * par.chunk, end = first + par.chunk < par.n ? first + par.chunk : par.n;
    T total = START;
    BEGIN
    if (part > 0) RESUME((lane * par.splits + part - 1) * WORDS);
    for (IDX i = first; i < end; i++) {
        STEP(at[0] + i * par.x_step)
        WRITE(at[1] + i * par.out_step);
    }
}
