// Static shared memory above the 48 KB that a kernel may declare, and a sum of both kinds above what a block may have.
#include "common/platform.cuh"

__global__ void static_memory(float* y) {
    SHARED_ARRAY(float, tile, 12289);
    tile[threadIdx.x] = y[threadIdx.x];
}

__global__ void both_kinds(float* y) {
    SHARED_ARRAY(float, tile, 12288);
    DYNAMIC_SHARED(float, more);
    tile[threadIdx.x] = more[threadIdx.x] = y[threadIdx.x];
}

__global__ void none_given(float* y) {
    DYNAMIC_SHARED(float, more);
    more[threadIdx.x] = y[threadIdx.x];
}
