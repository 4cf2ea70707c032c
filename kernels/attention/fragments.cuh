// Tiles of 16-bit numbers, or of floats rounded to TF32, in shared memory, D columns wide, and their products by tensor
// cores.  A warp has TALL times 16 rows of the left factor, and of the result.
//
// 16 bytes, what a lane copies and ldmatrix reads of a row, are a chunk: eight numbers, or four floats.  Chunk c of row r
// stands at c ^ (r & 7): eight rows at one c, which ldmatrix reads at once, are in eight different groups of four banks,
// and so are the eight chunks of a row that is written.  tests/test_attention_banks.py counts.
//
// Floats: ldmatrix gives lane 4 g + t the 32-bit word t of row g, which is what TF32's fragments want as well.  Products
// of eight numbers take the place of those of sixteen.
#pragma once

#include "../common/async.cuh"
#include "../common/mma.cuh"

constexpr int WARPS = 4, MMA_THREADS = 32 * WARPS;

template <class T> constexpr bool IS_TF32 = sizeof(T) == 4;
// numbers of a chunk
template <class T> constexpr int CHUNK = 16 / static_cast<int>(sizeof(T));

// Where a chunk of a row begins.
template <int D, class T> __device__ __forceinline__ int place(int row, int chunk) {
    return row * D + (chunk ^ (row & 7)) * CHUNK<T>;
}

// c[16, 8] += a b, of 16 inner numbers, or 8 floats.
template <class T>
__device__ __forceinline__ void multiply_add(float (&c)[4], const uint32 (&a)[4], const uint32 (&b)[2]) {
    if constexpr (IS_TF32<T>)
        mma_16x8x8_tf32(c, a, b);
    else
        mma_16x8x16<T>(c, a, b);
}

// Begins to copy from[rows][columns], with zeros up to to[ROWS][D].  `packs`: rows can be read in chunks.
template <int ROWS, int D, class T>
__device__ __forceinline__ void begin_tile(T* to, const T* from, int64 stride, int32 rows, int32 columns, bool packs) {
    constexpr int SIZE = CHUNK<T>;
    if (packs) {
#pragma unroll 4
        for (int i = threadIdx.x; i < ROWS * D / SIZE; i += MMA_THREADS) {
            int row = i / (D / SIZE), chunk = i % (D / SIZE);
            bool present = row < rows && chunk * SIZE < columns;
            cp_async_16(to + place<D, T>(row, chunk), present ? from + row * stride + chunk * SIZE : from, present);
        }
    } else {
        // short, for its copies in a kernel are many, and rows without alignment few
#pragma unroll 1
        for (int i = threadIdx.x; i < ROWS * D / SIZE; i += MMA_THREADS) {
            int row = i / (D / SIZE), first = i % (D / SIZE) * SIZE;
            Pack<T, SIZE> pack;
#pragma unroll
            for (int w = 0; w < SIZE; ++w)
                pack[w] = row < rows && first + w < columns ? from[row * stride + first + w] : from_float<T>(0.0f);
            store_pack(to + place<D, T>(row, first / SIZE), pack);
        }
    }
}

// Floats of a tile whose copies have come, rounded to nearest, which the tensor cores would cut off.  Each thread rounds
// what it copied, before the barrier behind which others read: once, where each warp would do so for itself.
template <int ROWS, int D, class T> __device__ __forceinline__ void round_tile(T* tile) {
    if constexpr (IS_TF32<T>) {
#pragma unroll 4
        for (int i = threadIdx.x; i < ROWS * D / 4; i += MMA_THREADS) {
            T* chunk = tile + place<D, T>(i / (D / 4), i % (D / 4));
            Pack<T, 4> pack = load_pack<4>(chunk);
#pragma unroll
            for (int w = 0; w < 4; ++w) pack[w] = __uint_as_float(to_tf32(pack[w]));
            store_pack(chunk, pack);
        }
    }
}

template <class T> __device__ __forceinline__ bool in_chunks(const T* start, int64 stride, int32 columns) {
    return pack_aligned<CHUNK<T>>(start) && stride % CHUNK<T> == 0 && columns % CHUNK<T> == 0;
}

// c[i][j] += x[16 i + ...][:] y[8 j + ...][:]^T over the width; x: the first of the warp's rows.
template <int D, int TALL, int WIDE, class T>
__device__ __forceinline__ void multiply_rows(float (&c)[TALL][WIDE][4], const T* x, int first, const T* y, int32 width) {
    const int lane = threadIdx.x % 32;
#pragma unroll 2
    for (int d = 0; d < width; d += 2 * CHUNK<T>) {
        const int chunk = d / CHUNK<T>;
        uint32 a[TALL][4];
#pragma unroll
        for (int i = 0; i < TALL; ++i) ldmatrix_x4(a[i], x + place<D, T>(first + 16 * i + lane % 16, chunk + lane / 16));
#pragma unroll
        for (int j = 0; j < WIDE; j += 2) {
            uint32 r[4];
            ldmatrix_x4(r, y + place<D, T>(8 * j + lane % 8 + lane / 16 * 8, chunk + lane / 8 % 2));
            const uint32 left[2] = {r[0], r[1]}, right[2] = {r[2], r[3]};
#pragma unroll
            for (int i = 0; i < TALL; ++i) {
                multiply_add<T>(c[i][j], a[i], left);
                multiply_add<T>(c[i][j + 1], a[i], right);
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
    if constexpr (IS_TF32<T>) {
        // A lane holds the weights of keys 2t and 2t + 1, where a left factor has columns t and t + 4: so these are the
        // keys that its part of the right factor is read for.  The four t of a row's eight columns meet all banks once.
#pragma unroll
        for (int n = 0; n < WIDE; ++n) {
            uint32 a[TALL][4];
#pragma unroll
            for (int i = 0; i < TALL; ++i)
#pragma unroll
                for (int e = 0; e < 4; ++e) a[i][e] = to_tf32(p[i][n][e % 2 * 2 + e / 2]);
            const int row = 8 * n + lane % 4 * 2;
#pragma unroll
            for (int j = 0; j < D / 8; ++j) {
                if (8 * j >= width) break;
                const int column = 8 * j + lane / 4, chunk = column / 4, w = column % 4;
                const uint32 b[2] = {__float_as_uint(y[place<D, T>(row, chunk) + w]),
                                     __float_as_uint(y[place<D, T>(row + 1, chunk) + w])};
#pragma unroll
                for (int i = 0; i < TALL; ++i) multiply_add<T>(c[i][j], a[i], b);
            }
        }
    } else {
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
                ldmatrix_x4_trans(r, y + place<D, T>(8 * n + lane % 16, j + lane / 16));
                const uint32 left[2] = {r[0], r[1]}, right[2] = {r[2], r[3]};
#pragma unroll
                for (int i = 0; i < TALL; ++i) {
                    multiply_add<T>(c[i][j], a[i], left);
                    multiply_add<T>(c[i][j + 1], a[i], right);
                }
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
                int column = 8 * j + lane % 4 * 2;
                Pack<T, 2> pair;
#pragma unroll
                for (int w = 0; w < 2; ++w) pair[w] = from_float<T>(c[i][j][2 * half + w] * factor[i][half]);
                store_pack(memory + place<D, T>(row, column / CHUNK<T>) + column % CHUNK<T>, pair);
            }
    __syncwarp();
    const bool packs = in_chunks(to, stride, columns);
    constexpr int SIZE = CHUNK<T>;
    for (int i = lane; i < 16 * TALL * D / SIZE; i += 32) {
        int row = i / (D / SIZE), chunk = i % (D / SIZE);
        if (row >= rows || chunk * SIZE >= columns) continue;
        Pack<T, SIZE> pack = load_pack<SIZE>(memory + place<D, T>(first + row, chunk));
        T* target = to + row * stride + chunk * SIZE;
        if (packs) {
            store_pack(target, pack);
        } else {
#pragma unroll
            for (int w = 0; w < SIZE; ++w)
                if (chunk * SIZE + w < columns) target[w] = pack[w];
        }
    }
}
