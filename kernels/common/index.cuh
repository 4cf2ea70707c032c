// Arithmetic of indices.
#pragma once

// Division of what nearly always fits into 32 bits, where it takes a quarter of the time.
__device__ __forceinline__ int64 quotient(int64 a, int64 b) {
    if (((a | b) >> 32) == 0) return static_cast<uint32>(a) / static_cast<uint32>(b);
    return a / b;
}
