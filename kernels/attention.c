// Attention without the matrix of weights: softmax(q @ k.T * scale + mask) @ v, tile by tile, and its gradients
// (Dao et al., "FlashAttention", 2022; Dao, "FlashAttention-2", 2023). The forward pass keeps a running maximum and sum
// of each row of scores and stores the logarithm of the sum of their exp; the backward pass computes the weights anew
// from it.
//
// Defines: NAME the symbol; X the dtype, T computes; E, W the widths of queries and values; MASK the dtype of the mask,
// if there is one (BOOLEAN where it is bool); DROPOUT if weights are taken away. BQ, BK how many queries and keys a
// group of a GPU has in local memory, SIDE by SIDE its items. VW the width of a vector V on CPU-type devices: below.
//
// NAME_forward  the result and the logarithms
// NAME_delta    of each row the dot product of result and gradient, which is the mean slope of its weights
// NAME_both     all gradients (CPU-type devices)
// NAME_queries  the gradient of queries, NAME_keys those of keys and values (GPUs): two kernels, so that no result is
//               written by two groups

// Of the weight of query i for key j among all.
#define NUMBER(i, j) (((u64)head * (u64)par.l + (u64)(i)) * (u64)par.s + (u64)(j))
#define LOAD(p, i) CV(TD, LD(X, p, i))
#if defined(GG_CPU) && defined(T_f32)
#define EXP(v) gg_exp_f32(v)
#else
#define EXP(v) exp(v)
#endif

KERNEL void CAT(NAME, _delta)(GLOBAL const S(X) *g, GLOBAL const S(X) *out, GLOBAL T *delta, Attention par) {
    IDX row = GLOBAL_ID;
    if (row >= par.items) return;
    IDX head = row / par.l, i = row - head * par.l, b = head / par.heads, h = head - b * par.heads;
    IDX x = START(g, b, h) + i * par.g[3], y = START(out, b, h) + i * par.out[3];
    T sum = 0;
    for (i32 c = 0; c < W; c++) sum += LOAD(g, x + c * par.g[4]) * LOAD(out, y + c * par.out[4]);
    delta[row] = sum;
}

#ifdef VW
// On CPU-type devices an item takes QUERIES queries of a head, or, in the backward pass, a chunk of keys with all the
// heads that share them. Keys and values lie beside each other in private memory, turned where a product wants it, and
// products keep 6 rows by up to 4 vectors in registers, as those of matmul.c. Rows are worked on ROWS at a time.
#define QUERIES 256
#define ROWS 64
#define KEYS 64
#define PADDED(n) (((n) + VW - 1) / VW * VW)
#define EP PADDED(E)
#define WP PADDED(W)

#define DECLARE_2(i) V c##i##0 = ALL(0), c##i##1 = ALL(0);
#define STEP_2(i)                                                                                                     \
    {                                                                                                                 \
        T x_ = a##i[at];                                                                                              \
        c##i##0 = c##i##0 + x_ * b0;                                                                                  \
        c##i##1 = c##i##1 + x_ * b1;                                                                                  \
    }
#define OF(i, j) (*(Loose *)(gg_c + r##i * gg_cm + gg_n + j * VW))
#define TAKE_1(i) c##i##0 = c##i##0 + OF(i, 0);
#define TAKE_2(i) TAKE_1(i) c##i##1 = c##i##1 + OF(i, 1);
#define TAKE_4(i) TAKE_2(i) c##i##2 = c##i##2 + OF(i, 2); c##i##3 = c##i##3 + OF(i, 3);
#define PUT_1(i) OF(i, 0) = c##i##0;
#define PUT_2(i) PUT_1(i) OF(i, 1) = c##i##1;
#define PUT_4(i) PUT_2(i) OF(i, 2) = c##i##2; OF(i, 3) = c##i##3;
#define NEXT(j) V b##j = *(const Loose *)(gg_b + gg_n + down + j * VW);
#define NEXT_1 NEXT(0)
#define NEXT_2 NEXT_1 NEXT(1)
#define NEXT_4 NEXT_2 NEXT(2) NEXT(3)
// Rows beyond the last repeat it: the same values are stored once more.
#define LEFT(i)                                                                                                       \
    i32 r##i = gg_r + i < gg_last ? gg_r + i : gg_last;                                                               \
    const T *a##i = gg_a + r##i * gg_am;
#define COLUMNS_OF(n, columns, depth, a_k, b_k, more)                                                                 \
    for (; gg_n + n * VW <= (columns); gg_n += n * VW) {                                                              \
        SIX(DECLARE_##n)                                                                                              \
        i32 at = 0, down = 0;                                                                                         \
        for (i32 gg_k = 0; gg_k < (depth); gg_k++) {                                                                  \
            NEXT_##n SIX(STEP_##n)                                                                                    \
            at += (a_k);                                                                                              \
            down += (b_k);                                                                                            \
        }                                                                                                             \
        if (more) {                                                                                                   \
            SIX(TAKE_##n)                                                                                             \
        }                                                                                                             \
        SIX(PUT_##n)                                                                                                  \
    }
// c [rows, columns] = a [rows, depth] @ b [depth, columns], added to it with `more`; columns are whole vectors.
#define PRODUCT(rows, columns, depth, a, a_m, a_k, b, b_k, c, c_m, more)                                              \
    {                                                                                                                 \
        const T *gg_a = (a), *gg_b = (b);                                                                             \
        T *gg_c = (c);                                                                                                \
        i32 gg_am = (a_m), gg_cm = (c_m), gg_last = (rows) - 1;                                                       \
        for (i32 gg_r = 0; gg_r <= gg_last; gg_r += 6) {                                                              \
            SIX(LEFT)                                                                                                 \
            i32 gg_n = 0;                                                                                             \
            COLUMNS_OF(4, columns, depth, a_k, b_k, more)                                                             \
            COLUMNS_OF(2, columns, depth, a_k, b_k, more)                                                             \
            COLUMNS_OF(1, columns, depth, a_k, b_k, more)                                                             \
        }                                                                                                             \
    }

// Rows of `width` as such of `padded`, times `times`; zeros beyond `count` rows and beyond the width.
#define TAKE_ROWS(to, width, padded, rows, p, from, row_step, step, count, times)                                     \
    for (i32 gg_r = 0; gg_r < (rows); gg_r++) {                                                                       \
        T *gg_t = (to) + gg_r * (padded);                                                                             \
        IDX gg_f = (from) + gg_r * (row_step);                                                                        \
        i32 gg_w = gg_r < (count) ? (width) : 0;                                                                      \
        if ((step) == 1) {                                                                                            \
            for (i32 gg_i = 0; gg_i < gg_w; gg_i++) gg_t[gg_i] = LOAD(p, gg_f + gg_i) * (times);                      \
        } else {                                                                                                      \
            for (i32 gg_i = 0; gg_i < gg_w; gg_i++) gg_t[gg_i] = LOAD(p, gg_f + gg_i * (step)) * (times);             \
        }                                                                                                             \
        for (i32 gg_i = gg_w; gg_i < (padded); gg_i++) gg_t[gg_i] = 0;                                                \
    }
// [KEYS, padded] turned over: [padded, KEYS].
#define TURNED(to, from, padded)                                                                                      \
    for (i32 gg_r = 0; gg_r < KEYS; gg_r += VW)                                                                       \
        for (i32 gg_q = 0; gg_q < (padded); gg_q += VW) {                                                             \
            V gg_v[VW], gg_w[VW];                                                                                     \
            UNROLL for (i32 gg_l = 0; gg_l < VW; gg_l++)                                                              \
                gg_v[gg_l] = *(const Loose *)((from) + (gg_r + gg_l) * (padded) + gg_q);                              \
            TRANSPOSE(gg_v, gg_w)                                                                                     \
            UNROLL for (i32 gg_l = 0; gg_l < VW; gg_l++)                                                              \
                *(Loose *)((to) + (gg_q + gg_l) * KEYS + gg_r) = gg_v[gg_l];                                          \
        }
#define EACH_PIECE for (i32 gg_p = 0; gg_p < KEYS; gg_p += VECTOR)

// The scores of query `i` for the keys from `j` on: -inf where a key is not seen.
#define HIDE(row, i, j)                                                                                               \
    {                                                                                                                 \
        IDX gg_seen = par.s - (j) < KEYS ? par.s - (j) : KEYS;                                                        \
        if (par.causal && (i) + 1 - (j) < gg_seen) gg_seen = (i) + 1 - (j);                                           \
        if (gg_seen < 0) gg_seen = 0;                                                                                 \
        HIDE_MASKED(row, i, j, gg_seen)                                                                               \
        for (IDX gg_i = gg_seen; gg_i < KEYS; gg_i++) row[gg_i] = -GG_INF;                                            \
    }
#ifdef MASK
#define HIDE_MASKED(row, i, j, seen)                                                                                  \
    IDX gg_m = hidden + (i) * par.mask[3] + (j) * par.mask[4];                                                        \
    if (par.mask[4] == 1) {                                                                                           \
        for (IDX gg_i = 0; gg_i < seen; gg_i++) {                                                                     \
            MASKED(row[gg_i], gg_m + gg_i)                                                                            \
        }                                                                                                             \
    } else {                                                                                                          \
        for (IDX gg_i = 0; gg_i < seen; gg_i++) {                                                                     \
            MASKED(row[gg_i], gg_m + gg_i * par.mask[4])                                                              \
        }                                                                                                             \
    }
#else
#define HIDE_MASKED(row, i, j, seen)
#endif

#ifdef DROPOUT
// What dropout multiplies weights number `first` and on with: 0 or `factor`.
HELPER void gg_keeps(T *keep, u64 first, u64 seed, u64 stream, u32 limit, T factor) {
    u64 word[4];
    i32 skipped = (i32)(first & 7);
    for (i32 at = -skipped; at < KEYS; at += 8) {
        gg_philox(word, (first + (u64)(at + skipped)) >> 3, stream, seed);
        for (i32 i = 0; i < 8; i++) {
            u32 half_ = (u32)(word[i >> 1] >> (32 * (i & 1)));
            if (at + i >= 0 && at + i < KEYS) keep[at + i] = (half_ >> 8) >= limit ? factor : (T)0;
        }
    }
}
#endif

KERNEL void CAT(NAME, _forward)(GLOBAL const S(X) *q, GLOBAL const S(X) *k, GLOBAL const S(X) *v,
                                GLOBAL const S_MASK *mask, GLOBAL S(X) *out, GLOBAL T *logs, T scale, RANDOM_ARGUMENTS,
                                Attention par) {
    IDX item = GLOBAL_ID;
    if (item >= par.items) return;
    IDX head = item / par.tiles, first = (item - head * par.tiles) * QUERIES;
    IDX b = head / par.heads, h = head - b * par.heads;
    i32 rows = par.l - first < QUERIES ? (i32)(par.l - first) : QUERIES;
    IDX end = par.causal && first + rows < par.s ? first + rows : par.s;
#ifdef MASK
    IDX hidden = START(mask, b, h);
#endif
    T queries[QUERIES * EP], result[QUERIES * WP], scores[ROWS * KEYS];
    T keys[KEYS * EP], turned[EP * KEYS], values[KEYS * WP];
    T tops[QUERIES], sums[QUERIES * VECTOR];
    TAKE_ROWS(queries, E, EP, rows, q, START(q, b, h) + first * par.q[3], par.q[3], par.q[4], rows, scale)
    for (i32 r = 0; r < rows * WP; r++) result[r] = 0;
    for (i32 r = 0; r < rows * VECTOR; r++) sums[r] = 0;
    for (i32 r = 0; r < rows; r++) tops[r] = -GG_INF;
    for (IDX j = 0; j < end; j += KEYS) {
        i32 count = par.s - j < KEYS ? (i32)(par.s - j) : KEYS;
        TAKE_ROWS(keys, E, EP, KEYS, k, START(k, b, h / par.share) + j * par.k[3], par.k[3], par.k[4], count, (T)1)
        TAKE_ROWS(values, W, WP, KEYS, v, START(v, b, h / par.share) + j * par.v[3], par.v[3], par.v[4], count, (T)1)
        TURNED(turned, keys, EP)
        for (i32 base = 0; base < rows; base += ROWS) {
            i32 some = rows - base < ROWS ? rows - base : ROWS;
            if (par.causal && first + base + some <= j) continue;  // none of these queries sees these keys
            PRODUCT(some, KEYS, E, queries + base * EP, EP, 1, turned, KEYS, scores, KEYS, 0)
            for (i32 r = 0; r < some; r++) {
                T *row = scores + r * KEYS, *sum = sums + (base + r) * VECTOR;
                IDX i = first + base + r;
                HIDE(row, i, j)
                T lanes[VECTOR];
                EACH lanes[gg_j] = row[gg_j];
                EACH_PIECE {
                    EACH lanes[gg_j] = lanes[gg_j] > row[gg_p + gg_j] ? lanes[gg_j] : row[gg_p + gg_j];
                }
                for (i32 n = VECTOR / 2; n > 0; n /= 2)
                    for (i32 x = 0; x < n; x++) lanes[x] = lanes[x] > lanes[x + n] ? lanes[x] : lanes[x + n];
                T before = tops[base + r], top = lanes[0] > before ? lanes[0] : before;
                T level = top == -GG_INF ? (T)0 : top;
                if (top != before) {
                    T shrink = EXP(before - level);
                    T *done = result + (base + r) * WP;
                    for (i32 x = 0; x < WP; x++) done[x] *= shrink;
                    EACH sum[gg_j] *= shrink;
                    tops[base + r] = top;
                }
                EACH_PIECE {
                    EACH {
                        T weight = EXP(row[gg_p + gg_j] - level);
                        row[gg_p + gg_j] = weight;
                        sum[gg_j] += weight;
                    }
                }
#ifdef DROPOUT
                T keep[KEYS];
                gg_keeps(keep, NUMBER(i, j), seed, stream, limit, factor);
                for (i32 x = 0; x < KEYS; x++) row[x] *= keep[x];
#endif
            }
            PRODUCT(some, WP, KEYS, scores, KEYS, 1, values, WP, result + base * WP, WP, 1)
        }
    }
    IDX to = START(out, b, h) + first * par.out[3];
    for (i32 r = 0; r < rows; r++) {
        T *sum = sums + r * VECTOR;
        for (i32 n = VECTOR / 2; n > 0; n /= 2)
            for (i32 x = 0; x < n; x++) sum[x] += sum[x + n];
        T total = sum[0], best = tops[r];
        FINISH(total, best, log_)
        logs[head * par.l + first + r] = log_;
        for (i32 c = 0; c < W; c++) ST(X, out, to + r * par.out[3] + c, result[r * WP + c] / total);
    }
}

// dq grows in T, [chunks, ...] by the strides given: a chunk of keys adds to its own, and what no query sees stays 0.
KERNEL void CAT(NAME, _both)(GLOBAL const S(X) *q, GLOBAL const S(X) *k, GLOBAL const S(X) *v,
                             GLOBAL const S_MASK *mask, GLOBAL const S(X) *g, GLOBAL const T *logs,
                             GLOBAL const T *delta, GLOBAL T *dq, GLOBAL S(X) *dk, GLOBAL S(X) *dv, IDX dq_chunk,
                             T scale, RANDOM_ARGUMENTS, Attention par) {
    IDX item = GLOBAL_ID;
    if (item >= par.items) return;
    IDX which = item / par.tiles, chunk = item - which * par.tiles, groups = par.heads / par.share;
    IDX b = which / groups, group = which - b * groups;
    T keys[KEYS * EP], keys_turned[EP * KEYS], values[KEYS * WP], values_turned[WP * KEYS];
    T key_slopes[KEYS * EP], value_slopes[KEYS * WP];
    T queries[ROWS * EP], gradients[ROWS * WP], weights[ROWS * KEYS], slopes[ROWS * KEYS], query_slopes[ROWS * EP];
    for (IDX h = group * par.share; h < (group + 1) * par.share; h++) {
        GLOBAL T *to = dq + chunk * dq_chunk + START(dq, b, h);
        for (IDX i = 0; i < par.l; i++)
            for (i32 c = 0; c < EP; c++) to[i * par.dq[3] + c] = 0;
    }
    IDX last = (chunk + 1) * par.chunk < par.s ? (chunk + 1) * par.chunk : par.s;
    for (IDX j = chunk * par.chunk; j < last; j += KEYS) {
        i32 count = par.s - j < KEYS ? (i32)(par.s - j) : KEYS;
        TAKE_ROWS(keys, E, EP, KEYS, k, START(k, b, group) + j * par.k[3], par.k[3], par.k[4], count, (T)1)
        TAKE_ROWS(values, W, WP, KEYS, v, START(v, b, group) + j * par.v[3], par.v[3], par.v[4], count, (T)1)
        TURNED(keys_turned, keys, EP)
        TURNED(values_turned, values, WP)
        for (i32 c = 0; c < KEYS * EP; c++) key_slopes[c] = 0;
        for (i32 c = 0; c < KEYS * WP; c++) value_slopes[c] = 0;
        for (IDX h = group * par.share; h < (group + 1) * par.share; h++) {
            IDX head = b * par.heads + h;
#ifdef MASK
            IDX hidden = START(mask, b, h);
#endif
            for (IDX first = par.causal ? j / ROWS * ROWS : 0; first < par.l; first += ROWS) {
                i32 rows = par.l - first < ROWS ? (i32)(par.l - first) : ROWS;
                TAKE_ROWS(queries, E, EP, rows, q, START(q, b, h) + first * par.q[3], par.q[3], par.q[4], rows, scale)
                TAKE_ROWS(gradients, W, WP, rows, g, START(g, b, h) + first * par.g[3], par.g[3], par.g[4], rows, (T)1)
                PRODUCT(rows, KEYS, E, queries, EP, 1, keys_turned, KEYS, weights, KEYS, 0)
                PRODUCT(rows, KEYS, W, gradients, WP, 1, values_turned, KEYS, slopes, KEYS, 0)
                for (i32 r = 0; r < rows; r++) {
                    T *row = weights + r * KEYS, *slope = slopes + r * KEYS;
                    IDX i = first + r;
                    T level = logs[head * par.l + i], mean = delta[head * par.l + i];
                    HIDE(row, i, j)
#ifdef DROPOUT
                    T keep[KEYS];
                    gg_keeps(keep, NUMBER(i, j), seed, stream, limit, factor);
                    for (i32 x = 0; x < KEYS; x++) slope[x] *= keep[x];
#endif
                    EACH_PIECE {
                        EACH {
                            T weight = EXP(row[gg_p + gg_j] - level);
                            slope[gg_p + gg_j] = weight * (slope[gg_p + gg_j] - mean);
                            row[gg_p + gg_j] = weight;
                        }
                    }
#ifdef DROPOUT
                    for (i32 x = 0; x < KEYS; x++) row[x] *= keep[x];
#endif
                }
                PRODUCT(KEYS, WP, rows, weights, 1, KEYS, gradients, WP, value_slopes, WP, 1)
                PRODUCT(KEYS, EP, rows, slopes, 1, KEYS, queries, EP, key_slopes, EP, 1)
                PRODUCT(rows, EP, KEYS, slopes, KEYS, 1, keys, EP, query_slopes, EP, 0)
                GLOBAL T *to = dq + chunk * dq_chunk + START(dq, b, h) + first * par.dq[3];
                for (i32 r = 0; r < rows; r++)
                    for (i32 c = 0; c < EP; c++) to[r * par.dq[3] + c] += query_slopes[r * EP + c] * scale;
            }
        }
        IDX at = START(dk, b, group) + j * par.dk[3], vat = START(dv, b, group) + j * par.dv[3];
        for (i32 r = 0; r < count; r++) {
            for (i32 c = 0; c < E; c++) ST(X, dk, at + r * par.dk[3] + c, key_slopes[r * EP + c]);
            for (i32 c = 0; c < W; c++) ST(X, dv, vat + r * par.dv[3] + c, value_slopes[r * WP + c]);
        }
    }
}

#else
// On GPUs SIDE * SIDE items share BQ queries and BK keys in local memory; an item has the scores of rows y, y + SIDE,
// ... and columns x, x + SIDE, ... of the tile, and in the results these rows and as many columns of the width. A tile
// of keys (queries, where keys are the rows) makes room for that of values, so that 32 KiB do.
#define WIDEST (E > W ? E : W)
#define RQ (BQ / SIDE)
#define RK (BK / SIDE)
#define RE ((E + SIDE - 1) / SIDE)
#define RW ((W + SIDE - 1) / SIDE)
#define PLACE                                                                                                         \
    i32 y = LOCAL_ID / SIDE, x = LOCAL_ID % SIDE;                                                                     \
    IDX head = GROUP_ID / par.tiles, first = (GROUP_ID - head * par.tiles) * BQ;                                      \
    IDX b = head / par.heads, h = head - b * par.heads, end = first + BQ < par.l ? first + BQ : par.l;                \
    end = par.causal && end < par.s ? end : par.s;

// `count` rows from `at` on of an array of `width`, times `times`; zeros beyond.
#define FETCH(to, rows, width, p, at, row_step, step, count, times)                                                   \
    for (i32 gg_i = LOCAL_ID; gg_i < (rows) * (width); gg_i += SIDE * SIDE) {                                         \
        i32 gg_r = gg_i / (width), gg_c = gg_i % (width);                                                             \
        to[gg_r][gg_c] = gg_r < (count) ? (T)LOAD(p, (at) + gg_r * (row_step) + gg_c * (step)) * (times) : (T)0;      \
    }
// The products of an item's rows of `a` with its rows of `b`, of `width`.
#define DOTS(result, a, rows, b, columns, width)                                                                      \
    for (i32 i = 0; i < rows; i++)                                                                                    \
        for (i32 j = 0; j < columns; j++) result[i][j] = 0;                                                           \
    for (i32 c = 0; c < width; c++)                                                                                   \
        for (i32 i = 0; i < rows; i++) {                                                                              \
            T left = a[y + i * SIDE][c];                                                                              \
            for (i32 j = 0; j < columns; j++) result[i][j] += left * b[x + j * SIDE][c];                              \
        }
// result += a @ b, for an item's rows and columns; `at(r, c)` is where a has row r, column c.
#define GROW(result, rows, at, depth, b, columns, width)                                                              \
    for (i32 c = 0; c < depth; c++)                                                                                   \
        for (i32 j = 0; j < columns; j++) {                                                                           \
            i32 gg_c = x + j * SIDE;                                                                                  \
            T right = gg_c < width ? b[c][gg_c] : (T)0;                                                               \
            for (i32 i = 0; i < rows; i++) result[i][j] += at(y + i * SIDE, c) * right;                               \
        }
#define STRAIGHT(r, c) tile[r][c]
#define ACROSS(r, c) tile[c][r]
#define CLEAR(result, rows, columns)                                                                                  \
    for (i32 i = 0; i < rows; i++)                                                                                    \
        for (i32 j = 0; j < columns; j++) result[i][j] = 0;
#define LEAVE(result, rows, columns, width, p, start, row_step, step, count, times)                                   \
    for (i32 i = 0; i < rows; i++)                                                                                    \
        for (i32 j = 0; j < columns; j++) {                                                                           \
            i32 gg_r = y + i * SIDE, gg_c = x + j * SIDE;                                                             \
            if (gg_r < (count) && gg_c < width)                                                                       \
                ST(X, p, (start) + gg_r * (row_step) + gg_c * (step), result[i][j] * (times));                        \
        }
// The score of query i for key j.
#define HIDE(score, i, j)                                                                                             \
    if ((i) >= par.l || (j) >= par.s || (par.causal && (j) > (i))) {                                                  \
        score = -GG_INF;                                                                                              \
    } else {                                                                                                          \
        MASKED(score, hidden + (i) * par.mask[3] + (j) * par.mask[4])                                                 \
    }
#ifdef MASK
#define HIDDEN IDX hidden = START(mask, b, h);
#else
#define HIDDEN
#endif

#ifdef DROPOUT
#define KEPT LOCAL u8 kept[BQ][BK];
// Each item draws blocks of eight numbers, of a row of the tile that begins with query `i0` and key `j0`.
#define DRAW(i0, j0)                                                                                                  \
    for (i32 gg_t = LOCAL_ID; gg_t < BQ * (BK / 8 + 1); gg_t += SIDE * SIDE) {                                        \
        i32 gg_r = gg_t / (BK / 8 + 1);                                                                               \
        u64 gg_first = NUMBER((i0) + gg_r, j0);                                                                       \
        u64 gg_block = (gg_first >> 3) + (u64)(gg_t % (BK / 8 + 1)), word[4];                                         \
        gg_philox(word, gg_block, stream, seed);                                                                      \
        i32 gg_at = (i32)((i64)(gg_block << 3) - (i64)gg_first);                                                      \
        for (i32 n = 0; n < 8; n++)                                                                                   \
            if (gg_at + n >= 0 && gg_at + n < BK)                                                                     \
                kept[gg_r][gg_at + n] = ((u32)(word[n >> 1] >> (32 * (n & 1))) >> 8) >= limit;                        \
    }
#define DROPPED(value, i, j) (kept[y + (i) * SIDE][x + (j) * SIDE] ? (value) * factor : (T)0)
#else
#define KEPT
#define DRAW(i0, j0)
#define DROPPED(value, i, j) (value)
#endif

KERNEL void CAT(NAME, _forward)(GLOBAL const S(X) *q, GLOBAL const S(X) *k, GLOBAL const S(X) *v,
                                GLOBAL const S_MASK *mask, GLOBAL S(X) *out, GLOBAL T *logs, T scale, RANDOM_ARGUMENTS,
                                Attention par) {
    LOCAL T queries[BQ][E + 1];
    LOCAL T others[BK][WIDEST + 1];
    LOCAL T tile[BQ][BK + 1];
    LOCAL T partial[BQ][SIDE + 1];
    KEPT
    PLACE
    HIDDEN
    T scores[RQ][RK], result[RQ][RW], tops[RQ], totals[RQ];
    FETCH(queries, BQ, E, q, START(q, b, h) + first * par.q[3], par.q[3], par.q[4], par.l - first, scale)
    CLEAR(result, RQ, RW)
    for (i32 i = 0; i < RQ; i++) {
        tops[i] = -GG_INF;
        totals[i] = 0;
    }
    for (IDX j0 = 0; j0 < end; j0 += BK) {
        BARRIER;
        FETCH(others, BK, E, k, START(k, b, h / par.share) + j0 * par.k[3], par.k[3], par.k[4], par.s - j0, (T)1)
        DRAW(first, j0)
        BARRIER;
        DOTS(scores, queries, RQ, others, RK, E)
        for (i32 i = 0; i < RQ; i++) {
            T top = -GG_INF;
            for (i32 j = 0; j < RK; j++) {
                HIDE(scores[i][j], first + y + i * SIDE, j0 + x + j * SIDE)
                top = top > scores[i][j] ? top : scores[i][j];
            }
            partial[y + i * SIDE][x] = top;
        }
        BARRIER;
        FETCH(others, BK, W, v, START(v, b, h / par.share) + j0 * par.v[3], par.v[3], par.v[4], par.s - j0, (T)1)
        for (i32 i = 0; i < RQ; i++) {
            T top = tops[i];
            for (i32 n = 0; n < SIDE; n++) top = top > partial[y + i * SIDE][n] ? top : partial[y + i * SIDE][n];
            T level = top == -GG_INF ? (T)0 : top, shrink = EXP(tops[i] - level);
            tops[i] = top;
            totals[i] *= shrink;
            for (i32 j = 0; j < RW; j++) result[i][j] *= shrink;
            for (i32 j = 0; j < RK; j++) {
                T weight = EXP(scores[i][j] - level);
                totals[i] += weight;
                tile[y + i * SIDE][x + j * SIDE] = DROPPED(weight, i, j);
            }
        }
        BARRIER;
        GROW(result, RQ, STRAIGHT, BK, others, RW, W)
    }
    BARRIER;
    for (i32 i = 0; i < RQ; i++) partial[y + i * SIDE][x] = totals[i];
    BARRIER;
    for (i32 i = 0; i < RQ; i++) {
        T total = 0, best = tops[i];
        for (i32 n = 0; n < SIDE; n++) total += partial[y + i * SIDE][n];
        FINISH(total, best, log_)
        if (x == 0 && first + y + i * SIDE < par.l) logs[head * par.l + first + y + i * SIDE] = log_;
        for (i32 j = 0; j < RW; j++) result[i][j] /= total;
    }
    LEAVE(result, RQ, RW, W, out, START(out, b, h) + first * par.out[3], par.out[3], par.out[4], par.l - first, (T)1)
}

#define WEIGHTS_ARGUMENTS                                                                                             \
    GLOBAL const S(X) *q, GLOBAL const S(X) *k, GLOBAL const S(X) *v, GLOBAL const S_MASK *mask, GLOBAL const S(X) *g, \
        GLOBAL const T *logs, GLOBAL const T *delta

// Scores and slopes of the tile of queries from i0, keys from j0 on become weights and the slopes of scores.
#define SLOPES(i0, j0)                                                                                                \
    for (i32 i = 0; i < RQ; i++) {                                                                                    \
        IDX gg_q = (i0) + y + i * SIDE, gg_at = gg_q < par.l ? gg_q : par.l - 1;                                      \
        T level = logs[head * par.l + gg_at], mean = delta[head * par.l + gg_at];                                     \
        for (i32 j = 0; j < RK; j++) {                                                                                \
            HIDE(scores[i][j], gg_q, (j0) + x + j * SIDE)                                                             \
            scores[i][j] = EXP(scores[i][j] - level);                                                                 \
            slopes[i][j] = scores[i][j] * (DROPPED(slopes[i][j], i, j) - mean);                                       \
        }                                                                                                             \
    }

KERNEL void CAT(NAME, _queries)(WEIGHTS_ARGUMENTS, GLOBAL S(X) *dq, T scale, RANDOM_ARGUMENTS, Attention par) {
    LOCAL T queries[BQ][E + 1];
    LOCAL T gradients[BQ][W + 1];
    LOCAL T others[BK][WIDEST + 1];
    LOCAL T tile[BQ][BK + 1];
    KEPT
    PLACE
    HIDDEN
    T scores[RQ][RK], slopes[RQ][RK], result[RQ][RE];
    FETCH(queries, BQ, E, q, START(q, b, h) + first * par.q[3], par.q[3], par.q[4], par.l - first, scale)
    FETCH(gradients, BQ, W, g, START(g, b, h) + first * par.g[3], par.g[3], par.g[4], par.l - first, (T)1)
    CLEAR(result, RQ, RE)
    for (IDX j0 = 0; j0 < end; j0 += BK) {
        BARRIER;
        FETCH(others, BK, W, v, START(v, b, h / par.share) + j0 * par.v[3], par.v[3], par.v[4], par.s - j0, (T)1)
        DRAW(first, j0)
        BARRIER;
        DOTS(slopes, gradients, RQ, others, RK, W)
        BARRIER;
        FETCH(others, BK, E, k, START(k, b, h / par.share) + j0 * par.k[3], par.k[3], par.k[4], par.s - j0, (T)1)
        BARRIER;
        DOTS(scores, queries, RQ, others, RK, E)
        SLOPES(first, j0)
        for (i32 i = 0; i < RQ; i++)
            for (i32 j = 0; j < RK; j++) tile[y + i * SIDE][x + j * SIDE] = slopes[i][j];
        BARRIER;
        GROW(result, RQ, STRAIGHT, BK, others, RE, E)
    }
    LEAVE(result, RQ, RE, E, dq, START(dq, b, h) + first * par.dq[3], par.dq[3], par.dq[4], par.l - first, scale)
}

KERNEL void CAT(NAME, _keys)(WEIGHTS_ARGUMENTS, GLOBAL S(X) *dk, GLOBAL S(X) *dv, T scale, RANDOM_ARGUMENTS,
                             Attention par) {
    LOCAL T keys[BK][E + 1];
    LOCAL T values[BK][W + 1];
    LOCAL T others[BQ][WIDEST + 1];
    LOCAL T tile[BQ][BK + 1];
    KEPT
    i32 y = LOCAL_ID / SIDE, x = LOCAL_ID % SIDE;
    IDX which = GROUP_ID / par.tiles, j0 = (GROUP_ID - which * par.tiles) * BK, groups = par.heads / par.share;
    IDX b = which / groups, group = which - b * groups;
    T scores[RQ][RK], slopes[RQ][RK], key_slopes[RK][RE], value_slopes[RK][RW];
    FETCH(keys, BK, E, k, START(k, b, group) + j0 * par.k[3], par.k[3], par.k[4], par.s - j0, (T)1)
    FETCH(values, BK, W, v, START(v, b, group) + j0 * par.v[3], par.v[3], par.v[4], par.s - j0, (T)1)
    CLEAR(key_slopes, RK, RE)
    CLEAR(value_slopes, RK, RW)
    for (IDX h = group * par.share; h < (group + 1) * par.share; h++) {
        IDX head = b * par.heads + h;
        HIDDEN
        for (IDX i0 = par.causal ? j0 / BQ * BQ : 0; i0 < par.l; i0 += BQ) {
            BARRIER;
            FETCH(others, BQ, E, q, START(q, b, h) + i0 * par.q[3], par.q[3], par.q[4], par.l - i0, scale)
            DRAW(i0, j0)
            BARRIER;
            DOTS(scores, others, RQ, keys, RK, E)
            BARRIER;
            FETCH(others, BQ, W, g, START(g, b, h) + i0 * par.g[3], par.g[3], par.g[4], par.l - i0, (T)1)
            BARRIER;
            DOTS(slopes, others, RQ, values, RK, W)
            SLOPES(i0, j0)
            for (i32 i = 0; i < RQ; i++)
                for (i32 j = 0; j < RK; j++) tile[y + i * SIDE][x + j * SIDE] = DROPPED(scores[i][j], i, j);
            BARRIER;
            GROW(value_slopes, RK, ACROSS, BQ, others, RW, W)
            BARRIER;
            FETCH(others, BQ, E, q, START(q, b, h) + i0 * par.q[3], par.q[3], par.q[4], par.l - i0, scale)
            for (i32 i = 0; i < RQ; i++)
                for (i32 j = 0; j < RK; j++) tile[y + i * SIDE][x + j * SIDE] = slopes[i][j];
            BARRIER;
            GROW(key_slopes, RK, ACROSS, BQ, others, RE, E)
        }
    }
    LEAVE(key_slopes, RK, RE, E, dk, START(dk, b, group) + j0 * par.dk[3], par.dk[3], par.dk[4], par.s - j0, (T)1)
    LEAVE(value_slopes, RK, RW, W, dv, START(dv, b, group) + j0 * par.dv[3], par.dv[3], par.dv[4], par.s - j0, (T)1)
}

#endif
