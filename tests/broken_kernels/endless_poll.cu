// Polls without spin_until, so that no other thread ever runs.
#include "common/platform.cuh"

__global__ void own_spin(uint32* flag) {
    if (blockIdx.x == 0)
        while (atomicAdd(flag, 0u) == 0) {
        }
    else
        atomicExch(flag, 1u);
}
