// Dropout whose mask is drawn as it is needed, and drawn again in backward.
//
//   y_i = x_i (keep_m ? scale : 0) + (keep_m ? kept : dropped),   keep_m = half[m] < limit,   m = i / each
//   gx_i = g_i (keep_m ? scale : 0): the same kernel without the shifts
//   with half[m] of the Philox stream (seed, offset), limit = floor((1 - p) 2^32): Note [Bits first, then exact arithmetic]
//   in cuframe/cpu/philox.py, so that a seed drops the same elements on every device.
//
// Layout     x, y: [n]; each `each` neighbours share a mask element: 1, or the size of a channel (FEATURES).
// Parallel   a thread 8 elements, which share a Philox block, as packs of 16 bytes.
// Saved      seed, offset and the settings; no mask.  Alpha dropout: Klambauer et al., "Self-normalizing neural networks",
//            arXiv 1706.02515, section 3.
// Floor      2 values moved an element.  10 rounds of Philox4x64 are about 250 integer instructions for 8 elements: on an
//            H100 (about 14e12 a second) 18 ps an element, as long as moving 60 bytes.  So integer arithmetic may decide for
//            16-bit types; to be measured, with Philox4x32 as the alternative, which would change the streams.
//            Channels: a division of 64 bits a thread besides; blocks of 8 channels that a thread's 8 elements cross are
//            drawn anew.
//
// 1  2026-11  first version; not yet run on a GPU
#include "common/platform.cuh"
#include "common/philox.cuh"

constexpr int EACH = 8;

// half(i) for an i known at run time only: by selection, since indexing would put the words into memory.
__device__ __forceinline__ uint32 pick_half(const PhiloxBlock& r, int32 i) {
    uint64 low = i & 2 ? r.word[1] : r.word[0], high = i & 2 ? r.word[3] : r.word[2];
    uint64 word = i & 4 ? high : low;
    return static_cast<uint32>(i & 1 ? word >> 32 : word);
}

// Bit j: whether element first + j is kept.
template <bool FEATURES>
__device__ __forceinline__ uint32 kept_bits(int64 first, int64 each, uint64 seed, uint64 offset, uint64 limit) {
    uint32 bits = 0;
    if (!FEATURES) {
        PhiloxBlock r = philox_block(seed, offset, first / EACH);
#pragma unroll
        for (int j = 0; j < EACH; ++j) bits |= static_cast<uint32>(philox_keeps(r.half(j), limit)) << j;
        return bits;
    }
    int64 m = first / each, at = first - m * each;
    PhiloxBlock r = philox_block(seed, offset, m / 8);
    for (int j = 0; j < EACH; ++j) {
        bits |= static_cast<uint32>(philox_keeps(pick_half(r, m % 8), limit)) << j;
        if (++at == each) {
            at = 0;
            if (++m % 8 == 0) r = philox_block(seed, offset, m / 8);
        }
    }
    return bits;
}

template <class T, bool FEATURES>
__global__ void dropout(const T* __restrict__ x, // [n]
                        T* __restrict__ y,       // [n]
                        int64 n, int64 each, uint64 seed, uint64 offset, uint64 limit, double scale, bool shifted,
                        double kept, double dropped) {
    typedef acc_t<T> A;
    constexpr int N = pack_size<T>;
    int64 first = (blockIdx.x * static_cast<int64>(blockDim.x) + threadIdx.x) * EACH;
    if (first >= n) return;
    uint32 bits = kept_bits<FEATURES>(first, each, seed, offset, limit);
    A factor = to_acc(convert<T>(scale)), up = A(kept), down = A(dropped);
    auto value = [=](A v, bool keep) {
        v *= keep ? factor : A(0); // 0 times inf is NaN, as on the CPU
        return convert<T>(shifted ? v + (keep ? up : down) : v);
    };
    x += first;
    y += first;
    if (first + EACH <= n && pack_aligned<N>(x) && pack_aligned<N>(y)) {
#pragma unroll
        for (int k = 0; k < EACH; k += N) {
            Pack<T, N> pack = load_pack<N>(x + k);
#pragma unroll
            for (int j = 0; j < N; ++j) pack[j] = value(to_acc(pack[j]), bits >> (k + j) & 1);
            store_pack<N>(y + k, pack);
        }
    } else {
        int32 count = n - first < EACH ? static_cast<int32>(n - first) : EACH;
        for (int32 j = 0; j < count; ++j) y[j] = value(to_acc(x[j]), bits >> j & 1);
    }
}
