// Barriers that not all threads of the block reach.
#include "common/platform.cuh"

__global__ void two_places(float* y) {
    if (threadIdx.x < 16) {
        y[threadIdx.x] = 1.0f;
        __syncthreads();
    } else {
        __syncthreads();
    }
}

__global__ void one_branch(float* y) {
    if (threadIdx.x < 16) __syncthreads();
    y[threadIdx.x] = 1.0f;
}

__global__ void early_return(float* y, int n) {
    if (threadIdx.x >= n) return;
    __syncthreads();
    y[threadIdx.x] = 1.0f;
}

// Nothing is wrong with this one: it says that it leaves.
__global__ void announced_return(float* y, int n) {
    if (threadIdx.x >= n) {
        leave_barriers();
        return;
    }
    __syncthreads();
    y[threadIdx.x] = 1.0f;
}

__global__ void comes_back(float* y) {
    if (threadIdx.x == 3) leave_barriers();
    y[threadIdx.x] = 1.0f;
    __syncthreads();
}
