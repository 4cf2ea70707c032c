// The cells of recurrent layers as functors: one number each of gates and states in, one out.  Every engine - a launch a
// step, or one for the whole sequence - runs the same functors, so a new cell is added here alone.
//
//   GATES      blocks of H rows in w_ih and w_hh, in PyTorch's order
//   KEPT       numbers that backward needs of each hidden unit and step
//   HAS_C      the cell has a second state c that skips the recurrent product
//   ONE_SIDE   the gradients of both sides of the gates, W_ih x + b_ih and W_hh h + b_hh, are the same
//
//   forward(x[GATES], h[GATES], h_prev, c_prev, h&, c&, kept[KEPT]&, relu)       x, h: the two sides of the gates
//   backward(kept[KEPT], h_prev, c_prev, c, dh, dc, dx[GATES]&, dhid[GATES]&, dc_prev&, carry&, relu)
//              dh, dc: gradients of h and c, dc without its part through h; carry: the part of the gradient of h_prev that
//              does not pass through W_hh; relu: the Elman cell's nonlinearity, tanh otherwise
#pragma once

template <class A> __device__ __forceinline__ A sigmoid(A x) { return A(1) / (A(1) + exp(-x)); }

// i, f, o = sigmoid(.), g = tanh(.), c = f c_prev + i g, h = o tanh(c).
// Hochreiter and Schmidhuber, "Long short-term memory", 1997; gates in the order i, f, g, o.
struct LstmCell {
    static constexpr int GATES = 4, KEPT = 4;
    static constexpr bool HAS_C = true, ONE_SIDE = true;

    template <class A>
    static __device__ __forceinline__ void forward(const A (&x)[4], const A (&hid)[4], A, A c_prev, A& h, A& c, A (&kept)[4],
                                                   bool) {
        A i = sigmoid(x[0] + hid[0]), f = sigmoid(x[1] + hid[1]), g = tanh(x[2] + hid[2]), o = sigmoid(x[3] + hid[3]);
        c = f * c_prev + i * g;
        h = o * tanh(c);
        kept[0] = i, kept[1] = f, kept[2] = g, kept[3] = o;
    }

    template <class A>
    static __device__ __forceinline__ void backward(const A (&kept)[4], A, A c_prev, A c, A dh, A dc, A (&dx)[4], A (&dhid)[4],
                                                    A& dc_prev, A& carry, bool) {
        A i = kept[0], f = kept[1], g = kept[2], o = kept[3], t = tanh(c);
        A through = dc + dh * o * (A(1) - t * t);
        dx[0] = through * g * i * (A(1) - i);
        dx[1] = through * c_prev * f * (A(1) - f);
        dx[2] = through * i * (A(1) - g * g);
        dx[3] = dh * t * o * (A(1) - o);
        for (int k = 0; k < 4; ++k) dhid[k] = dx[k];
        dc_prev = through * f;
        carry = A(0);
    }
};

// r, z = sigmoid(.), n = tanh(x_n + r hid_n), h = (1 - z) n + z h_prev.
// Cho et al., "Learning phrase representations using RNN encoder-decoder", 2014, with cuDNN's place of r; order r, z, n.
struct GruCell {
    static constexpr int GATES = 3, KEPT = 4;
    static constexpr bool HAS_C = false, ONE_SIDE = false;

    template <class A>
    static __device__ __forceinline__ void forward(const A (&x)[3], const A (&hid)[3], A h_prev, A, A& h, A&, A (&kept)[4],
                                                   bool) {
        A r = sigmoid(x[0] + hid[0]), z = sigmoid(x[1] + hid[1]), n = tanh(x[2] + r * hid[2]);
        h = n + z * (h_prev - n);
        kept[0] = r, kept[1] = z, kept[2] = n, kept[3] = hid[2];
    }

    template <class A>
    static __device__ __forceinline__ void backward(const A (&kept)[4], A h_prev, A, A, A dh, A, A (&dx)[3], A (&dhid)[3], A&,
                                                    A& carry, bool) {
        A r = kept[0], z = kept[1], n = kept[2];
        A dn = dh * (A(1) - z) * (A(1) - n * n);
        dx[0] = dn * kept[3] * r * (A(1) - r);
        dx[1] = dh * (h_prev - n) * z * (A(1) - z);
        dx[2] = dn;
        dhid[0] = dx[0], dhid[1] = dx[1], dhid[2] = dn * r;
        carry = dh * z;
    }
};

// h = tanh(x + hid), or max(x + hid, 0): Elman, "Finding structure in time", 1990.  Keeps h.
struct ElmanCell {
    static constexpr int GATES = 1, KEPT = 1;
    static constexpr bool HAS_C = false, ONE_SIDE = true;

    template <class A>
    static __device__ __forceinline__ void forward(const A (&x)[1], const A (&hid)[1], A, A, A& h, A&, A (&kept)[1],
                                                   bool relu) {
        A sum = x[0] + hid[0];
        h = relu ? (sum < A(0) ? A(0) : sum) : tanh(sum); // NaN stays
        kept[0] = h;
    }

    template <class A>
    static __device__ __forceinline__ void backward(const A (&kept)[1], A, A, A, A dh, A, A (&dx)[1], A (&dhid)[1], A&, A& carry,
                                                    bool relu) {
        A h = kept[0];
        dx[0] = relu ? (h > A(0) ? dh : A(0)) : dh * (A(1) - h * h);
        dhid[0] = dx[0];
        carry = A(0);
    }
};

// By number, as the host names them.
template <int CELL> struct CellOf;
template <> struct CellOf<0> { typedef LstmCell type; };
template <> struct CellOf<1> { typedef GruCell type; };
template <> struct CellOf<2> { typedef ElmanCell type; };
