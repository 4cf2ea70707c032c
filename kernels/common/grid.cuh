// Waiting across blocks, in cooperative launches alone: all blocks must be on the GPU at once.
//
//   spin_until([&] { return load_acquire(flag) >= step; });   // the one place where a kernel may poll
//   store_release(flag, value);                               // what this thread wrote before is seen with it
//   grid_barrier(state);                                      // all threads of all blocks; state: one uint32, zeroed once
//   group_barrier(state, members, first);                     // those of `members` blocks, one of which is `first`
//
// After `grid_barrier` every thread sees what any thread wrote to global memory before it. Data that blocks exchange must
// not be read through __ldg or a const __restrict__ pointer: the read-only cache is not coherent.
#pragma once

#if defined(CUFRAME_SIM)

template <class T> inline T load_acquire(const T* address AND_CALLER) {
    ::sim::count_atomic(file, line);
    return __atomic_load_n(address, __ATOMIC_ACQUIRE);
}
template <class T> inline void store_release(T* address, T value) { __atomic_store_n(address, value, __ATOMIC_RELEASE); }

template <class Predicate>
inline void spin_until(Predicate done, const char* what = "spin_until" AND_CALLER) {
    if (done()) return;
    do ::sim::sim_spin(what, file, line);
    while (!done());
    ::sim::sim_spin_end();
}

#else

// Since sm_70 PTX has loads and stores with memory order, which need no fence of their own.
__device__ __forceinline__ uint32 load_acquire(const uint32* address) {
    uint32 value;
    asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(value) : "l"(address) : "memory");
    return value;
}
__device__ __forceinline__ int32 load_acquire(const int32* address) {
    int32 value;
    asm volatile("ld.acquire.gpu.global.s32 %0, [%1];" : "=r"(value) : "l"(address) : "memory");
    return value;
}
__device__ __forceinline__ uint64 load_acquire(const uint64* address) {
    uint64 value;
    asm volatile("ld.acquire.gpu.global.u64 %0, [%1];" : "=l"(value) : "l"(address) : "memory");
    return value;
}
__device__ __forceinline__ void store_release(uint32* address, uint32 value) {
    asm volatile("st.release.gpu.global.u32 [%0], %1;" ::"l"(address), "r"(value) : "memory");
}
__device__ __forceinline__ void store_release(int32* address, int32 value) {
    asm volatile("st.release.gpu.global.s32 [%0], %1;" ::"l"(address), "r"(value) : "memory");
}
__device__ __forceinline__ void store_release(uint64* address, uint64 value) {
    asm volatile("st.release.gpu.global.u64 [%0], %1;" ::"l"(address), "l"(value) : "memory");
}

template <class Predicate>
__device__ __forceinline__ void spin_until(Predicate done, const char* = nullptr) {
    while (!done()) {
    }
}

#endif

// One counter serves all barriers of a launch and of the launches after it, without being set back: the first block adds
// what makes the sum of a round 2^31, so that the top bit flips when the last block has come.
__device__ __forceinline__ void group_barrier(uint32* state, uint32 members, bool first AND_CALLER) {
    __syncthreads(PASS_CALLER);
    if (threadIdx.x == 0 && threadIdx.y == 0 && threadIdx.z == 0) {
        uint32 share = first ? 0x80000000u - (members - 1) : 1u;
        __threadfence();
        uint32 before = atomicAdd(state, share);
        spin_until([&] { return ((before ^ load_acquire(state)) & 0x80000000u) != 0; }, "grid_barrier" AND_PASS_CALLER);
    }
    __syncthreads(PASS_CALLER);
}

__device__ __forceinline__ void grid_barrier(uint32* state AND_CALLER) {
    group_barrier(state, gridDim.x * gridDim.y * gridDim.z,
                  blockIdx.x == 0 && blockIdx.y == 0 && blockIdx.z == 0 AND_PASS_CALLER);
}
