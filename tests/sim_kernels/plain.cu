// Plain CUDA, without our headers.
extern "C" __global__ void scale(float* x, float factor, size_t n) {
    size_t i = blockIdx.x * size_t(blockDim.x) + threadIdx.x;
    if (i < n) x[i] *= factor;
}
