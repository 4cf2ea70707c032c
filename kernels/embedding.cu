// Rows of a table looked up, and rows added to a table where several may go to one place, without atomics.
//
//   forward    out_i = weight_{index_i}; NaN where the index is not in [0, rows)
//   sums       out_r = sum over i with index_i = r of values_i; entries whose index is not in range, or padding, count nothing
//
// The sums: segment_keys makes index_i 2^bits + i of each entry, a sort (Thrust's, by the host) brings equal indices together
// in the order of i, segment_sums adds runs up, and segment_joins the runs that tiles cut.  The order of additions depends on
// n and the indices alone.
//
// Layout     weight, out: [rows, width]; index: [n]; values: [n, width]; keys: [n], sorted; partials: [tiles, 2, width] in the
//            type of accumulation: the sum of a tile's first run where it began in an earlier tile, and of its last where that
//            goes on in the next.
// Parallel   forward: a thread a pack of 16 bytes. segment_sums: a thread a tile of sorted entries and a pack of columns;
//            4 entries are loaded before they are added, so that their latencies overlap.  segment_joins: a thread a tile
//            and column; those whose last run begins there and goes on add the parts of the tiles that follow.
// Tiles      about sqrt(n) / 4 entries, so that neither a tile nor the longest chain of tiles (one index n times) is a
//            chain of more than 4 sqrt(n) additions, while many short runs still make many threads.
// Saved      the indices.
// Floor      forward 2 values an element and the indices. Sums: values once, the table once for zeros and once for the rows
//            hit, and the sort: 8 passes of 16 bytes an entry, little beside rows of 64 numbers, all for rows of one.
// To measure rows of one number (scatter_add): tiles give few threads, and a segmented scan within blocks may be better.
//
// 1  2026-11  first version; not yet run on a GPU
#include "common/platform.cuh"
#include "common/index.cuh"

template <class T, class I>
__global__ void embedding_forward(const T* __restrict__ weight, // [rows, width]
                                  const I* __restrict__ index,  // [n]
                                  T* __restrict__ out,          // [n, width]
                                  int64 n, int64 rows, int64 width, bool packs) {
    constexpr int N = pack_size<T>;
    int64 at = blockIdx.x * static_cast<int64>(blockDim.x) + threadIdx.x;
    int64 columns = packs ? width / N : width; // packs: width is a multiple of N, and both arrays are aligned
    if (at >= n * columns) return;
    int64 i = quotient(at, columns), column = at - i * columns, row = index[i];
    bool known = row >= 0 && row < rows;
    T nothing = convert<T>(NAN);
    if (packs) {
        Pack<T, N> pack;
#pragma unroll
        for (int j = 0; j < N; ++j) pack[j] = nothing;
        if (known) pack = load_pack<N>(weight + row * width + column * N);
        store_pack<N>(out + i * width + column * N, pack);
    } else {
        out[at] = known ? weight[row * width + column] : nothing;
    }
}

// Negative indices count from the end where `wrap` is set. What counts nothing gets the index `rows`, which sorts last.
template <class I>
__global__ void segment_keys(const I* __restrict__ index, // [n]
                             int64* __restrict__ keys,    // [n]
                             int64 n, int64 rows, int64 padding, int32 bits, bool wrap) {
    int64 i = blockIdx.x * static_cast<int64>(blockDim.x) + threadIdx.x;
    if (i >= n) return;
    int64 row = index[i];
    if (wrap && row < 0) row += rows;
    if (row < 0 || row >= rows || row == padding) row = rows;
    keys[i] = row << bits | i;
}

// Columns [column, column + N) of a run's sum, to the table or to the partial sums.
template <int N, class T, class A>
__device__ __forceinline__ void put_run(const A (&sum)[N], bool before, bool after, int64 tile, int64 row, int64 column,
                                        int64 width, A* __restrict__ partials, T* __restrict__ out) {
    if (before || after) {
        A* to = partials + (2 * tile + (before ? 0 : 1)) * width + column;
#pragma unroll
        for (int j = 0; j < N; ++j) to[j] = sum[j];
    } else {
        Pack<T, N> pack;
#pragma unroll
        for (int j = 0; j < N; ++j) pack[j] = convert<T>(sum[j]);
        store_pack<N>(out + row * width + column, pack);
    }
}

template <class T, bool VEC>
__global__ void segment_sums(const T* __restrict__ values,    // [n, width]
                             const int64* __restrict__ keys,  // [n]
                             acc_t<T>* __restrict__ partials, // [tiles, 2, width]
                             T* __restrict__ out,             // [rows, width], zeros
                             int64 n, int64 rows, int64 width, int32 bits, int32 size) {
    typedef acc_t<T> A;
    constexpr int N = VEC ? pack_size<T> : 1, AHEAD = 4;
    int64 at = blockIdx.x * static_cast<int64>(blockDim.x) + threadIdx.x;
    int64 columns = width / N, tile = quotient(at, columns), column = (at - tile * columns) * N;
    int64 start = tile * size, end = start + size < n ? start + size : n;
    if (start >= n) return;
    int64 mask = (int64(1) << bits) - 1, row = keys[start] >> bits;
    bool before = start > 0 && keys[start - 1] >> bits == row;
    A sum[N] = {};
    for (int64 i = start; i < end && row < rows; i += AHEAD) {
        int64 key[AHEAD];
        Pack<T, N> pack[AHEAD];
#pragma unroll
        for (int k = 0; k < AHEAD; ++k) {
            key[k] = keys[i + k < end ? i + k : end - 1];
            pack[k] = load_pack<N>(values + (key[k] & mask) * width + column);
        }
#pragma unroll
        for (int k = 0; k < AHEAD; ++k) {
            if (i + k >= end) break;
            if (key[k] >> bits != row) {
                put_run(sum, before, false, tile, row, column, width, partials, out);
                before = false;
                row = key[k] >> bits;
                if (row >= rows) break;
#pragma unroll
                for (int j = 0; j < N; ++j) sum[j] = A(0);
            }
#pragma unroll
            for (int j = 0; j < N; ++j) sum[j] += to_acc(pack[k][j]);
        }
    }
    if (row >= rows) return;
    bool after = end < n && keys[end] >> bits == row;
    put_run(sum, before, after, tile, row, column, width, partials, out);
}

template <class T>
__global__ void segment_joins(T* __restrict__ out,                   // [rows, width]
                              const acc_t<T>* __restrict__ partials, // [tiles, 2, width]
                              const int64* __restrict__ keys,        // [n]
                              int64 n, int64 rows, int64 width, int32 bits, int32 size) {
    typedef acc_t<T> A;
    int64 at = blockIdx.x * static_cast<int64>(blockDim.x) + threadIdx.x;
    int64 tile = quotient(at, width), column = at - tile * width;
    int64 start = tile * size, next = start + size;
    if (next >= n) return; // a last tile's run ends there
    int64 row = keys[next] >> bits;
    bool goes_on = row < rows && keys[next - 1] >> bits == row;
    if (!goes_on || (start > 0 && keys[start - 1] >> bits == row)) return;
    A sum = partials[(2 * tile + 1) * width + column];
    do {
        sum += partials[2 * ++tile * width + column];
        next += size;
    } while (next < n && keys[next] >> bits == row);
    out[row * width + column] = convert<T>(sum);
}
