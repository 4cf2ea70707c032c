// What all kernels of attention have in common: sizes, masks, dropout.  Scores and lse are in units of log 2, so that
// exponentials are exp2; the factor is part of the scale.
#pragma once

#include "../common/philox.cuh"
#include "../common/reduce.cuh"

constexpr double LOG2_E = 1.4426950408889634;
// The lse of a row that sees no key: exp2(x - 1e30) is 0.
constexpr float NO_KEYS = 1e30f;

// The scalars behind the strides of every kernel.
//   lengths  keys of each sample, beyond which nothing is read; null: S.  They stand beside the masks
//   heads    of queries; `group` of them share a head of keys and values
//   L, S     queries and keys of a head;  E, EV: the widths of queries and keys, and of values
//   mask_*   strides of `keep` and `bias`, which have the indices [batch, head, L, S]; 0 along what they do not depend on
//   causal   query l sees keys up to l
//   limit    a weight is kept where its 32 random bits are below: 2^32 is no dropout;  inverse: 1 / (probability to keep)
#define ATTENTION_SCALARS                                                                                             \
    int32 heads, int32 group, int32 L, int32 S, int32 E, int32 EV, int64 mask_batch, int64 mask_head, int64 mask_row, \
        int64 mask_column, bool causal, double scale, uint64 seed, uint64 offset, uint64 limit, double inverse

// bool keep[...]: True takes part; T bias[...]: is added to the scores.  At most one of them is there.
template <class T> struct Mask {
    const bool* keep;
    const T* bias;
    int64 row, column;
    int32 L, S;
    bool causal;

    // What is the same for all keys of a query is worked out once: for many scores of a row.
    struct Row {
        const bool* keep;
        const T* bias;
        int64 column;
        int32 end; // of the keys that are there and may be seen

        template <class A> __device__ __forceinline__ A operator()(A score, int32 s) const {
            if (s >= end) return A(-INFINITY);
            if (keep) return keep[s * column] ? score : A(-INFINITY);
            if (bias) return score + to_acc(bias[s * column]) * A(LOG2_E);
            return score;
        }
    };
    __device__ __forceinline__ Row of(int32 l) const {
        return {keep ? keep + l * row : nullptr, bias ? bias + l * row : nullptr, column,
                l >= L ? 0 : causal && l < S ? l + 1 : S};
    }

    template <class A> __device__ __forceinline__ A operator()(A score, int32 l, int32 s) const { return of(l)(score, s); }
};

template <class T>
__device__ __forceinline__ Mask<T> mask_of(const bool* keep, const T* bias, int64 start, int64 row, int64 column, int32 L,
                                           int32 S, bool causal) {
    return {keep ? keep + start : nullptr, bias ? bias + start : nullptr, row, column, L, S, causal};
}

// Weight (n, l, s), n counted over all heads of all samples, has number (n L + l) S' + s of the stream, S' = S rounded up
// to a multiple of 8: cuframe/cpu/attention.py.  A block of the generator so serves eight neighbours of a row.
struct Dropout {
    uint64 seed, offset, limit;
    int32 S;

    __device__ __forceinline__ bool any() const { return limit >> 32 == 0; }

    // The bits of ROWS queries from number `row` on, counted over all heads, and COLUMNS keys from `column` on.
    template <int ROWS, int COLUMNS, int THREADS>
    __device__ __forceinline__ void draw(uint8* bits, int64 row, int32 column) const {
        for (int i = threadIdx.x; i < ROWS * COLUMNS / 8; i += THREADS) {
            uint64 block = (row + i / (COLUMNS / 8)) * ((S + 7) / 8) + column / 8 + i % (COLUMNS / 8);
            PhiloxBlock random = philox_block(seed, offset, block);
            uint32 byte = 0;
#pragma unroll
            for (int j = 0; j < 8; ++j) byte |= static_cast<uint32>(philox_keeps(random.half(j), limit)) << j;
            bits[i] = static_cast<uint8>(byte);
        }
    }
};

// How many of the S keys sample b has.
__device__ __forceinline__ int32 keys_of(const int64* lengths, int32 b, int32 S) {
    if (!lengths) return S;
    const int64 own = lengths[b];
    return own < 0 ? 0 : own < S ? static_cast<int32>(own) : S;
}

template <int COLUMNS> __device__ __forceinline__ bool kept(const uint8* bits, int row, int column) {
    return bits[row * (COLUMNS / 8) + column / 8] >> (column % 8) & 1;
}

// Among the lanes that share a row of scores.
template <int width, class A> __device__ __forceinline__ A row_maximum(A x AND_CALLER) {
    return warp_reduce<width>(x, Maximum() AND_PASS_CALLER);
}
template <int width, class A> __device__ __forceinline__ A row_sum(A x AND_CALLER) {
    return warp_reduce<width>(x, Sum() AND_PASS_CALLER);
}
