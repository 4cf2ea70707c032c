// CUDA's mathematical functions. The fast ones (__expf ...) are the exact ones here.
#pragma once

extern "C" {
#define SIM_LIBM(name) float name##f(float) noexcept; double name(double) noexcept;
SIM_LIBM(acos) SIM_LIBM(acosh) SIM_LIBM(asin) SIM_LIBM(asinh) SIM_LIBM(atan) SIM_LIBM(atanh) SIM_LIBM(cbrt) SIM_LIBM(ceil)
SIM_LIBM(cos) SIM_LIBM(cosh) SIM_LIBM(erf) SIM_LIBM(erfc) SIM_LIBM(exp) SIM_LIBM(exp2) SIM_LIBM(expm1) SIM_LIBM(fabs)
SIM_LIBM(floor) SIM_LIBM(lgamma) SIM_LIBM(log) SIM_LIBM(log10) SIM_LIBM(log1p) SIM_LIBM(log2) SIM_LIBM(rint)
SIM_LIBM(round) SIM_LIBM(sin) SIM_LIBM(sinh) SIM_LIBM(sqrt) SIM_LIBM(tan) SIM_LIBM(tanh) SIM_LIBM(tgamma) SIM_LIBM(trunc)
#undef SIM_LIBM
#define SIM_LIBM(name) float name##f(float, float) noexcept; double name(double, double) noexcept;
SIM_LIBM(atan2) SIM_LIBM(copysign) SIM_LIBM(fdim) SIM_LIBM(fmax) SIM_LIBM(fmin) SIM_LIBM(fmod) SIM_LIBM(hypot)
SIM_LIBM(nextafter) SIM_LIBM(pow) SIM_LIBM(remainder)
#undef SIM_LIBM
float fmaf(float, float, float) noexcept;
double fma(double, double, double) noexcept;
float ldexpf(float, int) noexcept;
double ldexp(double, int) noexcept;
float frexpf(float, int*) noexcept;
double frexp(double, int*) noexcept;
int abs(int) noexcept;
}

// C++ overloads, as CUDA has them.
#define SIM_FLOAT(name) inline float name(float x) { return name##f(x); }
SIM_FLOAT(cbrt) SIM_FLOAT(ceil) SIM_FLOAT(cos) SIM_FLOAT(erf) SIM_FLOAT(exp) SIM_FLOAT(exp2) SIM_FLOAT(expm1) SIM_FLOAT(fabs)
SIM_FLOAT(floor) SIM_FLOAT(log) SIM_FLOAT(log10) SIM_FLOAT(log1p) SIM_FLOAT(log2) SIM_FLOAT(rint) SIM_FLOAT(round)
SIM_FLOAT(sin) SIM_FLOAT(sqrt) SIM_FLOAT(tan) SIM_FLOAT(tanh) SIM_FLOAT(trunc)
#undef SIM_FLOAT
inline float pow(float x, float y) { return powf(x, y); }
inline float fma(float a, float b, float c) { return fmaf(a, b, c); }
inline float fmod(float a, float b) { return fmodf(a, b); }
inline float copysign(float a, float b) { return copysignf(a, b); }
inline float ldexp(float x, int e) { return ldexpf(x, e); }
inline float fmax(float a, float b) { return fmaxf(a, b); }
inline float fmin(float a, float b) { return fminf(a, b); }

inline float abs(float x) { return __builtin_fabsf(x); }
inline double abs(double x) { return __builtin_fabs(x); }
inline long abs(long x) { return x < 0 ? -x : x; }
inline long long abs(long long x) { return x < 0 ? -x : x; }

#define SIM_MIN_MAX(T)                                \
    inline T min(T a, T b) { return b < a ? b : a; }  \
    inline T max(T a, T b) { return a < b ? b : a; }
SIM_MIN_MAX(int) SIM_MIN_MAX(unsigned) SIM_MIN_MAX(long) SIM_MIN_MAX(unsigned long) SIM_MIN_MAX(long long)
SIM_MIN_MAX(unsigned long long)
#undef SIM_MIN_MAX
inline float min(float a, float b) { return fminf(a, b); }
inline float max(float a, float b) { return fmaxf(a, b); }
inline double min(double a, double b) { return fmin(a, b); }
inline double max(double a, double b) { return fmax(a, b); }

#define isnan(x) __builtin_isnan(x)
#define isinf(x) (__builtin_isinf_sign(x) != 0)
#define isfinite(x) __builtin_isfinite(x)
#define signbit(x) (__builtin_signbit(x) != 0)
#define INFINITY __builtin_huge_valf()
#define NAN __builtin_nanf("")

inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
inline double rsqrt(double x) { return 1.0 / sqrt(x); }
inline float rsqrt(float x) { return rsqrtf(x); }
inline float exp10f(float x) { return powf(10.0f, x); }
inline double exp10(double x) { return pow(10.0, x); }
inline void sincosf(float x, float* s, float* c) { *s = sinf(x), *c = cosf(x); }
inline void sincos(double x, double* s, double* c) { *s = sin(x), *c = cos(x); }
inline float normcdff(float x) { return 0.5f * erfcf(-x * 0.70710678118654752f); }
inline double normcdf(double x) { return 0.5 * erfc(-x * 0.70710678118654752); }

inline float __expf(float x) { return expf(x); }
inline float __exp10f(float x) { return exp10f(x); }
inline float __logf(float x) { return logf(x); }
inline float __log2f(float x) { return log2f(x); }
inline float __log10f(float x) { return log10f(x); }
inline float __powf(float x, float y) { return powf(x, y); }
inline float __sinf(float x) { return sinf(x); }
inline float __cosf(float x) { return cosf(x); }
inline float __tanf(float x) { return tanf(x); }
inline void __sincosf(float x, float* s, float* c) { sincosf(x, s, c); }
inline float __fdividef(float a, float b) { return a / b; }
inline float fdividef(float a, float b) { return a / b; }
inline float __saturatef(float x) { return x > 0 ? (x < 1 ? x : 1.0f) : 0.0f; }

// g++ is told not to fuse products and sums, so these are what they say.
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fsqrt_rn(float x) { return sqrtf(x); }
inline float __frcp_rn(float x) { return 1.0f / x; }
inline float __frsqrt_rn(float x) { return static_cast<float>(1.0 / sqrt(static_cast<double>(x))); }
inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dsub_rn(double a, double b) { return a - b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline double __ddiv_rn(double a, double b) { return a / b; }
inline double __dsqrt_rn(double x) { return sqrt(x); }
inline double __fma_rn(double a, double b, double c) { return fma(a, b, c); }

inline int __float_as_int(float x) { return ::sim::bits_as<int>(x); }
inline unsigned __float_as_uint(float x) { return ::sim::bits_as<unsigned>(x); }
inline float __int_as_float(int x) { return ::sim::bits_as<float>(x); }
inline float __uint_as_float(unsigned x) { return ::sim::bits_as<float>(x); }
inline long long __double_as_longlong(double x) { return ::sim::bits_as<long long>(x); }
inline double __longlong_as_double(long long x) { return ::sim::bits_as<double>(x); }

// Conversions to int saturate on a GPU, and NaN gives 0.
inline int __float2int_rz(float x) {
    return x != x ? 0 : x >= 0x1p31f ? 0x7FFFFFFF : x <= -0x1p31f ? -0x7FFFFFFF - 1 : static_cast<int>(x);
}
inline int __float2int_rn(float x) { return __float2int_rz(rintf(x)); }
inline int __float2int_rd(float x) { return __float2int_rz(floorf(x)); }
inline int __float2int_ru(float x) { return __float2int_rz(ceilf(x)); }
inline unsigned __float2uint_rz(float x) { return !(x > 0) ? 0 : x >= 0x1p32f ? ~0u : static_cast<unsigned>(x); }
inline unsigned __float2uint_rn(float x) { return __float2uint_rz(rintf(x)); }
inline float __int2float_rn(int x) { return static_cast<float>(x); }
inline float __uint2float_rn(unsigned x) { return static_cast<float>(x); }
inline float __ll2float_rn(long long x) { return static_cast<float>(x); }
inline float __ull2float_rn(unsigned long long x) { return static_cast<float>(x); }
inline double __ll2double_rn(long long x) { return static_cast<double>(x); }
inline double __ull2double_rn(unsigned long long x) { return static_cast<double>(x); }
inline float __double2float_rn(double x) { return static_cast<float>(x); }

inline int __clz(int x) { return x ? __builtin_clz(x) : 32; }
inline int __clzll(long long x) { return x ? __builtin_clzll(x) : 64; }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __ffsll(long long x) { return __builtin_ffsll(x); }
inline unsigned __brev(unsigned x) {
    x = (x >> 1 & 0x55555555u) | (x & 0x55555555u) << 1;
    x = (x >> 2 & 0x33333333u) | (x & 0x33333333u) << 2;
    x = (x >> 4 & 0x0F0F0F0Fu) | (x & 0x0F0F0F0Fu) << 4;
    return __builtin_bswap32(x);
}
inline unsigned long long __brevll(unsigned long long x) {
    return static_cast<unsigned long long>(__brev(static_cast<unsigned>(x))) << 32 | __brev(static_cast<unsigned>(x >> 32));
}
inline unsigned __umulhi(unsigned a, unsigned b) { return static_cast<unsigned>(static_cast<unsigned long long>(a) * b >> 32); }
inline int __mulhi(int a, int b) { return static_cast<int>(static_cast<long long>(a) * b >> 32); }
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return static_cast<unsigned long long>(static_cast<unsigned __int128>(a) * b >> 64);
}
inline unsigned __funnelshift_l(unsigned low, unsigned high, unsigned shift) {
    shift &= 31;
    return shift ? high << shift | low >> (32 - shift) : high;
}
inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned shift) {
    shift &= 31;
    return shift ? low >> shift | high << (32 - shift) : low;
}
inline unsigned __byte_perm(unsigned low, unsigned high, unsigned selector) {
    unsigned long long both = static_cast<unsigned long long>(high) << 32 | low;
    unsigned result = 0;
    for (int i = 0; i < 4; ++i) {
        unsigned pick = selector >> 4 * i, byte = static_cast<unsigned>(both >> 8 * (pick & 7)) & 0xFF;
        if (pick & 8) byte = byte & 0x80 ? 0xFF : 0;
        result |= byte << 8 * i;
    }
    return result;
}

// Loads and stores with a cache hint.
template <class T> inline T __ldg(const T* address) { return *address; }
template <class T> inline T __ldcg(const T* address) { return *address; }
template <class T> inline T __ldcs(const T* address) { return *address; }
template <class T> inline void __stcg(T* address, T value) { *address = value; }
template <class T> inline void __stcs(T* address, T value) { *address = value; }
