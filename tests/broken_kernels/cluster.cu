// Blocks of a cluster that read each other's shared memory as they must, and as they must not.
#include "common/platform.cuh"
#include "common/async.cuh"
#include "common/cluster.cuh"
#include "common/grid.cuh"

__device__ __forceinline__ uint4 number(uint32 n) { return make_uint4(n, n, n, n); }

// Every block takes what its right neighbour has, `rounds` times, from two slots in turn.
__global__ void pass_on(uint32* values, int32 rounds) {
    SHARED_ARRAY(uint4, box, 2 * 32);
    uint32 mine = values[blockIdx.x * 32 + threadIdx.x];
    for (int32 r = 0; r < rounds; ++r) {
        box[r % 2 * 32 + threadIdx.x] = number(mine);
        cluster_barrier();
        mine = load_peer(&box[r % 2 * 32 + threadIdx.x], (blockIdx.x + 1) % gridDim.x).y + 1;
    }
    cluster_barrier();
    values[blockIdx.x * 32 + threadIdx.x] = mine;
}

__global__ void reads_at_once(uint32* values) {
    SHARED_ARRAY(uint4, box, 32);
    box[threadIdx.x] = number(threadIdx.x);
    values[blockIdx.x * 32 + threadIdx.x] = load_peer(&box[threadIdx.x], 1).x;  // too early
}

__global__ void ends_before_it_is_read(uint32* values) {
    SHARED_ARRAY(uint4, box, 32);
    box[threadIdx.x] = number(threadIdx.x);
    cluster_barrier();
    if (blockIdx.x > 0) return;
    for (int i = 0, polls = 0; i < 3; ++i) spin_until([&] { return ++polls % 2 == 0; });
    values[threadIdx.x] = load_peer(&box[threadIdx.x], 1).x;  // gone
}

__global__ void odd_address(uint32* values) {
    SHARED_ARRAY(uint4, box, 33);
    cluster_barrier();
    values[0] = load_peer(reinterpret_cast<uint4*>(reinterpret_cast<uint32*>(box) + 1), 0).x;
}

__global__ void no_such_block(uint32* values) {
    SHARED_ARRAY(uint4, box, 32);
    cluster_barrier();
    values[0] = load_peer(box, 4).x;
}

__global__ void one_block_stays_away(uint32* values) {
    if (blockIdx.x == 1) return;
    cluster_barrier();
    values[0] = 1;
}
