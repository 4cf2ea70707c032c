"""LLVM IR of the persistent LSTM: all time steps of one direction in one call, forward and backward.

Note [Persistent LSTM]
Units are dealt to threads for the whole call, so that each core keeps its rows of `w_hh` in its own cache.  A vector
holds one unit's value for some columns of the batch.  A panel multiplies a few rows by `cols` vectors of the state in
registers, and the cell's pointwise maths follows there.  One barrier a step lets all threads see the new state.
Every number is computed by the same instructions whichever thread owns it: the result does not depend on threads.
"""
from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from typing import Any

from llvmlite import binding, ir

__all__ = ["BACKWARD", "FORWARD", "UNROLL", "build_backward", "build_forward"]

# arguments, in order, each 8 bytes
FORWARD = ("threads", "counter", "yield_", "steps", "hidden", "batch", "blocks", "reverse", "weights", "bias", "gates",
           "stride", "cells", "cell_step", "state", "state_size", "padded", "y", "panels", "depth")
BACKWARD = ("threads", "counter", "yield_", "steps", "hidden", "batch", "blocks", "reverse", "weights", "gates",
            "stride", "cells", "cell_step", "dgates", "dgates_size", "padded", "gy", "gy_stride", "panels", "out",
            "out_stride", "rec", "dc")
# steps of the inner loop written out
UNROLL = 4

_I64, _I32, _I1, _F32 = ir.IntType(64), ir.IntType(32), ir.IntType(1), ir.FloatType()
_PTR = ir.IntType(8).as_pointer()
_SLAB = (1, 2, 3, 0)                    # the slab of `rnn_cells` for the gates i, f, g, o
_SCALE = (8.0, 8.0, 4.0, 4.0)           # 1 / x_grad_scale of that slab


class _Emitter:
    """An IR function `name(arguments, thread)` and shorthands for what the kernels are made of."""

    def __init__(self, name: str, fields: tuple[str, ...], lanes: int, cols: int) -> None:
        self.module = ir.Module(name)
        self.function = ir.Function(self.module, ir.FunctionType(ir.VoidType(), [_PTR, _I64]), name)
        self.b = b = ir.IRBuilder(self.function.append_basic_block("entry"))
        self.lanes, self.cols = lanes, cols
        self.vec = ir.VectorType(_F32, lanes)
        self.ivec = ir.VectorType(_I32, lanes)
        self.mask_type = ir.VectorType(_I1, lanes)
        self.thread = self.function.args[1]
        self.a = {f: b.load(b.bitcast(b.gep(self.function.args[0], [self.i(8 * j)]), _I64.as_pointer()))
                  for j, f in enumerate(fields)}

    # integers and memory
    def i(self, v: int) -> Any:
        return ir.Constant(_I64, v)

    def mul(self, x: Any, y: Any) -> Any:
        return self.b.mul(x, self.i(y) if isinstance(y, int) else y)

    def add(self, x: Any, *ys: Any) -> Any:
        for y in ys:
            x = self.b.add(x, self.i(y) if isinstance(y, int) else y)
        return x

    def at(self, base: Any, *offsets: Any) -> Any:
        """Byte address `base` + 4 * sum of offsets, as an integer."""
        return self.add(base, self.mul(self.add(*offsets), 4)) if offsets else base

    def load(self, address: Any, kind: Any = None) -> Any:
        kind = kind or self.vec
        return self.b.load(self.b.inttoptr(address, kind.as_pointer()), align=4)

    def store(self, value: Any, address: Any) -> None:
        self.b.store(value, self.b.inttoptr(address, value.type.as_pointer()), align=4)

    def intrinsic(self, name: str, result: Any, args: list[Any]) -> Any:
        kind = ir.FunctionType(result, [a.type for a in args])
        f = self.module.globals.get(name) or ir.Function(self.module, kind, name)
        return self.b.call(f, args)

    def prefetch(self, address: Any) -> None:
        """Ask for a line that will be read and written."""
        pointer = self.b.inttoptr(address, _PTR)
        self.intrinsic("llvm.prefetch.p0", ir.VoidType(), [pointer, *(ir.Constant(_I32, v) for v in (1, 3, 1))])

    def masked_store(self, value: Any, address: Any, mask: Any) -> None:
        pointer = self.b.inttoptr(address, self.vec.as_pointer())
        self.intrinsic(f"llvm.masked.store.v{self.lanes}f32.p0", ir.VoidType(),
                       [value, pointer, ir.Constant(_I32, 4), mask])

    def pointers(self, address: Any, step: Any) -> Any:
        """Addresses `address` + lane * step."""
        ivec = ir.VectorType(_I64, self.lanes)
        ramp = ir.Constant(ivec, list(range(self.lanes)))
        return self.b.inttoptr(self.b.add(self.splat(address), self.b.mul(ramp, self.splat(step))),
                               ir.VectorType(_F32.as_pointer(), self.lanes))

    def scatter(self, value: Any, address: Any, step: Any, mask: Any) -> None:
        n = self.lanes
        self.intrinsic(f"llvm.masked.scatter.v{n}f32.v{n}p0", ir.VoidType(),
                       [value, self.pointers(address, step), ir.Constant(_I32, 4), mask])

    def gather(self, address: Any, step: Any, mask: Any) -> Any:
        n = self.lanes
        return self.intrinsic(f"llvm.masked.gather.v{n}f32.v{n}p0", self.vec,
                              [self.pointers(address, step), ir.Constant(_I32, 4), mask, self.const(0)])

    def mask(self, left: Any) -> Any:
        """Lanes below `left`."""
        ivec = ir.VectorType(_I64, self.lanes)
        return self.b.icmp_signed("<", ir.Constant(ivec, list(range(self.lanes))), self.splat(left))

    def splat(self, scalar: Any) -> Any:
        kind = ir.VectorType(scalar.type, self.lanes)
        one = self.b.insert_element(ir.Constant(kind, ir.Undefined), scalar, ir.Constant(_I32, 0))
        return self.b.shuffle_vector(one, ir.Constant(kind, ir.Undefined), ir.Constant(self.ivec, [0] * self.lanes))

    # control
    @contextmanager
    def loop(self, start: Any, stop: Any, carried: list[Any] | None = None, step: int = 1) -> Iterator[Any]:
        """`for i in range(start, stop, step)`; the body may replace `state.values`, which go around."""
        b, f = self.b, self.function
        head, body, done = (f.append_basic_block(s) for s in ("head", "body", "done"))
        entry = b.block
        b.branch(head)
        b.position_at_end(head)
        i = b.phi(_I64)
        i.add_incoming(start, entry)
        phis = []
        for v in carried or []:
            p = b.phi(v.type)
            p.add_incoming(v, entry)
            phis.append(p)
        b.cbranch(b.icmp_signed("<", i, stop), body, done)
        b.position_at_end(body)
        state = _Loop(i, list(phis))
        yield state
        i.add_incoming(self.add(i, step), b.block)
        for p, v in zip(phis, state.values):
            p.add_incoming(v, b.block)
        b.branch(head)
        b.position_at_end(done)
        state.values = phis

    def barrier(self, target: Any) -> None:
        """Wait until the counter has reached `target`; after some thousand turns give the core away at each turn."""
        b, f = self.b, self.function
        counter = b.inttoptr(self.a["counter"], _I64.as_pointer())
        b.atomic_rmw("add", counter, self.i(1), "acq_rel")
        spin, wait, give, done = (f.append_basic_block(s) for s in ("spin", "wait", "give", "arrived"))
        entry = b.block
        b.branch(spin)
        b.position_at_end(spin)
        turns = b.phi(_I64)
        turns.add_incoming(self.i(0), entry)
        b.cbranch(b.icmp_signed(">=", b.load_atomic(counter, "acquire", 8), target), done, wait)
        b.position_at_end(wait)
        if "86" in binding.get_default_triple().split("-")[0]:
            self.intrinsic("llvm.x86.sse2.pause", ir.VoidType(), [])
        more = self.add(turns, 1)
        turns.add_incoming(more, b.block)
        b.cbranch(b.icmp_signed("<", turns, self.i(4000)), spin, give)
        b.position_at_end(give)
        b.call(b.inttoptr(self.a["yield_"], ir.FunctionType(_I32, []).as_pointer()), [])
        turns.add_incoming(turns, b.block)
        b.branch(spin)
        b.position_at_end(done)

    # float vectors
    def const(self, v: float) -> Any:
        return ir.Constant(self.vec, [v] * self.lanes)

    def fma(self, x: Any, y: Any, z: Any) -> Any:
        return self.intrinsic(f"llvm.fma.v{self.lanes}f32", self.vec, [x, y, z])

    def poly(self, x: Any, coefficients: tuple[float, ...]) -> Any:
        total = self.const(coefficients[0])
        for c in coefficients[1:]:
            total = self.fma(total, x, self.const(c))
        return total

    def exp(self, x: Any) -> Any:
        """e**x for x from -87 to 88, cut to that range; NaN stays NaN."""
        b, c = self.b, self.const
        x = b.select(b.fcmp_ordered(">", x, c(88.0)), c(88.0), x)
        x = b.select(b.fcmp_ordered("<", x, c(-87.0)), c(-87.0), x)
        magic = c(12582912.0)           # adding 1.5 * 2**23 rounds to an integer, found in the low bits
        t = self.fma(x, c(_f32(1.44269504088896341)), magic)
        n = b.fsub(t, magic)
        r = self.fma(n, c(-0.693359375), x)
        r = self.fma(n, c(_f32(2.12194440e-4)), r)
        p = self.poly(r, _EXP)
        p = self.fma(b.fmul(r, r), p, b.fadd(r, c(1.0)))
        bits = b.shl(b.bitcast(t, self.ivec), ir.Constant(self.ivec, [23] * self.lanes))
        return b.fmul(p, b.bitcast(b.add(bits, ir.Constant(self.ivec, [127 << 23] * self.lanes)), self.vec))

    def sigmoid(self, x: Any) -> Any:
        c = self.const
        return self.b.fdiv(c(1.0), self.b.fadd(c(1.0), self.exp(self.b.fsub(c(-0.0), x))))

    def tanh(self, x: Any) -> Any:
        """By a polynomial near zero, by `exp` elsewhere (after Cephes)."""
        b, c = self.b, self.const
        absolute = self.intrinsic(f"llvm.fabs.v{self.lanes}f32", self.vec, [x])
        far = b.fsub(c(1.0), b.fdiv(c(2.0), b.fadd(self.exp(b.fadd(absolute, absolute)), c(1.0))))
        far = self.intrinsic(f"llvm.copysign.v{self.lanes}f32", self.vec, [far, x])
        z = b.fmul(x, x)
        near = self.fma(b.fmul(self.poly(z, _TANH), z), x, x)
        return b.select(b.fcmp_ordered("<", absolute, c(0.625)), near, far)

    def product(self, rows: int, weights: Any, state: Any, count: Any, start: list[Any]) -> list[Any]:
        """[rows][cols] sums over `count` of weights [count, rows] times state [count, cols * lanes]; `count` is a
        multiple of `UNROLL`."""
        width = self.lanes * self.cols
        with self.loop(self.i(0), count, [*start, weights, state], step=UNROLL) as k:
            w, h = k.values[-2:]
            for j in range(UNROLL):
                right = [self.load(self.add(h, 4 * (width * j + self.lanes * c))) for c in range(self.cols)]
                for r in range(rows):
                    left = self.splat(self.load(self.add(w, 4 * (rows * j + r)), _F32))
                    for c in range(self.cols):
                        k.values[r * self.cols + c] = self.fma(left, right[c], k.values[r * self.cols + c])
            k.values[-2:] = [self.add(w, 4 * rows * UNROLL), self.add(h, 4 * width * UNROLL)]
        return k.values[:-2]

    def share(self) -> tuple[Any, Any]:
        """First and last panel of this thread."""
        a, b = self.a, self.b
        return (b.sdiv(self.mul(a["panels"], self.thread), a["threads"]),
                b.sdiv(self.mul(a["panels"], self.add(self.thread, 1)), a["threads"]))


class _Loop:
    def __init__(self, index: Any, values: list[Any]) -> None:
        self.index, self.values = index, values


def _f32(v: float) -> float:
    return ctypes.c_float(v).value


_EXP = tuple(map(_f32, (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1,
                        5.0000001201e-1)))
_TANH = tuple(map(_f32, (-5.70498872745e-3, 2.06390887954e-2, -5.37397155531e-2, 1.33314422036e-1, -3.33332819422e-1)))


def build_forward(name: str, lanes: int, cols: int, units: int) -> ir.Module:
    """`weights` [panels, depth, units, 4], `state` [2, blocks, padded, W] with W = cols * lanes, `cells` [.., blocks,
    padded, W], `gates` [4 * H, stride]: pre-activations of the input side, replaced by i, f, g and o."""
    e = _Emitter(name, FORWARD, lanes, cols)
    a, b, width = e.a, e.b, lanes * cols
    first, last = e.share()
    with e.loop(e.i(0), a["steps"]) as step:
        s = step.index
        t = b.select(b.icmp_signed("!=", a["reverse"], e.i(0)), b.sub(e.add(a["steps"], -1), s), s)
        odd = b.and_(s, e.i(1))
        old = e.at(a["state"], e.mul(odd, a["state_size"]))
        new = e.at(a["state"], e.mul(b.xor(odd, e.i(1)), a["state_size"]))
        c_old = e.at(a["cells"], e.mul(s, a["cell_step"]))
        c_new = e.at(c_old, a["cell_step"])
        with e.loop(first, last) as panel:
            weights = e.at(a["weights"], e.mul(e.mul(panel.index, a["depth"]), 4 * units))
            with e.loop(e.i(0), a["blocks"]) as block:
                base = e.mul(e.mul(block.index, a["padded"]), width)
                for u in range(units):
                    # rows are pages apart, so that the hardware does not foresee them
                    unit = e.add(e.mul(panel.index, units), u)
                    for c, j in product(range(cols), range(4)):
                        row = e.add(e.mul(t, a["batch"]), e.mul(block.index, width), c * lanes)
                        e.prefetch(e.at(a["gates"], e.mul(e.add(e.mul(a["hidden"], j), unit), a["stride"]), row))
                        if j == 0:
                            e.prefetch(e.at(c_new, base, e.mul(unit, width), e.i(c * lanes)))
                sums = e.product(4 * units, weights, e.at(old, base), a["depth"], [e.const(0)] * (4 * units * cols))
                for u in range(units):
                    unit = e.add(e.mul(panel.index, units), u)
                    with b.if_then(b.icmp_signed("<", unit, a["hidden"])):
                        for c in range(cols):
                            column = e.add(e.mul(block.index, width), c * lanes)
                            mask = e.mask(b.sub(a["batch"], column))
                            place = e.add(base, e.mul(unit, width), c * lanes)
                            row = e.add(e.mul(t, a["batch"]), column)
                            acts = []
                            for j in range(4):
                                gate_row = e.add(e.mul(a["hidden"], j), unit)
                                address = e.at(a["gates"], e.mul(gate_row, a["stride"]), row)
                                p = b.fadd(sums[(4 * u + j) * cols + c], e.load(address))
                                p = b.fadd(p, e.splat(e.load(e.at(a["bias"], gate_row), _F32)))
                                p = e.tanh(p) if j == 2 else e.sigmoid(p)
                                e.masked_store(p, address, mask)
                                acts.append(p)
                            i, f, g, o = acts
                            cell = e.fma(f, e.load(e.at(c_old, place)), b.fmul(i, g))
                            e.store(cell, e.at(c_new, place))
                            h = b.fmul(o, e.tanh(cell))
                            e.store(h, e.at(new, place))
                            e.scatter(h, e.at(a["y"], e.mul(row, a["hidden"]), unit), e.mul(a["hidden"], 4), mask)
        e.barrier(e.mul(e.add(s, 1), a["threads"]))
    b.ret_void()
    return e.module


def build_backward(name: str, lanes: int, cols: int, rows: int) -> ir.Module:
    """`weights` [panels, H, 4, rows], `dgates` [2, blocks, padded, 4, W], `rec` and `dc` [blocks, padded, W]: gradients
    of the last states, replaced by those of the first; `out` [4 * H, out_stride] as `rnn_cells` scales it."""
    e = _Emitter(name, BACKWARD, lanes, cols)
    a, b, width = e.a, e.b, lanes * cols
    first, last = e.share()
    with e.loop(e.i(0), e.add(a["steps"], 1)) as step:
        begins = b.icmp_signed("==", step.index, e.i(0))
        ends = b.icmp_signed("==", step.index, a["steps"])
        s = b.sub(e.add(a["steps"], -1), step.index)
        t = b.select(b.icmp_signed("!=", a["reverse"], e.i(0)), step.index, s)
        odd = b.and_(step.index, e.i(1))
        old = e.at(a["dgates"], e.mul(odd, a["dgates_size"]))
        new = e.at(a["dgates"], e.mul(b.xor(odd, e.i(1)), a["dgates_size"]))
        c_old = e.at(a["cells"], e.mul(s, a["cell_step"]))
        c_new = e.at(c_old, a["cell_step"])
        count = b.select(begins, e.i(0), e.mul(a["hidden"], 4))
        with e.loop(first, last) as panel:
            weights = e.at(a["weights"], e.mul(e.mul(panel.index, a["hidden"]), 4 * rows))
            with e.loop(e.i(0), a["blocks"]) as block:
                base = e.mul(e.mul(block.index, a["padded"]), width)
                start = []
                for r in range(rows):
                    for c in range(cols):
                        unit = e.add(e.mul(panel.index, rows), r)
                        given = e.load(e.at(a["rec"], base, e.mul(unit, width), e.i(c * lanes)))
                        start.append(b.select(begins, given, e.const(0)))
                for r in range(rows):
                    unit = e.add(e.mul(panel.index, rows), r)
                    for c, j in product(range(cols), range(4)):
                        row = e.add(e.mul(t, a["batch"]), e.mul(block.index, width), c * lanes)
                        e.prefetch(e.at(a["gates"], e.mul(e.add(e.mul(a["hidden"], j), unit), a["stride"]), row))
                        slab_row = e.add(e.mul(a["hidden"], _SLAB[j]), unit)
                        e.prefetch(e.at(a["out"], e.mul(slab_row, a["out_stride"]), row))
                sums = e.product(rows, weights, e.at(old, e.mul(base, 4)), count, start)
                with b.if_else(ends) as (finish, proceed):
                    with finish:
                        for r in range(rows):
                            for c in range(cols):
                                unit = e.add(e.mul(panel.index, rows), r)
                                e.store(sums[r * cols + c], e.at(a["rec"], base, e.mul(unit, width), e.i(c * lanes)))
                    with proceed:
                        for r in range(rows):
                            unit = e.add(e.mul(panel.index, rows), r)
                            with b.if_then(b.icmp_signed("<", unit, a["hidden"])):
                                for c in range(cols):
                                    _unit_back(e, unit, e.add(e.mul(block.index, width), c * lanes), t, base,
                                               c * lanes, sums[r * cols + c], c_old, c_new, new)
        e.barrier(e.mul(e.add(step.index, 1), a["threads"]))
    b.ret_void()
    return e.module


def _unit_back(e: _Emitter, unit: Any, column: Any, t: Any, base: Any, lane: int, dh: Any, c_old: Any, c_new: Any,
               new: Any) -> None:
    """Gradients of one unit's gates in one vector of columns."""
    a, b, width, one = e.a, e.b, e.lanes * e.cols, e.const(1.0)
    mask = e.mask(b.sub(a["batch"], column))
    place = e.add(base, e.mul(unit, width), lane)
    row = e.add(e.mul(t, a["batch"]), column)
    dh = b.fadd(dh, e.gather(e.at(a["gy"], e.mul(row, a["gy_stride"]), unit), e.mul(a["gy_stride"], 4), mask))
    i, f, g, o = (e.load(e.at(a["gates"], e.mul(e.add(e.mul(a["hidden"], j), unit), a["stride"]), row))
                  for j in range(4))
    through = e.tanh(e.load(e.at(c_new, place)))
    dc_at = e.at(a["dc"], place)

    def slope(s: Any) -> Any:
        return b.fmul(s, b.fsub(one, s))

    def slope_tanh(v: Any) -> Any:
        return e.fma(b.fneg(v), v, one)

    dc = e.fma(b.fmul(dh, o), slope_tanh(through), e.load(dc_at))
    e.store(b.fmul(dc, f), dc_at)
    grads = (b.fmul(b.fmul(dc, g), slope(i)), b.fmul(b.fmul(dc, e.load(e.at(c_old, place))), slope(f)),
             b.fmul(b.fmul(dc, i), slope_tanh(g)), b.fmul(b.fmul(dh, through), slope(o)))
    for j, grad in enumerate(grads):
        e.store(grad, e.at(new, e.mul(base, 4), e.mul(e.add(e.mul(unit, 4), j), width), e.i(lane)))
        out_row = e.add(e.mul(a["hidden"], _SLAB[j]), unit)
        e.masked_store(b.fmul(grad, e.const(_SCALE[j])), e.at(a["out"], e.mul(out_row, a["out_stride"]), row), mask)
