// Arrays filled with random numbers: bit for bit what cuframe/cpu/philox.py gives.
//
//   uniform    u 2^-p of the p leading bits of a half (fp64: word), p the bits of T's mantissa
//   normal     Note [Logarithm recipe] and Note [Box-Muller recipe] there: two numbers of two halves (fp64: words)
//   then       v scale + shift, and no more than `most`, each operation rounded in T, as the host's generator does
//
// Every operation is rounded where the recipe rounds it (the _rn functions), so that the compiler fuses nothing.
//
// Layout     out: [n].
// Parallel   a thread a Philox block: 8 numbers, of fp64 4.
// Floor      1 value written an element; the arithmetic of Philox (250 integer instructions a block) decides for all types.
//
// 1  2026-11  first version; not yet run on a GPU
#include "common/platform.cuh"
#include "common/philox.cuh"

__device__ __forceinline__ float add_rn(float a, float b) { return __fadd_rn(a, b); }
__device__ __forceinline__ float mul_rn(float a, float b) { return __fmul_rn(a, b); }
__device__ __forceinline__ float div_rn(float a, float b) { return __fdiv_rn(a, b); }
__device__ __forceinline__ float sqrt_rn(float a) { return __fsqrt_rn(a); }
__device__ __forceinline__ double add_rn(double a, double b) { return __dadd_rn(a, b); }
__device__ __forceinline__ double mul_rn(double a, double b) { return __dmul_rn(a, b); }
__device__ __forceinline__ double div_rn(double a, double b) { return __ddiv_rn(a, b); }
__device__ __forceinline__ double sqrt_rn(double a) { return __dsqrt_rn(a); }

// What differs between the recipes of float and double: bits are uint32 and uint64.
template <class A> struct Recipe;

template <> struct Recipe<float> {
    typedef uint32 Bits;
    static constexpr int EACH = 8, ATANH = 4, TERMS_SIN = 4, TERMS_COS = 4, WIDTH = 23, S = 32;
    static constexpr Bits ROOT = 0x3F3504F3u; // sqrt(1/2)
    static __device__ __forceinline__ Bits bits(const PhiloxBlock& r, int i) { return r.half(i); }
    static __device__ __forceinline__ float number(Bits b) { return static_cast<float>(b | 1u); }
    static __device__ __forceinline__ int32 raw(float a) { return __float_as_int(a); }
    static __device__ __forceinline__ float from_raw(int32 i) { return __int_as_float(i); }
    static __device__ __forceinline__ float angle(Bits b) {
        return mul_rn(static_cast<float>(static_cast<int32>(b << 2)), static_cast<float>(1.5707963267948966 * 0x1p-32));
    }
};

template <> struct Recipe<double> {
    typedef uint64 Bits;
    static constexpr int EACH = 4, ATANH = 9, TERMS_SIN = 7, TERMS_COS = 8, WIDTH = 52, S = 53;
    static constexpr Bits ROOT = 0x3FE6A09E667F3BCDull;
    static __device__ __forceinline__ Bits bits(const PhiloxBlock& r, int i) { return r.word[i]; }
    static __device__ __forceinline__ double number(Bits b) { return static_cast<double>(static_cast<int64>(b >> 11) + 1); }
    static __device__ __forceinline__ int64 raw(double a) { return __double_as_longlong(a); }
    static __device__ __forceinline__ double from_raw(int64 i) { return __longlong_as_double(i); }
    static __device__ __forceinline__ double angle(Bits b) {
        return mul_rn(static_cast<double>(static_cast<int64>(b << 2) >> 11), 1.5707963267948966 * 0x1p-53);
    }
};

// Coefficient k = 0, 1, ... of the series without their leading terms.
constexpr double factorial(int n) { return n < 2 ? 1.0 : n * factorial(n - 1); }
constexpr double atanh_term(int k) { return 1.0 / (2 * k + 3); }
constexpr double sin_term(int k) { return (k % 2 ? 1.0 : -1.0) / factorial(2 * k + 3); }
constexpr double cos_term(int k) { return (k % 2 ? 1.0 : -1.0) / factorial(2 * k + 2); }

template <class A> __device__ __forceinline__ A minus_log(typename Recipe<A>::Bits bits) {
    typedef Recipe<A> R;
    A a = R::number(bits);
    auto raw = R::raw(a);
    typedef decltype(raw) Raw;
    raw -= static_cast<Raw>(R::ROOT);
    A scale = static_cast<A>(R::S - (raw >> R::WIDTH));
    raw &= (Raw(1) << R::WIDTH) - 1;
    raw += static_cast<Raw>(R::ROOT);
    A f = add_rn(R::from_raw(raw), A(-1));
    A t = div_rn(f, add_rn(f, A(2))), z = mul_rn(t, t);
    A p = mul_rn(z, A(atanh_term(R::ATANH - 1)));
#pragma unroll
    for (int k = R::ATANH - 2; k > 0; --k) p = mul_rn(add_rn(p, A(atanh_term(k))), z);
    p = mul_rn(mul_rn(add_rn(p, A(atanh_term(0))), z), t);
    p = add_rn(p, t);
    p = add_rn(p, p);
    return add_rn(mul_rn(scale, A(0.693147180559945309417)), -p);
}

template <class A>
__device__ __forceinline__ void box_muller(typename Recipe<A>::Bits radius, typename Recipe<A>::Bits angle, A& first, A& second) {
    typedef Recipe<A> R;
    A rho = sqrt_rn(minus_log<A>(radius)), x = R::angle(angle), y = mul_rn(x, x);
    A s = mul_rn(y, A(sin_term(R::TERMS_SIN - 1))), c = mul_rn(y, A(cos_term(R::TERMS_COS - 1)));
#pragma unroll
    for (int k = R::TERMS_SIN - 2; k > 0; --k) s = mul_rn(add_rn(s, A(sin_term(k))), y);
#pragma unroll
    for (int k = R::TERMS_COS - 2; k > 0; --k) c = mul_rn(add_rn(c, A(cos_term(k))), y);
    s = add_rn(mul_rn(mul_rn(add_rn(s, A(sin_term(0))), y), x), x);
    c = add_rn(mul_rn(add_rn(c, A(cos_term(0))), y), A(1));
    first = mul_rn(add_rn(c, -s), rho);
    second = mul_rn(add_rn(c, s), rho);
    constexpr typename R::Bits SIGN = typename R::Bits(1) << (8 * sizeof(A) - 1);
    if (angle & SIGN) first = -first;
    if (angle << 1 & SIGN) second = -second;
}

// Bits of the mantissa, the leading one among them.
template <class T> struct Mantissa;
template <> struct Mantissa<float> { static constexpr int bits = 24; };
template <> struct Mantissa<double> { static constexpr int bits = 53; };
template <> struct Mantissa<half> { static constexpr int bits = 11; };
template <> struct Mantissa<bf16> { static constexpr int bits = 8; };

template <class T, bool NORMAL>
__global__ void random_fill(T* __restrict__ out, // [n]
                            int64 n, uint64 seed, uint64 offset, double scale, double shift, double most) {
    typedef acc_t<T> A;
    typedef Recipe<A> R;
    constexpr int EACH = R::EACH, P = Mantissa<T>::bits;
    int64 block = blockIdx.x * static_cast<int64>(blockDim.x) + threadIdx.x;
    if (block * EACH >= n) return;
    PhiloxBlock r = philox_block(seed, offset, block);
    A values[EACH];
    if (NORMAL) {
#pragma unroll
        for (int j = 0; j < EACH; j += 2) box_muller<A>(R::bits(r, j), R::bits(r, j + 1), values[j], values[j + 1]);
    } else {
        A unit = static_cast<A>(1.0 / static_cast<double>(1ull << P));
#pragma unroll
        for (int j = 0; j < EACH; ++j)
            values[j] = mul_rn(static_cast<A>(static_cast<int64>(R::bits(r, j) >> (8 * sizeof(A) - P))), unit);
    }
    A by = A(scale), plus = A(shift), limit = A(most); // numbers of type T, so nothing is lost
    out += block * EACH;
    T results[EACH];
#pragma unroll
    for (int j = 0; j < EACH; ++j) {
        A v = to_acc(convert<T>(values[j]));
        if (by != A(1)) v = to_acc(convert<T>(mul_rn(v, by)));
        if (plus != A(0)) v = to_acc(convert<T>(add_rn(v, plus)));
        results[j] = convert<T>(v > limit ? limit : v);
    }
    constexpr int N = pack_size<T>;
    if (block * EACH + EACH <= n && pack_aligned<N>(out)) {
#pragma unroll
        for (int j = 0; j < EACH; j += N) {
            Pack<T, N> pack;
#pragma unroll
            for (int k = 0; k < N; ++k) pack[k] = results[j + k];
            store_pack<N>(out + j, pack);
        }
    } else {
#pragma unroll
        for (int j = 0; j < EACH; ++j)
            if (block * EACH + j < n) out[j] = results[j];
    }
}
