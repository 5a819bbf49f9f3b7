// How the kernels of softmax, norms and cross-entropy go over a row: WIDE neighbouring elements at a time, then what is
// left one by one. On CPU-type devices one item does a row; on GPUs a group does, whose size the launch chooses, and
// WIDE elements are 16 bytes. `whole` elements of a row are taken WIDE at a time: none where they are not aligned.
//
// Defines: X the dtype of the rows, X_BYTES its size.
#ifdef GG_CPU

#define WIDE LANES
#define ITEM 0
#define ITEMS 1
#define ROW GLOBAL_ID
#define TOGETHER_IN(partial)
#define ACROSS(partial, JOIN, v)
#define FETCH(v, p, i) EACH v[gg_j] = CV(TD, LD(X, p, (i) + gg_j));
#define STORE(p, i, v) EACH ST(X, p, (i) + gg_j, v[gg_j]);

#else

#define WIDE (16 / X_BYTES)
#define EACH for (i32 gg_j = 0; gg_j < WIDE; gg_j++)
#define ITEM LOCAL_ID
#define ITEMS LOCAL_COUNT
#define ROW GROUP_ID
typedef struct __attribute__((aligned(16))) {
    S(X) held[WIDE];
} Wide;
#define FETCH(v, p, i)                                                                                                \
    {                                                                                                                 \
        Wide gg_w = *(GLOBAL const Wide *)((p) + (i));                                                                \
        EACH v[gg_j] = CV(TD, LD(X, gg_w.held, gg_j));                                                                   \
    }
#define STORE(p, i, from)                                                                                             \
    {                                                                                                                 \
        Wide gg_w;                                                                                                    \
        EACH ST(X, gg_w.held, gg_j, from[gg_j]);                                                                         \
        *(GLOBAL Wide *)((p) + (i)) = gg_w;                                                                           \
    }
#define TOGETHER_IN(partial) LOCAL T partial[GROUP];
// v becomes, in all items of the group, that of all of them: in a fixed order.
#ifdef SHUFFLE
#define ACROSS(partial, JOIN, v)                                                                                      \
    {                                                                                                                 \
        for (i32 gg_k = 16; gg_k > 0; gg_k /= 2) v = JOIN(v, SHUFFLE(v, gg_k));                                       \
        if (ITEMS > 32) {                                                                                             \
            if (ITEM % 32 == 0) partial[ITEM / 32] = v;                                                               \
            BARRIER;                                                                                                  \
            v = partial[0];                                                                                           \
            for (i32 gg_k = 1; gg_k < ITEMS / 32; gg_k++) v = JOIN(v, partial[gg_k]);                                 \
            BARRIER;                                                                                                  \
        }                                                                                                             \
    }
#else
#define ACROSS(partial, JOIN, v)                                                                                      \
    {                                                                                                                 \
        partial[ITEM] = v;                                                                                            \
        BARRIER;                                                                                                      \
        for (i32 gg_k = ITEMS / 2; gg_k > 0; gg_k /= 2) {                                                             \
            if (ITEM < gg_k) partial[ITEM] = JOIN(partial[ITEM], partial[ITEM + gg_k]);                               \
            BARRIER;                                                                                                  \
        }                                                                                                             \
        v = partial[0];                                                                                               \
        BARRIER;                                                                                                      \
    }
#endif
#endif

#define FOR_WHOLE for (IDX j = (IDX)ITEM * WIDE; j < par.whole; j += (IDX)ITEMS * WIDE)
#define FOR_REST for (IDX j = par.whole + ITEM; j < par.n; j += ITEMS)
#define VECTOR_OF(v) T v[WIDE] __attribute__((aligned(WIDE * sizeof(T))))
#define ONE(p, i) CV(TD, LD(X, p, i))
#define ADD(a, b) ((a) + (b))

// A scalar `result` out of the WIDE accumulators of each item.
#define GATHER(result, partial, JOIN, lanes)                                                                          \
    for (i32 gg_k = WIDE / 2; gg_k > 0; gg_k /= 2)                                                                    \
        for (i32 gg_l = 0; gg_l < gg_k; gg_l++) lanes[gg_l] = JOIN(lanes[gg_l], lanes[gg_l + gg_k]);                  \
    T result = lanes[0];                                                                                              \
    ACROSS(partial, JOIN, result)

// PoCL does not put a vector's exp in place of a loop over the scalar one; of operators alone it makes vectors.
#if defined(GG_CPU) && defined(T_f32)
#define EXP(v) gg_exp_f32(v)
#else
#define EXP(v) exp(v)
#endif
