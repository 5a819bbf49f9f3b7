// Matrix products by the routines of NumPy's BLAS, in parts that are shared out among the threads of pool.c.
//
// BLAS cuts a product by how many threads it has, and sums up what lies at the edge of a share in another order: bits
// would depend on the number of threads. Here the parts follow from the shapes (`gpugrad/backends/products.py`), and
// BLAS is held to one thread, the one that calls it.

enum { ROW_MAJOR = 101, AS_IT_IS = 111, TURNED = 112, MOST_DIMS = 64 };

typedef struct {
    i64 m, n, k;
    i64 lda, ldb, ldc;    // elements from one row to the next, of the columns if turned
    i64 a_turned, b_turned;
    i64 rows, columns;    // parts of a matrix of the result
    i64 matrices, group;  // in the batch, and in a part
    i64 dims;             // of the batch
    struct { i64 size, a, b, c; } dim[MOST_DIMS];  // with strides in elements
} Plan;

static i64 cut(i64 length, i64 i, i64 parts) { return length * i / parts; }

// How far into the operands a matrix of the batch lies.
static void place(const Plan *p, i64 matrix, i64 *a, i64 *b, i64 *c) {
    *a = *b = *c = 0;
    for (i64 d = p->dims - 1; d >= 0; d--) {
        i64 i = matrix % p->dim[d].size;
        matrix /= p->dim[d].size;
        *a += i * p->dim[d].a;
        *b += i * p->dim[d].b;
        *c += i * p->dim[d].c;
    }
}

// NAME: of the function for elements of type T, where BLAS takes whole numbers of type INT.
#define PRODUCT(NAME, T, INT)                                                                                          \
    typedef struct {                                                                                                   \
        void (*gemm)(int, int, int, INT, INT, INT, T, const T *, INT, const T *, INT, T, T *, INT);                    \
        void (*gemv)(int, int, INT, INT, T, const T *, INT, const T *, INT, T, T *, INT);                              \
        const Plan *plan;                                                                                              \
        const T *a, *b;                                                                                                \
        T *c;                                                                                                          \
    } NAME##_call;                                                                                                     \
                                                                                                                       \
    static void NAME##_part(const void *call, i64 i) {                                                                 \
        const NAME##_call *q = call;                                                                                   \
        const Plan *p = q->plan;                                                                                       \
        i64 row = i / p->columns % p->rows, column = i % p->columns, group = i / (p->columns * p->rows);               \
        i64 m0 = cut(p->m, row, p->rows), m = cut(p->m, row + 1, p->rows) - m0;                                        \
        i64 n0 = cut(p->n, column, p->columns), n = cut(p->n, column + 1, p->columns) - n0;                            \
        i64 last = (group + 1) * p->group < p->matrices ? (group + 1) * p->group : p->matrices;                        \
        i64 a_row = p->a_turned ? 1 : p->lda, b_column = p->b_turned ? p->ldb : 1;                                     \
        for (i64 matrix = group * p->group; matrix < last; matrix++) {                                                 \
            i64 at, bt, ct;                                                                                            \
            place(p, matrix, &at, &bt, &ct);                                                                           \
            const T *a = q->a + at + m0 * a_row, *b = q->b + bt + n0 * b_column;                                       \
            T *c = q->c + ct + m0 * p->ldc + n0;                                                                       \
            if (p->n == 1)                                                                                             \
                q->gemv(ROW_MAJOR, p->a_turned ? TURNED : AS_IT_IS, p->a_turned ? p->k : m, p->a_turned ? m : p->k, 1, \
                        a, p->lda, b, p->b_turned ? 1 : p->ldb, 0, c, p->ldc);                                         \
            else if (p->m == 1)                                                                                        \
                q->gemv(ROW_MAJOR, p->b_turned ? AS_IT_IS : TURNED, p->b_turned ? n : p->k, p->b_turned ? p->k : n, 1, \
                        b, p->ldb, a, p->a_turned ? p->lda : 1, 0, c, 1);                                              \
            else                                                                                                       \
                q->gemm(ROW_MAJOR, p->a_turned ? TURNED : AS_IT_IS, p->b_turned ? TURNED : AS_IT_IS, m, n, p->k, 1, a, \
                        p->lda, b, p->ldb, 0, c, p->ldc);                                                              \
        }                                                                                                              \
    }                                                                                                                  \
                                                                                                                       \
    API void NAME(const Plan *p, void (*const *blas)(void), const T *a, const T *b, T *c) {                            \
        NAME##_call q = {(void *)blas[0], (void *)blas[1], p, a, b, c};                                                \
        gg_share(NAME##_part, &q, p->rows * p->columns * ((p->matrices + p->group - 1) / p->group));                   \
    }

PRODUCT(gg_product_f32_i32, float, int32_t)
PRODUCT(gg_product_f64_i32, double, int32_t)
PRODUCT(gg_product_f32_i64, float, i64)
PRODUCT(gg_product_f64_i64, double, i64)
