// Elementwise: map over broadcast operands, cast, strided copy, fill.
//
// Defines: NAME the symbol; EXPR the result, of the inputs a, b, c, ... of type T; INPUTS the parameters of the
// inputs, each a pointer p0, p1, ... or a scalar; LOADS declares the inputs from them, element AT(k) of operand k;
// R the dtype of the result; OPERANDS how many arrays, the result being the last; RUN how many elements an item
// does along the innermost dimension; CHECK (optional) a predicate that is true where an element is an error: it
// is reported and EXPR not computed, as that may stop a CPU.
//
// NAME_dense    all operands lie in memory in the same order, without gaps: one item per RUN elements.
// NAME_strided  any layouts: one item per piece of at most RUN elements of a row.
typedef struct {
    IDX n, offset[OPERANDS];
} Dense;

typedef struct {
    IDX items, pieces, inner, ndim, shape[8];
    IDX offset[OPERANDS], step[OPERANDS], stride[OPERANDS][8];
} Strided;

#ifdef CHECK
#define CHECKED , GLOBAL i64 *flags, i32 check_id
#define VERIFY(where) if (CHECK) gg_report(flags, check_id, (i64)(where)); else
#else
#define CHECKED
#define VERIFY(where)
#endif

KERNEL void CAT(NAME, _dense)(INPUTS GLOBAL S(R) *out, Dense par CHECKED) {
    IDX first = GLOBAL_ID * RUN;
#if RUN > 1
    if (first + RUN <= par.n) {
        for (i32 gg_j = 0; gg_j < RUN; gg_j++) {
#define AT(k) par.offset[k] + first + gg_j
            LOADS
            VERIFY(first + gg_j)
            ST(R, out, AT(OPERANDS - 1), EXPR);
        }
        return;
    }
#undef AT
#endif
    for (IDX gg_i = first; gg_i < par.n && gg_i < first + RUN; gg_i++) {
#define AT(k) par.offset[k] + gg_i
        LOADS
        VERIFY(gg_i)
        ST(R, out, AT(OPERANDS - 1), EXPR);
    }
#undef AT
}

KERNEL void CAT(NAME, _strided)(INPUTS GLOBAL S(R) *out, Strided par CHECKED) {
    IDX item = GLOBAL_ID;
    if (item >= par.items) return;
    IDX row = item / par.pieces;
    IDX first = (item - row * par.pieces) * RUN;
    IDX count = par.inner - first < RUN ? par.inner - first : RUN;
    IDX at[OPERANDS];
    for (i32 gg_k = 0; gg_k < OPERANDS; gg_k++) at[gg_k] = par.offset[gg_k] + first * par.step[gg_k];
    LOCATE(at, OPERANDS, row, par.ndim, par.shape, par.stride)
    for (IDX gg_j = 0; gg_j < count; gg_j++) {
#define AT(k) at[k] + gg_j * par.step[k]
        LOADS
        VERIFY(item)
        ST(R, out, AT(OPERANDS - 1), EXPR);
    }
#undef AT
}
