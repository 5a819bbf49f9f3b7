// Random numbers: Philox4x64-10 and what is made of its words, bit for bit as gpugrad/backends/philox.py states.
// Nothing here may be reordered or fused: every product and sum is rounded once, on every device.
//
// Defines: NAME the symbol; R the dtype of the result; KIND is UNIFORM, NORMAL or BITS; UNIT and DIGITS the size and
// the number of bits of a uniform number; PER_ITEM how many elements one block of four words gives: 4, or 8 of 32 bits
// or less. For NORMAL the coefficients LOG, SIN, COS as lists of literals.
//
// NAME  one item makes the elements of one block.
typedef struct {
    IDX n;
} Random;

#ifdef NORMAL

// Horner's rule over a table of coefficients, lowest power first.
#define POLYNOMIAL(total, table, x)                                                                                   \
    total = table[sizeof(table) / sizeof(T) - 1];                                                                     \
    for (i32 gg_i = (i32)(sizeof(table) / sizeof(T)) - 2; gg_i >= 0; gg_i--) {                                        \
        total = total * (x);                                                                                          \
        total = total + table[gg_i];                                                                                  \
    }

CONSTANT T log_table[] = {LOG};
CONSTANT T sin_table[] = {SIN};
CONSTANT T cos_table[] = {COS};

#ifdef T_f64
HELPER T gg_log(T u) {
    i64 bits = BITS_F64(u) - (i64)0x3FE6A09E667F3BCD;
    T e = (T)(bits >> 52);
    T m = F64_BITS((bits & (i64)0x000FFFFFFFFFFFFF) + (i64)0x3FE6A09E667F3BCD);
    T s = (m - 1.0) / (m + 1.0), z = s * s, series;
    POLYNOMIAL(series, log_table, z)
    return e * 0.6931471805599453 + s * series;
}
#define gg_sqrt(s) sqrt(s)
#else
HELPER T gg_log(T u) {
    i32 bits = (i32)BITS_F32(u) - 0x3F3504F3;
    T e = (T)(bits >> 23);
    T m = F32_BITS((u32)((bits & 0x007FFFFF) + 0x3F3504F3));
    T f = m - 1.0f, series;
    POLYNOMIAL(series, log_table, f)
    T square = f * f;
    T rest = square * series + f;
    return e * 0.6931471805599453f + rest;
}
HELPER T gg_sqrt(T s) {
    T y = F32_BITS((u32)(0x5F3759DF - ((i32)BITS_F32(s) >> 1)));
    T h = 0.5f * s;
    for (i32 i = 0; i < 4; i++) y = y * (1.5f - (h * y) * y);
    return s * y;
}
#endif

// radius * cos and radius * sin of v turns.
HELPER void gg_pair(T u, T v, T *pair) {
    T radius = gg_sqrt(K(-2) * gg_log(u));
    T quarter = floor(v * K(4) + K(0.5));
    T r = v - quarter * K(0.25), z = r * r, s, c;
    POLYNOMIAL(s, sin_table, z)
    POLYNOMIAL(c, cos_table, z)
    s = r * s;
    c = z * c + K(1);
    i32 q = (i32)quarter;
    T cosine = q & 1 ? s : c, sine = q & 1 ? c : s;
    pair[0] = radius * ((q + 1) & 2 ? -cosine : cosine);
    pair[1] = radius * (q & 2 ? -sine : sine);
}

#endif

KERNEL void NAME(GLOBAL S(R) *out, u64 seed, u64 stream, Random par) {
    IDX block = GLOBAL_ID;
    if (block * PER_ITEM >= par.n) return;
    u64 word[4];
    gg_philox(word, (u64)block, stream, seed);
#ifdef BITS
    i64 value[PER_ITEM];
    for (i32 i = 0; i < PER_ITEM; i++) value[i] = (i64)word[i];
#else
    T value[PER_ITEM];
#if PER_ITEM == 8
    u32 half_[8];
    for (i32 i = 0; i < 4; i++) {
        half_[2 * i] = (u32)word[i];
        half_[2 * i + 1] = (u32)(word[i] >> 32);
    }
#endif
#ifdef UNIFORM
#if PER_ITEM == 8
    for (i32 i = 0; i < 8; i++) value[i] = (T)(half_[i] >> (32 - DIGITS)) * (T)UNIT;
#else
    for (i32 i = 0; i < 4; i++) value[i] = (T)(word[i] >> 11) * (T)UNIT;
#endif
#else
    for (i32 i = 0; i < PER_ITEM; i += 2) {
#if PER_ITEM == 8
        gg_pair((T)half_[i] * K(0x1p-32) + K(0x1p-33), (T)(half_[i + 1] >> 8) * K(0x1p-24), value + i);
#else
        T u = ((T)(word[i] >> 11) + 0.5) * 0x1p-53;
        gg_pair(u, (T)(word[i + 1] >> 11) * 0x1p-53, value + i);
#endif
    }
#endif
#endif
    IDX first = block * PER_ITEM;
    for (i32 i = 0; i < PER_ITEM && first + i < par.n; i++) ST(R, out, first + i, value[i]);
}
