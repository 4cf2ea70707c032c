// Softmax and log-softmax, forward and backward.
//
//   softmax      y_i = exp(x_i - m) / s,      gx_i = y_i (g_i - sum_j g_j y_j)
//   log-softmax  y_i = x_i - m - log s,       gx_i = g_i - exp(y_i) sum_j g_j
//   with m = max_j x_j and s = sum_j exp(x_j - m)
//
// Layout     x, y, g, gx: [outer, size, inner] row-major, the sums over `size`; inner is 1 for the last dimension.
// Parallel   rows (inner = 1): GROUP threads share a row - a warp for short rows, a block for long ones - and keep m and s
//            together while they read it once (Milakov and Gimelshein, "Online normalizer calculation for softmax",
//            arXiv 1805.02867); the second reading finds the row in cache.
//            columns (inner > 1): a thread a column, so that neighbours read neighbours.
// Saved      y. fp16 and bf16 are computed in fp32.
// Floor      2 values moved an element forward, 3 backward; the memory decides.
//
// 1  2026-11  first version; not yet run on a GPU
#include "common/platform.cuh"
#include "common/normalizer.cuh"

template <class T, bool LOG, int GROUP>
__global__ void softmax_rows_forward(const T* __restrict__ x, // [rows, size]
                                     T* __restrict__ y,       // [rows, size]
                                     int64 rows, int32 size) {
    typedef acc_t<T> A;
    int32 lane = threadIdx.x % GROUP;
    int64 row = blockIdx.x * static_cast<int64>(blockDim.x / GROUP) + threadIdx.x / GROUP;
    if (row >= rows) return; // whole groups leave, and a block's group is the block
    x += row * size;
    y += row * size;
    Normalizer<A> mine;
    for (int32 i = lane; i < size; i += GROUP) mine.add(to_acc(x[i]));
    Normalizer<A> all = merge<GROUP>(mine);
    A scale = LOG ? log(all.s) : A(1) / all.s;
    for (int32 i = lane; i < size; i += GROUP) {
        A d = to_acc(x[i]) - all.m;
        y[i] = convert<T>(LOG ? d - scale : exp(d) * scale);
    }
}

template <class T, bool LOG, int GROUP>
__global__ void softmax_rows_backward(const T* __restrict__ g, // [rows, size]
                                      const T* __restrict__ y, // [rows, size]
                                      T* __restrict__ gx,      // [rows, size]
                                      int64 rows, int32 size) {
    typedef acc_t<T> A;
    int32 lane = threadIdx.x % GROUP;
    int64 row = blockIdx.x * static_cast<int64>(blockDim.x / GROUP) + threadIdx.x / GROUP;
    if (row >= rows) return;
    g += row * size;
    y += row * size;
    gx += row * size;
    A sum = 0;
    for (int32 i = lane; i < size; i += GROUP) sum += LOG ? to_acc(g[i]) : to_acc(g[i]) * to_acc(y[i]);
    sum = group_sum<GROUP>(sum);
    for (int32 i = lane; i < size; i += GROUP) {
        A gi = to_acc(g[i]), yi = to_acc(y[i]);
        gx[i] = convert<T>(LOG ? gi - exp(yi) * sum : yi * (gi - sum));
    }
}

template <class T, bool LOG>
__global__ void softmax_columns_forward(const T* __restrict__ x, // [outer, size, inner]
                                        T* __restrict__ y,       // [outer, size, inner]
                                        int64 outer, int32 size, int64 inner) {
    typedef acc_t<T> A;
    int64 column = blockIdx.x * static_cast<int64>(blockDim.x) + threadIdx.x;
    if (column >= outer * inner) return;
    int64 start = column / inner * size * inner + column % inner;
    Normalizer<A> all;
    for (int32 i = 0; i < size; ++i) all.add(to_acc(x[start + i * inner]));
    A scale = LOG ? log(all.s) : A(1) / all.s;
    for (int32 i = 0; i < size; ++i) {
        A d = to_acc(x[start + i * inner]) - all.m;
        y[start + i * inner] = convert<T>(LOG ? d - scale : exp(d) * scale);
    }
}

template <class T, bool LOG>
__global__ void softmax_columns_backward(const T* __restrict__ g, // [outer, size, inner]
                                         const T* __restrict__ y, // [outer, size, inner]
                                         T* __restrict__ gx,      // [outer, size, inner]
                                         int64 outer, int32 size, int64 inner) {
    typedef acc_t<T> A;
    int64 column = blockIdx.x * static_cast<int64>(blockDim.x) + threadIdx.x;
    if (column >= outer * inner) return;
    int64 start = column / inner * size * inner + column % inner;
    A sum = 0;
    for (int32 i = 0; i < size; ++i) {
        A gi = to_acc(g[start + i * inner]);
        sum += LOG ? gi : gi * to_acc(y[start + i * inner]);
    }
    for (int32 i = 0; i < size; ++i) {
        A gi = to_acc(g[start + i * inner]), yi = to_acc(y[start + i * inner]);
        gx[start + i * inner] = convert<T>(LOG ? gi - exp(yi) * sum : yi * (gi - sum));
    }
}
