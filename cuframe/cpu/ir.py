"""LLVM IR of a kernel, written from Python: integers, memory, loops, barriers and vectors of one type of float."""
from __future__ import annotations

import ctypes
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

from llvmlite import binding, ir

__all__ = ["Emitter"]

_I64, _I32 = ir.IntType(64), ir.IntType(32)
_PTR = ir.IntType(8).as_pointer()


class Emitter:
    """An IR function `name(arguments, thread, room)` and shorthands for what the kernels are made of.

    Its numbers are float32, or with `double` float64; `lanes` of them make a vector. Arguments are the 64-bit words
    `fields`; those named in `own` say how many bytes after `room`, which is memory of the thread's own, something is.
    """

    def __init__(self, name: str, fields: tuple[str, ...], lanes: int, double: bool = False,
                 own: Collection[str] = ()) -> None:
        self.real, self.bytes = (ir.DoubleType(), 8) if double else (ir.FloatType(), 4)
        self.module = ir.Module(name)
        self.function = ir.Function(self.module, ir.FunctionType(ir.VoidType(), [_PTR, _I64, _I64]), name)
        self.b = b = ir.IRBuilder(self.function.append_basic_block("entry"))
        self.lanes = lanes
        self.kind = f"v{lanes}f{8 * self.bytes}"  # in the names of intrinsics
        self.vec = ir.VectorType(self.real, lanes)
        self.ivec = ir.VectorType(ir.IntType(8 * self.bytes), lanes)
        self.thread = self.function.args[1]
        self.a = {f: b.load(b.bitcast(b.gep(self.function.args[0], [self.i(8 * j)]), _I64.as_pointer()))
                  for j, f in enumerate(fields)}
        for f in own:
            self.a[f] = b.add(self.function.args[2], self.a[f])

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
        """The address of the number `sum(offsets)` after `base`, as an integer."""
        return self.add(base, self.mul(self.add(*offsets), self.bytes)) if offsets else base

    def load(self, address: Any, kind: Any = None) -> Any:
        kind = kind or self.vec
        return self.b.load(self.b.inttoptr(address, kind.as_pointer()), align=4)

    def store(self, value: Any, address: Any) -> None:
        self.b.store(value, self.b.inttoptr(address, value.type.as_pointer()), align=4)

    def intrinsic(self, name: str, result: Any, args: list[Any]) -> Any:
        kind = ir.FunctionType(result, [a.type for a in args])
        f = self.module.globals.get(name) or ir.Function(self.module, kind, name)
        return self.b.call(f, args)

    def number(self, address: Any) -> Any:
        """The number at `address`."""
        return self.load(address, self.real)

    def index(self, address: Any) -> Any:
        """The 64-bit integer at `address`."""
        return self.load(address, _I64)

    def touch(self, address: Any, level: int) -> None:
        """Ask for the cache line at `address` in the cache of a level, 1 or 2."""
        pointer = self.b.inttoptr(address, _PTR)
        self.intrinsic("llvm.prefetch.p0", ir.VoidType(), [pointer, *(ir.Constant(_I32, v) for v in (0, 4 - level, 1))])

    def prefetch(self, address: Any, size: int) -> None:
        """Ask for `size` bytes in the second-level cache."""
        with self.loop(self.i(0), self.i(size), step=64) as line:
            self.touch(self.add(address, line.index), 2)

    def masked_load(self, address: Any, mask: Any) -> Any:
        pointer = self.b.inttoptr(address, self.vec.as_pointer())
        return self.intrinsic(f"llvm.masked.load.{self.kind}.p0", self.vec,
                              [pointer, ir.Constant(_I32, 4), mask, self.const(0)])

    def masked_store(self, value: Any, address: Any, mask: Any) -> None:
        pointer = self.b.inttoptr(address, self.vec.as_pointer())
        self.intrinsic(f"llvm.masked.store.{self.kind}.p0", ir.VoidType(),
                       [value, pointer, ir.Constant(_I32, 4), mask])

    def mask(self, left: Any) -> Any:
        """Lanes below `left`."""
        ivec = ir.VectorType(_I64, self.lanes)
        return self.b.icmp_signed("<", ir.Constant(ivec, list(range(self.lanes))), self.splat(left))

    def splat(self, scalar: Any) -> Any:
        kind = ir.VectorType(scalar.type, self.lanes)
        one = self.b.insert_element(ir.Constant(kind, ir.Undefined), scalar, ir.Constant(_I32, 0))
        return self.b.shuffle_vector(one, ir.Constant(kind, ir.Undefined),
                                     ir.Constant(ir.VectorType(_I32, self.lanes), [0] * self.lanes))

    def either(self, condition: Any, yes: Any, no: Any) -> Any:
        return self.b.select(condition, *(self.i(v) if isinstance(v, int) else v for v in (yes, no)))

    def least(self, x: Any, y: Any) -> Any:
        return self.b.select(self.b.icmp_signed("<", x, y), x, y)

    def shuffle(self, x: Any, y: Any, lanes: list[int]) -> Any:
        return self.b.shuffle_vector(x, y, ir.Constant(ir.VectorType(_I32, len(lanes)), lanes))

    def transposed(self, rows: list[Any]) -> list[Any]:
        """Columns of a square of vectors: halves of blocks change places, from large blocks to small."""
        rows, n = list(rows), self.lanes
        step = n // 2
        while step:
            for i in range(n):
                if not i & step:
                    x, y = rows[i], rows[i + step]
                    rows[i] = self.shuffle(x, y, [k if not k & step else n + k - step for k in range(n)])
                    rows[i + step] = self.shuffle(x, y, [k + step if not k & step else n + k for k in range(n)])
            step //= 2
        return rows

    def turn(self, rows: Any, row_step: Any, columns: Any, column_step: int, count: Any, size: Any, out: bool) -> None:
        """Between `rows` [size, count] and `columns` [count, lanes], memory of which this does one square.

        In: rows and features that do not exist become zeros. Out: those are not written.
        """
        n, features = self.lanes, self.mask(count)
        to_row = [self.at(rows, self.mul(row_step, r)) for r in range(n)]
        to_column = [self.at(columns, self.i(column_step * f)) for f in range(n)]
        masks = [self.b.and_(features, self.splat(self.b.icmp_signed(">", size, self.i(r)))) for r in range(n)]
        if out:
            for v, at, mask in zip(self.transposed([self.load(at) for at in to_column]), to_row, masks):
                self.masked_store(v, at, mask)
        else:
            for v, at in zip(self.transposed([self.masked_load(*row) for row in zip(to_row, masks)]), to_column):
                self.store(v, at)

    # control
    def share(self, count: Any) -> tuple[Any, Any]:
        """First and last of `count` things that this thread sees to."""
        first, last = (self.b.sdiv(self.mul(count, self.add(self.thread, i)), self.a["threads"]) for i in (0, 1))
        return first, last

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
        """Wait until the counter has reached `target`; after a thousand turns give the core away at each turn."""
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
        b.cbranch(b.icmp_signed("<", turns, self.i(1000)), spin, give)
        b.position_at_end(give)
        b.call(b.inttoptr(self.a["yield_"], ir.FunctionType(_I32, []).as_pointer()), [])
        turns.add_incoming(turns, b.block)
        b.branch(spin)
        b.position_at_end(done)

    # float vectors; the maths here is of float32, that of `maths_ir` of either type
    def const(self, v: float) -> Any:
        return ir.Constant(self.vec, [v] * self.lanes)

    def fma(self, x: Any, y: Any, z: Any) -> Any:
        return self.intrinsic(f"llvm.fma.{self.kind}", self.vec, [x, y, z])

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

    def reciprocal(self, x: Any) -> Any:
        """1 / x for x that is not infinite, by Newton's step where a division would hold up the multipliers; what is
        below 2**-126 may become zero."""
        if self.lanes != 16:
            return self.b.fdiv(self.const(1.0), x)
        guess = self.intrinsic("llvm.x86.avx512.rcp14.ps.512", self.vec,
                               [x, self.const(0), ir.Constant(ir.IntType(16), -1)])
        error = self.fma(self.b.fneg(x), guess, self.const(1.0))
        return self.fma(guess, self.fma(error, error, error), guess)

    def sigmoid(self, x: Any) -> Any:
        c = self.const
        return self.reciprocal(self.b.fadd(c(1.0), self.exp(self.b.fsub(c(-0.0), x))))

    def tanh(self, x: Any) -> Any:
        """By a polynomial near zero, by `exp` elsewhere (after Cephes)."""
        b, c = self.b, self.const
        absolute = self.intrinsic(f"llvm.fabs.{self.kind}", self.vec, [x])
        far = self.reciprocal(b.fadd(self.exp(b.fadd(absolute, absolute)), c(1.0)))
        far = self.fma(c(-2.0), far, c(1.0))
        far = self.intrinsic(f"llvm.copysign.{self.kind}", self.vec, [far, x])
        z = b.fmul(x, x)
        near = self.fma(b.fmul(self.poly(z, _TANH), z), x, x)
        return b.select(b.fcmp_ordered("<", absolute, c(0.625)), near, far)


class _Loop:
    def __init__(self, index: Any, values: list[Any]) -> None:
        self.index, self.values = index, values


def _f32(v: float) -> float:
    return ctypes.c_float(v).value


_EXP = tuple(map(_f32, (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1,
                        5.0000001201e-1)))
_TANH = tuple(map(_f32, (-5.70498872745e-3, 2.06390887954e-2, -5.37397155531e-2, 1.33314422036e-1, -3.33332819422e-1)))
