// Four words of Philox4x64-10 (Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", 2011): those
// of `block`, by the counter and key that gpugrad/backends/philox.py states.
HELPER void gg_philox(u64 *word, u64 block, u64 stream, u64 seed) {
    u64 c0 = block + 1, c1 = 0, c2 = stream, c3 = 0, k0 = seed, k1 = 0;
    for (i32 round_ = 0; round_ < 10; round_++) {
        u64 high0 = MUL_HIGH_U64((u64)0xD2E7470EE14C6C93, c0), low0 = (u64)0xD2E7470EE14C6C93 * c0;
        u64 high1 = MUL_HIGH_U64((u64)0xCA5A826395121157, c2), low1 = (u64)0xCA5A826395121157 * c2;
        c0 = high1 ^ c1 ^ k0;
        c1 = low1;
        c2 = high0 ^ c3 ^ k1;
        c3 = low0;
        k0 += (u64)0x9E3779B97F4A7C15;
        k1 += (u64)0xBB67AE8584CAA73B;
    }
    word[0] = c0;
    word[1] = c1;
    word[2] = c2;
    word[3] = c3;
}
