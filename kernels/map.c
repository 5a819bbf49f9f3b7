// Elementwise: map over broadcast operands, cast, strided copy, fill.
//
// Defines: NAME the symbol; EXPR the result, of the inputs a, b, c, ... of type T; INPUTS the parameters of the
// inputs, each a pointer p0, p1, ... or a scalar; LOADS declares the inputs from them, element AT(k) of operand k;
// R the dtype of the result; OPERANDS how many arrays, the result being the last; RUN how many neighbouring elements
// an item does; CHECK (optional) a predicate that is true where an element is an error: a and SECOND (b, or 0 where
// there is none) are reported and EXPR is not computed, as that may stop a CPU.
// For rows on CPU-type devices BUFFERS declares a vector's worth of each input, FETCHES fills them, PICKS declares
// the inputs from them. FUNCTION: EXPR is this function of the only input, and V the vector of VECTOR elements that
// it also takes: no compiler makes of a library's scalar log what the library has for vectors (30 ms, 2.8 for 4M).
// COPY: the operands are one input and the result, of one type, and nothing is computed.
//
// NAME_dense    all operands lie in memory in the same order, without gaps: one item per RUN elements.
// NAME_wide     the same on GPUs, WIDTH neighbouring elements per item, of which each operand's are read or written at
//               once: 16 bytes of f32. All offsets are multiples of WIDTH. FETCHES are as above.
// NAME_strided  any layouts. On GPUs one item per element. On CPU-type devices an item does `rows` rows of the
//               innermost dimension, or a piece of PIECE elements of a long one, so that working out where a row
//               lies costs little; VECTOR elements at a time are fetched, whatever their stride, and computed on
//               together. 128 x 32 x 28 x 28 elements plus a bias of 32: 3.3 ms one by one, 0.7 ms so.
typedef struct {
    IDX n, offset[OPERANDS];
} Dense;

// In a loop over elements PoCL calls these functions of f32 one by one (gelu of 16M: 265 ms, 7 by operators).
#if defined(GG_CPU) && defined(T_f32)
#undef exp
#define exp(v) gg_exp_f32(v)
#undef expm1
#define expm1(v) gg_expm1_f32(v)
#undef tanh
#define tanh(v) gg_tanh_f32(v)
#undef log
#define log(v) gg_log_f32(v)
#undef log1p
#define log1p(v) gg_log1p_f32(v)
#undef erf
#define erf(v) gg_erf_f32(v)
#endif

typedef struct {
    IDX items, pieces, rows, all_rows, inner, ndim, shape[8];
    IDX offset[OPERANDS], step[OPERANDS], stride[OPERANDS][8];
} Strided;

#ifdef CHECK
#define CHECKED , GLOBAL i64 *flags, i32 check_id
#define VERIFY(where) if (CHECK) gg_report_both(flags, check_id, (i64)a, (i64)(SECOND)); else
#else
#define CHECKED
#define VERIFY(where)
#endif

KERNEL void CAT(NAME, _dense)(INPUTS GLOBAL S(R) *out, Dense par CHECKED) {
    IDX first = GLOBAL_ID * RUN;
#if RUN > 1
    if (first + RUN <= par.n) {  // everything is read before anything is computed, so the compiler may use vectors
        T v[RUN] __attribute__((aligned(RUN * sizeof(T))));
        BUFFERS
#define FETCH(v, D, p, k) EACH v[gg_j] = CV(TD, LD(D, p, par.offset[k] + first + gg_j));
        FETCHES
#undef FETCH
#ifdef FUNCTION
        *(V *)v = FUNCTION(*(V *)v0);
#else
        EACH {
            PICKS
            VERIFY(first + gg_j)
            v[gg_j] = CV(TD, EXPR);
        }
#endif
        EACH ST(R, out, par.offset[OPERANDS - 1] + first + gg_j, v[gg_j]);
        return;
    }
#endif
    for (IDX gg_i = first; gg_i < par.n && gg_i < first + RUN; gg_i++) {
#define AT(k) par.offset[k] + gg_i
        LOADS
        VERIFY(gg_i)
        ST(R, out, AT(OPERANDS - 1), CV(TD, EXPR));
    }
#undef AT
}

#ifndef GG_CPU

#define WIDTH 4
#define BUNDLE(D) CAT(Bundle_, D)
#define BUNDLE_OF(D)                                                                                                  \
    typedef struct __attribute__((aligned(WIDTH * sizeof(S(D))))) {                                                   \
        S(D) held[WIDTH];                                                                                             \
    } BUNDLE(D);
BUNDLES

KERNEL void CAT(NAME, _wide)(INPUTS GLOBAL S(R) *out, Dense par CHECKED) {
    IDX first = GLOBAL_ID * WIDTH;
    if (first + WIDTH <= par.n) {
#define FETCH(v, D, p, k) BUNDLE(D) v = *(GLOBAL const BUNDLE(D) *)(p + par.offset[k] + first);
        FETCHES
#undef FETCH
        BUNDLE(R) gg_result;
        for (i32 gg_j = 0; gg_j < WIDTH; gg_j++) {
            UNBUNDLES
            VERIFY(first + gg_j)
            ST(R, gg_result.held, gg_j, CV(TD, EXPR));
        }
        *(GLOBAL BUNDLE(R) *)(out + par.offset[OPERANDS - 1] + first) = gg_result;
        return;
    }
    for (IDX gg_i = first; gg_i < par.n; gg_i++) {
#define AT(k) par.offset[k] + gg_i
        LOADS
        VERIFY(gg_i)
        ST(R, out, AT(OPERANDS - 1), CV(TD, EXPR));
#undef AT
    }
}

KERNEL void CAT(NAME, _strided)(INPUTS GLOBAL S(R) *out, Strided par CHECKED) {
    IDX item = GLOBAL_ID;
    if (item >= par.items) return;
    IDX row = item / par.inner, gg_j = item - row * par.inner;
    IDX at[OPERANDS];
    for (i32 gg_k = 0; gg_k < OPERANDS; gg_k++) at[gg_k] = par.offset[gg_k] + gg_j * par.step[gg_k];
    LOCATE(at, OPERANDS, row, par.ndim, par.shape, par.stride)
#define AT(k) at[k]
    LOADS
    VERIFY(item)
    ST(R, out, AT(OPERANDS - 1), CV(TD, EXPR));
#undef AT
}

#else

// Beyond the end of a row the first element stands in, a value as good as any.
#define FETCH(v, D, p, k)                                                                                             \
    if (par.step[k] == 0) {                                                                                           \
        T gg_value = CV(TD, LD(D, p, at[k]));                                                                         \
        EACH v[gg_j] = gg_value;                                                                                      \
    } else if (count == VECTOR && par.step[k] == 1) {                                                                 \
        EACH v[gg_j] = CV(TD, LD(D, p, at[k] + first + gg_j));                                                        \
    } else {                                                                                                          \
        for (i32 gg_j = 0; gg_j < count; gg_j++) v[gg_j] = CV(TD, LD(D, p, at[k] + (first + gg_j) * par.step[k]));    \
        for (i32 gg_j = count; gg_j < VECTOR; gg_j++) v[gg_j] = v[0];                                                 \
    }

KERNEL void CAT(NAME, _strided)(INPUTS GLOBAL S(R) *out, Strided par CHECKED) {
    IDX item = GLOBAL_ID;
    if (item >= par.items) return;
    IDX group = item / par.pieces, start = (item - group * par.pieces) * PIECE;
    IDX end = par.pieces > 1 && start + PIECE < par.inner ? start + PIECE : par.inner;
    IDX row = group * par.rows, last = row + par.rows < par.all_rows ? row + par.rows : par.all_rows;
    IDX at[OPERANDS], place[8];
    for (i32 gg_k = 0; gg_k < OPERANDS; gg_k++) at[gg_k] = par.offset[gg_k];
    IDX gg_rest = row;
    for (i32 gg_d = (i32)par.ndim - 1; gg_d >= 0; gg_d--) {
        IDX gg_q = gg_rest / par.shape[gg_d];
        place[gg_d] = gg_rest - gg_q * par.shape[gg_d];
        for (i32 gg_k = 0; gg_k < OPERANDS; gg_k++) at[gg_k] += place[gg_d] * par.stride[gg_k][gg_d];
        gg_rest = gg_q;
    }
    for (; row < last; row++) {
#ifdef COPY
        if (par.step[0] == 1 && par.step[1] == 1)
            for (IDX j = start; j < end; j++) out[at[1] + j] = p0[at[0] + j];
        else
            for (IDX j = start; j < end; j++) out[at[1] + j * par.step[1]] = p0[at[0] + j * par.step[0]];
#else
        for (IDX first = start; first < end; first += VECTOR) {
            i32 count = end - first < VECTOR ? end - first : VECTOR;
            BUFFERS
            FETCHES
            T gg_result[VECTOR] __attribute__((aligned(VECTOR * sizeof(T))));
#ifdef FUNCTION
            *(V *)gg_result = FUNCTION(*(V *)v0);
#else
            EACH {
                PICKS
                VERIFY(row)
                gg_result[gg_j] = CV(TD, EXPR);
            }
#endif
            IDX target = at[OPERANDS - 1] + first * par.step[OPERANDS - 1];
            if (count == VECTOR && par.step[OPERANDS - 1] == 1)
                EACH ST(R, out, target + gg_j, gg_result[gg_j]);
            else
                for (i32 gg_j = 0; gg_j < count; gg_j++)
                    ST(R, out, target + gg_j * par.step[OPERANDS - 1], gg_result[gg_j]);
        }
#endif
        for (i32 gg_d = (i32)par.ndim - 1; gg_d >= 0; gg_d--) {  // on to the next row
            for (i32 gg_k = 0; gg_k < OPERANDS; gg_k++) at[gg_k] += par.stride[gg_k][gg_d];
            if (++place[gg_d] < par.shape[gg_d]) break;
            for (i32 gg_k = 0; gg_k < OPERANDS; gg_k++) at[gg_k] -= par.shape[gg_d] * par.stride[gg_k][gg_d];
            place[gg_d] = 0;
        }
    }
}

#endif
