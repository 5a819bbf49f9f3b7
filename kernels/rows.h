// How the kernels of softmax, norms and cross-entropy go over a row: WIDE neighbouring elements at a time, then what is
// left one by one. On CPU-type devices one item does a row; on GPUs a group does, whose size the launch chooses, and
// WIDE elements are 16 bytes. `whole` elements of a row are taken WIDE at a time: none where they are not aligned.
//
// WIDE elements are an array of parts, and EACH does a statement for each part: a number, or, where V is defined, a
// vector of VW of them. Statements are written for both: what differs has a name here (EVERY, LARGER, EXP_EACH).
//
// Defines: X the dtype of the rows, X_BYTES its size; V, VW where a part is to be a vector.
#ifdef GG_CPU

#define ITEM 0
#define ITEMS 1
#define ROW GLOBAL_ID
#define TOGETHER_IN(partial)
#define ACROSS(partial, JOIN, v)

#ifdef VW

// Two, so that an addition need not wait for the one before.
#define PARTS 2
#define WIDE (PARTS * VW)
#define FETCH(v, p, i) EACH v[gg_j] = gg_fetch((p) + (i) + gg_j * VW);
#define STORE(p, i, v) EACH gg_store((p) + (i) + gg_j * VW, v[gg_j]);
#undef EACH
#define EACH UNROLL for (i32 gg_j = 0; gg_j < PARTS; gg_j++)

HELPER V gg_fetch(GLOBAL const S(X) *p) {
#if X_BYTES == 2
    T held[VW];
    SIMD() for (i32 k = 0; k < VW; k++) held[k] = LD(X, p, k);
    return *(const Loose *)held;
#else
    return *(GLOBAL const Loose *)p;
#endif
}
HELPER void gg_store(GLOBAL S(X) *p, V v) {
#if X_BYTES == 2
    T held[VW];
    *(Loose *)held = v;
    SIMD() for (i32 k = 0; k < VW; k++) ST(X, p, k, held[k]);
#else
    *(GLOBAL Loose *)p = v;
#endif
}

#else

#define PARTS LANES
#define WIDE LANES
#define FETCH(v, p, i) EACH v[gg_j] = CV(TD, LD(X, p, (i) + gg_j));
#define STORE(p, i, v) EACH ST(X, p, (i) + gg_j, v[gg_j]);

#endif

#else

#define WIDE (16 / X_BYTES)
#define PARTS WIDE
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

// What a part is; one of equal numbers; the larger of two, a NaN wins; the part at `i` of an array of T, to read and to
// write; one number of the parts, to which what is left over of a row is added.
#ifdef VW
#define PART V
#define EVERY(x) ALL(x)
#define LARGER(a, b) PICK(((a) > (b)) | ((a) != (a)), a, b)
#define GROWN(p, i) (*(GLOBAL Loose *)((p) + (i) + gg_j * VW))
#define FIRST_OF(v) v[0][0]
#else
#define PART T
#define EVERY(x) ((T)(x))
#define LARGER(a, b) GG_MAX(a, b)
#define GROWN(p, i) (p)[(i) + gg_j]
#define FIRST_OF(v) v[0]
#endif

#define FOR_WHOLE for (IDX j = (IDX)ITEM * WIDE; j < par.whole; j += (IDX)ITEMS * WIDE)
#define FOR_REST for (IDX j = par.whole + ITEM; j < par.n; j += ITEMS)
#define VECTOR_OF(v) PART v[PARTS] __attribute__((aligned(PARTS * sizeof(PART))))
#define ONE(p, i) CV(TD, LD(X, p, i))
#define ADD(a, b) ((a) + (b))
#define JOINED_BY_ADD(a, b) ((a) + (b))
#define JOINED_BY_GG_MAX(a, b) LARGER(a, b)

// A scalar `result` out of the accumulators of each item.
#ifdef VW
#define GATHER(result, partial, JOIN, parts)                                                                          \
    for (i32 gg_k = PARTS / 2; gg_k > 0; gg_k /= 2)                                                                   \
        for (i32 gg_l = 0; gg_l < gg_k; gg_l++) parts[gg_l] = JOINED_BY_##JOIN(parts[gg_l], parts[gg_l + gg_k]);      \
    T result;                                                                                                         \
    {                                                                                                                 \
        T gg_lanes[VW];                                                                                               \
        *(Loose *)gg_lanes = parts[0];                                                                                \
        for (i32 gg_k = VW / 2; gg_k > 0; gg_k /= 2)                                                                  \
            for (i32 gg_l = 0; gg_l < gg_k; gg_l++) gg_lanes[gg_l] = JOIN(gg_lanes[gg_l], gg_lanes[gg_l + gg_k]);     \
        result = gg_lanes[0];                                                                                         \
    }
#else
#define GATHER(result, partial, JOIN, lanes)                                                                          \
    for (i32 gg_k = WIDE / 2; gg_k > 0; gg_k /= 2)                                                                    \
        for (i32 gg_l = 0; gg_l < gg_k; gg_l++) lanes[gg_l] = JOIN(lanes[gg_l], lanes[gg_l + gg_k]);                  \
    T result = lanes[0];                                                                                              \
    ACROSS(partial, JOIN, result)
#endif

// PoCL does not put a vector's exp in place of a loop over the scalar one; of operators alone it makes vectors.
#if defined(GG_CPU) && defined(T_f32)
#define EXP(v) gg_exp_f32(v)
#else
#define EXP(v) exp(v)
#endif
#ifndef VW
#define EXP_EACH(v) EXP(v)
#elif defined(T_f32)
typedef i32 VI __attribute__((vector_size(4 * VW)));
#define GG_V_MULTIPLY_ADD(a, b, c) ((a) * (b) + (c))  // in one instruction, as GG_CONTRACT allows
#define GG_V_INTEGERS(x) ((VI)(x))
#define GG_V_POWER(n) ((V)((n) << 23))
GG_EXP_OF(gg_exp_v, V, VI, ALL, PICK, GG_V_MULTIPLY_ADD, GG_V_INTEGERS, GG_V_POWER)
#define EXP_EACH(v) gg_exp_v(v)
#else
HELPER V gg_exp_v(V v) {
    for (i32 k = 0; k < VW; k++) v[k] = exp(v[k]);
    return v;
}
#define EXP_EACH(v) gg_exp_v(v)
#endif
