// What kernels of compiled programs (gpugrad/compiler) use besides types.h: half types as they come back from memory,
// for a value that is used again in the kernel that stores it.
#ifdef __OPENCL_VERSION__
HELPER f32 gg_round_f16(f32 x) {
    u16 held[1];
    vstore_half_rte(x, 0, (half *)held);
    return vload_half(0, (const half *)held);
}
#else
HELPER f32 gg_round_f16(f32 x) { return gg_f16_load(gg_f16_bits(x)); }
#endif
HELPER f32 gg_round_bf16(f32 x) { return F32_BITS((u32)gg_bf16_bits(x) << 16); }

#ifdef GG_SERIAL  // a text for a processor: functions that compute groups in chunks
#define FUNCTION static
// A loop whose turns do not depend on each other, and one over the lanes of a vector. Left to itself, the compiler takes
// vectors of half the width on processors with AVX-512: tanh(x * 2 + y) * exp(-x * x) of 16M then takes 1.9 times as long.
#define SIMD(...) _Pragma("clang loop vectorize(enable) vectorize_width(16)")
#define LANE_LOOP _Pragma("clang loop vectorize(enable) unroll(disable)")
// The larger and the smaller one; a NaN wins.
#define GG_EXTREMES(t)                                                                                                \
    HELPER t gg_maximum_##t(t a, t b) { return (a > b || a != a) ? a : b; }                                           \
    HELPER t gg_minimum_##t(t a, t b) { return (a < b || a != a) ? a : b; }
GG_EXTREMES(i8)
GG_EXTREMES(u8)
GG_EXTREMES(i16)
GG_EXTREMES(u16)
GG_EXTREMES(i32)
GG_EXTREMES(u32)
GG_EXTREMES(i64)
GG_EXTREMES(u64)
GG_EXTREMES(f32)
#ifdef GG_FP64
GG_EXTREMES(f64)
#endif
#endif
