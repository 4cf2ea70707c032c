#include "common/platform.cuh"

__global__ void raw(float* y) {
    __shared__ float tile[32];
    tile[threadIdx.x] = y[threadIdx.x];
}
