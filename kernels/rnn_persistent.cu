// Recurrent layers whose weights stay on chip: all steps of one layer and direction in one cooperative launch.
//
//   forward    (W_ih x, h0, c0) -> y, h_n, c_n      LSTM, GRU, tanh and ReLU RNN: the maths is in common/cells.cuh
//   backward   (gy, gh_n, gc_n) -> dx, dhid, and the gradients of h0 and c0; those of weights are products afterwards
//   Beyond its length a sequence keeps its states, gives y = 0, and takes no gradient but that of its last states.  The
//   loop ends with the longest sequence, which the kernel finds on the device.
//
// Layout     row-major, D directions (1 or 2) side by side: x, dx, dhid [T, N, D, GATES, H], kept [T, N, D, KEPT, H], states
//            [slots, N, D, H].  Row t + 1 of the states is after step t, in either direction; before it, row t, or t + 2 in
//            reverse.  So without lengths y is rows 1 to T, and needs no memory of its own.  c is kept in fp32 where T is
//            a 16-bit type.
// Parallel   blockIdx.y is the direction, whose blocks do not wait for those of the other.  A block has `units` hidden units with
//            all their gates.  Forward it holds their rows of W_hh, GATES * units x H; backward their columns, units x
//            GATES * H.  A step, for `tile` sequences at a time: fetch h (backward:
//            dhid) of all blocks into shared memory; multiply (common/resident.cuh); one thread for each unit and sequence
//            runs the cell; publish (common/exchange.cuh, with the three ways and why none can overrun a reader).  What
//            the cell reads besides is loaded before the block waits.  Host side: cuframe/cuda/persistent.py.
// Order      sums are added in the order of lanes and warps: the same bits from run to run, and from either exchange.
// TF32       fp32 products by tensor cores, weights and h rounded to 10 bits of fraction, sums in fp32; sm_80.
// Saved      KEPT numbers a unit and step, h, and an LSTM's c: for an LSTM 24 bytes in fp32, 14 in 16 bits.  An Elman cell
//            keeps h alone.  Without `kept`, the host makes it again by products over all steps.
// Floor      of a step, H200, LSTM, N = 16, H = 768, 16 bits.  Arithmetic: 8 N H^2 = 75 MFLOP, 0.1 us of tensor cores.
//            Memory: 4 numbers in, 5 out, c read and written, 26 bytes a unit: 320 KB, 0.07 us.  Exchange: 96 blocks
//            fetch 24 KB each, 2.4 MB out of the second-level cache, about 0.5 us; backward four times that.  Latency
//            comes on top: two trips through that cache and two barriers of the block.  fp32 does without tensor
//            cores: at H = 1024 a block has 32 x 1024 weights, 1,024 clocks or 0.6 us for each tile of 4.
//            An H100 has the same multipliers and 3.35 of 4.8 TB/s.  No time is measured yet.  A GPU has to decide:
//            `units` (fewer blocks wait less and multiply longer), the exchange, HELD, and whether fetching the next tile
//            while this one is multiplied pays (large N).
// Source     weights in registers: Diamos et al., "Persistent RNNs", 2016; lines with their own tag: NCCL's LL128.
//
// 1  2026-11  first version; not yet run on a GPU
// 2  2026-11  the exchange, and tanh or ReLU, are arguments: 24 instances in place of 64; not yet run on a GPU
// 3  2026-11  both directions in one launch; TF32, 6 instances more; not yet run on a GPU
// 4  2026-11  blocks of a cluster, which read each other's shared memory (sm_90); not yet run on a GPU
#include "common/platform.cuh"
#include "common/async.cuh"
#include "common/cells.cuh"
#include "common/grid.cuh"
#include "common/mma.cuh"
#include "common/reduce.cuh"
#include "common/cluster.cuh"
#include "common/exchange.cuh"
#include "common/resident.cuh"

constexpr int32 THREADS = 32 * RESIDENT_WARPS;

// How many steps any sequence has.
__device__ __forceinline__ int32 longest(const int64* lengths, int32 N, int32 T AND_CALLER) {
    if (!lengths) return T;
    int32 found = 0;
    for (int32 n = threadIdx.x; n < N; n += THREADS) {
        int64 own = lengths[n];
        found = max(found, own < T ? static_cast<int32>(own) : T);
    }
    return block_reduce(found, Maximum(), 0 AND_PASS_CALLER);
}

// Zeros the pads of the vectors, and their numbers until they first come: 0 times what memory held may be NaN.
template <class T> __device__ __forceinline__ void clear(T* v, int32 count) {
    for (int32 i = threadIdx.x; i < count; i += THREADS) v[i] = convert<T>(0.0f);
}

// The next part of shared memory, 16 bytes aligned.
template <class T> __device__ __forceinline__ T* take(uint4*& memory, int32 count) {
    T* part = reinterpret_cast<T*>(memory);
    memory += (count * static_cast<int32>(sizeof(T)) + 15) / 16;
    return part;
}

// How a direction's blocks find their rows: of N sequences and D directions, side by side.
struct Side {
    int32 number, directions, N, H;

    __device__ __forceinline__ Side(int32 N_, int32 H_)
        : number(blockIdx.y), directions(gridDim.y), N(N_), H(H_) {}
    // of arrays [.., N, D, .., H] and of arrays [D, N, H]
    __device__ __forceinline__ int64 row(int64 t, int32 n) const { return (t * N + n) * directions + number; }
    __device__ __forceinline__ int64 own(int32 n, int32 j) const {
        return (static_cast<int64>(number) * N + n) * H + j;
    }
};

template <class T, int CELL, bool TF32>
__global__ void __launch_bounds__(256, 1)
rnn_persistent_forward(const T* x,           // [T, N, D, GATES, H]: W_ih x; may be `kept`
                       const T* w_hh,        // [GATES, H, H], and of the second direction
                       const T* w_hh_2,
                       const T* b_ih,        // [GATES, H] or null, likewise
                       const T* b_ih_2,
                       const T* b_hh,
                       const T* b_hh_2,
                       const T* h0,          // [D, N, H] or null
                       const acc_t<T>* c0,   // [D, N, H] or null
                       const int64* lengths, // [N] or null
                       T* h,                 // [slots, N, D, H]: before step t in row t, or t + 2 if reverse, modulo slots
                       acc_t<T>* c,          // [c_slots, N, D, H], likewise, LSTM
                       T* y,                 // [T, N, D, H] or null: h, or 0 beyond the length
                       T* kept,              // [T, N, D, KEPT, H] or null
                       T* h_n,               // [D, N, H]
                       acc_t<T>* c_n,        // [D, N, H], LSTM
                       uint32* state,        // of the exchange, zero: `words` for each direction
                       int64 words, int32 T_, int32 N, int32 H, int32 units, int32 split, int32 tile, int32 slots,
                       int32 c_slots, bool reverse_, // the one direction, where there is one
                       int32 way,            // the exchange
                       bool relu) {          // an Elman cell's
    typedef acc_t<T> A;
    typedef Resident<T, TF32> Weights;
    typedef typename CellOf<CELL>::type Cell;
    constexpr int GATES = Cell::GATES;
    DYNAMIC_SHARED(uint4, memory);
    const Side side(N, H);
    const bool reverse = side.directions == 2 ? side.number == 1 : reverse_;
    const int32 first = blockIdx.x * units, own = min(units, H - first);
    if (side.number == 1) w_hh = w_hh_2, b_ih = b_ih_2, b_hh = b_hh_2;
    Weights weights;
    memory = weights.load(memory, GATES * units, H, split, [&](int32 row, int32 k) {
        int32 gate = row / units, u = row % units;
        bool inside = gate < GATES && u < own && k < H;
        return inside ? w_hh[(static_cast<int64>(gate) * H + first + u) * H + k] : convert<T>(0.0f);
    });
    const int32 stride = Weights::stride(H);
    T* v = take<T>(memory, tile * stride);
    A* sums = take<A>(memory, split * Weights::BATCH * weights.rows());
    T* box = take<T>(memory, Exchange<T>::boxed(way, N, units, 1, tile));
    Exchange<T> exchange(Post<T>{state + side.number * words, box, N, H, units, 1, tile}, way);
    clear(v, tile * stride);

    // a thread has one hidden unit, and of each tile one sequence
    const int32 u = threadIdx.x % units, sub = threadIdx.x / units, j = first + u;
    const bool owner = u < own && sub < tile;
    A by_x[GATES], by_h[GATES];
#pragma unroll
    for (int k = 0; k < GATES; ++k) {
        by_x[k] = owner && b_ih ? to_acc(b_ih[k * H + j]) : A(0);
        by_h[k] = owner && b_hh ? to_acc(b_hh[k * H + j]) : A(0);
    }

    const int32 steps = longest(lengths, N, T_), back = reverse ? 2 : 0;
    const int32 start = reverse ? steps + 1 : 0, end = reverse ? 1 : steps;
    for (int32 n0 = 0; n0 < N; n0 += tile) {
        const int32 n = n0 + sub;
        if (owner && n < N) {
            T given = h0 ? h0[side.own(n, j)] : convert<T>(0.0f);
            h[side.row(start % slots, n) * H + j] = given;
            if (Cell::HAS_C) c[side.row(start % c_slots, n) * H + j] = c0 ? c0[side.own(n, j)] : A(0);
            exchange.put(0, n0, sub, 0, u, given);
        }
        exchange.publish(0, n0, min(tile, N - n0));
    }

    for (int32 s = 0; s < steps; ++s) {
        const int32 t = reverse ? steps - 1 - s : s;
        const int64 before = side.row((t + back) % slots, 0) * H, after = side.row((t + 1) % slots, 0) * H;
        const int64 c_before_at = side.row((t + back) % c_slots, 0) * H, c_after_at = side.row((t + 1) % c_slots, 0) * H;
        for (int32 n0 = 0; n0 < N; n0 += tile) {
            const int32 count = min(tile, N - n0), n = n0 + sub;
            const bool active = owner && sub < count;
            const int64 at = static_cast<int64>(n) * side.directions * H + j, row = side.row(t, n);
            T given[GATES];
            A c_before = 0;
            int64 length = T_;
            // under way while the block waits for the others, so nothing is made of it yet
            if (active) {
#pragma unroll
                for (int k = 0; k < GATES; ++k) given[k] = x[(row * GATES + k) * H + j];
                if (Cell::HAS_C) c_before = c[c_before_at + at];
                if (lengths) length = lengths[n];
            }
            if (n0 == 0) exchange.ready();
            exchange.fetch(v, stride, h + before, side.directions * H, s, n0, count);
            __syncthreads();
            T h_before = active ? v[sub * stride + j] : convert<T>(0.0f);
            weights.multiply(v, stride, count, sums);
            __syncthreads();
            if (active) {
                A from_x[GATES], from_h[GATES], keep[Cell::KEPT], h_new = 0, c_new = 0;
                const bool running = t < length;
#pragma unroll
                for (int k = 0; k < GATES; ++k) {
                    from_x[k] = to_acc(given[k]) + by_x[k];
                    from_h[k] = by_h[k];
                    for (int32 part = 0; part < split; ++part)
                        from_h[k] += sums[(part * Weights::BATCH + sub) * weights.rows() + k * units + u];
                }
                Cell::forward(from_x, from_h, to_acc(h_before), c_before, h_new, c_new, keep, relu);
                T out = running ? convert<T>(h_new) : h_before;
                h[after + at] = out;
                if (Cell::HAS_C) c[c_after_at + at] = running ? c_new : c_before;
                if (y) y[row * H + j] = running ? out : convert<T>(0.0f);
                if (kept) {
#pragma unroll
                    for (int k = 0; k < Cell::KEPT; ++k) kept[(row * Cell::KEPT + k) * H + j] = convert<T>(keep[k]);
                }
                exchange.put(s + 1, n0, sub, 0, u, out);
            }
            exchange.publish(s + 1, n0, count);
        }
    }

    exchange.finish();
    for (int32 n = sub; owner && n < N; n += tile) {
        h_n[side.own(n, j)] = h[side.row(end % slots, n) * H + j];
        if (Cell::HAS_C) c_n[side.own(n, j)] = c[side.row(end % c_slots, n) * H + j];
        // beyond the longest sequence; the rows of h there are an operand of the gradient of W_hh, times 0
        for (int64 t = steps; t < T_; ++t) {
            if (y) y[side.row(t, n) * H + j] = convert<T>(0.0f);
            if (slots > T_ + reverse) h[side.row(t + 1 + reverse, n) * H + j] = convert<T>(0.0f);
        }
    }
}

template <class T, int CELL, bool TF32>
__global__ void __launch_bounds__(256, 1)
rnn_persistent_backward(const T* kept,             // [T, N, D, KEPT, H]
                        const T* w_hh,             // [GATES, H, H], and of the second direction
                        const T* w_hh_2,
                        const T* h,                // [slots, N, D, H], as forward left them
                        const acc_t<T>* c,         // likewise, LSTM
                        const T* gy,               // [T, N, D, H] or null: gradient of y
                        acc_t<T>* carry,           // [D, N, H]: in, gradient of h_n; out, of h0
                        acc_t<T>* dc,              // [D, N, H]: in, gradient of c_n; out, of c0; LSTM
                        const int64* lengths,      // [N] or null
                        T* dx,                     // [T, N, D, GATES, H]
                        T* dhid,                   // [T, N, D, GATES, H], where it is not dx, else null
                        uint32* state,             // of the exchange, zero: `words` for each direction
                        int64 words, int32 T_, int32 N, int32 H, int32 units, int32 split, int32 tile, bool reverse_,
                        int32 way, bool relu) {
    typedef acc_t<T> A;
    typedef Resident<T, TF32> Weights;
    typedef typename CellOf<CELL>::type Cell;
    constexpr int GATES = Cell::GATES;
    DYNAMIC_SHARED(uint4, memory);
    const Side side(N, H);
    const bool reverse = side.directions == 2 ? side.number == 1 : reverse_;
    const int32 first = blockIdx.x * units, own = min(units, H - first), K = GATES * H;
    if (side.number == 1) w_hh = w_hh_2;
    Weights weights;
    memory = weights.load(memory, units, K, split, [&](int32 u, int32 k) {
        return u < own && k < K ? w_hh[static_cast<int64>(k) * H + first + u] : convert<T>(0.0f);
    });
    const int32 stride = Weights::stride(K);
    T* v = take<T>(memory, tile * stride);
    A* sums = take<A>(memory, split * Weights::BATCH * weights.rows());
    T* box = take<T>(memory, Exchange<T>::boxed(way, N, units, GATES, tile));
    Exchange<T> exchange(Post<T>{state + side.number * words, box, N, H, units, GATES, tile}, way);
    clear(v, tile * stride);

    const int32 u = threadIdx.x % units, sub = threadIdx.x / units, j = first + u;
    const bool owner = u < own && sub < tile;
    T* hidden = Cell::ONE_SIDE ? dx : dhid;
    const int32 steps = longest(lengths, N, T_), back = reverse ? 2 : 0;
    // the turn after the last step adds what came through W_hh to the gradient of h0
    for (int32 s = 0; s <= steps; ++s) {
        const int32 t = reverse ? s : steps - 1 - s, last = reverse ? s - 1 : steps - s;
        for (int32 n0 = 0; n0 < N; n0 += tile) {
            const int32 count = min(tile, N - n0), n = n0 + sub;
            const bool active = owner && sub < count;
            const int64 at = side.own(n, j), row = side.row(t, n);
            T saved[Cell::KEPT], g = convert<T>(0.0f), h_before = g;
            A dh = 0, gc = 0, c_before = 0, c_after = 0;
            int64 length = T_;
            if (active) {
                dh = carry[at];
                if (s < steps) {
#pragma unroll
                    for (int k = 0; k < Cell::KEPT; ++k) saved[k] = kept[(row * Cell::KEPT + k) * H + j];
                    if (gy) g = gy[row * H + j];
                    const int64 earlier = side.row(t + back, n) * H + j;
                    h_before = h[earlier];
                    if (Cell::HAS_C) gc = dc[at], c_before = c[earlier], c_after = c[side.row(t + 1, n) * H + j];
                    if (lengths) length = lengths[n];
                }
            }
            if (s > 0) {
                if (n0 == 0) exchange.ready();
                exchange.fetch(v, stride, hidden + side.row(last, 0) * K, side.directions * K, s, n0, count);
                __syncthreads();
                weights.multiply(v, stride, count, sums);
                __syncthreads();
                if (active)
                    for (int32 part = 0; part < split; ++part)
                        dh += sums[(part * Weights::BATCH + sub) * weights.rows() + u];
            }
            if (active && s < steps) {
                A keep[Cell::KEPT], to_x[GATES], to_h[GATES], dc_prev = 0, past = 0;
                const bool running = t < length;
#pragma unroll
                for (int k = 0; k < Cell::KEPT; ++k) keep[k] = to_acc(saved[k]);
                Cell::backward(keep, to_acc(h_before), c_before, c_after, dh + to_acc(g), gc, to_x, to_h, dc_prev, past, relu);
#pragma unroll
                for (int k = 0; k < GATES; ++k) {
                    T passed = convert<T>(running ? to_h[k] : A(0));
                    dx[(row * GATES + k) * H + j] = convert<T>(running ? to_x[k] : A(0));
                    if (!Cell::ONE_SIDE) dhid[(row * GATES + k) * H + j] = passed;
                    exchange.put(s + 1, n0, sub, k, u, passed);
                }
                if (running) dh = past;
                if (Cell::HAS_C && running) dc[at] = dc_prev;
            }
            if (active) carry[at] = dh;
            if (s < steps) exchange.publish(s + 1, n0, count);
        }
    }

    exchange.finish();
    for (int32 n = sub; owner && n < N; n += tile)
        for (int64 t = steps; t < T_; ++t)
            for (int k = 0; k < GATES; ++k) {
                int64 at = side.row(t, n) * K + k * H + j;
                dx[at] = convert<T>(0.0f);
                if (!Cell::ONE_SIDE) dhid[at] = convert<T>(0.0f);
            }
}
