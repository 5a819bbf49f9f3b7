// The common dialect in C11 as gcc and clang compile it for the processor at hand. The twins of this file are opencl.h
// and cuda.h.
//
// Defined from outside: GG_FP64 always, IDX as i64. Compiled with contraction off and without the parts of IEEE
// arithmetic that stand in the way of vectors and that nothing here observes: errno and traps.
#define HOST 1

typedef signed char i8;
typedef unsigned char u8;
typedef short i16;
typedef unsigned short u16;
typedef int i32;
typedef unsigned int u32;
typedef long long i64;
typedef unsigned long long u64;
typedef float f32;
typedef double f64;

#define KERNEL __attribute__((visibility("default")))
#define GLOBAL
#define LOCAL
#define CONSTANT static const
#define CONSTANT_POINTER(D) const D *
#define HELPER static inline __attribute__((always_inline, unused))
#define RESTRICT restrict
#define UNROLL _Pragma("GCC unroll 16")

// Of vectors: one of equal elements, and a choice lane by lane.
#define ALL(x) ((V){0} + (T)(x))
#define PICK(which, a, b)                                                                                             \
    ({                                                                                                                \
        __typeof__(which) gg_which = (which);                                                                         \
        (V)((gg_which & (__typeof__(which))(a)) | (~gg_which & (__typeof__(which))(b)));                              \
    })
typedef f32 float4 __attribute__((vector_size(16)));
typedef f32 float8 __attribute__((vector_size(32)));
typedef f32 float16 __attribute__((vector_size(64)));
typedef f64 double2 __attribute__((vector_size(16)));
typedef f64 double4 __attribute__((vector_size(32)));
typedef f64 double8 __attribute__((vector_size(64)));

// Kernels whose items need nothing of each other run here too, one after another: the number of the one that runs.
static __thread i64 gg_item;
#define GLOBAL_ID ((IDX)gg_item)
#define FIRST(p, id) __sync_val_compare_and_swap((i32 *)(p), 0, (id))
#define MUL_HIGH_U64(a, b) ((u64)(((unsigned __int128)(a) * (b)) >> 64))

// A loop whose turns do not depend on each other but for the reductions named: SIMD(reduction(+:total)).
#define PRAGMA_(text) _Pragma(#text)
#define PRAGMA(text) PRAGMA_(text)
#define SIMD(...) PRAGMA(omp simd __VA_ARGS__)

// The larger and the smaller number; a NaN wins.
#define GG_LARGER(a, b) (((a) > (b) || (a) != (a)) ? (a) : (b))
#define GG_SMALLER(a, b) (((a) < (b) || (a) != (a)) ? (a) : (b))
PRAGMA(omp declare reduction(gg_max_f32 : f32 : omp_out = GG_LARGER(omp_out, omp_in)) initializer(omp_priv = omp_orig))
PRAGMA(omp declare reduction(gg_min_f32 : f32 : omp_out = GG_SMALLER(omp_out, omp_in)) initializer(omp_priv = omp_orig))
PRAGMA(omp declare reduction(gg_max_f64 : f64 : omp_out = GG_LARGER(omp_out, omp_in)) initializer(omp_priv = omp_orig))
PRAGMA(omp declare reduction(gg_min_f64 : f64 : omp_out = GG_SMALLER(omp_out, omp_in)) initializer(omp_priv = omp_orig))

HELPER u32 gg_bits_f32(f32 x) {
    union { f32 value; u32 bits; } both = {.value = x};
    return both.bits;
}
HELPER f32 gg_f32_bits(u32 x) {
    union { u32 bits; f32 value; } both = {.bits = x};
    return both.value;
}
HELPER i64 gg_bits_f64(f64 x) {
    union { f64 value; i64 bits; } both = {.value = x};
    return both.bits;
}
HELPER f64 gg_f64_bits(i64 x) {
    union { i64 bits; f64 value; } both = {.bits = x};
    return both.value;
}
#define BITS_F32(x) gg_bits_f32(x)
#define F32_BITS(x) gg_f32_bits(x)
#define BITS_F64(x) gg_bits_f64(x)
#define F64_BITS(x) gg_f64_bits(x)
#define GG_INFINITY __builtin_inff()

// The nearest f32 that is no larger than x in size.
HELPER f32 gg_towards_zero(f64 x) {
    f32 y = (f32)x;
    return (y < 0 ? -(f64)y : (f64)y) > (x < 0 ? -x : x) ? F32_BITS(BITS_F32(y) - 1u) : y;
}
#define F32_TOWARDS_ZERO(x) gg_towards_zero(x)

// Half types are for storage. Multiplying by 2^112 moves the exponent of a half to its place in an f32, denormals
// included; adding 1/2 to a tiny number rounds it to a multiple of the least denormal half.
typedef u16 S_f16;
HELPER f32 gg_f16_load(u16 half_) {
    u32 bits = half_;
    u32 size = (bits & 0x7fffu) << 13;
    u32 wide = BITS_F32(F32_BITS(size) * F32_BITS(0x77800000u));
    wide = (bits & 0x7c00u) == 0x7c00u ? size | 0x7f800000u : wide;
    return F32_BITS(wide | (bits & 0x8000u) << 16);
}
HELPER u16 gg_f16_bits(f32 value) {
    u32 bits = BITS_F32(value), size = bits & 0x7fffffffu;
    u32 tiny = BITS_F32(F32_BITS(size) + 0.5f) - 0x3f000000u;
    u32 normal = (size + 0xc8000fffu + ((size >> 13) & 1u)) >> 13;
    u32 large = size > 0x7f800000u ? 0x7e00u | (size >> 13 & 0x3ffu) : 0x7c00u;
    u32 half_ = size >= 0x477ff000u ? large : size < 0x38800000u ? tiny : normal;
    return (u16)(half_ | (bits >> 16 & 0x8000u));
}
#define LD_f16(p, i) gg_f16_load((p)[i])
#define ST_f16(p, i, v) ((p)[i] = gg_f16_bits(v))

// -- functions of expressions -----------------------------------------------------------------------
#ifdef __FMA__
#define MULTIPLY_ADD(a, b, c) __builtin_fmaf((a), (b), (c))
#else
#define MULTIPLY_ADD(a, b, c) ((a) * (b) + (c))
#endif

// By the type of their argument: vector_math.h for f32 where it has them, else C's library.
#define exp(x) _Generic((x), f32: gg_exp_f32, default: __builtin_exp)(x)
#define expm1(x) _Generic((x), f32: gg_expm1_f32, default: __builtin_expm1)(x)
#define tanh(x) _Generic((x), f32: gg_tanh_f32, default: __builtin_tanh)(x)
#define log(x) _Generic((x), f32: gg_log_f32, default: __builtin_log)(x)
#define log1p(x) _Generic((x), f32: gg_log1p_f32, default: __builtin_log1p)(x)
#define erf(x) _Generic((x), f32: gg_erf_f32, default: __builtin_erf)(x)
#define sqrt(x) _Generic((x), f32: __builtin_sqrtf, default: __builtin_sqrt)(x)
#define floor(x) _Generic((x), f32: __builtin_floorf, default: __builtin_floor)(x)
#define ceil(x) _Generic((x), f32: __builtin_ceilf, default: __builtin_ceil)(x)
#define trunc(x) _Generic((x), f32: __builtin_truncf, default: __builtin_trunc)(x)
#define rint(x) _Generic((x), f32: __builtin_rintf, default: __builtin_rint)(x)
#define fabs(x) _Generic((x), f32: __builtin_fabsf, default: __builtin_fabs)(x)
#define exp2(x) _Generic((x), f32: __builtin_exp2f, default: __builtin_exp2)(x)
#define log2(x) _Generic((x), f32: __builtin_log2f, default: __builtin_log2)(x)
#define log10(x) _Generic((x), f32: __builtin_log10f, default: __builtin_log10)(x)
#define sin(x) _Generic((x), f32: __builtin_sinf, default: __builtin_sin)(x)
#define cos(x) _Generic((x), f32: __builtin_cosf, default: __builtin_cos)(x)
#define tan(x) _Generic((x), f32: __builtin_tanf, default: __builtin_tan)(x)
#define asin(x) _Generic((x), f32: __builtin_asinf, default: __builtin_asin)(x)
#define acos(x) _Generic((x), f32: __builtin_acosf, default: __builtin_acos)(x)
#define atan(x) _Generic((x), f32: __builtin_atanf, default: __builtin_atan)(x)
#define sinh(x) _Generic((x), f32: __builtin_sinhf, default: __builtin_sinh)(x)
#define cosh(x) _Generic((x), f32: __builtin_coshf, default: __builtin_cosh)(x)
#define asinh(x) _Generic((x), f32: __builtin_asinhf, default: __builtin_asinh)(x)
#define acosh(x) _Generic((x), f32: __builtin_acoshf, default: __builtin_acosh)(x)
#define atanh(x) _Generic((x), f32: __builtin_atanhf, default: __builtin_atanh)(x)
#define erfc(x) _Generic((x), f32: __builtin_erfcf, default: __builtin_erfc)(x)
#define fmod(x, y) _Generic((x) + (y), f32: __builtin_fmodf, default: __builtin_fmod)(x, y)
#define pow(x, y) _Generic((x) + (y), f32: __builtin_powf, default: __builtin_pow)(x, y)
#define hypot(x, y) _Generic((x) + (y), f32: __builtin_hypotf, default: __builtin_hypot)(x, y)
#define atan2(x, y) _Generic((x) + (y), f32: __builtin_atan2f, default: __builtin_atan2)(x, y)
#define copysign(x, y) _Generic((x) + (y), f32: __builtin_copysignf, default: __builtin_copysign)(x, y)
#define nextafter(x, y) _Generic((x) + (y), f32: __builtin_nextafterf, default: __builtin_nextafter)(x, y)
#define ldexp(x, n) _Generic((x), f32: __builtin_ldexpf, default: __builtin_ldexp)(x, n)
#define ilogb(x) __builtin_ilogb(x)
#define isnan(x) ((x) != (x))
#define isinf(x) (fabs(x) == __builtin_inf())
#define isfinite(x) (fabs(x) < __builtin_inf())
#define signbit(x) (__builtin_signbit(x) != 0)
