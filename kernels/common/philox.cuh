// Random numbers as a pure function of (seed, offset, element): the streams of cuframe/cpu/philox.py, bit for bit, so
// that a dropout mask is the same on every device.
//
// Philox4x64-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011). Block b of a stream is
// philox4x64_10(counter = (offset + b, 0, 0, 0), key = (seed, 0)): four 64-bit words, eight 32-bit halves, low half first.
//
//   PhiloxBlock r = philox_block(seed, offset, b);   // elements 8b ... 8b + 7 of a 32-bit recipe
//   bool keep = r.half(i) < threshold;               // bernoulli(p): threshold = floor(p * 2^32), see keeps()
//   float u = r.uniform(i);                          // uniform float32 in [0, 1)
//
// One block serves eight elements: let a thread handle eight neighbours, or use philox_half(seed, offset, element).
#pragma once

struct PhiloxBlock {
    uint64 word[4];

    __device__ __forceinline__ uint32 half(int i) const {
        return static_cast<uint32>(i & 1 ? word[i >> 1] >> 32 : word[i >> 1]);
    }
    // The float32 recipe of `uniform`: 24 bits.
    __device__ __forceinline__ float uniform(int i) const { return static_cast<float>(half(i) >> 8) * 0x1p-24f; }
    // The float64 recipe of `uniform`: 53 bits of word i.
    __device__ __forceinline__ double uniform64(int i) const {
        return static_cast<double>(word[i] >> 11) * (1.0 / 9007199254740992.0);
    }
};

__device__ __forceinline__ PhiloxBlock philox_block(uint64 seed, uint64 offset, uint64 block) {
    constexpr uint64 FACTOR0 = 0xD2E7470EE14C6C93ull, FACTOR1 = 0xCA5A826395121157ull;
    constexpr uint64 STEP0 = 0x9E3779B97F4A7C15ull, STEP1 = 0xBB67AE8584CAA73Bull;
    uint64 c0 = offset + block, c1 = 0, c2 = 0, c3 = 0, k0 = seed, k1 = 0;
#pragma unroll
    for (int round = 0; round < 10; ++round) {
        uint64 high0 = __umul64hi(FACTOR0, c0), low0 = FACTOR0 * c0;
        uint64 high1 = __umul64hi(FACTOR1, c2), low1 = FACTOR1 * c2;
        c0 = high1 ^ c1 ^ k0;
        c2 = high0 ^ c3 ^ k1;
        c1 = low1;
        c3 = low0;
        k0 += STEP0;
        k1 += STEP1;
    }
    return {{c0, c1, c2, c3}};
}

// half[element] of the stream.
__device__ __forceinline__ uint32 philox_half(uint64 seed, uint64 offset, uint64 element) {
    return philox_block(seed, offset, element / 8).half(static_cast<int>(element % 8));
}

// bernoulli's comparison. The limit floor(p * 2^32) comes from the host as 64 bits, since p = 1 makes it 2^32.
__device__ __forceinline__ bool philox_keeps(uint32 half, uint64 limit) { return half < limit; }
