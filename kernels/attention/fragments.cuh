// Tiles of 16-bit numbers in shared memory, D columns wide, and their products by tensor cores.  A warp has TALL times 16
// rows of the left factor, and of the result.
//
// Eight numbers - 16 bytes, what a lane copies and ldmatrix reads - are a chunk.  Chunk c of row r stands at c ^ (r & 7):
// eight rows at one c, which ldmatrix reads at once, are in eight different groups of four banks, and so are the eight
// chunks of a row that is written.
#pragma once

#include "../common/async.cuh"
#include "../common/mma.cuh"

constexpr int WARPS = 4, MMA_THREADS = 32 * WARPS;

template <int D> __device__ __forceinline__ int place(int row, int chunk) { return row * D + (chunk ^ (row & 7)) * 8; }

// Begins to copy from[rows][columns], with zeros up to to[ROWS][D].  `packs`: rows can be read in chunks.
template <int ROWS, int D, class T>
__device__ __forceinline__ void begin_tile(T* to, const T* from, int64 stride, int32 rows, int32 columns, bool packs) {
    if (packs) {
#pragma unroll 4
        for (int i = threadIdx.x; i < ROWS * D / 8; i += MMA_THREADS) {
            int row = i / (D / 8), chunk = i % (D / 8);
            bool present = row < rows && chunk * 8 < columns;
            cp_async_16(to + place<D>(row, chunk), present ? from + row * stride + chunk * 8 : from, present);
        }
    } else {
        // short, for its copies in a kernel are many, and rows without alignment few
#pragma unroll 1
        for (int i = threadIdx.x; i < ROWS * D / 8; i += MMA_THREADS) {
            int row = i / (D / 8), chunk = i % (D / 8);
            Pack<T, 8> pack;
#pragma unroll
            for (int w = 0; w < 8; ++w)
                pack[w] = row < rows && chunk * 8 + w < columns ? from[row * stride + chunk * 8 + w] : from_float<T>(0.0f);
            store_pack(to + place<D>(row, chunk), pack);
        }
    }
}

template <class T> __device__ __forceinline__ bool in_chunks(const T* start, int64 stride, int32 columns) {
    return pack_aligned<8>(start) && stride % 8 == 0 && columns % 8 == 0;
}

// c[i][j] += x[16 i + ...][:] y[8 j + ...][:]^T over the width; x: the first of the warp's rows.
template <int D, int TALL, int WIDE, class T>
__device__ __forceinline__ void multiply_rows(float (&c)[TALL][WIDE][4], const T* x, int first, const T* y, int32 width) {
    const int lane = threadIdx.x % 32;
#pragma unroll 2
    for (int d = 0; d < width; d += 16) {
        uint32 a[TALL][4];
#pragma unroll
        for (int i = 0; i < TALL; ++i) ldmatrix_x4(a[i], x + place<D>(first + 16 * i + lane % 16, d / 8 + lane / 16));
#pragma unroll
        for (int j = 0; j < WIDE; j += 2) {
            uint32 r[4];
            ldmatrix_x4(r, y + place<D>(8 * j + lane % 8 + lane / 16 * 8, d / 8 + lane / 8 % 2));
            const uint32 left[2] = {r[0], r[1]}, right[2] = {r[2], r[3]};
#pragma unroll
            for (int i = 0; i < TALL; ++i) {
                mma_16x8x16<T>(c[i][j], a[i], left);
                mma_16x8x16<T>(c[i][j + 1], a[i], right);
            }
        }
    }
}

// c[i][j] += p[i] y[:][8 j + ...]: the weights stay in the registers where they were made, since what a lane holds of a
// result is what it must hold of a left factor.
template <class T, int D, int TALL, int WIDE>
__device__ __forceinline__ void multiply_columns(float (&c)[TALL][D / 8][4], const float (&p)[TALL][WIDE][4], const T* y,
                                                 int32 width) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int n = 0; n < WIDE; n += 2) {
        uint32 a[TALL][4];
#pragma unroll
        for (int i = 0; i < TALL; ++i)
#pragma unroll
            for (int e = 0; e < 4; ++e) a[i][e] = pack_pair<T>(p[i][n + e / 2][e % 2 * 2], p[i][n + e / 2][e % 2 * 2 + 1]);
#pragma unroll
        for (int j = 0; j < D / 8; j += 2) {
            if (8 * j >= width) break;
            uint32 r[4];
            ldmatrix_x4_trans(r, y + place<D>(8 * n + lane % 16, j + lane / 16));
            const uint32 left[2] = {r[0], r[1]}, right[2] = {r[2], r[3]};
#pragma unroll
            for (int i = 0; i < TALL; ++i) {
                mma_16x8x16<T>(c[i][j], a[i], left);
                mma_16x8x16<T>(c[i][j + 1], a[i], right);
            }
        }
    }
}

// to[row][:] = c factor[row], through the warp's own rows of shared memory, so that neighbouring lanes write 16 bytes
// each side by side.  rows: how many there are from the warp's first on.
template <int D, int TALL, class T>
__device__ __forceinline__ void store_tile(T* to, int64 stride, int32 rows, int32 columns, T* memory, int first,
                                           const float (&c)[TALL][D / 8][4], const float (&factor)[TALL][2]) {
    const int lane = threadIdx.x % 32;
    __syncwarp();
#pragma unroll
    for (int i = 0; i < TALL; ++i)
#pragma unroll
        for (int j = 0; j < D / 8; ++j)
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                int row = first + 16 * i + lane / 4 + 8 * half;
                uint32* pair = reinterpret_cast<uint32*>(memory + place<D>(row, j) + lane % 4 * 2);
                *pair = pack_pair<T>(c[i][j][2 * half] * factor[i][half], c[i][j][2 * half + 1] * factor[i][half]);
            }
    __syncwarp();
    const bool packs = in_chunks(to, stride, columns);
    for (int i = lane; i < 16 * TALL * D / 8; i += 32) {
        int row = i / (D / 8), chunk = i % (D / 8);
        if (row >= rows || chunk * 8 >= columns) continue;
        Pack<T, 8> pack = load_pack<8>(memory + place<D>(first + row, chunk));
        T* target = to + row * stride + chunk * 8;
        if (packs) {
            store_pack(target, pack);
        } else {
#pragma unroll
            for (int w = 0; w < 8; ++w)
                if (chunk * 8 + w < columns) target[w] = pack[w];
        }
    }
}
