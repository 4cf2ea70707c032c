// CUDA's own names for a kernel that g++ compiles. Included by common/platform.cuh; no kernel includes it directly.
#pragma once

#include "runtime.h"

typedef signed char int8;
typedef unsigned char uint8;
typedef short int16;
typedef unsigned short uint16;
typedef int int32;
typedef unsigned int uint32;
typedef long long int64;
typedef unsigned long long uint64;
typedef __SIZE_TYPE__ size_t;
typedef __PTRDIFF_TYPE__ ptrdiff_t;

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __align__(bytes) alignas(bytes)
#define __constant__ static const
#define __grid_constant__
#define __shared__ _Pragma("GCC error \"use SHARED_ARRAY(type, name, count) or DYNAMIC_SHARED(type, name), not __shared__\"")

#define threadIdx (sim_now.thread)
#define blockIdx (sim_now.block)
#define blockDim (sim_now.block_dim)
#define gridDim (sim_now.grid_dim)
#define warpSize 32

#define SHARED_ARRAY(type, name, count)                                                                                \
    static ::sim::SharedSite name##_site;                                                                              \
    typedef type name##_type[count];                                                                                   \
    name##_type& name = *static_cast<name##_type*>(                                                                    \
        ::sim::sim_shared(&name##_site, sizeof(name##_type), alignof(name##_type), #name, __FILE__, __LINE__))
#define DYNAMIC_SHARED(type, name)                                                                                     \
    type* name = static_cast<type*>(::sim::sim_dynamic_shared(sizeof(type), alignof(type), #name, __FILE__, __LINE__))

// A thread that returns before a later __syncthreads of its block says so first.
inline void leave_barriers() { ::sim::sim_leave_barriers(); }

#define printf(...) ::sim::sim_print(__VA_ARGS__)
#define assert(condition) \
    ((condition) ? (void)0 : ::sim::sim_fail(__FILE__, __LINE__, "assertion failed: %s", #condition))
inline void __trap(SIM_PLACE) { ::sim::sim_fail(file, line, "__trap()"); }
inline long long clock64() { return static_cast<long long>(::sim::sim_clock()); }
inline long clock() { return static_cast<long>(::sim::sim_clock()); }
inline void __nanosleep(unsigned) {}

#include "vectors.h"

#include "atomics.h"
#include "half.h"
#include "math.h"
#include "warp.h"
