// A step of an optimizer on one tensor: all its statements in one pass over parameter, gradient and state.
//
// Defines: NAME the symbol; POINTERS the parameters p0, p1, ... of the ARRAYS arrays, of type T, and q0, ... of numbers
// that are in memory; NUMBERS how many numbers there are; LOADS(FROM) declares the variables x0, x1, ... of an element, read from FROM(k, pk), and
// STORES(TO) writes those that change to TO(k, pk); BODY computes the statements on these variables.
// For CPU-type devices BUFFERS declares a vector's worth v0, v1, ... of each array; FETCHES and RETURNS fill the
// buffers and write back those that change; PICKS, PUTS go between them and the variables. For GPUs WIDE_LOADS(FROM) and
// WIDE_STORES(TO) do the same with 16 bytes w[0], w[1], ... of each array.
//
// All arrays lie in memory in the same order, without gaps, from offset[k] on.
//
// NAME_dense  RUN neighbouring elements per item (a vector on CPU-type devices, one on GPUs), or as MANY as are defined,
//             in a loop whose turns the compiler knows to be apart.
// NAME_wide   16 bytes of each array per item, on GPUs; all offsets are multiples of that.
typedef struct {
    IDX n, offset[ARRAYS];
} Tensors;

typedef struct {
    T n[NUMBERS];
} Numbers;

#define AT_ELEMENT(k, p) p[par.offset[k] + gg_i]

KERNEL void CAT(NAME, _dense)(POINTERS Numbers numbers, Tensors par) {
#ifdef MANY
    IDX begin = GLOBAL_ID * MANY, end = begin + MANY < par.n ? begin + MANY : par.n;
    SIMD() for (IDX gg_i = begin; gg_i < end; gg_i++) {
        LOADS(AT_ELEMENT)
        BODY
        STORES(AT_ELEMENT)
    }
#else
    IDX first = GLOBAL_ID * RUN;
#if RUN > 1
    if (first + RUN <= par.n) {  // everything is read before anything is computed, so the compiler may use vectors
        BUFFERS
#define FETCH(k, v, p) EACH v[gg_j] = p[par.offset[k] + first + gg_j];
        FETCHES
        EACH {
            PICKS
            BODY
            PUTS
        }
#define RETURN(k, v, p) EACH p[par.offset[k] + first + gg_j] = v[gg_j];
        RETURNS
        return;
    }
#endif
    for (IDX gg_i = first; gg_i < par.n && gg_i < first + RUN; gg_i++) {
        LOADS(AT_ELEMENT)
        BODY
        STORES(AT_ELEMENT)
    }
#endif
}

#ifndef GG_CPU

#ifdef T_f64
#define WIDTH 2
#else
#define WIDTH 4
#endif
typedef struct __attribute__((aligned(16))) {
    T v[WIDTH];
} Wide;

KERNEL void CAT(NAME, _wide)(POINTERS Numbers numbers, Tensors par) {
    IDX first = GLOBAL_ID * WIDTH;
    if (first + WIDTH <= par.n) {
        Wide w[ARRAYS];
#define WHOLE(k, p) *(GLOBAL Wide *)(p + par.offset[k] + first)
#define IN_WIDE(k, p) w[k].v[gg_j]
        WIDE_LOADS(WHOLE)
        for (i32 gg_j = 0; gg_j < WIDTH; gg_j++) {
            LOADS(IN_WIDE)
            BODY
            STORES(IN_WIDE)
        }
        WIDE_STORES(WHOLE)
        return;
    }
    for (IDX gg_i = first; gg_i < par.n; gg_i++) {
        LOADS(AT_ELEMENT)
        BODY
        STORES(AT_ELEMENT)
    }
}

#endif
