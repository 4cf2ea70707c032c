// Reductions over a warp and over a block. Every lane, or thread, gets the result; the order of the operations is fixed,
// so that the same input gives the same bits.
//
//   float total = warp_sum(x);                 // also warp_max, warp_min; all 32 lanes take part
//   float total = block_sum(x);                // also block_max, block_min; all threads take part
//   float total = block_reduce(x, Sum(), 0.f); // any functor with its neutral element
#pragma once

constexpr uint32 FULL_WARP = 0xFFFFFFFFu;

struct Sum {
    template <class T> __device__ __forceinline__ T operator()(T a, T b) const { return a + b; }
};
struct Maximum {
    template <class T> __device__ __forceinline__ T operator()(T a, T b) const { return a < b ? b : a; }
};
struct Minimum {
    template <class T> __device__ __forceinline__ T operator()(T a, T b) const { return b < a ? b : a; }
};

// The lanes of each aligned group of `width` lanes, a power of two, reduce among themselves.
template <int width = 32, class T, class Combine>
__device__ __forceinline__ T warp_reduce(T value, Combine combine AND_CALLER) {
#if defined(CUFRAME_SIM)
    return ::sim::butterfly<width>(value, combine, file, line);
#else
#pragma unroll
    for (int offset = width / 2; offset > 0; offset /= 2)
        value = combine(value, __shfl_xor_sync(FULL_WARP, value, offset));
    return value;
#endif
}

template <class T> __device__ __forceinline__ T warp_sum(T value AND_CALLER) {
    return warp_reduce(value, Sum() AND_PASS_CALLER);
}
template <class T> __device__ __forceinline__ T warp_max(T value AND_CALLER) {
    return warp_reduce(value, Maximum() AND_PASS_CALLER);
}
template <class T> __device__ __forceinline__ T warp_min(T value AND_CALLER) {
    return warp_reduce(value, Minimum() AND_PASS_CALLER);
}

// The number of the thread in its block, and the block's number of threads.
__device__ __forceinline__ uint32 thread_rank() {
    return threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
}
__device__ __forceinline__ uint32 block_threads() { return blockDim.x * blockDim.y * blockDim.z; }

// Blocks of whole warps. `neutral` stands for the warps that a block of less than 1024 threads does not have. Two barriers:
// the first protects the partial results of an earlier call.
template <class T, class Combine>
__device__ __forceinline__ T block_reduce(T value, Combine combine, T neutral AND_CALLER) {
    SHARED_ARRAY(T, partial, 32);
    uint32 lane = thread_rank() % 32, warp = thread_rank() / 32;
    value = warp_reduce(value, combine AND_PASS_CALLER);
    __syncthreads(PASS_CALLER);
    if (lane == 0) partial[warp] = value;
    __syncthreads(PASS_CALLER);
    value = lane < block_threads() / 32 ? partial[lane] : neutral;
    return warp_reduce(value, combine AND_PASS_CALLER);
}

template <class T> __device__ __forceinline__ T block_sum(T value AND_CALLER) {
    return block_reduce(value, Sum(), T(0) AND_PASS_CALLER);
}
template <class T> __device__ __forceinline__ T block_max(T value AND_CALLER) {
    return block_reduce(value, Maximum(), T(-INFINITY) AND_PASS_CALLER);
}
template <class T> __device__ __forceinline__ T block_min(T value AND_CALLER) {
    return block_reduce(value, Minimum(), T(INFINITY) AND_PASS_CALLER);
}
