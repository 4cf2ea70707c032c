// Vector loads and stores: N elements that move in one instruction of up to 16 bytes.
#pragma once

template <int bytes> struct PackBits;
template <> struct PackBits<2> { typedef unsigned short type; };
template <> struct PackBits<4> { typedef unsigned int type; };
template <> struct PackBits<8> { typedef uint2 type; };
template <> struct PackBits<16> { typedef uint4 type; };

template <class T, int N>
union Pack {
    typedef typename PackBits<sizeof(T) * N>::type Bits;
    Bits bits;
    T data[N];

    __device__ __forceinline__ T& operator[](int i) { return data[i]; }
    __device__ __forceinline__ const T& operator[](int i) const { return data[i]; }
};

// How many elements make 16 bytes.
template <class T> constexpr int pack_size = 16 / sizeof(T);

// Whether packs of N elements can be loaded from this address.
template <int N, class T>
__device__ __forceinline__ bool pack_aligned(const T* address) {
    return reinterpret_cast<unsigned long long>(address) % (sizeof(T) * N) == 0;
}

// A GPU refuses a misaligned vector access; the host would let it pass.
template <int N, class T>
__device__ __forceinline__ void require_aligned(const T* address AND_CALLER) {
#if defined(CUFRAME_SIM)
    if (!pack_aligned<N>(address))
        ::sim::sim_fail(file, line, "a pack of %d bytes at %p, which is not aligned to that", int(sizeof(T) * N), (void*)address);
#endif
}

template <int N, class T>
__device__ __forceinline__ Pack<T, N> load_pack(const T* address AND_CALLER) {
    require_aligned<N>(address AND_PASS_CALLER);
    Pack<T, N> pack;
    pack.bits = *reinterpret_cast<const typename Pack<T, N>::Bits*>(address);
    return pack;
}

template <int N, class T>
__device__ __forceinline__ void store_pack(T* address, const Pack<T, N>& pack AND_CALLER) {
    require_aligned<N>(address AND_PASS_CALLER);
    *reinterpret_cast<typename Pack<T, N>::Bits*>(address) = pack.bits;
}
