// Vectors as values: V, of VW elements of T, in matmul.c, convolve.c and direct.c on CPU-type devices and on the host.
// Empty without vectors.
#ifdef VW

// A vector in memory need only be aligned like its elements.
typedef V Loose __attribute__((aligned(sizeof(T))));

// gg_low and gg_high interleave the first and the second halves of two vectors, gg_evens takes every second element.
#ifdef HOST
#define LANES_2(f) f(0), f(1)
#define LANES_4(f) LANES_2(f), f(2), f(3)
#define LANES_8(f) LANES_4(f), f(4), f(5), f(6), f(7)
#define LANES_16(f) LANES_8(f), f(8), f(9), f(10), f(11), f(12), f(13), f(14), f(15)
#define SHUFFLED(f) __builtin_shufflevector(a, b, CAT(LANES_, VW)(f))
#define LOW_LANE(i) (i) / 2 + (i) % 2 * VW
#define HIGH_LANE(i) LOW_LANE(i) + VW / 2
#define EVEN_LANE(i) 2 * (i)
HELPER V gg_low(V a, V b) { return SHUFFLED(LOW_LANE); }
HELPER V gg_high(V a, V b) { return SHUFFLED(HIGH_LANE); }
HELPER V gg_evens(V a, V b) { return SHUFFLED(EVEN_LANE); }
#else
HELPER V gg_low(V a, V b) {
    V r;
    r.even = a.lo;
    r.odd = b.lo;
    return r;
}
HELPER V gg_high(V a, V b) {
    V r;
    r.even = a.hi;
    r.odd = b.hi;
    return r;
}
HELPER V gg_evens(V a, V b) {
    V r;
    r.lo = a.even;
    r.hi = b.even;
    return r;
}
#endif

#endif
