// One small kernel for each thing that the simulator has to do as a GPU does it.
#include "common/platform.cuh"

#include "common/async.cuh"
#include "common/grid.cuh"
#include "common/mma.cuh"
#include "common/philox.cuh"
#include "common/reduce.cuh"

// where[k] = the six coordinates of the k-th thread of the launch
__global__ void coordinates(uint32* where) {
    uint64 block = blockIdx.x + uint64(gridDim.x) * (blockIdx.y + gridDim.y * blockIdx.z);
    uint32* at = where + 6 * (block * block_threads() + thread_rank());
    at[0] = threadIdx.x, at[1] = threadIdx.y, at[2] = threadIdx.z;
    at[3] = blockIdx.x, at[4] = blockIdx.y, at[5] = blockIdx.z;
}

template <class T> __global__ void to_floats(const T* x, float* y, int64 n) {
    int64 i = blockIdx.x * int64(blockDim.x) + threadIdx.x;
    if (i < n) y[i] = to_float(x[i]);
}

template <class T, class From> __global__ void converted(const From* x, T* y, int64 n) {
    int64 i = blockIdx.x * int64(blockDim.x) + threadIdx.x;
    if (i < n) y[i] = convert<T>(x[i]);
}

// Each block sums its part of x in shared memory, halving the number of threads.
__global__ void block_sums(const float* x, float* y) {
    SHARED_ARRAY(float, part, 256);
    part[threadIdx.x] = x[blockIdx.x * blockDim.x + threadIdx.x];
    __syncthreads();
    for (unsigned k = blockDim.x / 2; k > 0; k /= 2) {
        if (threadIdx.x < k) part[threadIdx.x] += part[threadIdx.x + k];
        __syncthreads();
    }
    if (threadIdx.x == 0) y[blockIdx.x] = part[0];
}

// Shared memory is not zero when a block begins, and both kinds of it are apart from each other.
__global__ void shared_kinds(float* y) {
    SHARED_ARRAY(float, small, 32);
    SHARED_ARRAY(double, grid, 2][16);
    DYNAMIC_SHARED(float, big);
    y[threadIdx.x] = small[threadIdx.x];
    y[32 + threadIdx.x] = big[threadIdx.x];
    small[threadIdx.x] = 1, big[threadIdx.x] = 2, grid[threadIdx.x / 16][threadIdx.x % 16] = 3;
    __syncthreads();
    y[64 + threadIdx.x] = small[31 - threadIdx.x] + big[31 - threadIdx.x] + float(grid[1][threadIdx.x % 16]);
}

__global__ void votes(int32* y) {
    int odd = threadIdx.x % 2;
    int count = __syncthreads_count(odd), all = __syncthreads_and(threadIdx.x < 1000), some = __syncthreads_or(odd);
    y[4 * threadIdx.x] = count, y[4 * threadIdx.x + 1] = all != 0, y[4 * threadIdx.x + 2] = some != 0;
    y[4 * threadIdx.x + 3] = __syncthreads_and(odd) != 0;
}

// y: [16 results, 32 lanes]
__global__ void collectives(int32* y) {
    const uint32 all = 0xFFFFFFFFu;
    int lane = threadIdx.x, at = 0;
    auto put = [&](int32 value) { y[32 * at++ + lane] = value; };
    put(__shfl_sync(all, lane, 5));
    put(__shfl_sync(all, lane, lane + 1, 8));
    put(__shfl_up_sync(all, lane, 3));
    put(__shfl_up_sync(all, lane, 3, 8));
    put(__shfl_down_sync(all, lane, 3));
    put(__shfl_down_sync(all, lane, 3, 8));
    put(__shfl_xor_sync(all, lane, 6));
    put(__shfl_xor_sync(all, lane, 9, 8));
    put(static_cast<int32>(__ballot_sync(all, lane % 3 == 0)));
    put(__any_sync(all, lane == 7) + 2 * __any_sync(all, 0));
    put(__all_sync(all, lane < 32) + 2 * __all_sync(all, lane < 31));
#if defined(CUFRAME_SIM) || __CUDA_ARCH__ >= 800
    put(__reduce_add_sync(all, lane));
    put(__reduce_min_sync(all, lane - 7) + 100 * __reduce_max_sync(all, lane - 7));
#endif
    put(static_cast<int32>(__match_any_sync(all, lane / 5)));
    double wide = __shfl_sync(all, lane + 0.25, 31 - lane);
    put(static_cast<int32>(4 * wide));
    // halves of the warp in collectives of their own, several times, at different paces
    int32 sum = 0;
    if (lane < 16)
        for (int i = 0; i < 3; ++i) sum += __shfl_xor_sync(0x0000FFFFu, lane, 1 << i);
    else
        sum = __shfl_xor_sync(0xFFFF0000u, lane, 15);
    put(sum);
}

template <class T> __global__ void reductions(const T* x, T* y, int64 n) {
    typedef acc_t<T> A;
    A sum = 0, most = -INFINITY, least = INFINITY;
    for (int64 i = thread_rank(); i < n; i += block_threads()) {
        A v = to_acc(x[i]);
        sum += v, most = max(most, v), least = min(least, v);
    }
    sum = block_sum(sum), most = block_max(most), least = block_min(least);
    if (thread_rank() == block_threads() - 1) y[0] = convert<T>(sum), y[1] = convert<T>(most), y[2] = convert<T>(least);
}

// warp_reduce against the shuffles that it stands for, with an operation that shows in which order it was applied
__global__ void butterflies(const float* x, float* y) {
    auto odd = [](float a, float b) { return a - 0.5f * b; };
    float v = x[threadIdx.x];
    for (int offset = 4; offset > 0; offset /= 2) v = odd(v, __shfl_xor_sync(FULL_WARP, v, offset));
    y[threadIdx.x] = v;
    y[32 + threadIdx.x] = warp_reduce<8>(x[threadIdx.x], odd);
}

__global__ void atomics(int32* i, uint32* u, uint64* l, float* f, double* d) {
    int t = threadIdx.x + blockIdx.x * blockDim.x;
    atomicAdd(&i[0], t), atomicMin(&i[1], t - 5), atomicMax(&i[2], t), atomicOr(&i[3], 1 << t % 31), atomicSub(&i[4], 1);
    atomicAdd(&u[0], 1u), atomicInc(&u[1], 9u), atomicXor(&u[2], 1u << t % 32), atomicExch(&u[3], 7u);
    atomicAdd(&l[0], uint64(1) << 32), atomicMax(&l[1], uint64(t) << 33);
    atomicAdd(f, 0.5f), atomicAdd(d, 0.25);
    uint32 seen = load_acquire(&u[4]);
    for (uint32 assumed = seen + 1; assumed != seen;) assumed = seen, seen = atomicCAS(&u[4], assumed, assumed + 2);
}

__global__ void bits(int32* y) {
    int at = 0;
    auto put = [&](int64 value) { y[at++] = static_cast<int32>(value); };
    put(__clz(1)), put(__clz(0)), put(__clzll(1)), put(__popc(0xF0F0u)), put(__popcll(~0ull)), put(__ffs(8)), put(__ffs(0));
    put(__brev(1u) == 0x80000000u), put(__brevll(1ull) == 1ull << 63), put(__umulhi(0x80000000u, 6u)), put(__mulhi(-1, 1));
    put(__umul64hi(1ull << 63, 6ull)), put(__funnelshift_l(0x80000000u, 1u, 1)), put(__funnelshift_r(1u, 2u, 1));
    put(__byte_perm(0x33221100u, 0x77665544u, 0x7531) == 0x77553311u), put(__float_as_int(1.0f) == 0x3F800000);
    put(__float2int_rn(2.5f)), put(__float2int_rz(-2.7f)), put(__float2int_rz(1e20f)), put(__float2int_rz(NAN));
    put(__double_as_longlong(1.0) >> 52), put(isnan(NAN) && isinf(INFINITY) && !isfinite(INFINITY)), put(max(3, 5) + min(2u, 1u));
}

// seed and offset as in cuframe.cpu.philox; block i fills words[4i ...], u[8i ...], d[4i ...], kept[8i ...]
__global__ void philox(uint64 seed, uint64 offset, uint64 limit, uint64* words, float* u, double* d, uint8* kept) {
    int i = threadIdx.x;
    PhiloxBlock r = philox_block(seed, offset, i);
    for (int k = 0; k < 4; ++k) words[4 * i + k] = r.word[k], d[4 * i + k] = r.uniform64(k);
    for (int k = 0; k < 8; ++k) {
        u[8 * i + k] = r.uniform(k);
        kept[8 * i + k] = philox_keeps(philox_half(seed, offset, 8 * i + k), limit);
    }
}

// c[16, 8] = a[16, 16] b^T with b[8, 16]; or, transposed, b[16, 8] as it stands
template <class T, bool transposed> __global__ void product(const T* a, const T* b, float* c) {
    SHARED_ARRAY(T, tile_a, 16 * 16);
    SHARED_ARRAY(T, tile_b, 8 * 16);
    int lane = threadIdx.x, g = lane / 4, t = lane % 4;
    cp_async_16(&tile_a[lane * 8], a + lane * 8);
    if (lane < 16) cp_async_16(&tile_b[lane * 8], b + lane * 8);
    cp_async_commit();
    cp_async_wait<0>();
    __syncthreads();
    uint32 ra[4], rb[2];
    float rc[4] = {0, 0, 0, 0};
    ldmatrix_x4(ra, &tile_a[lane % 16 * 16 + lane / 16 * 8]);
    if (transposed)
        ldmatrix_x2_trans(rb, &tile_b[lane % 16 * 8]);
    else
        ldmatrix_x2(rb, &tile_b[lane % 8 * 16 + lane / 8 % 2 * 8]);
    mma_16x8x16<T>(rc, ra, rb);
    for (int i = 0; i < 4; ++i) c[(g + i / 2 * 8) * 8 + 2 * t + i % 2] = rc[i];
}

// c[16, 8] = a[16, 8] b[8, 8]
__global__ void product_tf32(const float* a, const float* b, float* c) {
    int g = threadIdx.x / 4, t = threadIdx.x % 4;
    uint32 ra[4] = {to_tf32(a[g * 8 + t]), to_tf32(a[(g + 8) * 8 + t]), to_tf32(a[g * 8 + t + 4]),
                    to_tf32(a[(g + 8) * 8 + t + 4])};
    uint32 rb[2] = {to_tf32(b[t * 8 + g]), to_tf32(b[(t + 4) * 8 + g])};
    float rc[4] = {0, 0, 0, 0};
    mma_16x8x8_tf32(rc, ra, rb);
    for (int i = 0; i < 4; ++i) c[(g + i / 2 * 8) * 8 + 2 * t + i % 2] = rc[i];
}

// A pipeline of two stages: while one tile is summed, the next is on its way. Rows end before the last tile does.
__global__ void pipelined_sum(const float* x, float* y, int32 n) {
    SHARED_ARRAY(float, tiles, 2 * 128);
    int32 count = (n + 127) / 128;
    auto fetch = [&](int32 tile) {
        int32 i = 128 * tile + 4 * threadIdx.x;
        if (tile < count) cp_async_16(&tiles[tile % 2 * 128 + 4 * threadIdx.x], i < n ? &x[i] : x, i < n);
        cp_async_commit();
    };
    float sum = 0;
    fetch(0);
    for (int32 tile = 0; tile < count; ++tile) {
        fetch(tile + 1);
        cp_async_wait<1>();
        __syncthreads();
        for (int i = threadIdx.x; i < 128; i += blockDim.x) sum += tiles[tile % 2 * 128 + 127 - i];
        __syncthreads();
    }
    sum = warp_sum(sum);
    if (threadIdx.x == 0) *y = sum;
}

// values: [2, blocks]. In each round a block takes its neighbour's value and adds 1.
__global__ void relay(uint32* state, int32* values, int32 rounds) {
    for (int32 r = 0; r < rounds; ++r) {
        int32 next = values[r % 2 * gridDim.x + (blockIdx.x + 1) % gridDim.x];
        if (threadIdx.x == 0) values[(r + 1) % 2 * gridDim.x + blockIdx.x] = next + 1;
        grid_barrier(state);
    }
}

// Blocks pass a token on, each waiting for the one before it.
__global__ void token(uint32* flags, int32* order) {
    if (threadIdx.x) return;
    uint32 block = blockIdx.x;
    if (block) spin_until([&] { return load_acquire(&flags[block - 1]) == 1; });
    order[block] = block ? order[block - 1] + 1 : 0;
    store_release(&flags[block], 1u);
}

template <class T> __global__ void packs(const T* x, T* y) {
    constexpr int N = pack_size<T>;
    Pack<T, N> pack = load_pack<N>(x + N * threadIdx.x), reversed;
    for (int i = 0; i < N; ++i) reversed[i] = pack[N - 1 - i];
    store_pack(y + N * threadIdx.x, reversed);
}

struct Settings {
    float scale;
    int64 n;
};

__global__ void many_types(Settings settings, const float* __restrict__ x, float* y, double shift, bool negate, uint8 small) {
    for (int64 i = threadIdx.x; i < settings.n; i += blockDim.x)
        y[i] = (negate ? -1.0f : 1.0f) * settings.scale * x[i] + static_cast<float>(shift) + small;
}

__global__ void greeting(int32 n) {
    if (threadIdx.x < n) printf("thread %d of %s\n", int(threadIdx.x), "greeting");
}
