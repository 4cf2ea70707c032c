// Activation functions of one tensor, and GLU, forward and backward in one pass each.
//
//   y = f(x),  gx = g f'(x);  a, b, c are the function's settings
//   0 GELU        x Phi(x), Phi(x) = (1 + erf(x / sqrt 2)) / 2           f' = Phi(x) + x exp(-x^2 / 2) / sqrt(2 pi)
//   1 GELU, tanh  x (1 + tanh u) / 2, u = sqrt(2 / pi) (x + 0.044715 x^3) f' = (1 + t) / 2 + x (1 - t^2) u' / 2
//   2 SiLU        x s(x), s(x) = 1 / (1 + exp(-x))                       f' = s (1 + x (1 - s))
//   3 Mish        x tanh(log(1 + exp x)) = x n / (n + 2), n = e (e + 2), e = exp x      f' = t + x (1 - t^2) s(x)
//   4 Softplus    log(1 + exp(a x)) / a, x where a x > b                 f' = s(a x), or 1
//   5 ELU         b x where x > 0, else a b (exp(c x) - 1)               f' = b, or a b c exp(c x)      (CELU, SELU as well)
//   6 Hardswish   x min(max(x + 3, 0), 6) / 6                            f' = 0, x / 3 + 1/2, 1
//   7 LogSigmoid  min(x, 0) - log(1 + exp(-|x|))                         f' = s(-x)
//   GLU           y = p s(q), p and q the halves of x;                   gp = g s(q), gq = g p s(q) (1 - s(q))
//   Hendrycks and Gimpel, arXiv 1606.08415; Elfwing et al., arXiv 1702.03118; Misra, arXiv 1908.08681; Clevert et al.,
//   arXiv 1511.07289; Klambauer et al., arXiv 1706.02515; Howard et al., arXiv 1905.02244; Dauphin et al., arXiv 1612.08083
//
// Layout     x, y, g, gx: [n]; GLU: x [outer, 2, span], y [outer, span].
// Parallel   a thread a pack of 16 bytes; GLU a thread an element, neighbours beside each other in both halves.
// Saved      x. fp16 and bf16 are computed in fp32.
// Floor      2 values moved an element forward, 3 backward; GLU 3 forward, 5 backward.  fp32 functions cost 10 to 40
//            instructions, well below the time of moving 8 bytes on any GPU; fp64 on GPUs with few fp64 units decides.
//
// 1  2026-11  first version; not yet run on a GPU
#include "common/platform.cuh"
#include "common/index.cuh"

template <class A> __device__ __forceinline__ A logistic(A x) { return A(1) / (A(1) + exp(-x)); }

template <int FUNCTION> struct Activation;

template <> struct Activation<0> {
    template <class A> static __device__ __forceinline__ A phi(A x) {
        return (A(1) + erf(x * A(0.70710678118654752440))) * A(0.5);
    }
    template <class A> static __device__ __forceinline__ A value(A x, A, A, A) { return x * phi(x); }
    template <class A> static __device__ __forceinline__ A slope(A x, A, A, A) {
        return phi(x) + x * (exp(x * x * A(-0.5)) * A(0.39894228040143267794));
    }
};

template <> struct Activation<1> {
    template <class A> static __device__ __forceinline__ A value(A x, A, A, A) {
        A u = A(0.79788456080286535588) * x * (A(1) + A(0.044715) * x * x);
        return x * (A(1) + tanh(u)) * A(0.5);
    }
    template <class A> static __device__ __forceinline__ A slope(A x, A, A, A) {
        A square = x * x, t = tanh(A(0.79788456080286535588) * x * (A(1) + A(0.044715) * square));
        A inner = A(0.79788456080286535588) * (A(1) + A(3 * 0.044715) * square);
        return (A(1) + t) * A(0.5) + x * (A(1) - t * t) * inner * A(0.5);
    }
};

template <> struct Activation<2> {
    template <class A> static __device__ __forceinline__ A value(A x, A, A, A) { return x * logistic(x); }
    template <class A> static __device__ __forceinline__ A slope(A x, A, A, A) {
        A s = logistic(x);
        return s * (A(1) + x * (A(1) - s));
    }
};

template <> struct Activation<3> {
    // Beyond 20 the quotient is 1 in fp64, too; the square of exp(x) would overflow at 44.
    template <class A> static __device__ __forceinline__ A power(A x) { return exp(x > A(20) ? A(20) : x); }
    template <class A> static __device__ __forceinline__ A value(A x, A, A, A) {
        A e = power(x), n = e * (e + A(2));
        return x * (n / (n + A(2)));
    }
    template <class A> static __device__ __forceinline__ A slope(A x, A, A, A) {
        A e = power(x), n = e * (e + A(2)), d = n + A(2);
        return n / d + x * (A(4) * (n + A(1)) / (d * d)) * (e / (e + A(1)));
    }
};

template <> struct Activation<4> {
    template <class A> static __device__ __forceinline__ A value(A x, A beta, A limit, A) {
        A t = x * beta;
        A smooth = (t < A(0) ? A(0) : t) + log1p(exp(-fabs(t)));
        return t > limit ? x : smooth / beta;
    }
    template <class A> static __device__ __forceinline__ A slope(A x, A beta, A limit, A) {
        A t = x * beta;
        return t > limit ? A(1) : logistic(t);
    }
};

template <> struct Activation<5> {
    template <class A> static __device__ __forceinline__ A value(A x, A alpha, A scale, A rate) {
        return x > A(0) ? x * scale : expm1(x * rate) * (alpha * scale);
    }
    template <class A> static __device__ __forceinline__ A slope(A x, A alpha, A scale, A rate) {
        return x > A(0) ? scale : exp(x * rate) * (alpha * scale * rate);
    }
};

template <> struct Activation<6> {
    template <class A> static __device__ __forceinline__ A value(A x, A, A, A) {
        A y = x + A(3);
        return x * (y < A(0) ? A(0) : y > A(6) ? A(6) : y) / A(6);
    }
    template <class A> static __device__ __forceinline__ A slope(A x, A, A, A) {
        return x >= A(3) ? A(1) : x <= A(-3) ? A(0) : x / A(3) + A(0.5);
    }
};

template <> struct Activation<7> {
    template <class A> static __device__ __forceinline__ A value(A x, A, A, A) {
        return (x > A(0) ? A(0) : x) - log1p(exp(-fabs(x)));
    }
    template <class A> static __device__ __forceinline__ A slope(A x, A, A, A) { return logistic(-x); }
};

template <class T, int FUNCTION>
__global__ void activation_forward(const T* __restrict__ x, // [n]
                                   T* __restrict__ y,       // [n]
                                   int64 n, double a, double b, double c) {
    typedef acc_t<T> A;
    constexpr int N = pack_size<T>;
    A first = A(a), second = A(b), third = A(c);
    int64 i = (blockIdx.x * static_cast<int64>(blockDim.x) + threadIdx.x) * N;
    if (i + N <= n && pack_aligned<N>(x) && pack_aligned<N>(y)) {
        Pack<T, N> pack = load_pack<N>(x + i);
#pragma unroll
        for (int j = 0; j < N; ++j)
            pack[j] = convert<T>(Activation<FUNCTION>::value(to_acc(pack[j]), first, second, third));
        store_pack<N>(y + i, pack);
    } else {
        for (int64 end = i + N < n ? i + N : n; i < end; ++i)
            y[i] = convert<T>(Activation<FUNCTION>::value(to_acc(x[i]), first, second, third));
    }
}

template <class T, int FUNCTION>
__global__ void activation_backward(const T* __restrict__ g, // [n]
                                    const T* __restrict__ x, // [n]
                                    T* __restrict__ gx,      // [n]
                                    int64 n, double a, double b, double c) {
    typedef acc_t<T> A;
    constexpr int N = pack_size<T>;
    A first = A(a), second = A(b), third = A(c);
    int64 i = (blockIdx.x * static_cast<int64>(blockDim.x) + threadIdx.x) * N;
    if (i + N <= n && pack_aligned<N>(g) && pack_aligned<N>(x) && pack_aligned<N>(gx)) {
        Pack<T, N> pack = load_pack<N>(x + i), up = load_pack<N>(g + i);
#pragma unroll
        for (int j = 0; j < N; ++j)
            pack[j] = convert<T>(to_acc(up[j]) * Activation<FUNCTION>::slope(to_acc(pack[j]), first, second, third));
        store_pack<N>(gx + i, pack);
    } else {
        for (int64 end = i + N < n ? i + N : n; i < end; ++i)
            gx[i] = convert<T>(to_acc(g[i]) * Activation<FUNCTION>::slope(to_acc(x[i]), first, second, third));
    }
}

template <class T>
__global__ void glu_forward(const T* __restrict__ x, // [outer, 2, span]
                            T* __restrict__ y,       // [outer, span]
                            int64 outer, int64 span) {
    int64 i = blockIdx.x * static_cast<int64>(blockDim.x) + threadIdx.x;
    if (i >= outer * span) return;
    const T* p = x + i + quotient(i, span) * span;
    y[i] = convert<T>(to_acc(p[0]) * logistic(to_acc(p[span])));
}

template <class T>
__global__ void glu_backward(const T* __restrict__ g, // [outer, span]
                             const T* __restrict__ x, // [outer, 2, span]
                             T* __restrict__ gx,      // [outer, 2, span]
                             int64 outer, int64 span) {
    typedef acc_t<T> A;
    int64 i = blockIdx.x * static_cast<int64>(blockDim.x) + threadIdx.x;
    if (i >= outer * span) return;
    int64 at = i + quotient(i, span) * span;
    A p = to_acc(x[at]), s = logistic(to_acc(x[at + span])), through = to_acc(g[i]) * s;
    gx[at] = convert<T>(through);
    gx[at + span] = convert<T>(through * p * (A(1) - s));
}
