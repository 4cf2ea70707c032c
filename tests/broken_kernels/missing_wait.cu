// Reads what cp.async copies before waiting for it.
#include "common/platform.cuh"

#include "common/async.cuh"

template <bool waits>
__global__ void doubled(const float* x, float* y) {
    SHARED_ARRAY(float, tile, 128);
    cp_async_16(&tile[4 * threadIdx.x], &x[4 * threadIdx.x]);
    cp_async_commit();
    if (waits) cp_async_wait<0>();
    __syncthreads();
    for (int i = threadIdx.x; i < 128; i += blockDim.x) y[i] = 2 * tile[127 - i];
    cp_async_wait<0>();
}

// Ends before its copies have come.
__global__ void no_wait(const float* x, float* y) {
    SHARED_ARRAY(float, tile, 128);
    cp_async_16(&tile[4 * threadIdx.x], &x[4 * threadIdx.x]);
    cp_async_commit();
    y[threadIdx.x] = x[threadIdx.x];
}

// Two groups under way, and a wait that lets both go on.
__global__ void wrong_group(const float* x, float* y) {
    SHARED_ARRAY(float, tile, 256);
    for (int stage = 0; stage < 2; ++stage) {
        cp_async_16(&tile[128 * stage + 4 * threadIdx.x], &x[4 * threadIdx.x]);
        cp_async_commit();
    }
    cp_async_wait<2>();
    __syncthreads();
    y[threadIdx.x] = tile[threadIdx.x];
    cp_async_wait<0>();
}
