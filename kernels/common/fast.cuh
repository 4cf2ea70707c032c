// Functions of the special function unit without the steps around them that save subnormal numbers.
//
//   fast_exp2(x)   2^x to 2 units in the last place; results below 2^-126 are 0
#pragma once

#if defined(CUFRAME_SIM)

inline float fast_exp2(float x) { return x < -126.0f ? 0.0f : exp2f(x); }

#else

__device__ __forceinline__ float fast_exp2(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

#endif
