// Products of tiles in shared memory without tensor cores, for 16 x 16 threads.  Thread (ty, tx) has rows ty + 16 i of
// the result, and columns tx + 16 j of scores or tx VEC + 16 VEC g + w of anything as wide as a head.
//
// Rows of shared memory are padded by 16 bytes: eight lanes that read packs of eight rows then meet all banks once.
#pragma once

constexpr int SIDE = 16, THREADS = SIDE * SIDE;

// D: the widest head; RESIDENT: tiles of D columns that stay in shared memory while others pass by.
template <class T, int D, int RESIDENT> struct Tiles {
    static constexpr int VEC = pack_size<T>, SPAN = SIDE * VEC;
    // columns of a passing tile that are there at a time
    static constexpr int WIDTH = D * static_cast<int>(sizeof(T)) < 512 ? D : 512 / static_cast<int>(sizeof(T));
    static constexpr int PARTS = D / WIDTH;
    // rows of the resident tiles, 32 KB together where that leaves 16 rows; rows of the passing one
    static constexpr int FIT = 32768 / RESIDENT / (D * static_cast<int>(sizeof(T)));
    static constexpr int MOST = 256 / static_cast<int>(sizeof(T));
    static constexpr int M = FIT > MOST ? MOST : FIT < 16 ? 16 : FIT;
    static constexpr int N = D * sizeof(T) <= 256 && RESIDENT == 1 ? 64 : 32;
    static constexpr int LD_X = D + VEC, LD_Y = WIDTH + VEC, LD_P = N + VEC;
    static constexpr int RM = M / SIDE, RN = N / SIDE, RD = D / SIDE;
    // packs of a tile that a thread has on the way at once; more take registers that a second block needs
    static constexpr int AHEAD = D * sizeof(T) > 512 ? 1 : 2;
    static constexpr int X = M * LD_X, Y = N * LD_Y, P = M * LD_P;
};

// to[ROWS][COLUMNS] = from[rows][columns], zeros beyond; `vector`: packs are aligned.
template <int ROWS, int COLUMNS, int LD, int AHEAD, class T>
__device__ __forceinline__ void load_tile(T* to, const T* from, int64 stride, int32 rows, int32 columns, bool vector) {
    constexpr int VEC = pack_size<T>;
    if (vector) {
#pragma unroll AHEAD
        for (int i = threadIdx.x; i < ROWS * (COLUMNS / VEC); i += THREADS) {
            int row = i / (COLUMNS / VEC), column = i % (COLUMNS / VEC) * VEC;
            Pack<T, VEC> pack;
            if (row < rows && column < columns) {
                pack = load_pack<VEC>(from + row * stride + column);
            } else {
#pragma unroll
                for (int w = 0; w < VEC; ++w) pack[w] = T(0);
            }
            store_pack(to + row * LD + column, pack);
        }
    } else {
        // short, for its copies in a kernel are many, and rows without alignment few
#pragma unroll 1
        for (int i = threadIdx.x; i < ROWS * (COLUMNS / VEC); i += THREADS) {
            int row = i / (COLUMNS / VEC), column = i % (COLUMNS / VEC) * VEC;
            Pack<T, VEC> pack;
#pragma unroll
            for (int w = 0; w < VEC; ++w)
                pack[w] = row < rows && column + w < columns ? from[row * stride + column + w] : T(0);
            store_pack(to + row * LD + column, pack);
        }
    }
}

// Whether rows of `columns` elements can be read in packs.
template <class T> __device__ __forceinline__ bool in_packs(const T* start, int64 stride, int32 columns) {
    constexpr int VEC = pack_size<T>;
    return pack_aligned<VEC>(start) && stride % VEC == 0 && columns % VEC == 0;
}

// c[i][j] += sum over d < columns of x[ty + 16 i][d] y[tx + 16 j][d]; reads up to the next pack, which is zero there.
template <int LD_X, int LD_Y, int RM, int RN, class T>
__device__ __forceinline__ void multiply_rows(T (&c)[RM][RN], const T* x, const T* y, int32 columns) {
    constexpr int VEC = pack_size<T>;
    x += threadIdx.x / SIDE * LD_X;
    y += threadIdx.x % SIDE * LD_Y;
#pragma unroll 1
    for (int d = 0; d < columns; d += VEC) {
        Pack<T, VEC> left[RM], right[RN];
#pragma unroll
        for (int i = 0; i < RM; ++i) left[i] = load_pack<VEC>(x + i * SIDE * LD_X + d);
#pragma unroll
        for (int j = 0; j < RN; ++j) right[j] = load_pack<VEC>(y + j * SIDE * LD_Y + d);
#pragma unroll
        for (int w = 0; w < VEC; ++w)
#pragma unroll
            for (int i = 0; i < RM; ++i)
#pragma unroll
                for (int j = 0; j < RN; ++j) c[i][j] += left[i][w] * right[j][w];
    }
}

// c[i][FIRST + g VEC + w] += sum over n < N of p[ty + 16 i][n] y[n][tx VEC + 16 VEC g + w]
template <int N, int WIDTH, int LD_P, int LD_Y, int RM, int RD, class T>
__device__ __forceinline__ void multiply_columns(T (&c)[RM][RD], int first, const T* p, const T* y) {
    constexpr int VEC = pack_size<T>, SPAN = SIDE * VEC;
    p += threadIdx.x / SIDE * LD_P;
    y += threadIdx.x % SIDE * VEC;
#pragma unroll 1
    for (int n = 0; n < N; n += VEC) {
        Pack<T, VEC> left[RM];
#pragma unroll
        for (int i = 0; i < RM; ++i) left[i] = load_pack<VEC>(p + i * SIDE * LD_P + n);
#pragma unroll
        for (int v = 0; v < VEC; ++v)
#pragma unroll
            for (int g = 0; g < WIDTH / SPAN; ++g) {
                Pack<T, VEC> right = load_pack<VEC>(y + (n + v) * LD_Y + g * SPAN);
#pragma unroll
                for (int i = 0; i < RM; ++i)
#pragma unroll
                    for (int w = 0; w < VEC; ++w) c[i][first + g * VEC + w] += left[i][v] * right[w];
            }
    }
}

// to[row][columns of this thread] = c factor
template <int RD, class T>
__device__ __forceinline__ void store_row(T* to, const T (&c)[RD], T factor, int32 columns) {
    constexpr int VEC = pack_size<T>, SPAN = SIDE * VEC;
#pragma unroll
    for (int d = 0; d < RD; ++d) {
        int column = threadIdx.x % SIDE * VEC + d / VEC * SPAN + d % VEC;
        if (column < columns) to[column] = c[d] * factor;
    }
}
