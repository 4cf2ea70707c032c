// Many tensors in one launch: optimizer steps, the norm of all gradients, and clipping.
//
//   sgd        g' = +-g + decay p;                                      p -= lr g'
//   momentum   b = momentum b + keep g' (at first b = g');              p -= lr b, or lr (g' + momentum b) for Nesterov
//   adam       m = b1 m + (1 - b1) g', v = b2 v + (1 - b2) g'^2;        p = shrink p - (step m + fresh g') / d
//              d = sqrt(w) + eps, w = v or the largest v so far (amsgrad).  step and eps hold the bias corrections: Note
//              [Bias correction] in cuframe/optim/adam.py.  fresh is 0 but for NAdam, and d is 1 in the first steps of RAdam.
//              Kingma and Ba, "Adam", arXiv 1412.6980, algorithm 1; Loshchilov and Hutter, arXiv 1711.05101, algorithm 2
//              (shrink); Reddi et al., arXiv 1904.09237, algorithm 2 (w); Dozat, "Incorporating Nesterov momentum into
//              Adam", 2016, algorithm 8; Liu et al., arXiv 1908.03265, algorithm 2
//   norm       (sum |x|^order)^(1 / order) over all elements of all tensors; the largest or smallest |x| for +-inf
//   scale      x *= min(1, max_norm / (norm + 1e-6)), with the norm read on the device
//   clamp      x = min(max(x, -limit), limit); NaN stays
//
// Layout     addresses: [ARRAYS, tensors], where the arrays of tensor j start: the parameter, its gradient, its states, all
//            contiguous and of one size.  plan: [blocks, 3], for each block its tensor, first element and end.  Both are
//            made by the host once for a set of tensors and stay on the device.
// Parallel   a block a chunk of a tensor, 16 bytes of each array a thread and turn where all addresses allow it.
//            The norm: a partial result a block, then one block for all of them, both in a fixed order.
// Saved      nothing. fp16 and bf16 are computed in fp32; the norm in fp64, in which no square of an fp32 overflows.
// Floor      bytes: sgd 3 values an element, momentum 5, adam 7 (amsgrad 9), norm 1, scale 2, or none where nothing is
//            clipped.  The table costs 8 bytes a tensor and array, the plan 24 a block.
// Chunks     powers of two from 2048, such that there are about 4096 blocks: small models fill the GPU, large ones do not
//            spend their time on starting blocks.
// To measure the fp64 sums of the norm on GPUs with one fp64 unit for 64 fp32 ones, where three fp64 instructions an element
//            come near the time of reading it.
//
// 1  2026-11  first version; not yet run on a GPU
#include "common/platform.cuh"
#include "common/reduce.cuh"

// The part of a tensor that is this block's.
struct Chunk {
    int64 tensor, start, end;
};

__device__ __forceinline__ Chunk chunk_of(const int64* __restrict__ plan) {
    const int64* mine = plan + 3 * static_cast<int64>(blockIdx.x);
    return {mine[0], mine[1], mine[2]};
}

// rule(v) for each element of the chunk, v[k] its value in array k in the type of accumulation.  Array k is written back
// where bit k of WRITE is set, and read in any case.
template <class T, int ARRAYS, int WRITE, class Rule>
__device__ __forceinline__ void for_each(const int64* __restrict__ addresses, const int64* __restrict__ plan, int32 tensors,
                                         Rule rule) {
    typedef acc_t<T> A;
    constexpr int N = pack_size<T>;
    Chunk chunk = chunk_of(plan);
    T* arrays[ARRAYS];
    bool aligned = true; // chunks start at multiples of N, so what holds for the tensor holds for them
#pragma unroll
    for (int k = 0; k < ARRAYS; ++k) {
        arrays[k] = reinterpret_cast<T*>(addresses[k * static_cast<int64>(tensors) + chunk.tensor]);
        aligned = aligned && pack_aligned<N>(arrays[k]);
    }
    int64 packs_end = aligned ? chunk.end - chunk.end % N : chunk.start;
    for (int64 i = chunk.start + threadIdx.x * N; i < packs_end; i += blockDim.x * N) {
        Pack<T, N> packs[ARRAYS];
#pragma unroll
        for (int k = 0; k < ARRAYS; ++k) packs[k] = load_pack<N>(arrays[k] + i);
#pragma unroll
        for (int j = 0; j < N; ++j) {
            A v[ARRAYS];
#pragma unroll
            for (int k = 0; k < ARRAYS; ++k) v[k] = to_acc(packs[k][j]);
            rule(v);
#pragma unroll
            for (int k = 0; k < ARRAYS; ++k)
                if (WRITE >> k & 1) packs[k][j] = convert<T>(v[k]);
        }
#pragma unroll
        for (int k = 0; k < ARRAYS; ++k)
            if (WRITE >> k & 1) store_pack<N>(arrays[k] + i, packs[k]);
    }
    for (int64 i = packs_end + threadIdx.x; i < chunk.end; i += blockDim.x) {
        A v[ARRAYS];
#pragma unroll
        for (int k = 0; k < ARRAYS; ++k) v[k] = to_acc(arrays[k][i]);
        rule(v);
#pragma unroll
        for (int k = 0; k < ARRAYS; ++k)
            if (WRITE >> k & 1) arrays[k][i] = convert<T>(v[k]);
    }
}

// In all kernels `like` is any array of the set: it tells the type, and is not read.

template <class T>
__global__ void sgd_step(const T*, const int64* __restrict__ addresses, // [2, tensors]
                         const int64* __restrict__ plan,                // [blocks, 3]
                         int32 tensors, int32 blocks, double lr, double decay, bool maximize) {
    typedef acc_t<T> A;
    A rate = A(lr), l2 = A(decay);
    for_each<T, 2, 1>(addresses, plan, tensors, [=](A(&v)[2]) {
        A g = (maximize ? -v[1] : v[1]) + l2 * v[0];
        v[0] -= rate * g;
    });
}

template <class T>
__global__ void momentum_step(const T*, const int64* __restrict__ addresses, // [3, tensors]: p, g, b
                              const int64* __restrict__ plan,                // [blocks, 3]
                              int32 tensors, int32 blocks, double lr, double decay, double momentum, double keep,
                              bool nesterov, bool first, bool maximize) {
    typedef acc_t<T> A;
    A rate = A(lr), l2 = A(decay), slow = A(momentum), fresh = A(keep);
    for_each<T, 3, 5>(addresses, plan, tensors, [=](A(&v)[3]) {
        A g = (maximize ? -v[1] : v[1]) + l2 * v[0];
        v[2] = first ? g : slow * v[2] + fresh * g;
        v[0] -= rate * (nesterov ? g + slow * v[2] : v[2]);
    });
}

template <class T, bool AMSGRAD>
__global__ void adam_step(const T*, const int64* __restrict__ addresses, // [4 or 5, tensors]: p, g, m, v, the largest v
                          const int64* __restrict__ plan,                // [blocks, 3]
                          int32 tensors, int32 blocks, double beta1, double beta2, double step, double fresh,
                          double eps, double decay, double shrink, bool divide, bool maximize) {
    typedef acc_t<T> A;
    A b1 = A(beta1), b2 = A(beta2), c1 = A(1.0 - beta1), c2 = A(1.0 - beta2), rate = A(step), least = A(eps);
    A l2 = A(decay), rest = A(shrink), direct = A(fresh);
    constexpr int ARRAYS = AMSGRAD ? 5 : 4, WRITE = AMSGRAD ? 29 : 13; // all but g
    for_each<T, ARRAYS, WRITE>(addresses, plan, tensors, [=](A(&v)[ARRAYS]) {
        A g = (maximize ? -v[1] : v[1]) + l2 * v[0];
        v[2] = b1 * v[2] + c1 * g;
        v[3] = b2 * v[3] + c2 * (g * g);
        A w = v[3];
        if (AMSGRAD) w = v[ARRAYS - 1] = v[ARRAYS - 1] < w || w != w ? w : v[ARRAYS - 1]; // NaN stays
        A d = divide ? sqrt(w) + least : A(1);
        v[0] = rest * v[0] - (rate * v[2] + direct * g) / d;
    });
}

// -- norms ----------------------------------------------------------------------------------------------------------
struct LargestOrNan {
    __device__ __forceinline__ double operator()(double a, double b) const { return a < b || b != b ? b : a; }
};
struct SmallestOrNan {
    __device__ __forceinline__ double operator()(double a, double b) const { return b < a || b != b ? b : a; }
};

// What one element adds to the partial result.
template <bool SQUARES> __device__ __forceinline__ double norm_term(double x, double order) {
    if (SQUARES) return x * x;
    x = fabs(x);
    if (order == 1.0 || isinf(order)) return x;
    if (order == 0.0) return x != 0.0 ? 1.0 : 0.0;
    return pow(x, order);
}

// How partial results combine: a sum, or for infinite orders an extreme.
template <bool SQUARES> __device__ __forceinline__ double norm_combine(double a, double b, double order) {
    if (SQUARES || !isinf(order)) return a + b;
    return order > 0 ? LargestOrNan()(a, b) : SmallestOrNan()(a, b);
}

__device__ __forceinline__ double norm_neutral(double order) { return isinf(order) && order < 0 ? INFINITY : 0.0; }

__device__ __forceinline__ double norm_block(double mine, double order AND_CALLER) {
    if (!isinf(order)) return block_reduce(mine, Sum(), 0.0 AND_PASS_CALLER);
    if (order > 0) return block_reduce(mine, LargestOrNan(), 0.0 AND_PASS_CALLER);
    return block_reduce(mine, SmallestOrNan(), static_cast<double>(INFINITY) AND_PASS_CALLER);
}

template <class T, bool SQUARES>
__global__ void gradient_norm_partials(const T*, const int64* __restrict__ addresses, // [tensors]
                              const int64* __restrict__ plan,                // [blocks, 3]
                              double* __restrict__ partials,                 // [blocks]
                              int32 tensors, int32 blocks, double order) {
    constexpr int N = pack_size<T>;
    Chunk chunk = chunk_of(plan);
    const T* x = reinterpret_cast<const T*>(addresses[chunk.tensor]);
    double mine = norm_neutral(order);
    int64 packs_end = pack_aligned<N>(x) ? chunk.end - chunk.end % N : chunk.start;
    for (int64 i = chunk.start + threadIdx.x * N; i < packs_end; i += blockDim.x * N) {
        Pack<T, N> pack = load_pack<N>(x + i);
#pragma unroll
        for (int j = 0; j < N; ++j) mine = norm_combine<SQUARES>(mine, norm_term<SQUARES>(to_acc(pack[j]), order), order);
    }
    for (int64 i = packs_end + threadIdx.x; i < chunk.end; i += blockDim.x)
        mine = norm_combine<SQUARES>(mine, norm_term<SQUARES>(to_acc(x[i]), order), order);
    double all = norm_block(mine, order);
    if (threadIdx.x == 0) partials[blockIdx.x] = all;
}

// One block.  Of order 0 is the number of tensors that hold anything but zeros: it is the norm of the tensors' norms.
__global__ void gradient_norm(const double* __restrict__ partials, // [blocks]
                           const int64* __restrict__ plan,      // [blocks, 3]
                           double* __restrict__ total,          // [1]
                           int32 blocks, double order) {
    double mine = norm_neutral(order);
    for (int32 i = threadIdx.x; i < blocks; i += blockDim.x) {
        double term = partials[i];
        if (order == 0.0) {
            bool any = term != 0.0, starts = plan[3 * static_cast<int64>(i) + 1] == 0;
            for (int32 j = i + 1; starts && j < blocks && plan[3 * static_cast<int64>(j) + 1] != 0; ++j)
                any = any || partials[j] != 0.0;
            term = starts && any ? 1.0 : 0.0;
        }
        mine = norm_combine<false>(mine, term, order);
    }
    double all = norm_block(mine, order);
    if (threadIdx.x != 0) return;
    bool plain = order == 0.0 || order == 1.0 || isinf(order);
    total[0] = plain ? all : order == 2.0 ? sqrt(all) : pow(all, 1.0 / order);
}

template <class T>
__global__ void scale_step(const T*, const int64* __restrict__ addresses, // [tensors]
                           const int64* __restrict__ plan,                // [blocks, 3]
                           const double* __restrict__ total,              // [1]: the norm; without it `limit` is the factor
                           int32 tensors, int32 blocks, double limit) {
    typedef acc_t<T> A;
    double exact = total ? limit / (total[0] + 1e-6) : limit;
    if (exact >= 1.0) return; // NaN goes on, and makes all gradients NaN
    A factor = A(exact);
    for_each<T, 1, 1>(addresses, plan, tensors, [=](A(&v)[1]) { v[0] *= factor; });
}

template <class T>
__global__ void clamp_step(const T*, const int64* __restrict__ addresses, // [tensors]
                           const int64* __restrict__ plan,                // [blocks, 3]
                           int32 tensors, int32 blocks, double limit) {
    typedef acc_t<T> A;
    A most = A(limit);
    for_each<T, 1, 1>(addresses, plan, tensors, [=](A(&v)[1]) {
        v[0] = v[0] > most ? most : v[0] < -most ? -most : v[0];
    });
}
