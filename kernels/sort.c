// Stable merge sort of contiguous rows, values together with their positions.
//
// Defines: NAME the symbol; X the dtype; T compares; BEFORE(a, b), strict, NaN after every number (or before, when
// descending); BLOCK.
//
// NAME_block  one item sorts BLOCK neighbouring elements by insertion and numbers them.
// NAME_merge  one item writes `run` outputs of the merge of two sorted pieces of `width`; a binary search along the
//             diagonal of the merge finds where its inputs begin (Odeh, Green, Mwassi, Shmueli, Birk, "Merge Path",
//             IPDPSW 2012).
typedef struct {
    IDX items, rows, n, width, run, offset;  // offset: of x in NAME_block
} Sort;

#define READ(p, i) CV(TD, LD(X, p, i))

KERNEL void CAT(NAME, _block)(GLOBAL const S(X) *x, GLOBAL S(X) *values, GLOBAL i64 *positions, Sort par) {
    IDX item = GLOBAL_ID;
    if (item >= par.items) return;
    IDX blocks = par.items / par.rows, row = item / blocks;
    IDX first = (item - row * blocks) * BLOCK;
    IDX count = par.n - first < BLOCK ? par.n - first : BLOCK;
    IDX base = row * par.n + first;
    T value[BLOCK];
    i32 position[BLOCK];
    for (i32 i = 0; i < count; i++) {
        T v = READ(x, par.offset + base + i);
        i32 j = i;
        for (; j > 0 && BEFORE(v, value[j - 1]); j--) {
            value[j] = value[j - 1];
            position[j] = position[j - 1];
        }
        value[j] = v;
        position[j] = i;
    }
    for (i32 i = 0; i < count; i++) {
        ST(X, values, base + i, value[i]);
        positions[base + i] = first + position[i];
    }
}

KERNEL void CAT(NAME, _merge)(GLOBAL const S(X) *x, GLOBAL const i64 *x_positions, GLOBAL S(X) *values,
                              GLOBAL i64 *positions, Sort par) {
    IDX item = GLOBAL_ID;
    if (item >= par.items) return;
    IDX runs = par.items / par.rows, row = item / runs;
    IDX first = (item - row * runs) * par.run;
    IDX end = first + par.run < par.n ? first + par.run : par.n;
    IDX start = first / (2 * par.width) * (2 * par.width);
    IDX left = par.n - start < par.width ? par.n - start : par.width;
    IDX right = par.n - start - left < par.width ? par.n - start - left : par.width;
    IDX base = row * par.n, a = base + start, b = a + left, diagonal = first - start;
    IDX low = diagonal > right ? diagonal - right : 0, high = diagonal < left ? diagonal : left;
    while (low < high) {
        IDX middle = (low + high) / 2;
        if (BEFORE(READ(x, b + diagonal - 1 - middle), READ(x, a + middle)))
            high = middle;
        else
            low = middle + 1;
    }
    IDX i = low, j = diagonal - low;
    for (IDX o = first; o < end; o++) {
        IDX from = a + i;
        if (j < right && (i >= left || BEFORE(READ(x, b + j), READ(x, a + i))))
            from = b + j++;
        else
            i++;
        ST(X, values, base + o, READ(x, from));
        positions[base + o] = x_positions[from];
    }
}
