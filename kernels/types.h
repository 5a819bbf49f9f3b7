// Storage types: for a dtype D, S_D is the type in memory, LD_D(p, i) loads an element in its computing
// type, ST_D(p, i, v) stores one, CV_D(x) converts a number the way a cast of tensors does. The half types
// compute in f32; bool is a byte that holds 0 or 1. A kernel computes in the type T, whose dtype is also
// defined as T_<dtype>.
#define CAT_(a, b) a##b
#define CAT(a, b) CAT_(a, b)
#define S(D) CAT(S_, D)
#define LD(D, p, i) CAT(LD_, D)(p, i)
#define ST(D, p, i, v) CAT(ST_, D)(p, i, CAT(CV_, D)(v))
#define CV(D, x) CAT(CV_, D)(x)

typedef u8 S_bool;
typedef i8 S_i8;
typedef u8 S_u8;
typedef i16 S_i16;
typedef u16 S_u16;
typedef i32 S_i32;
typedef u32 S_u32;
typedef i64 S_i64;
typedef u64 S_u64;
typedef u16 S_bf16;
typedef f32 S_f32;
#ifdef GG_FP64
typedef f64 S_f64;
#endif

#define LD_bool(p, i) ((p)[i])
#define LD_i8(p, i) ((p)[i])
#define LD_u8(p, i) ((p)[i])
#define LD_i16(p, i) ((p)[i])
#define LD_u16(p, i) ((p)[i])
#define LD_i32(p, i) ((p)[i])
#define LD_u32(p, i) ((p)[i])
#define LD_i64(p, i) ((p)[i])
#define LD_u64(p, i) ((p)[i])
#define LD_f32(p, i) ((p)[i])
#define LD_f64(p, i) ((p)[i])
#define LD_bf16(p, i) F32_BITS((u32)(p)[i] << 16)

#define ST_bool(p, i, v) ((p)[i] = (v))
#define ST_i8(p, i, v) ((p)[i] = (v))
#define ST_u8(p, i, v) ((p)[i] = (v))
#define ST_i16(p, i, v) ((p)[i] = (v))
#define ST_u16(p, i, v) ((p)[i] = (v))
#define ST_i32(p, i, v) ((p)[i] = (v))
#define ST_u32(p, i, v) ((p)[i] = (v))
#define ST_i64(p, i, v) ((p)[i] = (v))
#define ST_u64(p, i, v) ((p)[i] = (v))
#define ST_f32(p, i, v) ((p)[i] = (v))
#define ST_f64(p, i, v) ((p)[i] = (v))
#define ST_bf16(p, i, v) ((p)[i] = gg_bf16_bits(v))

// A float may lie outside a small integer type, where a direct conversion is undefined: go by way of a wider one.
#define CV_bool(x) ((u8)((x) != 0))
#define CV_i8(x) ((i8)(i32)(x))
#define CV_u8(x) ((u8)(i32)(x))
#define CV_i16(x) ((i16)(i32)(x))
#define CV_u16(x) ((u16)(i32)(x))
#define CV_i32(x) ((i32)(x))
#define CV_u32(x) ((u32)(i64)(x))
#define CV_i64(x) ((i64)(x))
#define CV_u64(x) ((u64)(x))
#define CV_f32(x) ((f32)(x))
#define CV_f64(x) ((f64)(x))
#define CV_f16(x) NARROW(x)
#define CV_bf16(x) NARROW(x)

// Round to nearest, ties to even, by bits; a NaN stays one.
HELPER u16 gg_bf16_bits(f32 value) {
    u32 bits = BITS_F32(value);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return (u16)((bits >> 16) | 0x40u);
    return (u16)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

// From f64 to a half type in two steps without rounding twice: round the first step to odd.
#ifdef T_f64
HELPER f32 gg_round_to_odd(f64 value) {
    f32 cut = F32_TOWARDS_ZERO(value);
    return (f64)cut != value ? F32_BITS(BITS_F32(cut) | 1u) : cut;
}
#define NARROW(x) gg_round_to_odd(x)
#else
#define NARROW(x) ((f32)(x))
#endif

// Report a failed check: the first report since the host last looked is kept.
HELPER void gg_report(GLOBAL i64 *flags, i32 id, i64 value) {
    if (FIRST(flags, id) == 0) flags[1] = value;
}

// The same with two numbers.
HELPER void gg_report_both(GLOBAL i64 *flags, i32 id, i64 value, i64 second) {
    if (FIRST(flags, id) == 0) {
        flags[1] = value;
        flags[2] = second;
    }
}

// Add to `at`, for each operand k, the offset of element `index` in the `ndim` dimensions of a Strided argument.
#define LOCATE(at, operands, index, ndim, shape, stride)                                                              \
    for (i32 gg_d = (i32)(ndim) - 1; gg_d >= 0; gg_d--) {                                                             \
        IDX gg_q = (index) / (shape)[gg_d], gg_r = (index) - gg_q * (shape)[gg_d];                                    \
        for (i32 gg_k = 0; gg_k < (operands); gg_k++) (at)[gg_k] += gg_r * (stride)[gg_k][gg_d];                      \
        (index) = gg_q;                                                                                               \
    }

// A step of VECTOR elements, for CPU-type devices. Left as a loop, the compiler makes it one vector instruction;
// unrolled, it would have to find that again.
#ifdef GG_CPU
#define EACH _Pragma("clang loop unroll(disable)") for (i32 gg_j = 0; gg_j < VECTOR; gg_j++)
#endif
