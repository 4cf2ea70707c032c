// How the blocks of a launch, all of which run at once, hand one another a vector [N, parts * H] at every step, of which each
// block makes `parts` pieces of `units` numbers a sequence. Three ways with one interface:
//
//   exchange.ready();                                   once a step, before the first fetch of what was published for it
//   exchange.fetch(v, stride, rows, pitch, step, n0, count);  `count` sequences to shared memory; __syncthreads() must follow
//   exchange.put(step, n0, sub, part, u, value);        a number of this block's, of sequence n0 + sub
//   exchange.publish(step, n0, count);                  all threads; they have written `rows` before, too
//   exchange.finish();                                  all threads, at the end
//
// ByBarrier  ready() is a barrier of the group, and fetch reads `rows` in global memory, `pitch` numbers apart.  The caller
//            gives every step other rows than the step before: two in turn are enough, since a block comes to the next
//            barrier only when it has fetched, and nobody writes the rows of a step before all have come to its barrier.
// ByCluster  blocks are one cluster and fetch what stands in each other's shared memory, behind a barrier of the cluster.
//            Two slots in turn are enough as with ByBarrier; nobody ends before all have read.
// ByLines    16-byte lines of 12 bytes of numbers (8 in fp64) and the number of the step, which are polled; no barrier.
//
// Note [Lines] Why no line is overwritten before all have read it, with two slots that the steps use in turn: block P
// publishes sequence n for step s + 2 when it has fetched n of step s + 1 from every block.  Block Q published that when
// all its threads had seen their lines of step s: they read, meet at a __syncthreads, multiply, and only then publish.
// So when P overwrites the slot of step s, every read of it has returned.  A line is loaded and stored whole, as 128 bits,
// so that numbers and tag belong together and need no further order.  Lines are zero before the launch, tags begin at 1.
//
// The blocks of one blockIdx.y are a group with a state of its own, and do not wait for those of another.
//
// A launch says which it is to be (Exchange): all threads take the same branch, a few a step, so that an instance of a
// kernel for each would make the time to compile longer and nothing faster.
#pragma once

struct Line {
    uint64 low, high;
};

#if defined(CUFRAME_SIM)
inline Line load_line(const Line* address AND_CALLER) {
    ::sim::count_atomic(file, line);
    Line found;
    found.high = __atomic_load_n(&address->high, __ATOMIC_ACQUIRE);
    found.low = __atomic_load_n(&address->low, __ATOMIC_ACQUIRE);
    return found;
}
inline void store_line(Line* address, Line value) {
    __atomic_store_n(&address->low, value.low, __ATOMIC_RELEASE);
    __atomic_store_n(&address->high, value.high, __ATOMIC_RELEASE);
}
#else
// PTX ISA 8.3: a .b128 access with a scope is one access of the memory model, which a vector of four words is not.
__device__ __forceinline__ Line load_line(const Line* address) {
    Line found;
    asm volatile("{ .reg .b128 t;\n ld.relaxed.gpu.global.b128 t, [%2];\n mov.b128 {%0, %1}, t; }"
                 : "=l"(found.low), "=l"(found.high) : "l"(address) : "memory");
    return found;
}
__device__ __forceinline__ void store_line(Line* address, Line value) {
    asm volatile("{ .reg .b128 t;\n mov.b128 t, {%1, %2};\n st.relaxed.gpu.global.b128 [%0], t; }"
                 ::"l"(address), "l"(value.low), "l"(value.high) : "memory");
}
#endif

template <class T> constexpr int LINE_NUMBERS = sizeof(T) == 8 ? 1 : 12 / int(sizeof(T));

template <class T> union Packet {
    Line line;
    T data[LINE_NUMBERS<T>];
    uint32 words[4];  // the last is the tag
};

// What a launch tells its exchange.
template <class T> struct Post {
    uint32* state;  // the group's: one word for ByBarrier, [2, N, blocks, lines] lines for ByLines; zero
    T* box;         // shared memory: [2, tile, parts, units]; for ByCluster [2, N, parts, units in whole 16 bytes]
    int32 N, H, units, parts, tile;
};

template <class T> struct ByBarrier {
    Post<T> post;

    __device__ __forceinline__ void ready(CALLER) {
        group_barrier(post.state, gridDim.x, blockIdx.x == 0 AND_PASS_CALLER);
    }

    __device__ void fetch(T* v, int32 stride, const T* rows, int32 pitch, uint32, int32 n0, int32 count AND_CALLER) {
        constexpr int WIDE = pack_size<T>;
        int32 width = post.parts * post.H;
        const T* from = rows + static_cast<int64>(n0) * pitch;
        if (width % WIDE == 0 && pack_aligned<WIDE>(from)) {
            int32 packs = width / WIDE;
            for (int32 i = threadIdx.x; i < count * packs; i += blockDim.x) {
                int32 n = i / packs, k = i % packs * WIDE;
                cp_async_16(v + n * stride + k, from + n * pitch + k);
            }
            cp_async_commit();
            cp_async_wait<0>();
        } else {
            for (int32 i = threadIdx.x; i < count * width; i += blockDim.x)
                v[i / width * stride + i % width] = from[i / width * pitch + i % width];
        }
    }
};

template <class T> struct ByLines {
    Post<T> post;
    int32 turn = 0;  // the half of the outbox: threads still send the one before while others fill the next

    __device__ __forceinline__ T* outbox() { return post.box + turn * post.tile * post.parts * post.units; }

    __device__ __forceinline__ int32 lines() const {
        return (post.parts * post.units + LINE_NUMBERS<T> - 1) / LINE_NUMBERS<T>;
    }
    __device__ __forceinline__ Line* slot(uint32 step, int32 n0) const {
        int64 row = static_cast<int64>(step & 1) * post.N + n0;
        return reinterpret_cast<Line*>(post.state) + row * gridDim.x * lines();
    }

    __device__ void publish(uint32 step, int32 n0, int32 count AND_CALLER) {
        __syncthreads(PASS_CALLER);
        int32 numbers = post.parts * post.units, each = lines();
        Line* to = slot(step, n0) + static_cast<int64>(blockIdx.x) * each;
        for (int32 i = threadIdx.x; i < count * each; i += blockDim.x) {
            int32 n = i / each, l = i % each;
            Packet<T> packet;
            packet.line = Line{0, 0};
#pragma unroll
            for (int k = 0; k < LINE_NUMBERS<T>; ++k)
                if (l * LINE_NUMBERS<T> + k < numbers) packet.data[k] = outbox()[n * numbers + l * LINE_NUMBERS<T> + k];
            packet.words[3] = step + 1;
            store_line(to + static_cast<int64>(n) * gridDim.x * each + l, packet.line);
        }
        turn ^= 1;
    }

    // Several lines are under way at once: a line from another block comes out of the second-level cache.
    __device__ void fetch(T* v, int32 stride, const T*, int32, uint32 step, int32 n0, int32 count AND_CALLER) {
        constexpr int MANY = 4;
        int32 each = lines(), row = gridDim.x * each, total = count * row;
        const Line* from = slot(step, n0);
        for (int32 first = threadIdx.x; first < total; first += MANY * blockDim.x) {
            Packet<T> got[MANY];
            auto all_come = [&] {
                bool come = true;
#pragma unroll
                for (int k = 0; k < MANY; ++k) {
                    int32 i = first + k * static_cast<int32>(blockDim.x);
                    if (i < total) {
                        got[k].line = load_line(from + i);
                        come = come && got[k].words[3] == step + 1;
                    }
                }
                return come;
            };
            spin_until(all_come, "ByLines::fetch" AND_PASS_CALLER);
#pragma unroll
            for (int k = 0; k < MANY; ++k) {
                int32 i = first + k * static_cast<int32>(blockDim.x);
                if (i < total) put(v + i / row * stride, i % row / each, i % each, got[k]);
            }
        }
    }

    // One division a line: further numbers follow the first.
    __device__ __forceinline__ void put(T* v, int32 block, int32 l, const Packet<T>& packet) const {
        int32 part = l * LINE_NUMBERS<T> / post.units, u = l * LINE_NUMBERS<T> - part * post.units;
        const int32 units = min(post.units, post.H - block * post.units);  // without those beyond the last
        T* to = v + block * post.units;
#pragma unroll
        for (int k = 0; k < LINE_NUMBERS<T>; ++k) {
            if (part < post.parts && u < units) to[part * post.H + u] = packet.data[k];
            if (++u == post.units) u = 0, ++part;
        }
    }
};

template <class T> struct ByCluster {
    static constexpr int32 WIDE = 16 / int32(sizeof(T));
    Post<T> post;

    __device__ __forceinline__ int32 pitch() const { return (post.units + WIDE - 1) / WIDE * WIDE; }
    __device__ __forceinline__ T* row(uint32 step, int32 n, int32 part) const {
        return post.box + ((static_cast<int32>(step & 1) * post.N + n) * post.parts + part) * pitch();
    }

    // One line of 16 bytes at a time: more in flight would cost registers that weights have.
    __device__ void fetch(T* v, int32 stride, uint32 step, int32 n0, int32 count AND_CALLER) {
        const int32 packs = pitch() / WIDE, each = post.parts * packs, total = count * static_cast<int32>(gridDim.x) * each;
#pragma unroll 1
        for (int32 i = threadIdx.x; i < total; i += blockDim.x) {
            // neighbouring threads read on within one block
            int32 l = i % each, block = i / each % static_cast<int32>(gridDim.x), n = i / each / static_cast<int32>(gridDim.x);
            int32 part = l / packs, u = l % packs * WIDE;
            union {
                uint4 whole;
                T data[WIDE];
            } got;
            got.whole = load_peer(reinterpret_cast<const uint4*>(row(step, n0 + n, part) + u), block AND_PASS_CALLER);
            const int32 units = min(post.units, post.H - block * post.units);  // without those beyond the last
            T* to = v + n * stride + part * post.H + block * post.units + u;
#pragma unroll
            for (int k = 0; k < WIDE; ++k)
                if (u + k < units) to[k] = got.data[k];
        }
    }
};

// By its number: how Python's EXCHANGES has them.
template <class T> struct Exchange {
    ByBarrier<T> barrier;
    ByLines<T> lines;
    ByCluster<T> cluster;
    int32 way;

    __device__ __forceinline__ Exchange(const Post<T>& post, int32 which)
        : barrier{post}, lines{post}, cluster{post}, way(which) {}

    // Numbers of T that the box takes.
    static __device__ __forceinline__ int32 boxed(int32 which, int32 N, int32 units, int32 parts, int32 tile) {
        constexpr int32 WIDE = ByCluster<T>::WIDE;
        return 2 * parts * (HAS_CLUSTERS && which == 2 ? N * ((units + WIDE - 1) / WIDE * WIDE) : tile * units);
    }
    __device__ __forceinline__ void ready(CALLER) {
        if (way == 0) barrier.ready(PASS_CALLER);
        else if (HAS_CLUSTERS && way == 2) cluster_barrier(PASS_CALLER);
    }
    __device__ __forceinline__ void put(uint32 step, int32 n0, int32 sub, int32 part, int32 u, T value) {
        if (way == 1) lines.outbox()[(sub * lines.post.parts + part) * lines.post.units + u] = value;
        else if (HAS_CLUSTERS && way == 2) cluster.row(step, n0 + sub, part)[u] = value;
    }
    __device__ __forceinline__ void publish(uint32 step, int32 n0, int32 count AND_CALLER) {
        if (way == 1) lines.publish(step, n0, count AND_PASS_CALLER);
    }
    __device__ __forceinline__ void finish(CALLER) {
        if (HAS_CLUSTERS && way == 2) cluster_barrier(PASS_CALLER);
    }
    __device__ __forceinline__ void fetch(T* v, int32 stride, const T* rows, int32 pitch, uint32 step, int32 n0,
                                          int32 count AND_CALLER) {
        if (way == 1) lines.fetch(v, stride, rows, pitch, step, n0, count AND_PASS_CALLER);
        else if (HAS_CLUSTERS && way == 2) cluster.fetch(v, stride, step, n0, count AND_PASS_CALLER);
        else barrier.fetch(v, stride, rows, pitch, step, n0, count AND_PASS_CALLER);
    }
};
