// Shifts a block's values by one place through shared memory, without the barrier between writing and reading. Threads
// that run in the order of their numbers hide it.
#include "common/platform.cuh"

__global__ void shift(const float* x, float* y) {
    SHARED_ARRAY(float, tile, 64);
    tile[threadIdx.x] = x[threadIdx.x];
    y[threadIdx.x] = threadIdx.x ? tile[threadIdx.x - 1] : 0.0f;
}
