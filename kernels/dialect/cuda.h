// The common dialect in CUDA C++ as NVRTC compiles it, with no header at hand. The twin of this file is opencl.h.
//
// Defined from outside: GG_FP64 always, IDX as i32 or i64. Compiled with contraction off (--fmad=false) but for the
// matrix product.
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

#define KERNEL extern "C" __global__
#define GLOBAL
#define LOCAL __shared__
#define CONSTANT static __constant__ const
#define CONSTANT_POINTER(D) const D *
#define HELPER static __device__ __forceinline__
#define BARRIER __syncthreads()
#define RESTRICT __restrict__

#define GROUP_ID ((IDX)blockIdx.x)
#define LOCAL_COUNT ((i32)blockDim.x)
#define LOCAL_ID ((i32)threadIdx.x)
#define GLOBAL_ID ((IDX)blockIdx.x * (IDX)blockDim.x + (IDX)threadIdx.x)

// Half types are for storage; one PTX instruction converts, so cuda_fp16.h is not needed.
typedef u16 S_f16;
HELPER f32 gg_f16_load(u16 bits) {
    f32 value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
    return value;
}
HELPER u16 gg_f16_bits(f32 value) {
    u16 bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
    return bits;
}
#define LD_f16(p, i) gg_f16_load((p)[i])
#define ST_f16(p, i, v) ((p)[i] = gg_f16_bits(v))

#define BITS_F32(x) __float_as_uint(x)
#define F32_BITS(x) __uint_as_float(x)
#define BITS_F64(x) __double_as_longlong(x)
#define F64_BITS(x) __longlong_as_double(x)
#define F32_TOWARDS_ZERO(x) __double2float_rz(x)
#define GG_INFINITY __int_as_float(0x7f800000)

// The value of the item whose number differs in the bits k, among 32 that run together.
#define SHUFFLE(v, k) __shfl_xor_sync(0xffffffffu, (v), (k))

#define MUL_HIGH_U64(a, b) __umul64hi((a), (b))

// One thread alone sees 0 come back from FIRST: the winner among those that report.
#define FIRST(p, id) atomicCAS((int *)(p), 0, (id))
