// Sliding windows over one to three spatial dimensions (fewer are padded in front with ones).
//
// Defines: NAME the symbol; X the dtype; T computes.
// All three gather: an item owns the elements it writes, so sums have a fixed order.
//
// NAME_fold           the adjoint of cutting windows out: one item per piece of at most PIECE elements of a row.
// NAME_max_pool       one item per window: the largest element, the first of equals, NaN first; and its position.
// NAME_max_pool_grad  one item per element: the gradient of the windows that chose it.
// On CPU-type devices an item of max_pool does a piece of a row of at most PIECE windows, so that its place is worked
// out once: 10 times faster for 2 x 2 windows of 128 x 32 x 28 x 28. There an item of max_pool_grad does a plane.
typedef struct {
    IDX items, pieces, channels;
    IDX size[3], count[3], taps[3], stride[3], dilation[3];
    IDX offset, step_n, step_c, step[3], step_kernel[3], limit;  // of the array read, and the end of its buffer
} Windows;

#define READ(i) CV(TD, LD(X, x, i))

// Which window has the element at `position` as its tap `tap`? `window` is it, if it exists.
#define WINDOW_OF(d, position, tap, window, exists)                                                                   \
    IDX window = (position) - (tap) * par.dilation[d];                                                                \
    i32 exists = window >= 0;                                                                                      \
    if (par.stride[d] != 1) {                                                                                         \
        IDX gg_q = window / par.stride[d];                                                                            \
        exists = exists && gg_q * par.stride[d] == window;                                                            \
        window = gg_q;                                                                                                \
    }                                                                                                                 \
    exists = exists && window < par.count[d];

KERNEL void CAT(NAME, _fold)(GLOBAL const S(X) *x, GLOBAL S(X) *out, Windows par) {
    IDX item = GLOBAL_ID;
    if (item >= par.items) return;
    IDX row = item / par.pieces, first = (item - row * par.pieces) * PIECE;
    IDX count = par.size[2] - first < PIECE ? par.size[2] - first : PIECE;
    IDX target = row * par.size[2] + first;
    IDX lane = row / par.size[1], position1 = row - lane * par.size[1];
    IDX plane = lane / par.size[0], position0 = lane - plane * par.size[0];
    IDX n = plane / par.channels, c = plane - n * par.channels;
    IDX base = par.offset + n * par.step_n + c * par.step_c;
    T total[PIECE + VECTOR];
    for (IDX j = 0; j < count; j++) total[j] = 0;
    for (IDX k0 = 0; k0 < par.taps[0]; k0++) {
        WINDOW_OF(0, position0, k0, w0, exists0)
        if (!exists0) continue;
        for (IDX k1 = 0; k1 < par.taps[1]; k1++) {
            WINDOW_OF(1, position1, k1, w1, exists1)
            if (!exists1) continue;
            IDX at = base + w0 * par.step[0] + w1 * par.step[1] + k0 * par.step_kernel[0] + k1 * par.step_kernel[1];
            for (IDX k2 = 0; k2 < par.taps[2]; k2++) {
                IDX tap = at + k2 * par.step_kernel[2];
                // The tap's windows w that lie in the piece: those with begin <= w * stride + k2 * dilation - first.
                IDX shift = k2 * par.dilation[2] - first;
                IDX w = shift < 0 ? (-shift + par.stride[2] - 1) / par.stride[2] : 0;
                IDX end = count > shift ? (count - shift - 1) / par.stride[2] + 1 : 0;
                if (end > par.count[2]) end = par.count[2];
                if (par.stride[2] == 1 && par.step[2] == 1) {
#ifdef GG_CPU
                    // A whole vector at a time; what lies beyond the last window is in the buffer, but not added.
                    for (; w < end && tap + w + VECTOR <= par.limit; w += VECTOR) {
                        IDX left = end - w;
                        EACH total[w + shift + gg_j] += gg_j < left ? READ(tap + w + gg_j) : (T)0;
                    }
#endif
                    for (; w < end; w++) total[w + shift] += READ(tap + w);
                } else {
                    for (; w < end; w++) total[w * par.stride[2] + shift] += READ(tap + w * par.step[2]);
                }
            }
        }
    }
    for (IDX j = 0; j < count; j++) ST(X, out, target + j, total[j]);
}

#ifndef GG_CPU

KERNEL void CAT(NAME, _max_pool)(GLOBAL const S(X) *x, GLOBAL S(X) *out, GLOBAL i64 *index, Windows par) {
    IDX item = GLOBAL_ID;
    if (item >= par.items) return;
    IDX q = item / par.count[2], w2 = item - q * par.count[2];
    IDX lane = q / par.count[1], w1 = q - lane * par.count[1];
    IDX plane = lane / par.count[0], w0 = lane - plane * par.count[0];
    IDX n = plane / par.channels, c = plane - n * par.channels;
    IDX base = par.offset + n * par.step_n + c * par.step_c;
    T best = 0;
    IDX where = -1;
    for (IDX k0 = 0; k0 < par.taps[0]; k0++)
        for (IDX k1 = 0; k1 < par.taps[1]; k1++)
            for (IDX k2 = 0; k2 < par.taps[2]; k2++) {
                IDX i0 = w0 * par.stride[0] + k0 * par.dilation[0];
                IDX i1 = w1 * par.stride[1] + k1 * par.dilation[1];
                IDX i2 = w2 * par.stride[2] + k2 * par.dilation[2];
                T value = READ(base + i0 * par.step[0] + i1 * par.step[1] + i2 * par.step[2]);
                if (where < 0 || value > best || (value != value && best == best)) {
                    best = value;
                    where = (i0 * par.size[1] + i1) * par.size[2] + i2;
                }
            }
    ST(X, out, item, best);
    index[item] = where;
}

KERNEL void CAT(NAME, _max_pool_grad)(GLOBAL const S(X) *x, GLOBAL const i64 *index, GLOBAL S(X) *out, Windows par) {
    IDX item = GLOBAL_ID;
    if (item >= par.items) return;
    IDX q = item / par.size[2], i2 = item - q * par.size[2];
    IDX lane = q / par.size[1], i1 = q - lane * par.size[1];
    IDX plane = lane / par.size[0], i0 = lane - plane * par.size[0];
    IDX self = (i0 * par.size[1] + i1) * par.size[2] + i2;
    T total = 0;
    // The last tap belongs to the first window: windows are visited in order.
    for (IDX k0 = par.taps[0] - 1; k0 >= 0; k0--) {
        WINDOW_OF(0, i0, k0, w0, exists0)
        if (!exists0) continue;
        for (IDX k1 = par.taps[1] - 1; k1 >= 0; k1--) {
            WINDOW_OF(1, i1, k1, w1, exists1)
            if (!exists1) continue;
            for (IDX k2 = par.taps[2] - 1; k2 >= 0; k2--) {
                WINDOW_OF(2, i2, k2, w2, exists2)
                if (!exists2) continue;
                IDX at = ((plane * par.count[0] + w0) * par.count[1] + w1) * par.count[2] + w2;
                if (index[at] == (i64)self) total += READ(par.offset + at);
            }
        }
    }
    ST(X, out, item, total);
}

#else

#define CHOOSE(place_of)                                                                                              \
    {                                                                                                                 \
        T value = READ(place_of);                                                                                     \
        T old = none ? value : best[gg_j];                                                                            \
        i32 better = none | (value > old) | ((value != value) & (old == old));                                        \
        best[gg_j] = better ? value : old;                                                                            \
        where[gg_j] = better ? place + gg_j * par.stride[2] : where[gg_j];                                            \
    }

KERNEL void CAT(NAME, _max_pool)(GLOBAL const S(X) *x, GLOBAL S(X) *out, GLOBAL i64 *index, Windows par) {
    IDX item = GLOBAL_ID;
    if (item >= par.items) return;
    IDX row = item / par.pieces, start = (item - row * par.pieces) * PIECE;
    IDX stop = start + PIECE < par.count[2] ? start + PIECE : par.count[2];
    IDX lane = row / par.count[1], w1 = row - lane * par.count[1];
    IDX plane = lane / par.count[0], w0 = lane - plane * par.count[0];
    IDX n = plane / par.channels, c = plane - n * par.channels;
    IDX base = par.offset + n * par.step_n + c * par.step_c;
    IDX hop = par.stride[2] * par.step[2];
    for (IDX first = start; first < stop; first += VECTOR) {
        IDX count = stop - first < VECTOR ? stop - first : VECTOR;
        T best[VECTOR];
        IDX where[VECTOR], last = count - 1;
        for (IDX k0 = 0; k0 < par.taps[0]; k0++)
            for (IDX k1 = 0; k1 < par.taps[1]; k1++)
                for (IDX k2 = 0; k2 < par.taps[2]; k2++) {
                    IDX i0 = w0 * par.stride[0] + k0 * par.dilation[0], i1 = w1 * par.stride[1] + k1 * par.dilation[1];
                    IDX i2 = first * par.stride[2] + k2 * par.dilation[2];
                    IDX at = base + i0 * par.step[0] + i1 * par.step[1] + i2 * par.step[2];
                    IDX place = (i0 * par.size[1] + i1) * par.size[2] + i2;
                    i32 none = k0 + k1 + k2 == 0;
                    // Windows next to or beside one another are read as they lie, what follows the row included.
                    if (hop == 2 && at + 2 * VECTOR <= par.limit) {
                        EACH CHOOSE(at + 2 * gg_j)
                    } else if (hop == 1 && at + VECTOR <= par.limit) {
                        EACH CHOOSE(at + gg_j)
                    } else {  // beyond the row its last window stands in
                        EACH CHOOSE(at + (gg_j < last ? gg_j : last) * hop)
                    }
                }
        IDX target = row * par.count[2] + first;
        for (IDX j = 0; j < count; j++) {
            ST(X, out, target + j, best[j]);
            index[target + j] = where[j];
        }
    }
}

// One item per plane, which adds what each window gives to where it came from, windows in order: 6 times faster than
// looking for each element's windows.
KERNEL void CAT(NAME, _max_pool_grad)(GLOBAL const S(X) *x, GLOBAL const i64 *index, GLOBAL S(X) *out, Windows par) {
    IDX plane = GLOBAL_ID;
    if (plane >= par.items) return;
    IDX size = par.size[0] * par.size[1] * par.size[2], count = par.count[0] * par.count[1] * par.count[2];
    GLOBAL S(X) *own = out + plane * size;
    for (IDX j = 0; j < size; j++) ST(X, own, j, (T)0);
    for (IDX w = plane * count; w < (plane + 1) * count; w++) {
        IDX to = (IDX)index[w];
        ST(X, own, to, (T)LD(X, own, to) + READ(par.offset + w));
    }
}

#endif
