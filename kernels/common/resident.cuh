// A matrix that stays on chip, times vectors that change: out[R, n] = W[R, K] v[n, K] for up to BATCH vectors.
//
// Eight warps share the work: `split` of them divide the columns, 8 / split the rows, and the sums of the `split` parts are
// left to the caller, in their order.  W is cut into pieces of ROWS x CHUNK, 64 bytes a lane, each laid out as the lanes
// need it; a warp holds its first HELD pieces in registers and the others in shared memory, where lanes read 16 bytes next
// to one another: no bank conflicts, no address arithmetic.
//
//   fp32, fp64   4 rows x 32 lanes of 16 bytes of columns; sums over lanes by exchanging halves, 16 shuffles a piece of rows
//   fp16, bf16   16 rows x 64 columns as operand A of mma.m16n8k16, the vectors as B, fp32 accumulation
//   TF32         fp32 numbers, 16 rows x 32 columns, mma.m16n8k8: weights are rounded once, vectors as they are fetched.  The
//                order of columns within 8 is free, so lanes take neighbouring ones, 8 bytes at once
//
// Vectors for tensor cores are padded by 8 numbers: fragments of 8 vectors then come from 32 different banks.
#pragma once

constexpr int32 RESIDENT_WARPS = 8;

template <class T, bool TF32 = false> struct Resident {
    typedef acc_t<T> A;
    static constexpr bool TENSOR = TF32 || sizeof(T) == 2;
    static constexpr int WIDE = pack_size<T>;
    static constexpr int ROWS = TENSOR ? 16 : 4, CHUNK = (TENSOR ? 8 : 32) * WIDE, BATCH = TENSOR ? 8 : 4;
    // 128 or 96 registers: more of fp32 or fp64 spill
    static constexpr int HELD = TENSOR ? 8 : 6;

    uint4 held[HELD][4];
    uint4* rest;                          // this warp's further pieces, [piece, 4, 32 lanes]
    int32 groups, chunks, split, lane, part, team, each, mine;

    // In numbers of T: what a vector takes, which must be zero beyond K; and in numbers of A, the results of a part.
    static __device__ __forceinline__ int32 stride(int32 K) { return (K + CHUNK - 1) / CHUNK * CHUNK + (TENSOR ? 8 : 0); }
    __device__ __forceinline__ int32 rows() const { return groups * ROWS; }

    // Returns the first byte behind what it keeps of `memory`; 16 KB from there on are used on the way. `at(row, k)` is W,
    // and 0 outside. Ends with a barrier.
    template <class At> __device__ uint4* load(uint4* memory, int32 R, int32 K, int32 split_, At at AND_CALLER) {
        split = split_;
        groups = (R + ROWS - 1) / ROWS, chunks = (K + CHUNK - 1) / CHUNK;
        lane = threadIdx.x % 32, part = threadIdx.x / 32 % split, team = threadIdx.x / 32 / split;
        int32 teams = RESIDENT_WARPS / split, passes = (groups + teams - 1) / teams;
        each = (chunks + split - 1) / split;
        mine = part < chunks ? (chunks - part + split - 1) / split : 0;
        int32 pieces = passes * each - min(each, HELD);
        rest = memory + threadIdx.x / 32 * pieces * 128;
        uint4* behind = memory + RESIDENT_WARPS * pieces * 128;
        // by way of shared memory, since registers want loops unrolled, and 512 unrolled loads take long to compile
        uint4* stage = behind + threadIdx.x / 32 * 128;
#pragma unroll
        for (int i = 0; i < HELD; ++i) {
            if (i < mine && team < groups) read(stage, at, team, part + i * split);
#pragma unroll
            for (int q = 0; q < 4; ++q) held[i][q] = i < mine ? stage[q * 32 + lane] : make_uint4(0, 0, 0, 0);
        }
#pragma unroll 1
        for (int32 pass = 0; pass < passes; ++pass)
#pragma unroll 1
            for (int32 i = pass ? 0 : HELD; i < mine; ++i)
                read(rest + piece(pass, i) * 128, at, team + pass * teams, part + i * split);
        __syncthreads(PASS_CALLER);
        return behind;
    }

    __device__ __forceinline__ int32 piece(int32 pass, int32 i) const { return pass * each + i - min(each, HELD); }

    // This lane's part of a piece: 4 times 16 bytes. Nobody else reads it.
    template <class At> __device__ __forceinline__ void read(uint4* to, At at, int32 group, int32 chunk) const {
        T* numbers = reinterpret_cast<T*>(to + lane);
#pragma unroll 1
        for (int m = 0; m < 4 * WIDE; ++m) {
            int q = m / WIDE, e = m % WIDE;
            int32 row = group * ROWS + (TF32 ? lane / 4 + e % 2 * 8 : TENSOR ? lane / 4 + e / 2 % 2 * 8 : q);
            int32 k = chunk * CHUNK + (TF32 ? q * 8 + lane % 4 * 2 + e / 2
                                       : TENSOR ? q * 16 + lane % 4 * 2 + e % 2 + e / 4 * 8 : lane * WIDE + e);
            if constexpr (TF32) numbers[q * 32 * WIDE + e] = __uint_as_float(to_tf32(at(row, k)));
            else numbers[q * 32 * WIDE + e] = at(row, k);
        }
    }

    // out: [split, BATCH, rows()], of which the first `count` vectors' are written.
    __device__ void multiply(const T* v, int32 stride, int32 count, A* out AND_CALLER) {
        int32 teams = RESIDENT_WARPS / split;
        for (int32 pass = 0, group = team; group < groups; ++pass, group += teams) {
            A sums[TENSOR ? 4 : 16];
#pragma unroll
            for (int i = 0; i < (TENSOR ? 4 : 16); ++i) sums[i] = 0;
            if (pass == 0) {
#pragma unroll
                for (int i = 0; i < HELD; ++i)
                    if (i < mine) add(sums, held[i], v, stride, count, part + i * split AND_PASS_CALLER);
            }
            for (int32 i = pass ? 0 : HELD; i < mine; ++i) {
                uint4 stored[4];
#pragma unroll
                for (int q = 0; q < 4; ++q) stored[q] = rest[(piece(pass, i) * 4 + q) * 32 + lane];
                add(sums, stored, v, stride, count, part + i * split AND_PASS_CALLER);
            }
            A* to = out + part * BATCH * rows() + group * ROWS;
            if constexpr (TENSOR) {
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    int32 n = lane % 4 * 2 + i % 2;
                    if (n < count) to[n * rows() + lane / 4 + i / 2 * 8] = sums[i];
                }
            } else {
                halve<8>(sums, 16 AND_PASS_CALLER), halve<4>(sums, 8 AND_PASS_CALLER);
                halve<2>(sums, 4 AND_PASS_CALLER), halve<1>(sums, 2 AND_PASS_CALLER);
                A sum = sums[0] + shuffle(sums[0], 1 AND_PASS_CALLER);
                int32 i = lane / 2;
                if (lane % 2 == 0 && i % 4 < count) to[i % 4 * rows() + i / 4] = sum;
            }
        }
    }

    // One piece's share of the sums.
    __device__ __forceinline__ void add(A* sums, const uint4 (&w)[4], const T* v, int32 stride, int32 count,
                                        int32 chunk AND_CALLER) const {
        if constexpr (TENSOR) {
            int32 n = lane / 4 < count ? lane / 4 : 0;  // columns of vectors that are not there come to nothing
            const T* row = v + n * stride + chunk * CHUNK + lane % 4 * 2;
            float(&c)[4] = *reinterpret_cast<float(*)[4]>(sums);
#pragma unroll
            for (int q = 0; q < 4; ++q) {
                uint32 a[4] = {w[q].x, w[q].y, w[q].z, w[q].w};
                if constexpr (TF32) {
                    Pack<T, 2> x = load_pack<2>(row + q * 8);
                    uint32 b[2] = {to_tf32(x[0]), to_tf32(x[1])};
                    mma_16x8x8_tf32(c, a, b AND_PASS_CALLER);
                } else {
                    uint32 b[2] = {load_pack<2>(row + q * 16).bits, load_pack<2>(row + q * 16 + 8).bits};
                    mma_16x8x16<T>(c, a, b AND_PASS_CALLER);
                }
            }
        } else {
            const T* row = v + chunk * CHUNK + lane * WIDE;
#pragma unroll
            for (int n = 0; n < BATCH; ++n) {
                if (n >= count) break;
                Pack<T, WIDE> x = load_pack<WIDE>(row + n * stride);
#pragma unroll
                for (int q = 0; q < 4; ++q) {
                    Pack<T, WIDE> y;
                    y.bits = w[q];
#pragma unroll
                    for (int e = 0; e < WIDE; ++e) sums[q * 4 + n] += x[e] * y[e];
                }
            }
        }
    }

    static __device__ __forceinline__ A shuffle(A x, int distance AND_CALLER) {
#if defined(CUFRAME_SIM)
        return __shfl_xor_sync(FULL_WARP, x, distance, 32, file, line);
#else
        return __shfl_xor_sync(FULL_WARP, x, distance);
#endif
    }
    // Lanes `distance` apart give one another half of their sums.
    template <int keep> __device__ __forceinline__ void halve(A* sums, int distance AND_CALLER) const {
        bool upper = (lane & distance) != 0;
#pragma unroll
        for (int i = 0; i < keep; ++i) {
            A given = upper ? sums[i] : sums[i + keep], kept = upper ? sums[i + keep] : sums[i];
            sums[i] = kept + shuffle(given, distance AND_PASS_CALLER);
        }
    }
};
