// cp.async: copies from global to shared memory that go on while the thread computes (sm_80).
//
//   cp_async_16(target, source);            // 16 bytes, both aligned to 16; also cp_async_4 and cp_async_8
//   cp_async_16(target, source, present);   // copies 16 bytes if present, else zeros: for the ends of rows
//   cp_async_commit();                      // what was issued since the last commit is one group
//   cp_async_wait<N>();                     // at most the N latest groups are still under way
//
// The wait is for the thread's own copies: a __syncthreads() must follow before others read. The simulator copies in the
// wait, and puts NaN in the target until then. Below sm_80 the copies are plain ones.
#pragma once

#if defined(CUFRAME_SIM)

namespace sim {
inline void finish_copy(void* target, const void* source, unsigned bytes, unsigned filled) {
    // in words, which each sanitizer sees as accesses of the kernel
    auto to = static_cast<unsigned*>(target);
    auto from = static_cast<const unsigned*>(source);
    for (unsigned i = 0; i < bytes / 4; ++i) to[i] = 4 * i < filled ? from[i] : 0;
}

template <int bytes>
inline void async_copy(void* target, const void* source, bool present, const char* file, int line) {
    sim_async_copy(target, source, bytes, present ? bytes : 0, file, line);
    auto words = static_cast<unsigned*>(target);
    for (int i = 0; i < bytes / 4; ++i) words[i] = ~0u;
}
}  // namespace sim

inline void cp_async_4(void* target, const void* source, bool present = true AND_CALLER) {
    ::sim::async_copy<4>(target, source, present, file, line);
}
inline void cp_async_8(void* target, const void* source, bool present = true AND_CALLER) {
    ::sim::async_copy<8>(target, source, present, file, line);
}
inline void cp_async_16(void* target, const void* source, bool present = true AND_CALLER) {
    ::sim::async_copy<16>(target, source, present, file, line);
}
inline void cp_async_commit() { ::sim::sim_async_commit(); }
template <int N> inline void cp_async_wait() { ::sim::sim_async_wait(N, ::sim::finish_copy); }

#else

// The 32-bit address that PTX uses for shared memory.
__device__ __forceinline__ uint32 shared_address(const void* pointer) {
    return static_cast<uint32>(__cvta_generic_to_shared(pointer));
}

#if __CUDA_ARCH__ >= 800
// The last operand is the number of bytes read; the rest of the target is filled with zeros.
__device__ __forceinline__ void cp_async_4(void* target, const void* source, bool present = true) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(shared_address(target)), "l"(source),
                 "r"(present ? 4 : 0) : "memory");
}
__device__ __forceinline__ void cp_async_8(void* target, const void* source, bool present = true) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 8, %2;" ::"r"(shared_address(target)), "l"(source),
                 "r"(present ? 8 : 0) : "memory");
}
// .cg: past the first-level cache, which tiles that go to shared memory do not need.
__device__ __forceinline__ void cp_async_16(void* target, const void* source, bool present = true) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(target)), "l"(source),
                 "r"(present ? 16 : 0) : "memory");
}
__device__ __forceinline__ void cp_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int N> __device__ __forceinline__ void cp_async_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}
#else
__device__ __forceinline__ void cp_async_4(void* target, const void* source, bool present = true) {
    *static_cast<uint32*>(target) = present ? *static_cast<const uint32*>(source) : 0u;
}
__device__ __forceinline__ void cp_async_8(void* target, const void* source, bool present = true) {
    *static_cast<uint2*>(target) = present ? *static_cast<const uint2*>(source) : make_uint2(0, 0);
}
__device__ __forceinline__ void cp_async_16(void* target, const void* source, bool present = true) {
    *static_cast<uint4*>(target) = present ? *static_cast<const uint4*>(source) : make_uint4(0, 0, 0, 0);
}
__device__ __forceinline__ void cp_async_commit() {}
template <int N> __device__ __forceinline__ void cp_async_wait() {}
#endif

#endif
