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

#define GROUP_ID ((IDX)get_group_id(0))
#define LOCAL_ID ((i32)get_local_id(0))
#define GLOBAL_ID ((IDX)get_group_id(0) * (IDX)get_local_size(0) + (IDX)get_local_id(0))

// Half types are for storage: no arithmetic in them, so no extension is needed.
typedef half S_f16;
#define LD_f16(p, i) vload_half((i), (p))
#define ST_f16(p, i, v) vstore_half_rte((v), (i), (p))

#define BITS_F32(x) as_uint(x)
#define F32_BITS(x) as_float(x)
#ifdef GG_FP64
#define BITS_F64(x) as_long(x)
#define F64_BITS(x) as_double(x)
#define F32_TOWARDS_ZERO(x) convert_float_rtz(x)
#endif
#define GG_INFINITY INFINITY

#define MUL_HIGH_U64(a, b) mul_hi((a), (b))

// One thread alone sees 0 come back from FIRST: the winner among those that report.
#define FIRST(p, id) atomic_cmpxchg((volatile GLOBAL int *)(p), 0, (id))
