// The maximum m of a row and s = sum exp(x - m), kept together while the row is read once: Milakov and Gimelshein,
// "Online normalizer calculation for softmax", arXiv 1805.02867.  log sum exp = m + log s.
#pragma once

#include "reduce.cuh"

template <class A> struct Normalizer {
    A m = A(-INFINITY), s = A(0);

    __device__ __forceinline__ void add(A x) {
        if (x > m) {
            s = s * exp(m - x) + A(1);
            m = x;
        } else if (x != A(-INFINITY)) { // -inf - -inf would make NaN of what counts nothing
            s += exp(x - m);
        }
    }
};

// What the GROUP threads of a row - a warp, or a whole block - found, for all of them.
template <int GROUP, class A> __device__ __forceinline__ Normalizer<A> merge(Normalizer<A> mine) {
    Normalizer<A> all;
    all.m = GROUP == 32 ? warp_max(mine.m) : block_max(mine.m);
    A s = mine.m == all.m ? mine.s : mine.s * exp(mine.m - all.m);
    all.s = GROUP == 32 ? warp_sum(s) : block_sum(s);
    return all;
}

template <int GROUP, class A> __device__ __forceinline__ A group_sum(A x) {
    return GROUP == 32 ? warp_sum(x) : block_sum(x);
}
