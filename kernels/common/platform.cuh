// The one header every kernel starts with. The same .cu is compiled by NVRTC for a GPU and by g++ for the simulator
// (CUFRAME_SIM); what differs between the two stands here and in the other headers of this folder.
//
// Names offered beside CUDA's own:
//   int8 uint8 int16 uint16 int32 uint32 int64 uint64, half, bf16
//   to_float(x), from_float<T>(f), convert<T>(x), acc_t<T> (double for double, else float), to_acc(x)
//   SHARED_ARRAY(type, name, count), DYNAMIC_SHARED(type, name): shared memory; raw __shared__ is refused
//   leave_barriers(): this thread returns before later __syncthreads of its block
//   Pack<T, N>, load_pack, store_pack: vector loads and stores
//   CALLER, AND_CALLER, PASS_CALLER, AND_PASS_CALLER: how a helper that waits tells the simulator its caller's line
// Of CUDA's own, the simulator has __reduce_*_sync for every GPU, NVRTC for sm_80 and up.
#pragma once

#if defined(CUFRAME_SIM)
#include "sim/cuda.h"

// A helper that holds a barrier or a collective takes CALLER as its only or AND_CALLER after its other parameters, and
// passes it on the same way. On a GPU all four are nothing.
#define CALLER SIM_PLACE
#define AND_CALLER , SIM_PLACE
#define PASS_CALLER file, line
#define AND_PASS_CALLER , file, line
#else

#include <cuda_bf16.h>
#include <cuda_fp16.h>

typedef signed char int8;
typedef unsigned char uint8;
typedef short int16;
typedef unsigned short uint16;
typedef int int32;
typedef unsigned int uint32;
typedef long long int64;
typedef unsigned long long uint64;
typedef __nv_bfloat16 bf16;

#define SHARED_ARRAY(type, name, count) __shared__ type name[count]
#define DYNAMIC_SHARED(type, name)                                             \
    extern __shared__ __align__(128) unsigned char cuframe_dynamic_shared[]; \
    type* name = reinterpret_cast<type*>(cuframe_dynamic_shared)

// A block's barriers wait for the threads that have not left, so a GPU needs no word of it.
__device__ __forceinline__ void leave_barriers() {}

#ifndef INFINITY
#define INFINITY __int_as_float(0x7F800000)
#endif
#ifndef NAN
#define NAN __int_as_float(0x7FFFFFFF)
#endif

#define CALLER
#define AND_CALLER
#define PASS_CALLER
#define AND_PASS_CALLER

// Checked in the simulator; on a GPU every assertion costs registers and a branch.
#undef assert
#define assert(condition) ((void)0)

#endif

#include "types.cuh"

#include "pack.cuh"
