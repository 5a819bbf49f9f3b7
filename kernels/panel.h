// The tile of products on CPU-type devices: 6 rows by up to 4 vectors of the result stay in registers while an item
// walks down the sum. For matmul.c and convolve.c, where V is a vector of VW elements of T; included by both, empty
// without vectors.
#ifdef VW

// Rows become columns by interleaving the first half of the rows with the second, log2(VW) times over.
// The square v[VW] turned over, with w[VW] to work in.
#define TRANSPOSE(v, w)                                                                                               \
    TURN(v, w, 2)                                                                                                     \
    TURN(v, w, 4)                                                                                                     \
    TURN(v, w, 8)                                                                                                     \
    TURN(v, w, 16)
#define TURN(v, w, least)                                                                                             \
    if (VW >= least) {                                                                                                \
        UNROLL for (i32 gg_i = 0; gg_i < VW / 2; gg_i++) {                                                            \
            w[2 * gg_i] = gg_low(v[gg_i], v[gg_i + VW / 2]);                                                          \
            w[2 * gg_i + 1] = gg_high(v[gg_i], v[gg_i + VW / 2]);                                                     \
        }                                                                                                             \
        UNROLL for (i32 gg_i = 0; gg_i < VW; gg_i++) v[gg_i] = w[gg_i];                                               \
    }

// One row of the tile, SIX(...) of them: with the vectors b0 to b3 of the right operand's row, and row i of the left
// one at a<i>.
#define DECLARE_4(i) V c##i##0 = ALL(0), c##i##1 = ALL(0), c##i##2 = ALL(0), c##i##3 = ALL(0);
#define DECLARE_1(i) V c##i##0 = ALL(0);
#define STEP_4(i)                                                                                                     \
    {                                                                                                                 \
        T x_ = a##i[at];                                                                                              \
        c##i##0 = c##i##0 + x_ * b0;                                                                                  \
        c##i##1 = c##i##1 + x_ * b1;                                                                                  \
        c##i##2 = c##i##2 + x_ * b2;                                                                                  \
        c##i##3 = c##i##3 + x_ * b3;                                                                                  \
    }
#define STEP_1(i) c##i##0 = c##i##0 + a##i[at] * b0;
#define SIX(op) op(0) op(1) op(2) op(3) op(4) op(5)

#endif
