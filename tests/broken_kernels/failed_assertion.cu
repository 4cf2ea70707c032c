#include "common/platform.cuh"

__global__ void positive(const float* x, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) assert(x[i] > 0);
}
