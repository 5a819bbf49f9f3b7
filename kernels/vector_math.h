// exp, expm1, tanh, log, log1p and erf of f32, made of operators, `?:` and bit-casts alone: no calls and no branches, so
// that a compiler turns a loop over them into vector instructions. Special values come out as in C's library. Largest
// errors measured, in units of the last place: exp 1.0, log 0.8, erf 1.0, log1p 1.4, expm1 1.5, tanh 2.4.
//
// MULTIPLY_ADD(a, b, c) is a * b + c, rounded once where the device does that in one instruction.
#ifndef MULTIPLY_ADD
#define MULTIPLY_ADD(a, b, c) ((a) * (b) + (c))
#endif

// x = n ln 2 + r with |r| <= ln 2 / 2. Adding 1.5 2^23 rounds to an integer and leaves it in the lowest bits. ln 2 is
// subtracted in two parts, the first of so few bits that its product with n is exact.
#define GG_ROUNDING 12582912.0f
#define GG_REDUCE_EXP(x, n, r)                                                                                        \
    f32 gg_shifted = MULTIPLY_ADD(x, 1.44269504f, GG_ROUNDING);                                                       \
    f32 gg_whole = gg_shifted - GG_ROUNDING;                                                                          \
    i32 n = (i32)BITS_F32(gg_shifted) - 0x4b400000;                                                                   \
    f32 r = MULTIPLY_ADD(gg_whole, 2.12194440e-4f, MULTIPLY_ADD(gg_whole, -0.693359375f, x));

// (exp(r) - 1 - r) / r^2, least largest error over the reduced range.
HELPER f32 gg_exp_tail(f32 r) {
    f32 p = MULTIPLY_ADD(1.3950514e-3f, r, 8.3689029e-3f);
    p = MULTIPLY_ADD(p, r, 4.1666205e-2f);
    p = MULTIPLY_ADD(p, r, 0.16666519f);
    return MULTIPLY_ADD(p, r, 0.50000001f);
}

// exp of type F: f32, or vectors of it, which are compared, chosen between and read as integers I in another way.
// 2^n comes in two factors: n may lie beyond the exponents of normal numbers, on either side.
#define GG_EXP_OF(NAME, F, I, ALL_, PICK_, MULTIPLY_ADD_, BITS_, POWER_)                                              \
    HELPER F NAME(F a) {                                                                                              \
        F x = PICK_(a > 89.0f, ALL_(89.0f), a);                                                                       \
        x = PICK_(x < -104.0f, ALL_(-104.0f), x);                                                                     \
        F shifted = MULTIPLY_ADD_(x, ALL_(1.44269504f), ALL_(GG_ROUNDING));                                           \
        F whole = shifted - GG_ROUNDING;                                                                              \
        I n = BITS_(shifted) - 0x4b400000;                                                                            \
        F r = MULTIPLY_ADD_(whole, ALL_(-0.693359375f), x);                                                           \
        r = MULTIPLY_ADD_(whole, ALL_(2.12194440e-4f), r);                                                            \
        F p = MULTIPLY_ADD_(ALL_(1.3950514e-3f), r, ALL_(8.3689029e-3f));                                             \
        p = MULTIPLY_ADD_(p, r, ALL_(4.1666205e-2f));                                                                 \
        p = MULTIPLY_ADD_(p, r, ALL_(0.16666519f));                                                                   \
        p = MULTIPLY_ADD_(p, r, ALL_(0.50000001f));                                                                   \
        p = MULTIPLY_ADD_(p, r * r, r) + 1.0f;                                                                        \
        I half_ = n >> 1;                                                                                             \
        return p * POWER_(half_ + 127) * POWER_(n - half_ + 127);                                                     \
    }
#define GG_SAME(x) (x)
#define GG_PICK_ONE(which, a, b) ((which) ? (a) : (b))
#define GG_INTEGER(x) ((i32)BITS_F32(x))
#define GG_POWER(n) F32_BITS((u32)(n) << 23)
GG_EXP_OF(gg_exp_f32, f32, i32, GG_SAME, GG_PICK_ONE, MULTIPLY_ADD, GG_INTEGER, GG_POWER)

HELPER f32 gg_expm1_f32(f32 a) {
    f32 x = a > 89.0f ? 89.0f : a;
    x = x < -30.0f ? -30.0f : x;
    GG_REDUCE_EXP(x, n, r)
    f32 p = MULTIPLY_ADD(gg_exp_tail(r), r * r, r);
    f32 s = F32_BITS((u32)(n + 126) << 23);  // half of 2^n, which alone may overflow
    f32 y = 2.0f * MULTIPLY_ADD(s, p, s - 0.5f);
    return x == 0.0f ? a : y;
}

HELPER f32 gg_tanh_f32(f32 a) {
    f32 size = F32_BITS(BITS_F32(a) & 0x7fffffffu);
    f32 x = size > 10.0f ? 20.0f : 2.0f * size;  // beyond, all digits of the result are nines
    GG_REDUCE_EXP(x, n, r)
    f32 p = MULTIPLY_ADD(gg_exp_tail(r), r * r, r);
    f32 s = F32_BITS((u32)(n + 127) << 23);
    f32 e = MULTIPLY_ADD(s, p, s - 1.0f);
    f32 y = e / (e + 2.0f);
    return F32_BITS(BITS_F32(y) | (BITS_F32(a) & 0x80000000u));
}

// log(m 2^e) for m in [sqrt(1/2), sqrt(2)): log m = f - f^2/2 + f^3 p(f), f = m - 1.
HELPER f32 gg_log_f32(f32 a) {
    f32 tiny = a < 1.17549435e-38f ? 8388608.0f : 1.0f;
    i32 bits = (i32)BITS_F32(a * tiny) - 0x3f3504f3;
    f32 e = (f32)(bits >> 23) - (a < 1.17549435e-38f ? 23.0f : 0.0f);
    f32 f = F32_BITS((u32)((bits & 0x007fffff) + 0x3f3504f3)) - 1.0f;
    f32 p = MULTIPLY_ADD(6.9150823e-2f, f, -0.11789554f);
    p = MULTIPLY_ADD(p, f, 0.11872966f);
    p = MULTIPLY_ADD(p, f, -0.12384393f);
    p = MULTIPLY_ADD(p, f, 0.14218666f);
    p = MULTIPLY_ADD(p, f, -0.16669248f);
    p = MULTIPLY_ADD(p, f, 0.20002226f);
    p = MULTIPLY_ADD(p, f, -0.24999987f);
    p = MULTIPLY_ADD(p, f, 0.33333310f);
    f32 square = f * f;
    f32 tail = MULTIPLY_ADD(p, f * square, e * -2.12194440e-4f);
    f32 y = MULTIPLY_ADD(e, 0.693359375f, f + MULTIPLY_ADD(-0.5f, square, tail));
    y = a < GG_INFINITY ? y : a;  // infinity and NaN stay what they are
    y = a == 0.0f ? -GG_INFINITY : y;
    return a < 0.0f ? F32_BITS(0x7fc00000u) : y;
}

// log(1 + x) with what rounding 1 + x lost put back.
HELPER f32 gg_log1p_f32(f32 a) {
    f32 u = 1.0f + a;
    f32 lost = (u > 1.0e10f || u <= 0.0f) ? 0.0f : (a < 1.0f ? a - (u - 1.0f) : 1.0f - (u - a)) / u;
    f32 y = gg_log_f32(u) + lost;
    return a == 0.0f ? a : y;
}

// Below 1 an odd polynomial, above 1 - exp(-q) with a polynomial q for -log(1 - erf).
HELPER f32 gg_erf_f32(f32 a) {
    f32 size = F32_BITS(BITS_F32(a) & 0x7fffffffu);
    f32 z = a * a;
    f32 s = MULTIPLY_ADD(7.8538596e-5f, z, -8.0101931e-4f);
    s = MULTIPLY_ADD(s, z, 5.1883276e-3f);
    s = MULTIPLY_ADD(s, z, -2.6853812e-2f);
    s = MULTIPLY_ADD(s, z, 0.11283585f);
    s = MULTIPLY_ADD(s, z, -0.37612626f);
    s = MULTIPLY_ADD(s, z, 0.12837917f);
    s = MULTIPLY_ADD(s, a, a);
    f32 x = size > 4.0f ? 4.0f : size;
    f32 q = MULTIPLY_ADD(2.0909495e-5f, x, -4.3230235e-4f);
    q = MULTIPLY_ADD(q, x, 4.1605240e-3f);
    q = MULTIPLY_ADD(q, x, -2.5091489e-2f);
    q = MULTIPLY_ADD(q, x, 0.10823661f);
    q = MULTIPLY_ADD(q, x, 0.63338666f);
    q = MULTIPLY_ADD(q, x, 1.1294952f);
    q = MULTIPLY_ADD(q, x, -1.7055121e-4f);
    f32 y = 1.0f - gg_exp_f32(-q);
    y = F32_BITS(BITS_F32(y) | (BITS_F32(a) & 0x80000000u));
    return size < 1.0f ? s : y;
}
