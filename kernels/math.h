// What expressions of elementwise ops may call besides C's operators and the math names common to both APIs.
// Everything works in the computing type T: FLOATING, SIGNED or UNSIGNED says of which kind it is, T_BITS its width.
#ifdef T
#define K(x) ((T)(x))
#define GG_INF ((T)GG_INFINITY)
#define GG_NAN ((T)F32_BITS(0x7fc00000u))
#define GG_MIN(a, b) gg_min((a), (b))
#define GG_MAX(a, b) gg_max((a), (b))
#define GG_SIGN(a) gg_sign(a)
#define GG_FLOORDIV(a, b) gg_floordiv((a), (b))
#define GG_REMAINDER(a, b) gg_remainder((a), (b))
#define GG_FMOD(a, b) gg_fmod((a), (b))
#define GG_IPOW(a, b) gg_ipow((a), (b))
#if defined(GG_CPU) && defined(GG_FP64) && defined(T_f32)
// PoCL's vectorised sin, cos and tan of f32 are off by up to 0.016 in all lanes of a vector if one of them is beyond
// 1e8 or so; those of f64 are right (0.5 ulp of f32 on 600,000 points up to 1e38), at three times the cost.
#define GG_TRIG(f, a) ((T)f((f64)(a)))
#else
#define GG_TRIG(f, a) f(a)
#endif
#define GG_SHL(a, b) gg_shl((a), (b))
#define GG_SHR(a, b) gg_shr((a), (b))

#ifdef FLOATING

// The first operand wins when it is NaN; when the second is, both comparisons fail and it is returned.
HELPER T gg_min(T a, T b) { return (a < b || a != a) ? a : b; }
HELPER T gg_max(T a, T b) { return (a > b || a != a) ? a : b; }
HELPER T gg_sign(T a) { return (T)((a > 0) - (a < 0)); }

// Python's sign convention: the remainder has the sign of the divisor.
HELPER T gg_remainder(T a, T b) {
    T r = fmod(a, b);
    if (r == 0) return copysign((T)0, b);
    return (r < 0) != (b < 0) ? r + b : r;
}
HELPER T gg_fmod(T a, T b) { return fmod(a, b); }
HELPER T gg_floordiv(T a, T b) {
    if (b == 0) return a / b;
    T r = fmod(a, b);
    T q = (a - r) / b;
    if (r != 0 && (r < 0) != (b < 0)) q -= 1;
    if (q == 0) return copysign((T)0, a / b);
    T whole = floor(q);
    return q - whole > K(0.5) ? whole + 1 : whole;
}

#else

HELPER T gg_min(T a, T b) { return a < b ? a : b; }
HELPER T gg_max(T a, T b) { return a > b ? a : b; }
HELPER T gg_sign(T a) { return (T)((a > 0) - (a < 0)); }

// Division by zero gives 0 here (the op checks it apart), and the one quotient that overflows wraps:
// either would stop a CPU.
HELPER T gg_floordiv(T a, T b) {
    if (b == 0) return 0;
#ifdef SIGNED
    if (b == (T)-1) return (T)(0 - (u64)a);
    T q = a / b;
    return (q * b != a && (a < 0) != (b < 0)) ? q - 1 : q;
#else
    return a / b;
#endif
}
HELPER T gg_remainder(T a, T b) {
    if (b == 0) return 0;
#ifdef SIGNED
    if (b == (T)-1) return 0;
    T r = a % b;
    return (r != 0 && (r < 0) != (b < 0)) ? r + b : r;
#else
    return a % b;
#endif
}

// C's remainder, with the sign of the dividend.
#ifdef SIGNED
HELPER T gg_fmod(T a, T b) { return b == 0 || b == (T)-1 ? 0 : (T)(a % b); }
#else
HELPER T gg_fmod(T a, T b) { return b == 0 ? 0 : (T)(a % b); }
#endif

// By squaring, wrapping like NumPy's integer power. A negative exponent leaves 0 but for the units.
HELPER T gg_ipow(T base, T exponent) {
#ifdef SIGNED
    if (exponent < 0) return base == 1 ? 1 : base == (T)-1 ? (exponent & 1 ? (T)-1 : 1) : 0;
#endif
    u64 result = 1, square = (u64)base, e = (u64)exponent;
    for (; e; e >>= 1, square *= square)
        if (e & 1) result *= square;
    return (T)result;
}

// A shift by the width or more, or by a negative count, leaves nothing (or the sign, to the right).
HELPER T gg_shl(T a, T b) { return (b < 0 || b >= T_BITS) ? 0 : (T)((u64)a << b); }
HELPER T gg_shr(T a, T b) {
    if (b < 0 || b >= T_BITS) return a < 0 ? (T)-1 : 0;
    return (T)(a >> b);
}

#endif
#endif  // T
