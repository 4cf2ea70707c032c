// One thread too many in each: past a global array, and past a shared one.
#include "common/platform.cuh"

__global__ void global_write(float* y, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i <= n) y[i] = 1.0f;
}

__global__ void shared_write(float* y) {
    SHARED_ARRAY(float, tile, 31);
    tile[threadIdx.x] = y[threadIdx.x];
    __syncthreads();
    y[threadIdx.x] = tile[0];
}

__global__ void wild_pointer(float* y) {
    if (threadIdx.x == 5) *reinterpret_cast<float*>(64) = 0;
    y[threadIdx.x] = 0;
}

__global__ void deep_recursion(float* y, int n) {
    struct Down {
        static float go(volatile float* at, int left) {
            volatile float here[64];
            here[left % 64] = at[0];
            return left ? go(here, left - 1) + here[left % 64] : here[0];
        }
    };
    y[threadIdx.x] = Down::go(y, n);
}

__global__ void divide(int* y, int by) { y[threadIdx.x] /= by; }
