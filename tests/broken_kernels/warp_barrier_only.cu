#include "common/platform.cuh"

// A barrier of the warp stands where one of the block belongs: warps that keep step do not show it.
__global__ void turn_round(const float* x, float* y) {
    SHARED_ARRAY(float, s, 64);
    s[threadIdx.x] = x[threadIdx.x];
    __syncwarp();
    y[threadIdx.x] = s[63 - threadIdx.x];
}
