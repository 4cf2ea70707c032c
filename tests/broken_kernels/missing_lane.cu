// Warp collectives to which not all lanes of the mask come.
#include "common/platform.cuh"

__global__ void shuffle_in_branch(float* y) {
    float v = y[threadIdx.x];
    if (threadIdx.x != 3) v += __shfl_xor_sync(0xFFFFFFFFu, v, 1);
    __syncthreads();
    y[threadIdx.x] = v;
}

__global__ void lane_that_left(float* y) {
    float v = y[threadIdx.x];
    if (threadIdx.x == 3) return;
    y[threadIdx.x] = v + __shfl_xor_sync(0xFFFFFFFFu, v, 1);
}

__global__ void not_in_mask(float* y) {
    y[threadIdx.x] += __shfl_xor_sync(0x0000FFFFu, y[threadIdx.x], 1);
}

__global__ void different_collectives(float* y) {
    if (threadIdx.x < 16)
        y[threadIdx.x] = __shfl_xor_sync(0xFFFFFFFFu, y[threadIdx.x], 1);
    else
        y[threadIdx.x] = static_cast<float>(__ballot_sync(0xFFFFFFFFu, 1));
}
