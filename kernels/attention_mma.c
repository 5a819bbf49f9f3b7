// Attention of half types on the tensor cores of CUDA devices from sm_80 on: the same results as attention.c, with the
// products of 16 by 16 and 16 by 8 halves that `mma.sync.m16n8k16` does, accumulated in f32. Beside its plain twin, for
// widths 32, 64 and 128, equal for queries and values, without dropout.
//
// Defines: those of attention.c without DROPOUT, E and W equal; BQ is 64, four warps of 16 rows; BK how many rows the
// other side of a tile has; BITS_BF16 where X is bf16.
//
// A lane of a warp has, with g = lane / 4 and t = lane % 4 (PTX ISA, "Matrix fragments for mma.m16n8k16"),
//   of a left operand [16, 16]   pairs at (g, 2t), (g + 8, 2t), (g, 2t + 8), (g + 8, 2t + 8)
//   of a right operand [16, 8]   pairs going down at (2t, g), (2t + 8, g)
//   of a result [16, 8]          (g, 2t), (g, 2t + 1), (g + 8, 2t), (g + 8, 2t + 1)
// so a result of 16 by 16, rounded to halves in pairs, is a left operand as it lies.
//
// What a warp does together are MMA, TURNED_PAIRS and SHUFFLE. tests/test_attention_mma.py compiles this text for the
// host with those three in software.
#define WARPS 4
#define STEPS (E / 16)   // of a product over the width
#define ACROSS (E / 8)   // results over the width
#define TILES (BK / 8)   // results over a tile
#define PITCH (E + 8)    // of a row in shared memory: rows four banks apart

typedef struct __attribute__((aligned(16))) {
    u32 held[4];
} Wide;

#ifndef MMA
#define ALIGNED __align__(16)
// d += a @ b
#ifdef BITS_BF16
#define MMA_TYPES "bf16.bf16"
#else
#define MMA_TYPES "f16.f16"
#endif
#define MMA(d, a, b)                                                                                                  \
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32." MMA_TYPES ".f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "    \
                 "{%0,%1,%2,%3};"                                                                                     \
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])                                                     \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]))
// A right operand [16, 8] of which row r lies at `row` of lane r: lanes 0 to 15 say where.
#define TURNED_PAIRS(b, row)                                                                                          \
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0,%1}, [%2];"                                      \
                 : "=r"(b[0]), "=r"(b[1])                                                                             \
                 : "r"((u32)__cvta_generic_to_shared(row))                                                            \
                 : "memory")
#endif

// Two numbers as halves, the first in the lower bits.
#ifdef BITS_BF16
#define HALF_BITS(v) gg_bf16_bits(v)
#else
#define HALF_BITS(v) gg_f16_bits(v)
#endif
#define PAIR(x, y) ((u32)HALF_BITS(x) | (u32)HALF_BITS(y) << 16)

#define WARP                                                                                                          \
    i32 warp = LOCAL_ID / 32, lane = LOCAL_ID % 32, g_ = lane / 4, t_ = lane % 4;

// The strip of 16 rows from `first` on as left operands; zeros beyond `rows`. Elements of a row lie side by side, and
// rows begin at multiples of 16 bytes.
#define STRIP(to, p, at, row_step, first, rows)                                                                       \
    for (i32 kk = 0; kk < STEPS; kk++)                                                                                \
        for (i32 n = 0; n < 4; n++) {                                                                                 \
            IDX gg_r = (first) + g_ + n % 2 * 8;                                                                      \
            GLOBAL const S(X) *gg_p = (p) + (at) + gg_r * (row_step) + kk * 16 + n / 2 * 8 + 2 * t_;                  \
            to[kk][n] = gg_r < (rows) ? *(GLOBAL const u32 *)gg_p : 0u;                                               \
        }
// BK rows from `first` on into shared memory; zeros beyond `rows`.
#define TILE_OF(to, p, at, row_step, first, rows)                                                                     \
    for (i32 gg_i = LOCAL_ID; gg_i < BK * (E / 8); gg_i += WARPS * 32) {                                              \
        i32 gg_r = gg_i / (E / 8), gg_c = gg_i % (E / 8) * 8;                                                         \
        Wide gg_w = {{0, 0, 0, 0}};                                                                                   \
        if ((first) + gg_r < (rows))                                                                                  \
            gg_w = *(GLOBAL const Wide *)((p) + (at) + ((first) + gg_r) * (row_step) + gg_c);                         \
        *(Wide *)(to + gg_r * PITCH + gg_c) = gg_w;                                                                   \
    }
#define CLEARED(d, count)                                                                                             \
    for (i32 n = 0; n < count; n++)                                                                                   \
        for (i32 e = 0; e < 4; e++) d[n][e] = 0.0f;
// d [16, BK] = strip [16, E] @ tile [BK, E] turned: of the tile's rows pairs along the width are what is wanted.
#define STRIP_BY_ROWS(d, strip, tile)                                                                                 \
    for (i32 n = 0; n < TILES; n++) {                                                                                 \
        for (i32 e = 0; e < 4; e++) d[n][e] = 0.0f;                                                                   \
        for (i32 kk = 0; kk < STEPS; kk++) {                                                                          \
            const u16 *gg_p = tile + (n * 8 + g_) * PITCH + kk * 16 + 2 * t_;                                         \
            u32 b_[2] = {*(const u32 *)gg_p, *(const u32 *)(gg_p + 8)};                                               \
            MMA(d[n], strip[kk], b_);                                                                                 \
        }                                                                                                             \
    }
// d [16, E] += weights [16, BK] @ tile [BK, E]
#define GROW(d, weights, tile)                                                                                        \
    for (i32 kk = 0; kk < BK / 16; kk++) {                                                                            \
        u32 a_[4] = {PAIR(weights[2 * kk][0], weights[2 * kk][1]), PAIR(weights[2 * kk][2], weights[2 * kk][3]),      \
                     PAIR(weights[2 * kk + 1][0], weights[2 * kk + 1][1]),                                            \
                     PAIR(weights[2 * kk + 1][2], weights[2 * kk + 1][3])};                                           \
        for (i32 n = 0; n < ACROSS; n++) {                                                                            \
            u32 b_[2];                                                                                                \
            TURNED_PAIRS(b_, tile + (kk * 16 + lane % 16) * PITCH + n * 8);                                           \
            MMA(d[n], a_, b_);                                                                                        \
        }                                                                                                             \
    }
// Rows first + g, first + g + 8 of a result.
#define LEAVE(d, p, at, row_step, first, rows, times)                                                                 \
    for (i32 n = 0; n < ACROSS; n++)                                                                                  \
        for (i32 e = 0; e < 4; e++) {                                                                                 \
            IDX gg_r = (first) + g_ + e / 2 * 8;                                                                      \
            if (gg_r < (rows)) ST(X, p, (at) + gg_r * (row_step) + n * 8 + 2 * t_ + e % 2, d[n][e] * (times));        \
        }

#ifdef MASK
#define HIDDEN IDX hidden = START(mask, b, h);
#else
#define HIDDEN
#endif
// The score of query i for key j out of their product.
#define SCORE(score, i, j)                                                                                            \
    score *= scale;                                                                                                   \
    if ((i) >= par.l || (j) >= par.s || (par.causal && (j) > (i))) {                                                  \
        score = -GG_INF;                                                                                              \
    } else {                                                                                                          \
        MASKED(score, hidden + (i) * par.mask[3] + (j) * par.mask[4])                                                 \
    }

KERNEL void CAT(NAME, _forward)(GLOBAL const S(X) *q, GLOBAL const S(X) *k, GLOBAL const S(X) *v,
                                GLOBAL const S_MASK *mask, GLOBAL S(X) *out, GLOBAL T *logs, T scale,
                                RANDOM_ARGUMENTS, Attention par) {
    LOCAL ALIGNED u16 keys[BK * PITCH];
    LOCAL ALIGNED u16 values[BK * PITCH];
    WARP
    IDX head = GROUP_ID / par.tiles, base = (GROUP_ID - head * par.tiles) * BQ, first = base + warp * 16;
    IDX b = head / par.heads, h = head - b * par.heads, end = base + BQ < par.l ? base + BQ : par.l;
    end = par.causal && end < par.s ? end : par.s;
    HIDDEN
    u32 queries[STEPS][4];
    f32 scores[TILES][4], result[ACROSS][4], tops[2] = {-GG_INF, -GG_INF}, totals[2] = {0.0f, 0.0f};
    STRIP(queries, q, START(q, b, h), par.q[3], first, par.l)
    CLEARED(result, ACROSS)
    for (IDX j0 = 0; j0 < end; j0 += BK) {
        BARRIER;
        TILE_OF(keys, k, START(k, b, h / par.share), par.k[3], j0, par.s)
        TILE_OF(values, v, START(v, b, h / par.share), par.v[3], j0, par.s)
        BARRIER;
        STRIP_BY_ROWS(scores, queries, keys)
        f32 best[2] = {-GG_INF, -GG_INF};
        for (i32 n = 0; n < TILES; n++)
            for (i32 e = 0; e < 4; e++) {
                SCORE(scores[n][e], first + g_ + e / 2 * 8, j0 + n * 8 + 2 * t_ + e % 2)
                best[e / 2] = best[e / 2] > scores[n][e] ? best[e / 2] : scores[n][e];
            }
        for (i32 r = 0; r < 2; r++) {
            for (i32 bit = 1; bit < 4; bit *= 2) {  // the four lanes of a row
                f32 other = SHUFFLE(best[r], bit);
                best[r] = best[r] > other ? best[r] : other;
            }
            f32 top = best[r] > tops[r] ? best[r] : tops[r], level = top == -GG_INF ? 0.0f : top;
            f32 shrink = exp(tops[r] - level);
            tops[r] = top;
            totals[r] *= shrink;
            for (i32 n = 0; n < ACROSS; n++)
                for (i32 e = 2 * r; e < 2 * r + 2; e++) result[n][e] *= shrink;
            for (i32 n = 0; n < TILES; n++)
                for (i32 e = 2 * r; e < 2 * r + 2; e++) {
                    scores[n][e] = exp(scores[n][e] - level);
                    totals[r] += scores[n][e];
                }
        }
        GROW(result, scores, values)
    }
    for (i32 r = 0; r < 2; r++) {
        f32 total = totals[r], top = tops[r];
        for (i32 bit = 1; bit < 4; bit *= 2) total += SHUFFLE(total, bit);
        FINISH(total, top, log_)
        IDX i = first + g_ + r * 8;
        if (t_ == 0 && i < par.l) logs[head * par.l + i] = log_;
        for (i32 n = 0; n < ACROSS; n++)
            for (i32 e = 2 * r; e < 2 * r + 2; e++) result[n][e] /= total;
    }
    LEAVE(result, out, START(out, b, h), par.out[3], first, par.l, 1.0f)
}

#define BACKWARD_ARGUMENTS                                                                                            \
    GLOBAL const S(X) *q, GLOBAL const S(X) *k, GLOBAL const S(X) *v, GLOBAL const S_MASK *mask, GLOBAL const S(X) *g, \
        GLOBAL const T *logs, GLOBAL const T *delta

// Of one element: the weight in place of the product of query and key, the slope of its score in place of that of its
// weight.
#define SLOPE(score, slope, i, j)                                                                                     \
    {                                                                                                                 \
        IDX gg_at = (i) < par.l ? (i) : par.l - 1;                                                                    \
        SCORE(score, i, j)                                                                                            \
        score = exp(score - logs[head * par.l + gg_at]);                                                              \
        slope = score * (slope - delta[head * par.l + gg_at]);                                                        \
    }

KERNEL void CAT(NAME, _queries)(BACKWARD_ARGUMENTS, GLOBAL S(X) *dq, T scale, RANDOM_ARGUMENTS, Attention par) {
    LOCAL ALIGNED u16 keys[BK * PITCH];
    LOCAL ALIGNED u16 values[BK * PITCH];
    WARP
    IDX head = GROUP_ID / par.tiles, base = (GROUP_ID - head * par.tiles) * BQ, first = base + warp * 16;
    IDX b = head / par.heads, h = head - b * par.heads, end = base + BQ < par.l ? base + BQ : par.l;
    end = par.causal && end < par.s ? end : par.s;
    HIDDEN
    u32 queries[STEPS][4], gradients[STEPS][4];
    f32 scores[TILES][4], slopes[TILES][4], result[ACROSS][4];
    STRIP(queries, q, START(q, b, h), par.q[3], first, par.l)
    STRIP(gradients, g, START(g, b, h), par.g[3], first, par.l)
    CLEARED(result, ACROSS)
    for (IDX j0 = 0; j0 < end; j0 += BK) {
        BARRIER;
        TILE_OF(keys, k, START(k, b, h / par.share), par.k[3], j0, par.s)
        TILE_OF(values, v, START(v, b, h / par.share), par.v[3], j0, par.s)
        BARRIER;
        STRIP_BY_ROWS(scores, queries, keys)
        STRIP_BY_ROWS(slopes, gradients, values)
        for (i32 n = 0; n < TILES; n++)
            for (i32 e = 0; e < 4; e++)
                SLOPE(scores[n][e], slopes[n][e], first + g_ + e / 2 * 8, j0 + n * 8 + 2 * t_ + e % 2)
        GROW(result, slopes, keys)
    }
    LEAVE(result, dq, START(dq, b, h), par.dq[3], first, par.l, scale)
}

// Here keys are the strip and queries the tile: everything is turned over.
KERNEL void CAT(NAME, _keys)(BACKWARD_ARGUMENTS, GLOBAL S(X) *dk, GLOBAL S(X) *dv, T scale, RANDOM_ARGUMENTS,
                             Attention par) {
    LOCAL ALIGNED u16 queries[BK * PITCH];
    LOCAL ALIGNED u16 gradients[BK * PITCH];
    WARP
    IDX which = GROUP_ID / par.tiles, base = (GROUP_ID - which * par.tiles) * BQ, first = base + warp * 16;
    IDX groups = par.heads / par.share, b = which / groups, group = which - b * groups;
    u32 keys[STEPS][4], values[STEPS][4];
    f32 scores[TILES][4], slopes[TILES][4], key_slopes[ACROSS][4], value_slopes[ACROSS][4];
    STRIP(keys, k, START(k, b, group), par.k[3], first, par.s)
    STRIP(values, v, START(v, b, group), par.v[3], first, par.s)
    CLEARED(key_slopes, ACROSS)
    CLEARED(value_slopes, ACROSS)
    for (IDX h = group * par.share; h < (group + 1) * par.share; h++) {
        IDX head = b * par.heads + h;
        HIDDEN
        for (IDX i0 = par.causal ? base / BK * BK : 0; i0 < par.l; i0 += BK) {
            BARRIER;
            TILE_OF(queries, q, START(q, b, h), par.q[3], i0, par.l)
            TILE_OF(gradients, g, START(g, b, h), par.g[3], i0, par.l)
            BARRIER;
            STRIP_BY_ROWS(scores, keys, queries)
            STRIP_BY_ROWS(slopes, values, gradients)
            for (i32 n = 0; n < TILES; n++)
                for (i32 e = 0; e < 4; e++)
                    SLOPE(scores[n][e], slopes[n][e], i0 + n * 8 + 2 * t_ + e % 2, first + g_ + e / 2 * 8)
            GROW(value_slopes, scores, gradients)
            GROW(key_slopes, slopes, queries)
        }
    }
    LEAVE(key_slopes, dk, START(dk, b, group), par.dk[3], first, par.s, scale)
    LEAVE(value_slopes, dv, START(dv, b, group), par.dv[3], first, par.s, 1.0f)
}
