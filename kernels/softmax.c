// softmax and log_softmax along one axis, in one launch.
//
// Defines: NAME the symbol; X the dtype; T computes; LOGARITHM for log_softmax.
// The other dimensions are `m` lanes. All passes of a lane start from its largest element, so nothing overflows.
//
// NAME_lane   one item per lane, LANES elements at a time where they are neighbours.
// NAME_group  GROUP items per lane, for long lanes on GPUs.
typedef struct {
    IDX m, n, x_step, out_step, x_offset;
    IDX ndim, shape[8], stride[2][8];
} Softmax;

#define READ(i) CV(TD, LD(X, x, at[0] + (i) * par.x_step))
#ifdef LOGARITHM
#define FINISH(total) total = log(total);
#define VALUE(v) ((v) - best - total)
#else
#define FINISH(total)
#define VALUE(v) (exp((v) - best) / total)
#endif

KERNEL void CAT(NAME, _lane)(GLOBAL const S(X) *x, GLOBAL S(X) *out, Softmax par) {
    IDX item = GLOBAL_ID;
    if (item >= par.m) return;
    IDX at[2] = {par.x_offset, 0};
    LOCATE(at, 2, item, par.ndim, par.shape, par.stride)
    IDX whole = par.x_step == 1 && par.out_step == 1 ? par.n / LANES * LANES : 0;
    T best = -GG_INF, total = 0, lane[LANES];
    for (i32 l = 0; l < LANES; l++) lane[l] = -GG_INF;
    for (IDX j = 0; j < whole; j += LANES)
        for (i32 l = 0; l < LANES; l++) lane[l] = GG_MAX(lane[l], CV(TD, LD(X, x, at[0] + j + l)));
    for (i32 l = 0; l < LANES; l++) best = GG_MAX(best, lane[l]);
    for (IDX j = whole; j < par.n; j++) best = GG_MAX(best, READ(j));
    for (i32 l = 0; l < LANES; l++) lane[l] = 0;
    for (IDX j = 0; j < whole; j += LANES)
        for (i32 l = 0; l < LANES; l++) lane[l] += exp(CV(TD, LD(X, x, at[0] + j + l)) - best);
    for (i32 l = 0; l < LANES; l++) total += lane[l];
    for (IDX j = whole; j < par.n; j++) total += exp(READ(j) - best);
    FINISH(total)
    for (IDX j = 0; j < whole; j += LANES)
        for (i32 l = 0; l < LANES; l++) {
            T value = CV(TD, LD(X, x, at[0] + j + l));
            ST(X, out, at[1] + j + l, VALUE(value));
        }
    for (IDX j = whole; j < par.n; j++) {
        T value = READ(j);
        ST(X, out, at[1] + j * par.out_step, VALUE(value));
    }
}

#ifndef GG_CPU

KERNEL void CAT(NAME, _group)(GLOBAL const S(X) *x, GLOBAL S(X) *out, Softmax par) {
    LOCAL T partial[GROUP];
    i32 lane = LOCAL_ID;
    IDX item = GROUP_ID, at[2] = {par.x_offset, 0};
    LOCATE(at, 2, item, par.ndim, par.shape, par.stride)
    T best = -GG_INF, total = 0;
    for (IDX j = lane; j < par.n; j += GROUP) best = GG_MAX(best, READ(j));
    partial[lane] = best;
    BARRIER;
    for (i32 half_ = GROUP / 2; half_ > 0; half_ /= 2) {
        if (lane < half_) partial[lane] = GG_MAX(partial[lane], partial[lane + half_]);
        BARRIER;
    }
    best = partial[0];
    BARRIER;
    for (IDX j = lane; j < par.n; j += GROUP) total += exp(READ(j) - best);
    partial[lane] = total;
    BARRIER;
    for (i32 half_ = GROUP / 2; half_ > 0; half_ /= 2) {
        if (lane < half_) partial[lane] += partial[lane + half_];
        BARRIER;
    }
    total = partial[0];
    FINISH(total)
    for (IDX j = lane; j < par.n; j += GROUP) {
        T value = READ(j);
        ST(X, out, at[1] + j * par.out_step, VALUE(value));
    }
}

#endif
