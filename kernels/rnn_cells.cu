// One step of a recurrent layer, after the products: LSTM, GRU, tanh and ReLU RNN, forward and backward.
//
//   forward    (x, hid, h_prev, c_prev) -> (h, c), kept          the maths is in common/cells.cuh
//   backward   (dh, dc, kept)           -> (dx, dhid), dc_prev, carry
//   Beyond its length a sequence keeps its states, gives y = 0, and takes no gradient but that of its last states.
//
// Layout     x, hid, dx, dhid: [N, GATES, H]; kept: [N, KEPT, H]; all else [N, H]; row-major, rows contiguous.
//            c is kept in fp32 where T is a 16-bit type: it is a sum over all steps.
// Parallel   a thread has 16 bytes of neighbouring hidden units (VEC), or one unit where H does not allow that.
// Saved      KEPT numbers a unit and step, and c before and after an LSTM's step.
// Floor      LSTM forward moves 2 * 4 + 4 + 3 numbers a unit; a step this small is bound by launch and latency, so long
//            sequences want the persistent kernel.
//
// 1  2026-11  first version; not yet run on a GPU
#include "common/platform.cuh"
#include "common/cells.cuh"

template <int N, class T> __device__ __forceinline__ void read(const T* from, T (&to)[N]) {
    Pack<T, N> pack = load_pack<N>(from);
    for (int i = 0; i < N; ++i) to[i] = pack[i];
}
template <int N, class T> __device__ __forceinline__ void write(T* to, const T (&from)[N]) {
    Pack<T, N> pack;
    for (int i = 0; i < N; ++i) pack[i] = from[i];
    store_pack(to, pack);
}
// c is wider than T for 16-bit types, so that it takes two packs.
template <int N, class A> __device__ __forceinline__ void read_wide(const A* from, A (&to)[N]) {
    constexpr int EACH = N < pack_size<A> ? N : pack_size<A>;
    for (int i = 0; i < N; i += EACH) {
        Pack<A, EACH> pack = load_pack<EACH>(from + i);
        for (int k = 0; k < EACH; ++k) to[i + k] = pack[k];
    }
}
template <int N, class A> __device__ __forceinline__ void write_wide(A* to, const A (&from)[N]) {
    constexpr int EACH = N < pack_size<A> ? N : pack_size<A>;
    for (int i = 0; i < N; i += EACH) {
        Pack<A, EACH> pack;
        for (int k = 0; k < EACH; ++k) pack[k] = from[i + k];
        store_pack(to + i, pack);
    }
}

template <class T, int CELL, bool VEC>
__global__ void rnn_cell_forward(const T* x,           // [N, GATES, H]; may be `kept`
                                 const T* hid,         // [N, GATES, H]: W_hh h_prev
                                 const T* b_ih,        // [GATES, H] or null
                                 const T* b_hh,        // [GATES, H] or null
                                 const T* h_prev,      // [N, H]; may be h
                                 const acc_t<T>* c_prev, // [N, H], LSTM; may be c
                                 const int64* lengths, // [N] or null
                                 T* h,                 // [N, H]
                                 acc_t<T>* c,          // [N, H], LSTM
                                 T* y,                 // [N, H] or null: h, or 0 beyond the length
                                 T* kept,              // [N, KEPT, H] or null
                                 int64 step, int32 N, int32 H, bool relu) {
    typedef acc_t<T> A;
    typedef typename CellOf<CELL>::type Cell;
    constexpr int WIDE = VEC ? pack_size<T> : 1;
    int64 first = (blockIdx.x * static_cast<int64>(blockDim.x) + threadIdx.x) * WIDE;
    if (first >= static_cast<int64>(N) * H) return;
    int64 n = first / H;
    int32 j = static_cast<int32>(first % H);

    T xs[Cell::GATES][WIDE], hs[Cell::GATES][WIDE], before[WIDE], out[WIDE], shown[WIDE], saved[Cell::KEPT][WIDE];
    A c_before[WIDE], c_after[WIDE];
    for (int k = 0; k < Cell::GATES; ++k) {
        read<WIDE>(x + (n * Cell::GATES + k) * H + j, xs[k]);
        read<WIDE>(hid + (n * Cell::GATES + k) * H + j, hs[k]);
    }
    read<WIDE>(h_prev + first, before);
    if (Cell::HAS_C) read_wide<WIDE>(c_prev + first, c_before);
    bool running = lengths == nullptr || step < lengths[n];

    // unrolled by word: with two exp of doubles inside NVRTC 13 would not, and arrays indexed by i would go to memory
#pragma unroll
    for (int i = 0; i < WIDE; ++i) {
        A xi[Cell::GATES], hi[Cell::GATES], keep[Cell::KEPT], h_new = 0, c_new = 0;
        for (int k = 0; k < Cell::GATES; ++k) {
            xi[k] = to_acc(xs[k][i]) + (b_ih ? to_acc(b_ih[k * H + j + i]) : A(0));
            hi[k] = to_acc(hs[k][i]) + (b_hh ? to_acc(b_hh[k * H + j + i]) : A(0));
        }
        Cell::forward(xi, hi, to_acc(before[i]), Cell::HAS_C ? c_before[i] : A(0), h_new, c_new, keep, relu);
        out[i] = running ? convert<T>(h_new) : before[i];
        shown[i] = running ? convert<T>(h_new) : convert<T>(A(0));
        if (Cell::HAS_C) c_after[i] = running ? c_new : c_before[i];
        for (int k = 0; k < Cell::KEPT; ++k) saved[k][i] = convert<T>(keep[k]);
    }
    write<WIDE>(h + first, out);
    if (y) write<WIDE>(y + first, shown);
    if (Cell::HAS_C) write_wide<WIDE>(c + first, c_after);
    if (kept)
        for (int k = 0; k < Cell::KEPT; ++k) write<WIDE>(kept + (n * Cell::KEPT + k) * H + j, saved[k]);
}

template <class T, int CELL, bool VEC>
__global__ void rnn_cell_backward(const T* kept,        // [N, KEPT, H]
                                  const T* h_prev,      // [N, H]
                                  const acc_t<T>* c_prev, // [N, H], LSTM
                                  const acc_t<T>* c,    // [N, H], LSTM
                                  const T* gy,          // [N, H] or null: gradient of y
                                  const T* through,     // [N, H] or null: dhid W_hh of the step after
                                  acc_t<T>* carry,      // [N, H]: what else comes back to h, in and out
                                  acc_t<T>* dc,         // [N, H]: gradient of c, in and out, LSTM
                                  const int64* lengths, // [N] or null
                                  T* dx,                // [N, GATES, H]
                                  T* dhid,              // [N, GATES, H], where it is not dx
                                  int64 step, int32 N, int32 H, bool relu) {
    typedef acc_t<T> A;
    typedef typename CellOf<CELL>::type Cell;
    constexpr int WIDE = VEC ? pack_size<T> : 1;
    int64 first = (blockIdx.x * static_cast<int64>(blockDim.x) + threadIdx.x) * WIDE;
    if (first >= static_cast<int64>(N) * H) return;
    int64 n = first / H;
    int32 j = static_cast<int32>(first % H);

    T saved[Cell::KEPT][WIDE], before[WIDE], g[WIDE], back[WIDE], by_x[Cell::GATES][WIDE], by_h[Cell::GATES][WIDE];
    A rest[WIDE], c_before[WIDE], c_after[WIDE], gc[WIDE];
    for (int k = 0; k < Cell::KEPT; ++k) read<WIDE>(kept + (n * Cell::KEPT + k) * H + j, saved[k]);
    read<WIDE>(h_prev + first, before);
    if (gy) read<WIDE>(gy + first, g);
    if (through) read<WIDE>(through + first, back);
    read_wide<WIDE>(carry + first, rest);
    if (Cell::HAS_C) {
        read_wide<WIDE>(c_prev + first, c_before);
        read_wide<WIDE>(c + first, c_after);
        read_wide<WIDE>(dc + first, gc);
    }
    bool running = lengths == nullptr || step < lengths[n];

    // unrolled by word: with two exp of doubles inside NVRTC 13 would not, and arrays indexed by i would go to memory
#pragma unroll
    for (int i = 0; i < WIDE; ++i) {
        A keep[Cell::KEPT], dxi[Cell::GATES], dhi[Cell::GATES], on = 0, dc_prev = 0;
        for (int k = 0; k < Cell::KEPT; ++k) keep[k] = to_acc(saved[k][i]);
        A dh = rest[i] + (through ? to_acc(back[i]) : A(0));
        Cell::backward(keep, to_acc(before[i]), Cell::HAS_C ? c_before[i] : A(0), Cell::HAS_C ? c_after[i] : A(0),
                       dh + (gy ? to_acc(g[i]) : A(0)), Cell::HAS_C ? gc[i] : A(0), dxi, dhi, dc_prev, on, relu);
        for (int k = 0; k < Cell::GATES; ++k) {
            by_x[k][i] = convert<T>(running ? dxi[k] : A(0));
            by_h[k][i] = convert<T>(running ? dhi[k] : A(0));
        }
        rest[i] = running ? on : dh;
        if (Cell::HAS_C && running) gc[i] = dc_prev;
    }
    for (int k = 0; k < Cell::GATES; ++k) {
        write<WIDE>(dx + (n * Cell::GATES + k) * H + j, by_x[k]);
        if (!Cell::ONE_SIDE) write<WIDE>(dhid + (n * Cell::GATES + k) * H + j, by_h[k]);
    }
    write_wide<WIDE>(carry + first, rest);
    if (Cell::HAS_C) write_wide<WIDE>(dc + first, gc);
}

// After a projection: the running sequences take the new state, the others keep theirs and show 0.
template <class T>
__global__ void rnn_keep(const T* fresh,       // [N, P]
                         const T* h_prev,      // [N, P]
                         const int64* lengths, // [N]
                         T* h,                 // [N, P]
                         T* y,                 // [N, P]
                         int64 step, int32 N, int32 P) {
    int64 i = blockIdx.x * static_cast<int64>(blockDim.x) + threadIdx.x;
    if (i >= static_cast<int64>(N) * P) return;
    bool running = step < lengths[i / P];
    h[i] = running ? fresh[i] : h_prev[i];
    y[i] = running ? fresh[i] : convert<T>(0.0f);
}
