// half and bf16 as the GPU rounds them: to nearest, ties to even, with subnormals, infinities and NaN.
//
// They convert only through to_float() and from_float(), so that a kernel cannot come to rely on a conversion that
// CUDA's types would make elsewhere.
#pragma once

struct half {
    unsigned short bits;
};

struct bf16 {
    unsigned short bits;
};

namespace sim {


inline float half_to_float(half h) {
    unsigned sign = (h.bits & 0x8000u) << 16, rest = h.bits & 0x7FFFu;
    if (rest >= 0x7C00u) return bits_as<float>(sign | 0x7F800000u | (rest & 0x3FFu) << 13);
    // The exponent is 112 too low; a product by 2^112 sets it right, for subnormals too.
    return bits_as<float>(sign | bits_as<unsigned>(bits_as<float>(rest << 13) * 0x1p112f));
}

inline half float_to_half(float f) {
    unsigned all = bits_as<unsigned>(f), sign = all >> 16 & 0x8000u, rest = all & 0x7FFFFFFFu;
    if (rest > 0x7F800000u) return {0x7FFF};  // CUDA has one NaN
    if (rest >= 0x477FF000u) return {static_cast<unsigned short>(sign | 0x7C00u)};
    if (rest < 0x38800000u) {
        // Added to 0.5, a value below 2^-14 is rounded to a multiple of 2^-24, the smallest subnormal.
        float sum = bits_as<float>(rest) + 0.5f;
        return {static_cast<unsigned short>(sign | (bits_as<unsigned>(sum) - 0x3F000000u))};
    }
    unsigned rounded = rest - 0x38000000u + 0xFFFu + (rest >> 13 & 1);
    return {static_cast<unsigned short>(sign | rounded >> 13)};
}

inline float bf16_to_float(bf16 b) { return bits_as<float>(static_cast<unsigned>(b.bits) << 16); }

inline bf16 float_to_bf16(float f) {
    unsigned all = bits_as<unsigned>(f);
    if ((all & 0x7FFFFFFFu) > 0x7F800000u) return {0x7FFF};
    return {static_cast<unsigned short>((all + 0x7FFFu + (all >> 16 & 1)) >> 16)};
}

// Rounding a double to float first would round twice; forcing the float's last bit odd where it is inexact does not.
inline float double_to_odd_float(double d) {
    float f = static_cast<float>(d);
    double back = f;
    if (back == d || d != d || back - back != 0) return f;
    unsigned bits = bits_as<unsigned>(f);
    bool beyond = (back > d) == (d > 0);  // rounded away from zero
    if (beyond) --bits;
    return bits_as<float>(bits | 1);
}

}  // namespace sim

inline float __half2float(half h) { return ::sim::half_to_float(h); }
inline half __float2half(float f) { return ::sim::float_to_half(f); }
inline half __float2half_rn(float f) { return ::sim::float_to_half(f); }
inline half __double2half(double d) { return ::sim::float_to_half(::sim::double_to_odd_float(d)); }
inline float __bfloat162float(bf16 b) { return ::sim::bf16_to_float(b); }
inline bf16 __float2bfloat16(float f) { return ::sim::float_to_bf16(f); }
inline bf16 __float2bfloat16_rn(float f) { return ::sim::float_to_bf16(f); }
inline bf16 __double2bfloat16(double d) { return ::sim::float_to_bf16(::sim::double_to_odd_float(d)); }
