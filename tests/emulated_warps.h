// A block of a CUDA kernel on the host: its threads are contexts that run one after another up to the next thing that
// they do together. What a lane gives to such a thing lies in one of two places in turn: when a thread gives for the
// second time after, all have taken. Comes after kernels/dialect/host.h.
#include <stdlib.h>
#include <ucontext.h>

#undef LOCAL
#define LOCAL static
#define ALIGNED __attribute__((aligned(16)))
#define THREADS 128
#define STACK (1 << 18)

typedef union {
    u32 words[8];
    f32 number;
    const u16 *row;
} Given;

static ucontext_t gg_main, gg_context[THREADS];
static i32 gg_thread, gg_turn[THREADS], gg_done[THREADS];
static i64 gg_group;
static Given gg_given[2][THREADS];
#define LOCAL_ID gg_thread
#define GROUP_ID ((IDX)gg_group)

static void __attribute__((noinline)) gg_wait(void) { swapcontext(&gg_context[gg_thread], &gg_main); }
#define BARRIER gg_wait()

// What each lane of the own warp gave at this point.
static const Given *__attribute__((noinline)) gg_together(Given mine) {
    i32 self = gg_thread, turn = gg_turn[self]++ & 1;
    gg_given[turn][self] = mine;
    gg_wait();
    return gg_given[turn] + self / 32 * 32;
}

static f32 gg_shuffled(f32 v, i32 bits) {
    Given mine = {.number = v};
    i32 lane = gg_thread % 32;
    return gg_together(mine)[lane ^ bits].number;
}
#define SHUFFLE(v, bits) gg_shuffled(v, bits)

static f32 gg_half(u32 word, i32 upper) {
    u16 bits = (u16)(upper ? word >> 16 : word);
#ifdef BITS_BF16
    union { u32 bits; f32 value; } both = {.bits = (u32)bits << 16};
    return both.value;
#else
    return gg_f16_load(bits);
#endif
}

// PTX ISA 9.7.14.5, "Matrix fragments for mma.m16n8k16 with floating point type": element (row, k) of A is in the lane
// (row % 8) * 4 + k % 8 / 2, in its word (row >= 8) + 2 (k >= 8); (k, column) of B in the lane column * 4 + k % 8 / 2,
// in its word k >= 8; of both in the upper half where k is odd.
static void gg_mma(f32 *d, const u32 *a, const u32 *b) {
    Given mine = {.words = {a[0], a[1], a[2], a[3], b[0], b[1]}};
    i32 lane = gg_thread % 32;
    const Given *all = gg_together(mine);
    for (i32 e = 0; e < 4; e++) {
        i32 row = lane / 4 + (e >= 2 ? 8 : 0), column = lane % 4 * 2 + e % 2;
        for (i32 k = 0; k < 16; k++) {
            u32 left = all[row % 8 * 4 + k % 8 / 2].words[(row >= 8) + 2 * (k >= 8)];
            u32 right = all[column * 4 + k % 8 / 2].words[4 + (k >= 8)];
            d[e] += gg_half(left, k % 2) * gg_half(right, k % 2);
        }
    }
}
#define MMA(d, a, b) gg_mma(d, a, b)

// PTX ISA, ldmatrix .x2 .trans: rows of the first matrix are where lanes 0 to 7 say, of the second where 8 to 15 do; a
// lane gets from each, turned over, row lane / 4, columns 2 (lane % 4) and the next.
static void gg_turned_pairs(u32 *b, const u16 *row) {
    Given mine = {.row = row};
    i32 lane = gg_thread % 32;
    const Given *all = gg_together(mine);
    for (i32 m = 0; m < 2; m++) {
        u32 low = all[8 * m + lane % 4 * 2].row[lane / 4], high = all[8 * m + lane % 4 * 2 + 1].row[lane / 4];
        b[m] = low | high << 16;
    }
}
#define TURNED_PAIRS(b, row) gg_turned_pairs(b, row)
