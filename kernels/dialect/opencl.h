// The common dialect in OpenCL C 1.2. The twin of this file is cuda.h.
//
// Defined from outside: GG_FP64 where the device has doubles, IDX as i32 or i64.
#ifdef GG_FP64
#pragma OPENCL EXTENSION cl_khr_fp64 : enable
#endif
#ifndef GG_CONTRACT  // only the matrix product may fuse a multiply and an add
#pragma OPENCL FP_CONTRACT OFF
#endif

typedef char i8;
typedef uchar u8;
typedef short i16;
typedef ushort u16;
typedef int i32;
typedef uint u32;
typedef long i64;
typedef ulong u64;
typedef float f32;
#ifdef GG_FP64
typedef double f64;
#endif

#define KERNEL __kernel
#define GLOBAL __global
#define LOCAL __local
#define CONSTANT __constant
#define CONSTANT_POINTER(D) __constant const D *
#define HELPER static inline
#define BARRIER barrier(CLK_LOCAL_MEM_FENCE)
#define RESTRICT restrict
#define UNROLL _Pragma("unroll")

// Of vectors: one of equal elements, and a choice lane by lane.
#define ALL(x) ((V)(T)(x))
#define PICK(which, a, b) ((which) ? (a) : (b))

#define GROUP_ID ((IDX)get_group_id(0))
#define LOCAL_COUNT ((i32)get_local_size(0))
#define LOCAL_ID ((i32)get_local_id(0))
#define GLOBAL_ID ((IDX)get_group_id(0) * (IDX)get_local_size(0) + (IDX)get_local_id(0))

// Half types are for storage: no arithmetic in them, so no extension is needed.
typedef half S_f16;
#define LD_f16(p, i) vload_half((i), (p))
#ifdef GG_CPU
// PoCL stores one half at a time by a call (11 ms for 16M elements); of operators alone compilers make vectors (3.3 ms).
// To nearest, ties to even: what lies below the normal numbers is rounded by adding 0.5, whose last place is 2^-24.
HELPER u16 gg_f16_bits(f32 value) {
    u32 bits = as_uint(value), size = bits & 0x7fffffffu;
    u32 normal = (size + 0xfffu + ((size >> 13) & 1u) - 0x38000000u) >> 13;
    u32 small = as_uint(as_float(size) + 0.5f) - 0x3f000000u;
    u32 half_ = size < 0x38800000u ? small : normal;
    half_ = size >= 0x477ff000u ? 0x7c00u : half_;
    half_ = size > 0x7f800000u ? 0x7e00u | ((size >> 13) & 0x3ffu) : half_;
    return (u16)(half_ | ((bits >> 16) & 0x8000u));
}
#define ST_f16(p, i, v) (((GLOBAL u16 *)(p))[i] = gg_f16_bits(v))
#else
#define ST_f16(p, i, v) vstore_half_rte((v), (i), (p))
#endif

#define BITS_F32(x) as_uint(x)
#define F32_BITS(x) as_float(x)
#ifdef GG_FP64
#define BITS_F64(x) as_long(x)
#define F64_BITS(x) as_double(x)
#define F32_TOWARDS_ZERO(x) convert_float_rtz(x)
#endif
#define GG_INFINITY INFINITY

// Where a processor has the instruction, the compiler's own name for it: a call of the library's fma stops a loop from
// becoming vectors.
#if defined(GG_SERIAL) && defined(__FMA__)
#define MULTIPLY_ADD(a, b, c) __builtin_fmaf((a), (b), (c))
#endif

#define MUL_HIGH_U64(a, b) mul_hi((a), (b))

#if defined(GG_CPU) && defined(__clang__) && defined(__FMA__)  // PoCL's fma may be a call
#define MULTIPLY_ADD(a, b, c) __builtin_fmaf((a), (b), (c))
#endif

// One thread alone sees 0 come back from FIRST: the winner among those that report.
#define FIRST(p, id) atomic_cmpxchg((volatile GLOBAL int *)(p), 0, (id))
