// Too few blocks come to the barrier of the grid.
#include "common/platform.cuh"

#include "common/grid.cuh"

__global__ void last_block_stays_away(uint32* state) {
    if (blockIdx.x + 1 < gridDim.x) grid_barrier(state);
}

__global__ void all_come(uint32* state) { grid_barrier(state); }

__global__ void wait_for_flag(uint32* flag) {
    spin_until([&] { return load_acquire(flag) == 1; });
}
