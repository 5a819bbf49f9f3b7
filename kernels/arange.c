// gg_arange_<dtype>: out[i] = start + i * step, in T (f64, f32 on a device without it, or i64).
//
// Defines: NAME the symbol, R the dtype of the result.
typedef struct {
    IDX n;
} Range;

KERNEL void NAME(GLOBAL S(R) *out, T start, T step, Range par) {
    IDX i = GLOBAL_ID;
    if (i < par.n) ST(R, out, i, start + (T)i * step);
}
