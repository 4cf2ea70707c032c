// Conversions between the element types of kernels, and the type they accumulate in.
#pragma once

template <class T> struct Accumulator { typedef float type; };
template <> struct Accumulator<double> { typedef double type; };

// fp16 and bf16 accumulate in fp32.
template <class T> using acc_t = typename Accumulator<T>::type;

__device__ __forceinline__ float to_float(float x) { return x; }
__device__ __forceinline__ float to_float(double x) { return static_cast<float>(x); }
__device__ __forceinline__ float to_float(half x) { return __half2float(x); }
__device__ __forceinline__ float to_float(bf16 x) { return __bfloat162float(x); }

__device__ __forceinline__ float to_acc(float x) { return x; }
__device__ __forceinline__ double to_acc(double x) { return x; }
__device__ __forceinline__ float to_acc(half x) { return __half2float(x); }
__device__ __forceinline__ float to_acc(bf16 x) { return __bfloat162float(x); }

// Rounds to nearest, ties to even.
template <class To> struct Conversion {
    template <class From> static __device__ __forceinline__ To from(From x) { return static_cast<To>(to_acc(x)); }
};
template <> struct Conversion<half> {
    static __device__ __forceinline__ half from(float x) { return __float2half_rn(x); }
    static __device__ __forceinline__ half from(double x) { return __double2half(x); }
    static __device__ __forceinline__ half from(half x) { return x; }
    static __device__ __forceinline__ half from(bf16 x) { return __float2half_rn(__bfloat162float(x)); }
};
template <> struct Conversion<bf16> {
    static __device__ __forceinline__ bf16 from(float x) { return __float2bfloat16_rn(x); }
    static __device__ __forceinline__ bf16 from(double x) { return __double2bfloat16(x); }
    static __device__ __forceinline__ bf16 from(bf16 x) { return x; }
    static __device__ __forceinline__ bf16 from(half x) { return __float2bfloat16_rn(__half2float(x)); }
};

template <class To, class From> __device__ __forceinline__ To convert(From x) { return Conversion<To>::from(x); }
template <class To> __device__ __forceinline__ To from_float(float x) { return Conversion<To>::from(x); }
