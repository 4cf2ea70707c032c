// Blocks of one cluster (sm_90), which the launch makes of each row of the grid: they run at once and read each other's
// shared memory.
//
//   cluster_barrier();            // all threads of all its blocks; what was written to shared memory before is seen after
//   HAS_CLUSTERS                  // whether this architecture has them
//   load_peer(address, rank)      // 16 bytes that block `rank` has where `address` is here
//
// A block must not end before its peers have read what they want of it: a barrier must follow the last read.
#pragma once

#if defined(CUFRAME_SIM)

constexpr bool HAS_CLUSTERS = true;
inline void cluster_barrier(CALLER) { ::sim::sim_cluster_barrier(file, line); }
inline uint4 load_peer(const uint4* address, int32 rank AND_CALLER) {
    return *static_cast<const uint4*>(::sim::sim_peer(address, rank, sizeof(uint4), file, line));
}

#elif __CUDA_ARCH__ >= 900

constexpr bool HAS_CLUSTERS = true;
__device__ __forceinline__ void cluster_barrier() {
    asm volatile("barrier.cluster.arrive.release.aligned;\n barrier.cluster.wait.acquire.aligned;" ::: "memory");
}
__device__ __forceinline__ uint4 load_peer(const uint4* address, int32 rank) {
    uint4 found;
    asm volatile("{ .reg .u32 p;\n mapa.shared::cluster.u32 p, %4, %5;\n"
                 " ld.shared::cluster.v4.u32 {%0, %1, %2, %3}, [p]; }"
                 : "=r"(found.x), "=r"(found.y), "=r"(found.z), "=r"(found.w)
                 : "r"(shared_address(address)), "r"(rank) : "memory");
    return found;
}

#else

constexpr bool HAS_CLUSTERS = false;
__device__ __forceinline__ void cluster_barrier() { __trap(); }
__device__ __forceinline__ uint4 load_peer(const uint4*, int32) { return make_uint4(0, 0, 0, 0); }

#endif
