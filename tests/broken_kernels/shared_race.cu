// All threads add to the same word of shared memory, without an atomic.
#include "common/platform.cuh"

__global__ void count(int* y) {
    SHARED_ARRAY(int, total, 1);
    if (threadIdx.x == 0) total[0] = 0;
    __syncthreads();
    total[0] += 1;
    __syncthreads();
    if (threadIdx.x == 0) y[blockIdx.x] = total[0];
}

__global__ void count_atomically(int* y) {
    SHARED_ARRAY(int, total, 1);
    if (threadIdx.x == 0) total[0] = 0;
    __syncthreads();
    atomicAdd(total, 1);
    __syncthreads();
    if (threadIdx.x == 0) y[blockIdx.x] = total[0];
}

// Every block adds to the same word of global memory.
__global__ void count_blocks(int* y) {
    if (threadIdx.x == 0) y[0] += 1;
}
