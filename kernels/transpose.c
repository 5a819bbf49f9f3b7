// A copy between arrays whose neighbouring elements lie along different dimensions, by tiles, so that both are read and
// written by whole cache lines. Bits are moved, whatever they mean.
//
// Defines: NAME the symbol; U the type moved.
// Element (i, j) of a tile lies at x[.. + i + j * x_step] and out[.. + i * out_step + j]; the other dimensions are
// `ndim`. A tile is SIDE by SIDE elements: on CPU-type devices 4 by 4 blocks of 16 by 16, which one item moves, on GPUs
// what a group moves through its local memory. (4096 x 4096 floats on two cores: 14 times a plain copy's time
// element by element, 5 times so.)
typedef struct {
    IDX items, i_tiles, j_tiles, ni, nj, x_step, out_step, offset[2];
    IDX ndim, shape[8], stride[2][8];
} Transpose;

#ifdef GG_CPU
#define SIDE 64
#else
#define SIDE 32
#endif

#define TILE_AT(number)                                                                                               \
    IDX rest = (number) / par.j_tiles, j0 = ((number) - rest * par.j_tiles) * SIDE;                                   \
    IDX index = rest / par.i_tiles, i0 = (rest - index * par.i_tiles) * SIDE;                                         \
    IDX at[2] = {par.offset[0], par.offset[1]};                                                                       \
    LOCATE(at, 2, index, par.ndim, par.shape, par.stride)

#ifdef GG_CPU

KERNEL void CAT(NAME, _tiles)(GLOBAL const S(U) *x, GLOBAL S(U) *out, Transpose par) {
    IDX item = GLOBAL_ID;
    if (item >= par.items) return;
    TILE_AT(item)
    IDX i_end = i0 + SIDE < par.ni ? i0 + SIDE : par.ni, j_end = j0 + SIDE < par.nj ? j0 + SIDE : par.nj;
    for (IDX i = i0; i < i_end; i += 16)
        for (IDX j = j0; j < j_end; j += 16) {
            GLOBAL const S(U) *from = x + at[0] + i + j * par.x_step;
            GLOBAL S(U) *to = out + at[1] + i * par.out_step + j;
            if (i + 16 <= i_end && j + 16 <= j_end) {
                S(U) block[16][16];
                for (i32 b = 0; b < 16; b++)
                    for (i32 a = 0; a < 16; a++) block[b][a] = from[b * par.x_step + a];
                for (i32 a = 0; a < 16; a++)
                    for (i32 b = 0; b < 16; b++) to[a * par.out_step + b] = block[b][a];
            } else {
                for (IDX a = 0; a < 16 && i + a < i_end; a++)
                    for (IDX b = 0; b < 16 && j + b < j_end; b++) to[a * par.out_step + b] = from[a + b * par.x_step];
            }
        }
}

#else

KERNEL void CAT(NAME, _tiles)(GLOBAL const S(U) *x, GLOBAL S(U) *out, Transpose par) {
    LOCAL S(U) tile[SIDE][SIDE + 1];  // one more, so that a column lies in different banks
    i32 a = LOCAL_ID % SIDE, first = LOCAL_ID / SIDE, step = GROUP / SIDE;
    TILE_AT(GROUP_ID)
    for (i32 b = first; b < SIDE; b += step)
        if (i0 + a < par.ni && j0 + b < par.nj) tile[b][a] = x[at[0] + i0 + a + (j0 + b) * par.x_step];
    BARRIER;
    for (i32 b = first; b < SIDE; b += step)
        if (i0 + b < par.ni && j0 + a < par.nj) out[at[1] + (i0 + b) * par.out_step + j0 + a] = tile[a][b];
}

#endif
