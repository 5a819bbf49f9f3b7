// What the kernels of attention.c and attention_mma.c take, where their operands are, and how masks act on scores.
// Defines: X, T, IDX, MASK and BOOLEAN as there.
typedef struct {
    IDX items, heads, share, l, s, tiles, chunk, causal;  // share: heads of queries to one of keys
    // Where it begins, and the strides of batch, head, row and element.
    IDX q[5], k[5], v[5], mask[5], out[5], g[5], dq[5], dk[5], dv[5];
} Attention;

#ifdef MASK
#define S_MASK S(MASK)
#else
#define S_MASK S(X)  // of an argument that is not looked at
#endif
#define START(x, b, h) (par.x[0] + (b) * par.x[1] + (h) * par.x[2])
#define RANDOM_ARGUMENTS T factor, u32 limit, u64 seed, u64 stream

#ifdef MASK
#ifdef BOOLEAN
#define MASKED(score, at) score = mask[at] ? score : -GG_INF;
#else
#define MASKED(score, at) score += mask[at];
#endif
// A row that sees nothing is 0; its logarithm makes its weights 0 in the backward pass.
#define FINISH(total, best, log_)                                                                                     \
    T log_ = best == -GG_INF ? GG_INF : best + log(total);                                                            \
    total = best == -GG_INF ? (T)1 : total;
#else
#define MASKED(score, at)
#define FINISH(total, best, log_)                                                                                     \
    total = best == -GG_INF ? GG_NAN : total;                                                                         \
    T log_ = best + log(total);
#endif
