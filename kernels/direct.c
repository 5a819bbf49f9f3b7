// Convolution where a group has few channels (depthwise is one in, one out): too little for a matrix product, so each
// element of the result is summed up where it is wanted, the input read once for each tap out of the cache.
//
// Defines: NAME the symbol; X the dtype; O that of the result, R of the weight's gradient; T computes. On CPU-type devices
// X and O are T, and V a vector of VW of them. Depthwise 3x3, 8 x 128 x 58 x 58, two cores under PoCL: forward 7 times faster than by columns.
//
// NAME_forward      one item per element of the result, or per row of it where there are vectors
// NAME_weight_grad  one item per image and element of the weight: what the image adds to its gradient
typedef struct {
    IDX items, outputs, inner, outer;         // channels of the result, and of a group: in, out
    IDX count[3], taps[3], hop[3], reach[3];  // hop, reach: elements of x from window to window, from tap to tap
    IDX offset, image, channel, limit;        // of x: its first element, steps, and the end of its buffer
    IDX weight_offset, gradient_offset, gradient_limit;
} Direct;

#ifdef VW

// Elements `hop` apart, the last of `count` repeated; `left` elements may be read.
HELPER V gg_spaced(GLOBAL const T *from, IDX hop, IDX count, IDX left) {
    if (hop == 2 && left >= 2 * VW) {
        V low = *(GLOBAL const Loose *)from, high = *(GLOBAL const Loose *)(from + VW);
        return gg_evens(low, high);
    }
    T part[VW];
    for (i32 j = 0; j < VW; j++) part[j] = from[(j < count ? j : count - 1) * hop];
    return *(Loose *)part;
}
#define VECTOR_OF(p, at, hop, limit, count)                                                                           \
    ((hop) == 1 && (at) + VW <= (limit) ? *(GLOBAL const Loose *)((p) + (at)) : gg_spaced((p) + (at), hop, count, (limit) - (at)))

KERNEL void CAT(NAME, _forward)(GLOBAL const T *x, GLOBAL const T *weight, GLOBAL T *out, Direct par) {
    IDX item = GLOBAL_ID;
    if (item >= par.items) return;
    IDX lane = item / par.count[1], w1 = item - lane * par.count[1];
    IDX plane = lane / par.count[0], w0 = lane - plane * par.count[0];
    IDX n = plane / par.outputs, o = plane - n * par.outputs;
    IDX base = par.offset + n * par.image + o / par.outer * par.inner * par.channel + w0 * par.hop[0] + w1 * par.hop[1];
    GLOBAL const T *own = weight + par.weight_offset + o * par.inner * par.taps[0] * par.taps[1] * par.taps[2];
    GLOBAL T *target = out + item * par.count[2];
    for (IDX first = 0; first < par.count[2]; first += VW) {
        // The last vector of a row is moved back so as to end with it; what it repeats comes out the same.
        IDX start = first + VW > par.count[2] && par.count[2] >= VW ? par.count[2] - VW : first;
        IDX width = par.count[2] - start < VW ? par.count[2] - start : VW;
        GLOBAL const T *w = own;
        V total = ALL(0);
        for (IDX c = 0; c < par.inner; c++)
            for (IDX k0 = 0; k0 < par.taps[0]; k0++)
                for (IDX k1 = 0; k1 < par.taps[1]; k1++) {
                    IDX at = base + c * par.channel + k0 * par.reach[0] + k1 * par.reach[1] + start * par.hop[2];
                    for (IDX k2 = 0; k2 < par.taps[2]; k2++, w++, at += par.reach[2])
                        total = total + *w * VECTOR_OF(x, at, par.hop[2], par.limit, width);
                }
        if (width == VW) {
            *(GLOBAL Loose *)(target + start) = total;
        } else {
            T part[VW];
            *(Loose *)part = total;
            for (IDX j = 0; j < width; j++) target[start + j] = part[j];
        }
    }
}

#else

KERNEL void CAT(NAME, _forward)(GLOBAL const S(X) *x, GLOBAL const S(X) *weight, GLOBAL S(O) *out, Direct par) {
    IDX item = GLOBAL_ID;
    if (item >= par.items) return;
    IDX row = item / par.count[2], w2 = item - row * par.count[2];
    IDX lane = row / par.count[1], w1 = row - lane * par.count[1];
    IDX plane = lane / par.count[0], w0 = lane - plane * par.count[0];
    IDX n = plane / par.outputs, o = plane - n * par.outputs;
    IDX base = par.offset + n * par.image + o / par.outer * par.inner * par.channel + w0 * par.hop[0] +
               w1 * par.hop[1] + w2 * par.hop[2];
    IDX w = par.weight_offset + o * par.inner * par.taps[0] * par.taps[1] * par.taps[2];
    T total = 0;
    for (IDX c = 0; c < par.inner; c++)
        for (IDX k0 = 0; k0 < par.taps[0]; k0++)
            for (IDX k1 = 0; k1 < par.taps[1]; k1++) {
                IDX at = base + c * par.channel + k0 * par.reach[0] + k1 * par.reach[1];
                for (IDX k2 = 0; k2 < par.taps[2]; k2++, w++, at += par.reach[2])
                    total += (T)LD(X, weight, w) * (T)LD(X, x, at);
            }
    ST(O, out, item, total);
}

#endif

KERNEL void CAT(NAME, _weight_grad)(GLOBAL const S(X) *gradient, GLOBAL const S(X) *x, GLOBAL S(R) *out, Direct par) {
    IDX item = GLOBAL_ID;
    if (item >= par.items) return;
    IDX q = item / par.taps[2], k2 = item - q * par.taps[2];
    IDX r = q / par.taps[1], k1 = q - r * par.taps[1];
    IDX s = r / par.taps[0], k0 = r - s * par.taps[0];
    IDX t = s / par.inner, c = s - t * par.inner;
    IDX n = t / par.outputs, o = t - n * par.outputs;
    IDX base = par.offset + n * par.image + (o / par.outer * par.inner + c) * par.channel + k0 * par.reach[0] +
               k1 * par.reach[1] + k2 * par.reach[2];
    IDX from = par.gradient_offset + t * par.count[0] * par.count[1] * par.count[2];
#ifdef VW
    T part[VW];
    for (i32 j = 0; j < VW; j++) part[j] = j;
    V number = *(Loose *)part, zero = ALL(0), totals = ALL(0);
#endif
    T total = 0;
    for (IDX w0 = 0; w0 < par.count[0]; w0++)
        for (IDX w1 = 0; w1 < par.count[1]; w1++, from += par.count[2]) {
            IDX at = base + w0 * par.hop[0] + w1 * par.hop[1];
#ifdef VW
            IDX w2 = 0;
            for (; w2 + VW <= par.count[2]; w2 += VW)
                totals = totals + *(GLOBAL const Loose *)(gradient + from + w2) *
                                      VECTOR_OF(x, at + w2 * par.hop[2], par.hop[2], par.limit, VW);
            if (w2 < par.count[2]) {  // what is read beyond the row is not added
                IDX width = par.count[2] - w2;
                V product = VECTOR_OF(gradient, from + w2, 1, par.gradient_limit, width) *
                            VECTOR_OF(x, at + w2 * par.hop[2], par.hop[2], par.limit, width);
                totals = totals + PICK(number < ALL(width), product, zero);
            }
#else
            for (IDX w2 = 0; w2 < par.count[2]; w2++)
                total += (T)LD(X, gradient, from + w2) * (T)LD(X, x, at + w2 * par.hop[2]);
#endif
        }
#ifdef VW
    *(Loose *)part = totals;
    for (i32 j = 0; j < VW; j++) total += part[j];
#endif
    ST(R, out, item, total);
}
