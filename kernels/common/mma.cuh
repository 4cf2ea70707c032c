// Tensor cores: ldmatrix and mma.sync, executed by all 32 lanes of a warp together.
//
//   ldmatrix_x4(a, row_address);              // four 8x8 matrices of 16-bit elements from shared memory
//   mma_16x8x16<half>(c, a, b);               // c[16,8] += a[16,16] b[16,8], fp32 accumulation; half or bf16 (sm_80)
//   mma_16x8x8_tf32(c, a, b);                 // the same with 8 inner elements in TF32 (sm_80); to_tf32(x) makes them
//   uint32 pair = pack_pair<half>(low, high); // two elements in one register
//
// What lane L holds, with g = L / 4 and t = L % 4 (PTX ISA, "Matrix Fragments for mma.m16n8k16"):
//   a[0]: row g, columns 2t and 2t+1;  a[1]: row g+8;  a[2], a[3]: the same rows, columns 2t+8 and 2t+9
//   b[0]: rows 2t and 2t+1 of column g;  b[1]: rows 2t+8 and 2t+9
//   c[0], c[1]: row g, columns 2t and 2t+1;  c[2], c[3]: row g+8
//   TF32: a[0..3]: (g, t), (g+8, t), (g, t+4), (g+8, t+4);  b[0], b[1]: (t, g), (t+4, g);  c as above
// ldmatrix: lanes 8j ... 8j+7 give the addresses of the rows of matrix j, 16 bytes each; r[j] of lane L is then elements 2t
// and 2t+1 of row g of matrix j, or, with _trans, rows 2t and 2t+1 of column g.
//
// On sm_75 the fp16 product is made of two m16n8k8; bf16 and TF32 trap there. The simulator's twins add in fp32 in the order
// of k: right to tolerance, not to the bit.
#pragma once

template <class T> __device__ __forceinline__ uint32 pack_pair(float low, float high);

#if defined(CUFRAME_SIM)

template <> inline uint32 pack_pair<half>(float low, float high) {
    return __float2half_rn(low).bits | static_cast<uint32>(__float2half_rn(high).bits) << 16;
}
template <> inline uint32 pack_pair<bf16>(float low, float high) {
    return __float2bfloat16_rn(low).bits | static_cast<uint32>(__float2bfloat16_rn(high).bits) << 16;
}

// Rounds to nearest, ties away from zero, as cvt.rna does.
inline uint32 to_tf32(float x) { return x - x == 0 ? (__float_as_uint(x) + 0x1000u) & ~0x1FFFu : __float_as_uint(x); }

namespace sim {

inline void require_whole_warp(const Meeting* meeting, const char* file, int line) {
    if (meeting->present != ~0u) sim_fail(file, line, "%s needs all 32 lanes, came 0x%08x", meeting->what, meeting->present);
}

template <int count, bool transposed>
inline void load_matrices(uint32* r, const void* row, const char* what, const char* file, int line) {
    unsigned lane = sim_now.lane, g = lane / 4, t = lane % 4;
    if (lane < 8 * count) {
        if (!sim_is_shared(row)) sim_fail(file, line, "%s: the address is not in shared memory", what);
        if (reinterpret_cast<unsigned long>(row) % 16) sim_fail(file, line, "%s: a row must be aligned to 16 bytes", what);
    }
    Meeting* meeting = sim_meet(what, ~0u, &row, sizeof row, file, line);
    require_whole_warp(meeting, file, line);
    auto rows = reinterpret_cast<const unsigned short* const*>(meeting->data);
    for (int j = 0; j < count; ++j) {
        uint32 low = transposed ? rows[8 * j + 2 * t][g] : rows[8 * j + g][2 * t];
        uint32 high = transposed ? rows[8 * j + 2 * t + 1][g] : rows[8 * j + g][2 * t + 1];
        r[j] = low | high << 16;
    }
    // nobody may overwrite the rows before all have read them: the instruction is one step for the warp
    sim_part(meeting);
    sim_part(sim_meet(what, ~0u, nullptr, 0, file, line));
}

template <class T> inline float low_half(uint32 pair) { return to_float(T{static_cast<unsigned short>(pair)}); }
template <class T> inline float high_half(uint32 pair) { return to_float(T{static_cast<unsigned short>(pair >> 16)}); }

}  // namespace sim

#define SIM_LDMATRIX(name, count, transposed)                                       \
    inline void name(uint32 (&r)[count], const void* row AND_CALLER) {              \
        ::sim::load_matrices<count, transposed>(r, row, #name, file, line);         \
    }
SIM_LDMATRIX(ldmatrix_x1, 1, false)
SIM_LDMATRIX(ldmatrix_x2, 2, false)
SIM_LDMATRIX(ldmatrix_x4, 4, false)
SIM_LDMATRIX(ldmatrix_x1_trans, 1, true)
SIM_LDMATRIX(ldmatrix_x2_trans, 2, true)
SIM_LDMATRIX(ldmatrix_x4_trans, 4, true)
#undef SIM_LDMATRIX

template <class T>
inline void mma_16x8x16(float (&c)[4], const uint32 (&a)[4], const uint32 (&b)[2] AND_CALLER) {
    struct Fragments {
        float a[2][2][2], b[2][2];  // a: [columns 8 and up][row 8 and up][odd column]; b: [rows 8 and up][odd row]
    } own;
    for (int i = 0; i < 4; ++i) {
        own.a[i / 2][i % 2][0] = ::sim::low_half<T>(a[i]);
        own.a[i / 2][i % 2][1] = ::sim::high_half<T>(a[i]);
    }
    for (int i = 0; i < 2; ++i) own.b[i][0] = ::sim::low_half<T>(b[i]), own.b[i][1] = ::sim::high_half<T>(b[i]);
    ::sim::Meeting* meeting = ::sim::sim_meet("mma_16x8x16", ~0u, &own, sizeof own, file, line);
    ::sim::require_whole_warp(meeting, file, line);
    auto lanes = reinterpret_cast<const Fragments*>(meeting->data);
    unsigned g = sim_now.lane / 4, t = sim_now.lane % 4;
    for (int k = 0; k < 16; ++k) {
        const Fragments& left = lanes[4 * g + k % 8 / 2];
        for (int n = 0; n < 2; ++n) {
            float right = lanes[4 * (2 * t + n) + k % 8 / 2].b[k / 8][k % 2];
            c[n] += left.a[k / 8][0][k % 2] * right;
            c[n + 2] += left.a[k / 8][1][k % 2] * right;
        }
    }
    ::sim::sim_part(meeting);
}

inline void mma_16x8x8_tf32(float (&c)[4], const uint32 (&a)[4], const uint32 (&b)[2] AND_CALLER) {
    struct Fragments {
        float a[2][2], b[2];
    } own;
    // the hardware does not look at the last 13 bits
    for (int i = 0; i < 4; ++i) own.a[i / 2][i % 2] = __uint_as_float(a[i] & ~0x1FFFu);
    for (int i = 0; i < 2; ++i) own.b[i] = __uint_as_float(b[i] & ~0x1FFFu);
    ::sim::Meeting* meeting = ::sim::sim_meet("mma_16x8x8_tf32", ~0u, &own, sizeof own, file, line);
    ::sim::require_whole_warp(meeting, file, line);
    auto lanes = reinterpret_cast<const Fragments*>(meeting->data);
    unsigned g = sim_now.lane / 4, t = sim_now.lane % 4;
    for (int k = 0; k < 8; ++k)
        for (int n = 0; n < 2; ++n) {
            float right = lanes[4 * (2 * t + n) + k % 4].b[k / 4];
            c[n] += lanes[4 * g + k % 4].a[k / 4][0] * right;
            c[n + 2] += lanes[4 * g + k % 4].a[k / 4][1] * right;
        }
    ::sim::sim_part(meeting);
}

#else

template <> __device__ __forceinline__ uint32 pack_pair<half>(float low, float high) {
    __half2 pair = __floats2half2_rn(low, high);
    return *reinterpret_cast<uint32*>(&pair);
}
template <> __device__ __forceinline__ uint32 pack_pair<bf16>(float low, float high) {
    __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
    return *reinterpret_cast<uint32*>(&pair);
}

__device__ __forceinline__ uint32 matrix_row(const void* row) { return static_cast<uint32>(__cvta_generic_to_shared(row)); }

__device__ __forceinline__ void ldmatrix_x1(uint32 (&r)[1], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%0}, [%1];" : "=r"(r[0]) : "r"(matrix_row(row)) : "memory");
}
__device__ __forceinline__ void ldmatrix_x2(uint32 (&r)[2], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
                 : "=r"(r[0]), "=r"(r[1]) : "r"(matrix_row(row)) : "memory");
}
__device__ __forceinline__ void ldmatrix_x4(uint32 (&r)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(matrix_row(row)) : "memory");
}
__device__ __forceinline__ void ldmatrix_x1_trans(uint32 (&r)[1], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x1.trans.shared.b16 {%0}, [%1];"
                 : "=r"(r[0]) : "r"(matrix_row(row)) : "memory");
}
__device__ __forceinline__ void ldmatrix_x2_trans(uint32 (&r)[2], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
                 : "=r"(r[0]), "=r"(r[1]) : "r"(matrix_row(row)) : "memory");
}
__device__ __forceinline__ void ldmatrix_x4_trans(uint32 (&r)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(matrix_row(row)) : "memory");
}

template <class T> __device__ __forceinline__ void mma_16x8x16(float (&c)[4], const uint32 (&a)[4], const uint32 (&b)[2]);

#if __CUDA_ARCH__ >= 800
template <>
__device__ __forceinline__ void mma_16x8x16<half>(float (&c)[4], const uint32 (&a)[4], const uint32 (&b)[2]) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                 "{%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
template <>
__device__ __forceinline__ void mma_16x8x16<bf16>(float (&c)[4], const uint32 (&a)[4], const uint32 (&b)[2]) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                 "{%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
__device__ __forceinline__ void mma_16x8x8_tf32(float (&c)[4], const uint32 (&a)[4], const uint32 (&b)[2]) {
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                 "{%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
__device__ __forceinline__ uint32 to_tf32(float x) {
    uint32 bits;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x));
    return bits;
}
#else
template <>
__device__ __forceinline__ void mma_16x8x16<half>(float (&c)[4], const uint32 (&a)[4], const uint32 (&b)[2]) {
#pragma unroll
    for (int k = 0; k < 2; ++k)
        asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, "
                     "{%0, %1, %2, %3};"
                     : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]) : "r"(a[2 * k]), "r"(a[2 * k + 1]), "r"(b[k]));
}
template <>
__device__ __forceinline__ void mma_16x8x16<bf16>(float (&c)[4], const uint32 (&a)[4], const uint32 (&b)[2]) {
    __trap();
}
__device__ __forceinline__ void mma_16x8x8_tf32(float (&c)[4], const uint32 (&a)[4], const uint32 (&b)[2]) { __trap(); }
__device__ __forceinline__ uint32 to_tf32(float x) { return __float_as_uint(x); }
#endif

#endif
