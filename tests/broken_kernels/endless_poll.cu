// Polls without spin_until, so that no other thread ever runs.
#include "common/platform.cuh"

__global__ void own_spin(uint32* flag) {
    if (blockIdx.x == 0)
        while (atomicAdd(flag, 0u) == 0) {
        }
    else
        atomicExch(flag, 1u);
}

__global__ void forever(volatile float* y) {
    while (y[0] == 0) {
    }
}

__global__ void many_barriers(float* y) {
    for (int i = 0; i < 1000000000; ++i) {
        y[threadIdx.x] += 1;
        __syncthreads();
    }
}
