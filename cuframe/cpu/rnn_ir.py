"""LLVM IR of the persistent recurrent layer: all time steps of one direction in one call, forward and backward.

Note [Persistent layer]
Units are dealt to threads for the whole call, so that each core keeps its rows of `w_hh` and `w_ih` in its own cache.
A vector holds one unit's value for some columns of the batch.  A panel multiplies a few rows by `cols` vectors of the
state, then of the input, in registers; the cell's pointwise maths follows while the sums are in the first-level cache.
One barrier a step lets all threads see the new state.  Backward is the same with the transposed weights, and the
gradients of the weights follow as one blocked product over all steps, which finds its operands in the blocks that
the time loop has left.  Columns whose sequence does not run in a step keep their state.
A weight loaded for a single multiplication would halve the speed.  So in a batch of one vector the weights take the
vector's place and the sums are turned afterwards; its input is multiplied two steps at a time, ahead of the loop, and
the input's gradient is found after it.
Every number is computed by the same instructions whichever thread owns it: the result does not depend on threads.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from typing import Any, NamedTuple

from llvmlite import ir

from cuframe.cpu.ir import Emitter

__all__ = ["BACKWARD", "CELLS", "FORWARD", "OUTER", "PAIRS_BACK", "PAIRS_IN", "TILE", "UNROLL", "build_backward",
           "build_forward", "build_outer", "build_pairs_back", "build_pairs_in"]

# arguments, in order, each 8 bytes; sizes count float32
FORWARD = ("threads", "counter", "yield_", "steps", "hidden", "inputs", "blocks", "reverse", "starts", "sizes",
           "w_h", "w_x", "pack_h", "pack_x", "depth_h", "depth_x", "panels", "bias", "x", "x_stride", "turned",
           "turned_size", "height_x", "start", "start_size", "state", "state_size", "ring", "cells", "cell_size",
           "gates", "gate_size", "y", "scratch", "scratch_size", "padded")
BACKWARD = ("threads", "counter", "yield_", "steps", "hidden", "inputs", "blocks", "reverse", "starts", "sizes",
            "w_h", "w_x", "pack_h", "pack_x", "panels_h", "panels_x", "gates", "gate_size", "state", "state_size",
            "cells", "cell_size", "gy", "gy_stride", "turned", "turned_size", "dgates", "dgate_size", "carry", "dc",
            "sums", "dx", "dx_turned", "dx_size", "height_x", "scratch", "scratch_size", "padded")
OUTER = ("threads", "counter", "yield_", "pairs", "blocks", "chunk", "starts", "sizes", "hidden", "count", "z",
         "z_stride", "dgates", "pair_size", "out", "packed", "packed_size", "panels")
PAIRS_IN = ("threads", "counter", "yield_", "steps", "chunk", "hidden", "inputs", "blocks", "reverse", "starts",
            "sizes", "w", "pack", "depth", "panels", "x", "x_stride", "turned", "turned_size", "height", "out",
            "out_size")
PAIRS_BACK = ("threads", "counter", "yield_", "steps", "chunk", "hidden", "inputs", "blocks", "reverse", "starts",
              "sizes", "w", "pack", "panels", "dgates", "dgate_size", "turned", "turned_size", "height", "dx")
# steps of the inner loop written out
UNROLL = 4
# vectors in a row of a tile of a weight's gradient
TILE = 2


class Cell(NamedTuple):
    """A kind of cell as the kernels see it.

    Each unit has `slots` sums; `h_slots` and `x_slots` tell which of them PyTorch's gates reach from either side.
    `forward(e, sums, h, c)` gives the values to keep, h_t and c_t; `backward(e, dh, dc, kept, h_old, h_new, c_old,
    c_new)` the gradients of the sums, the part of dL/dh_{t-1} that goes round the weights, and dL/dc_{t-1}.
    """

    slots: int
    h_slots: tuple[int, ...]
    x_slots: tuple[int, ...]
    has_c: bool
    keeps_gates: bool
    forward: Callable[[Emitter, list[Any], Any, Any], tuple[list[Any], Any, Any]]
    backward: Callable[..., tuple[list[Any], Any, Any]]


def _lstm(e: Emitter, sums: list[Any], h: Any, c: Any) -> tuple[list[Any], Any, Any]:
    i, f, o = (e.sigmoid(sums[j]) for j in (0, 1, 3))
    g = e.tanh(sums[2])
    c = e.fma(f, c, e.b.fmul(i, g))
    return [i, f, g, o], e.b.fmul(o, e.tanh(c)), c


def _lstm_back(e: Emitter, dh: Any, dc: Any, kept: list[Any], h_old: Any, h_new: Any, c_old: Any,
               c_new: Any) -> tuple[list[Any], Any, Any]:
    mul, (i, f, g, o) = e.b.fmul, kept
    through = e.tanh(c_new)
    dc = e.fma(mul(dh, o), _slope_tanh(e, through), dc)
    return [mul(mul(dc, g), _slope(e, i)), mul(mul(dc, c_old), _slope(e, f)), mul(mul(dc, i), _slope_tanh(e, g)),
            mul(mul(dh, through), _slope(e, o))], None, mul(dc, f)


def _gru(e: Emitter, sums: list[Any], h: Any, c: Any) -> tuple[list[Any], Any, Any]:
    r, z = e.sigmoid(sums[0]), e.sigmoid(sums[1])
    n = e.tanh(e.fma(r, sums[2], sums[3]))
    return [r, z, sums[2], n], e.fma(z, e.b.fsub(h, n), n), None


def _gru_back(e: Emitter, dh: Any, dc: Any, kept: list[Any], h_old: Any, h_new: Any, c_old: Any,
              c_new: Any) -> tuple[list[Any], Any, Any]:
    mul, sub, (r, z, hidden, n) = e.b.fmul, e.b.fsub, kept
    dn = mul(mul(dh, sub(e.const(1.0), z)), _slope_tanh(e, n))
    dz = mul(mul(dh, sub(h_old, n)), _slope(e, z))
    return [mul(mul(dn, hidden), _slope(e, r)), dz, mul(dn, r), dn], mul(dh, z), None


def _tanh(e: Emitter, sums: list[Any], h: Any, c: Any) -> tuple[list[Any], Any, Any]:
    return [], e.tanh(sums[0]), None


def _tanh_back(e: Emitter, dh: Any, dc: Any, kept: list[Any], h_old: Any, h_new: Any, c_old: Any,
               c_new: Any) -> tuple[list[Any], Any, Any]:
    return [e.b.fmul(dh, _slope_tanh(e, h_new))], None, None


def _relu(e: Emitter, sums: list[Any], h: Any, c: Any) -> tuple[list[Any], Any, Any]:
    return [], e.b.select(e.b.fcmp_ordered("<", sums[0], e.const(0)), e.const(0), sums[0]), None  # NaN stays


def _relu_back(e: Emitter, dh: Any, dc: Any, kept: list[Any], h_old: Any, h_new: Any, c_old: Any,
               c_new: Any) -> tuple[list[Any], Any, Any]:
    return [e.b.select(e.b.fcmp_ordered("<=", h_new, e.const(0)), e.const(0), dh)], None, None


def _slope(e: Emitter, s: Any) -> Any:
    return e.b.fmul(s, e.b.fsub(e.const(1.0), s))


def _slope_tanh(e: Emitter, v: Any) -> Any:
    return e.fma(e.b.fneg(v), v, e.const(1.0))


CELLS = {
    "lstm": Cell(4, (0, 1, 2, 3), (0, 1, 2, 3), True, True, _lstm, _lstm_back),
    "gru": Cell(4, (0, 1, 2), (0, 1, 3), False, True, _gru, _gru_back),
    "rnn_tanh": Cell(1, (0,), (0,), False, False, _tanh, _tanh_back),
    "rnn_relu": Cell(1, (0,), (0,), False, False, _relu, _relu_back),
}


def _multiply(e: Emitter, sums: list[Any], rows: Sequence[int], left: Any, right: Any, count: Any, cols: int,
              taps: Sequence[tuple[list[int], int]], left_step: int, right_step: int,
             apart: Any = None) -> list[Any]:
    """`sums` [.., cols] plus outer products in registers, `count` times over.

    Each time, for each tap, numbers at `left` go to `rows` of `sums` times the vectors at `right`; a tap tells where,
    in float32 from `left` for each row and from `right`.  Then left and right move on by their steps.  The `cols`
    vectors follow each other, or stand `apart` float32.
    """
    active = [r * cols + c for r in rows for c in range(cols)]
    with e.loop(e.i(0), count, [*(sums[j] for j in active), left, right]) as turn:
        a, b = turn.values[-2:]
        for offsets, place in taps:
            vectors = [e.load(e.add(b, 4 * (place + e.lanes * c)) if apart is None else
                              e.at(b, e.i(place), e.mul(apart, c))) for c in range(cols)]
            for r, offset in enumerate(offsets):
                number = e.splat(e.number(e.add(a, 4 * offset)))
                for c in range(cols):
                    turn.values[r * cols + c] = e.fma(number, vectors[c], turn.values[r * cols + c])
        turn.values[-2:] = [e.add(a, 4 * left_step), e.add(b, 4 * right_step)]
    result = list(sums)
    for j, v in zip(active, turn.values):
        result[j] = v
    return result


def _wide(e: Emitter, vectors: int, taps: Sequence[tuple[int, int]], left: Any, left_step: int, right: Any,
          right_step: int, count: Any, out: Any, aside: Any) -> None:
    """`out` [rows, lanes] = sums as in `_multiply` for batches of one vector, rows being `vectors` times lanes.

    Weights are the vectors here and numbers of the state are spread, so that each load serves several
    multiplications; the sums are turned in the end.  `aside` has room for as many.
    """
    n, half, rows = e.lanes, e.lanes // 2, vectors * e.lanes
    with e.loop(e.i(0), e.i(n), step=half) as part:
        start = [e.const(0)] * (vectors * half)
        with e.loop(e.i(0), count, [*start, left, e.at(right, part.index)]) as turn:
            a, b = turn.values[-2:]
            for offset, place in taps:
                weights = [e.load(e.add(a, 4 * (offset + n * v))) for v in range(vectors)]
                for k in range(half):
                    number = e.splat(e.number(e.add(b, 4 * (place + k))))
                    for v, weight in enumerate(weights):
                        turn.values[v * half + k] = e.fma(weight, number, turn.values[v * half + k])
            turn.values[-2:] = [e.add(a, 4 * left_step), e.add(b, 4 * right_step)]
        for v, k in product(range(vectors), range(half)):
            e.store(turn.values[v * half + k], e.at(aside, e.mul(part.index, rows), e.i(k * rows + v * n)))
    for v in range(vectors):
        square = e.transposed([e.load(e.at(aside, e.i(k * rows + v * n))) for k in range(n)])
        for r, x in enumerate(square):
            e.store(x, e.at(out, e.i((v * n + r) * n)))


def _pack(e: Emitter, sources: list[tuple[Any, Any]], step: Any, count: Any, depth: Any, to: Any,
          to_step: int) -> None:
    """Numbers of several rows side by side: `to[k * to_step + r] = source_r[k * step]`, zero outside.

    A source is an address and whether there is such a row.
    """
    zero = ir.Constant(ir.FloatType(), 0)
    with e.loop(e.i(0), count) as k:
        for r, (source, inside) in enumerate(sources):
            number = e.number(e.at(source, e.mul(k.index, step)))
            e.store(e.b.select(inside, number, zero), e.at(to, e.mul(k.index, to_step), e.i(r)))
    with e.loop(count, depth) as k:
        for r in range(len(sources)):
            e.store(zero, e.at(to, e.mul(k.index, to_step), e.i(r)))


def _pack_units(e: Emitter, panel: Any, weights: Any, to: Any, count: Any, depth: Any, units: int, gates: int) -> None:
    """A panel of `to` [panels, depth, units, gates] from `weights` [gates * hidden, count]."""
    sources = []
    for u, j in product(range(units), range(gates)):
        unit = e.add(e.mul(panel, units), u)
        inside = e.b.icmp_signed("<", unit, e.a["hidden"])
        row = e.add(e.mul(e.a["hidden"], j), e.either(inside, unit, 0))
        sources.append((e.at(weights, e.mul(row, count)), inside))
    _pack(e, sources, e.i(1), count, depth, e.at(to, e.mul(e.mul(panel, depth), units * gates)), units * gates)


def _pack_columns(e: Emitter, panel: Any, weights: Any, to: Any, count: Any, rows: int, gates: int) -> None:
    """A panel of `to` [panels, hidden, gates, rows], columns of `weights` [gates * hidden, count]."""
    hidden = e.a["hidden"]
    with e.loop(e.i(0), e.i(gates)) as gate:
        j, sources = gate.index, []
        for r in range(rows):
            column = e.add(e.mul(panel, rows), r)
            inside = e.b.icmp_signed("<", column, count)
            sources.append((e.at(weights, e.mul(e.mul(hidden, j), count), e.either(inside, column, 0)), inside))
        _pack(e, sources, count, hidden, hidden,
              e.at(to, e.mul(e.mul(panel, hidden), gates * rows), e.mul(j, rows)), gates * rows)


def _step(e: Emitter, s: Any) -> Any:
    """The time step that is the s-th to be run."""
    return e.either(e.b.icmp_signed("!=", e.a["reverse"], e.i(0)), e.b.sub(e.add(e.a["steps"], -1), s), s)


def _turn(e: Emitter, s: Any, rows: Any, stride: Any, count: Any, columns: Any, height: Any, cols: int,
          out: bool) -> None:
    """This thread's share of the s-th step's rows [size, count], `stride` apart, from or to [blocks, height, W]."""
    a, b, width = e.a, e.b, e.lanes * cols
    t = _step(e, s)
    start, size = (e.index(e.add(a[f], e.mul(t, 8))) for f in ("starts", "sizes"))
    squares = b.sdiv(e.add(count, e.lanes - 1), e.i(e.lanes))
    with e.loop(*e.share(squares)) as square, e.loop(e.i(0), a["blocks"]) as block, e.loop(e.i(0), e.i(cols)) as c:
        feature = e.mul(square.index, e.lanes)
        column = e.add(e.mul(block.index, width), e.mul(c.index, e.lanes))
        place = e.mul(e.add(e.mul(block.index, height), feature), width)
        e.turn(e.at(rows, e.mul(e.add(start, column), stride), feature), stride,
               e.at(columns, place, e.mul(c.index, e.lanes)), width, b.sub(count, feature), b.sub(size, column), out)


def build_forward(name: str, cell: Cell, lanes: int, cols: int, units: int) -> ir.Module:
    """`state` [ring of steps, blocks, padded, W] with W = cols * lanes, `cells` the same; `gates` [T, blocks, padded,
    slots, W] and `start` the same, what the sums begin with; `turned` [2, blocks, height_x, W] for the input; `bias`
    [slots, hidden]; `pack_h` and `pack_x` [panels, depth, units, gates] get the weights.

    Turn s turns the input of step s + 1 and the output of step s - 1, so that there is a turn before the first step
    and one after the last.
    """
    e = Emitter(name, FORWARD, lanes)
    a, b, width = e.a, e.b, lanes * cols
    scratch = e.at(a["scratch"], e.mul(e.thread, a["scratch_size"]))
    first, last = e.share(a["panels"])
    gates = len(cell.h_slots)
    wide = units * gates                    # rows of a panel, for batches of one vector
    by_x, aside = e.at(scratch, e.i(wide * lanes)), e.at(scratch, e.i(2 * wide * lanes))
    if cols == 1:
        with e.loop(e.i(0), e.i(wide)) as row:
            e.store(e.const(0), e.at(by_x, e.mul(row.index, lanes)))
    with e.loop(first, last) as panel:
        for side, depth, count in (("h", a["depth_h"], a["hidden"]), ("x", a["depth_x"], a["inputs"])):
            _pack_units(e, panel.index, a[f"w_{side}"], a[f"pack_{side}"], count, depth, units, gates)

    def states(s: Any) -> Any:
        """Those that step s starts from."""
        return e.at(a["state"], e.mul(b.and_(s, a["ring"]), a["state_size"]))

    def turned(s: Any) -> Any:
        return e.at(a["turned"], e.mul(b.and_(s, e.i(1)), a["turned_size"]))

    with e.loop(e.i(-1), e.add(a["steps"], 1)) as step:
        s = step.index
        following = e.least(e.add(s, 1), e.add(a["steps"], -1))
        _turn(e, following, a["x"], a["x_stride"], a["inputs"], turned(following), a["height_x"], cols, out=False)
        with b.if_then(b.icmp_signed(">", s, e.i(0))):
            _turn(e, e.add(s, -1), a["y"], a["hidden"], a["hidden"], states(s), a["padded"], cols, out=True)
        runs_now = b.and_(b.icmp_signed(">=", s, e.i(0)), b.icmp_signed("<", s, a["steps"]))
        t = _step(e, e.either(runs_now, s, 0))
        size = e.index(e.add(a["sizes"], e.mul(t, 8)))
        old, new = states(s), states(e.add(s, 1))
        c_old = e.at(a["cells"], e.mul(s, a["cell_size"]))
        c_new = e.at(c_old, a["cell_size"])
        kept = e.at(a["gates"], e.mul(t, a["gate_size"]))
        start = e.at(a["start"], e.mul(t, a["start_size"]))
        inputs = turned(s)
        with e.loop(e.either(runs_now, first, last), last) as panel, e.loop(e.i(0), a["blocks"]) as block:
            runs = b.icmp_signed("<", e.mul(block.index, width), size)
            if cols == 1:
                for left, depth, right, out in ((a["pack_x"], a["depth_x"], inputs, by_x),
                                                (a["pack_h"], a["depth_h"], old, scratch)):
                    with b.if_then(b.icmp_signed(">", depth, e.i(0))):
                        taps_w = [(wide * k, lanes * k) for k in range(UNROLL)]
                        _wide(e, wide // lanes, taps_w, e.at(left, e.mul(e.mul(panel.index, depth), wide)),
                              wide * UNROLL, right, lanes * UNROLL, b.sdiv(depth, e.i(UNROLL)), out, aside)
            else:
                begin = e.mul(e.add(e.mul(block.index, a["padded"]), e.mul(panel.index, units)), cell.slots * width)
                sums = [e.load(e.at(start, begin, e.i(j * lanes))) for j in range(units * cell.slots * cols)]
                for side, depth, slots, right in (("x", a["depth_x"], cell.x_slots, inputs),
                                                  ("h", a["depth_h"], cell.h_slots, old)):
                    rows = [u * cell.slots + j for u, j in product(range(units), slots)]
                    each = len(rows)
                    taps = [(list(range(each * k, each * (k + 1))), width * k) for k in range(UNROLL)]
                    height = a["padded"] if side == "h" else a["height_x"]
                    sums = _multiply(e, sums, rows, e.at(a[f"pack_{side}"], e.mul(e.mul(panel.index, depth), each)),
                                     e.at(right, e.mul(e.mul(block.index, height), width)),
                                     e.either(runs, b.sdiv(depth, e.i(UNROLL)), 0), cols, taps, each * UNROLL,
                                     width * UNROLL)
                for j, v in enumerate(sums):
                    e.store(v, e.at(scratch, e.i(j * lanes)))
            base = e.mul(panel.index, units)
            with e.loop(e.i(0), e.least(e.i(units), b.sub(a["hidden"], base))) as u, e.loop(e.i(0), e.i(cols)) as c:
                unit = e.add(base, u.index)
                column = e.add(e.mul(block.index, width), e.mul(c.index, lanes))
                mask = e.mask(b.sub(size, column))
                place = e.add(e.mul(block.index, a["padded"]), unit)
                here = e.add(e.mul(place, width), e.mul(c.index, lanes))
                p = []
                for j in range(cell.slots):
                    if cols == 1:
                        total = e.load(e.at(start, e.mul(e.add(e.mul(place, cell.slots), j), width)))
                        for slots, sums_at in ((cell.x_slots, by_x), (cell.h_slots, scratch)):
                            if j in slots:
                                row = e.add(e.mul(u.index, gates), slots.index(j))
                                total = b.fadd(total, e.load(e.at(sums_at, e.mul(row, lanes))))
                    else:
                        at = e.add(e.mul(e.add(e.mul(u.index, cell.slots * cols), j * cols), lanes),
                                   e.mul(c.index, lanes))
                        total = e.load(e.at(scratch, at))
                    bias = e.number(e.at(a["bias"], e.add(e.mul(a["hidden"], j), unit)))
                    p.append(b.fadd(total, e.splat(bias)))
                h_old = e.load(e.at(old, here))
                before = e.load(e.at(c_old, here)) if cell.has_c else None
                values, h, after = cell.forward(e, p, h_old, before)
                for j, v in enumerate(values):
                    at = e.add(e.mul(e.add(e.mul(place, cell.slots), j), width), e.mul(c.index, lanes))
                    e.store(v, e.at(kept, at))
                if cell.has_c:
                    e.store(b.select(mask, after, before), e.at(c_new, here))
                e.store(b.select(mask, h, h_old), e.at(new, here))
        e.barrier(e.mul(e.add(s, 2), a["threads"]))
    b.ret_void()
    return e.module


def build_backward(name: str, cell: Cell, lanes: int, cols: int, rows: int) -> ir.Module:
    """`dgates` [T, blocks, padded, slots, W] gets the gradients of the sums, zero in columns that do not run, `dx`
    [rows, inputs] those of the input; `carry` and `dc` [blocks, padded, W], gradients of the last states, become those
    of the first; `sums` [padded, slots, W] is added to; `pack_h` and `pack_x` [panels, hidden, gates, rows].

    Turn j goes from the gradients of step T - j to those of the step before it in time, T - 1 - j; the last turns are
    left with the first state's and with the input's.
    """
    e = Emitter(name, BACKWARD, lanes)
    a, b, width = e.a, e.b, lanes * cols
    scratch = e.at(a["scratch"], e.mul(e.thread, a["scratch_size"]))
    gates = len(cell.h_slots)
    shares = {side: e.share(a[f"panels_{side}"]) for side in "hx"}

    def packed(side: str, panel: Any) -> Any:
        return e.at(a[f"pack_{side}"], e.mul(e.mul(panel, a["hidden"]), gates * rows))

    for side, count in (("h", a["hidden"]), ("x", a["inputs"]))[:min(cols, 2)]:
        with e.loop(*shares[side]) as panel:
            _pack_columns(e, panel.index, a[f"w_{side}"], a[f"pack_{side}"], count, rows, gates)

    with e.loop(e.i(-1), e.add(a["steps"], 2)) as step:
        j = step.index
        following = e.least(e.add(j, 1), e.add(a["steps"], -1))
        _turn(e, b.sub(e.add(a["steps"], -1), following), a["gy"], a["gy_stride"], a["hidden"],
              e.at(a["turned"], e.mul(b.and_(following, e.i(1)), a["turned_size"])), a["padded"], cols, out=False)
        with b.if_then(b.and_(b.icmp_signed(">", j, e.i(1)), b.icmp_signed(">", a["panels_x"], e.i(0)))):
            left = e.at(a["dx_turned"], e.mul(b.and_(e.add(j, -1), e.i(1)), a["dx_size"]))
            _turn(e, b.sub(e.add(a["steps"], 1), j), a["dx"], a["inputs"], a["inputs"], left, a["height_x"], cols,
                  out=True)
        outside = b.or_(b.icmp_signed("<", j, e.i(0)), b.icmp_signed(">", j, a["steps"]))
        begins = b.icmp_signed("==", j, e.i(0))
        ends = b.icmp_signed("==", j, a["steps"])
        s = e.either(b.or_(ends, outside), 0, b.sub(e.add(a["steps"], -1), j))
        t, later = _step(e, s), _step(e, e.either(b.or_(begins, outside), s, b.sub(a["steps"], j)))
        size, later_size = (e.index(e.add(a["sizes"], e.mul(i, 8))) for i in (t, later))
        right, new = (e.at(a["dgates"], e.mul(i, a["dgate_size"])) for i in (later, t))
        kept = e.at(a["gates"], e.mul(t, a["gate_size"]))
        h_old, c_old = (e.at(a[f], e.mul(s, a[f"{f[:-1] if f == 'cells' else f}_size"])) for f in ("state", "cells"))
        h_new, c_new = e.at(h_old, a["state_size"]), e.at(c_old, a["cell_size"])

        gy = e.at(a["turned"], e.mul(b.and_(j, e.i(1)), a["turned_size"]))
        dx = e.at(a["dx_turned"], e.mul(b.and_(j, e.i(1)), a["dx_size"]))

        def multiply(side: str, panel: Any, block: Any, sums: list[Any]) -> list[Any]:
            slots = cell.h_slots if side == "h" else cell.x_slots
            runs = b.icmp_signed("<", e.mul(block, width), later_size)
            count = e.either(b.and_(runs, b.not_(begins)), a["hidden"], 0)
            taps = [(list(range(j * rows, (j + 1) * rows)), slot * width) for j, slot in enumerate(slots)]
            return _multiply(e, sums, range(rows), packed(side, panel),
                             e.at(right, e.mul(e.mul(block, a["padded"]), cell.slots * width)), count, cols, taps,
                             gates * rows, cell.slots * width)

        first, last = shares["h"]
        with e.loop(e.either(outside, last, first), last) as panel, e.loop(e.i(0), a["blocks"]) as block:
            base = e.mul(panel.index, rows)
            place = e.add(e.mul(block.index, a["padded"]), base)
            if cell.keeps_gates:
                e.prefetch(e.at(kept, e.mul(place, cell.slots * width)), 4 * rows * cell.slots * width)
            used = (c_old, c_new) if cell.has_c else (h_old,) if cell.keeps_gates else (h_new,)
            for address in used:
                e.prefetch(e.at(address, e.mul(place, width)), 4 * rows * width)
            carried = e.at(a["carry"], e.mul(place, width))
            if cols == 1:
                taps = [(j * rows, slot * lanes) for j, slot in enumerate(cell.h_slots)]
                _wide(e, rows // lanes, taps, packed("h", panel.index), gates * rows, right, cell.slots * lanes,
                      e.either(b.or_(begins, b.icmp_signed("<=", later_size, e.i(0))), 0, a["hidden"]), scratch,
                      e.at(scratch, e.i(rows * lanes)))
                for i in range(rows):
                    at = e.i(i * lanes)
                    e.store(b.fadd(e.load(e.at(scratch, at)), e.load(e.at(carried, at))), e.at(scratch, at))
            else:
                sums = [e.load(e.at(carried, e.i(i * lanes))) for i in range(rows * cols)]
                sums = multiply("h", panel.index, block.index, sums)
                for i, v in enumerate(sums):
                    e.store(v, e.at(scratch, e.i(i * lanes)))
            here = e.least(e.i(rows), b.sub(a["hidden"], base))
            with e.loop(e.i(0), e.either(ends, e.mul(here, cols), 0)) as vector:
                e.store(e.load(e.at(scratch, e.mul(vector.index, lanes))), e.at(carried, e.mul(vector.index, lanes)))
            with e.loop(e.i(0), e.either(ends, 0, here)) as u, e.loop(e.i(0), e.i(cols)) as c:
                at = e.add(e.mul(e.add(place, u.index), width), e.mul(c.index, lanes))
                column = e.add(e.mul(block.index, width), e.mul(c.index, lanes))
                mask = e.mask(b.sub(size, column))
                dh = e.load(e.at(scratch, e.mul(e.add(e.mul(u.index, cols), c.index), lanes)))
                dh = b.fadd(dh, e.load(e.at(gy, at)))

                def slot(j: int, first: Any, u: Any = u, c: Any = c) -> Any:
                    return e.add(e.mul(e.add(e.mul(e.add(first, u.index), cell.slots), j), width),
                                 e.mul(c.index, lanes))

                values = [e.load(e.at(kept, slot(i, place))) for i in range(cell.slots)] if cell.keeps_gates else []
                dc = e.load(e.at(a["dc"], at)) if cell.has_c else None
                states = [e.load(e.at(address, at)) for address in (h_old, h_new)] if not cell.has_c else [None, None]
                states += [e.load(e.at(address, at)) for address in (c_old, c_new)] if cell.has_c else [None, None]
                grads, round_weights, dc_old = cell.backward(e, dh, dc, values, *states)
                for i, v in enumerate(grads):
                    grad = b.select(mask, v, e.const(0))
                    e.store(grad, e.at(new, slot(i, place)))
                    total = e.at(a["sums"], slot(i, base))
                    e.store(b.fadd(e.load(total), grad), total)
                keep = e.const(0) if round_weights is None else round_weights
                e.store(b.select(mask, keep, dh), e.at(a["carry"], at))
                if cell.has_c:
                    e.store(b.select(mask, dc_old, dc), e.at(a["dc"], at))

        if cols > 1:
            first, last = shares["x"]
            from_panel = e.either(b.or_(begins, outside), last, first)
            with e.loop(from_panel, last) as panel, e.loop(e.i(0), a["blocks"]) as block:
                sums = multiply("x", panel.index, block.index, [e.const(0)] * (rows * cols))
                place = e.mul(e.add(e.mul(block.index, a["height_x"]), e.mul(panel.index, rows)), width)
                for i, v in enumerate(sums):
                    e.store(v, e.at(dx, place, e.i(i * lanes)))
        e.barrier(e.mul(e.add(j, 2), a["threads"]))
    b.ret_void()
    return e.module


def build_outer(name: str, slots: tuple[int, ...], of: int, lanes: int, cols: int, units: int) -> ir.Module:
    """`out` [gates * hidden, count] = sum over steps t and columns n of dgates[t, n] times row starts[t] + n of `z`.

    `dgates` [pairs, padded, of, W] of which `slots` count, a pair being a step and a block; `packed` gives each thread
    room for [chunk * W, TILE * lanes] of `z`.
    """
    e = Emitter(name, OUTER, lanes)
    a, b, width, tile = e.a, e.b, lanes * cols, TILE * lanes
    packed = e.at(a["packed"], e.mul(e.thread, a["packed_size"]))
    first, last = e.share(a["panels"])
    each = units * len(slots)
    chunks = b.sdiv(e.add(a["pairs"], a["chunk"], -1), a["chunk"])
    tiles = b.sdiv(e.add(a["count"], tile - 1), e.i(tile))
    with e.loop(e.i(0), chunks) as chunk:
        q0 = e.mul(chunk.index, a["chunk"])
        q1 = e.least(e.add(q0, a["chunk"]), a["pairs"])
        fresh = b.icmp_signed("==", chunk.index, e.i(0))
        with e.loop(e.i(0), tiles) as part:
            column = e.mul(part.index, tile)
            columns = [e.mask(b.sub(b.sub(a["count"], column), e.i(lanes * c))) for c in range(TILE)]
            with e.loop(q0, q1) as q:
                t, block = b.sdiv(q.index, a["blocks"]), b.srem(q.index, a["blocks"])
                start, size = (e.index(e.add(a[f], e.mul(t, 8))) for f in ("starts", "sizes"))
                skipped = e.mul(block, width)
                running = b.sub(size, skipped)
                source = e.at(a["z"], e.mul(e.add(start, skipped), a["z_stride"]), column)
                to = e.at(packed, e.mul(b.sub(q.index, q0), width * tile))
                with e.loop(e.i(0), e.i(width)) as n:
                    runs = e.splat(b.icmp_signed("<", n.index, running))
                    for c in range(TILE):
                        value = e.masked_load(e.at(source, e.mul(n.index, a["z_stride"]), e.i(lanes * c)),
                                              b.and_(columns[c], runs))
                        e.store(value, e.at(to, e.mul(n.index, tile), e.i(lanes * c)))
            with e.loop(first, last) as panel:
                places, sums = [], []
                for u, j in product(range(units), range(len(slots))):
                    unit = e.add(e.mul(panel.index, units), u)
                    inside = e.splat(b.icmp_signed("<", unit, a["hidden"]))
                    for c in range(TILE):
                        to = e.at(a["out"], e.mul(e.add(e.mul(a["hidden"], j), unit), a["count"]), column,
                                  e.i(lanes * c))
                        places.append((to, b.and_(columns[c], inside)))
                        sums.append(b.select(fresh, e.const(0), e.masked_load(*places[-1])))
                left = e.at(a["dgates"], e.mul(panel.index, units * of * width))
                offsets = [(u * of + slot) * width for u, slot in product(range(units), slots)]
                taps = [([o + k for o in offsets], tile * k) for k in range(UNROLL)]
                with e.loop(q0, q1, sums) as q:
                    following = e.at(left, e.mul(e.add(q.index, 1), a["pair_size"]))
                    for line in range(0, 4 * units * of * width, 64):
                        e.touch(e.add(following, line), 1)
                    q.values = _multiply(e, q.values, range(each), e.at(left, e.mul(q.index, a["pair_size"])),
                                         e.at(packed, e.mul(b.sub(q.index, q0), width * tile)),
                                         e.i(width // UNROLL), TILE, taps, UNROLL, tile * UNROLL)
                for v, (to, mask) in zip(q.values, places):
                    e.masked_store(v, to, mask)
    b.ret_void()
    return e.module


def _pairs(e: Emitter, left: Callable[[Any], Any], count: Any, taps: Sequence[tuple[list[int], int]], left_step: int,
           right: Any, right_size: Any, right_step: int, place: Callable[[Any, int], Any], out: Any,
           out_size: Any) -> None:
    """Two steps at a time, panels times the vectors that each step has at `right`: with a single vector a step, every
    weight would be loaded for one multiplication.  Steps go in chunks, so that the panels find theirs in the cache."""
    a, b, rows = e.a, e.b, len(taps[0][0])
    with e.loop(e.i(0), b.sdiv(e.add(a["steps"], a["chunk"], -1), a["chunk"])) as chunk:
        t0 = e.mul(chunk.index, a["chunk"])
        t1 = e.least(e.add(t0, a["chunk"]), a["steps"])
        with e.loop(*e.share(a["panels"])) as panel, e.loop(t0, t1, step=2) as pair:
            t = pair.index
            second = b.sub(e.least(e.add(t, 1), e.add(t1, -1)), t)
            sums = _multiply(e, [e.const(0)] * (2 * rows), range(rows), left(panel.index),
                             e.at(right, e.mul(t, right_size)), count, 2, taps, left_step, right_step,
                             e.mul(second, right_size))
            for r, c in product(range(rows), range(2)):
                to = e.mul(e.add(t, e.mul(second, c)), out_size)
                e.store(sums[2 * r + c], e.at(out, to, place(panel.index, r)))


def build_pairs_in(name: str, cell: Cell, lanes: int, units: int) -> ir.Module:
    """`out` [T, padded, slots, lanes] = w x for batches of one vector; `turned` [T, height, lanes]; `pack` [panels,
    depth, units, gates]."""
    e = Emitter(name, PAIRS_IN, lanes)
    a, gates = e.a, len(cell.x_slots)
    rows = units * gates
    with e.loop(*e.share(a["panels"])) as panel:
        _pack_units(e, panel.index, a["w"], a["pack"], a["inputs"], a["depth"], units, gates)
    with e.loop(e.i(0), a["steps"]) as t:
        _turn(e, t.index, a["x"], a["x_stride"], a["inputs"], e.at(a["turned"], e.mul(t.index, a["turned_size"])),
              a["height"], 1, out=False)
    e.barrier(a["threads"])
    places = list(product(range(units), cell.x_slots))

    def place(panel: Any, r: int) -> Any:
        u, slot = places[r]
        return e.mul(e.add(e.mul(e.add(e.mul(panel, units), u), cell.slots), slot), lanes)

    taps = [(list(range(rows * k, rows * (k + 1))), lanes * k) for k in range(UNROLL)]
    _pairs(e, lambda panel: e.at(a["pack"], e.mul(e.mul(panel, a["depth"]), rows)),
           e.b.sdiv(a["depth"], e.i(UNROLL)), taps, rows * UNROLL, a["turned"], a["turned_size"], lanes * UNROLL, place,
           a["out"], a["out_size"])
    e.b.ret_void()
    return e.module


def build_pairs_back(name: str, cell: Cell, lanes: int, rows: int) -> ir.Module:
    """`dx` [rows, inputs] for batches of one vector, from `dgates` [T, padded, slots, lanes]; `turned` [T, height,
    lanes]; `pack` [panels, hidden, gates, rows]."""
    e = Emitter(name, PAIRS_BACK, lanes)
    a, gates = e.a, len(cell.x_slots)
    with e.loop(*e.share(a["panels"])) as panel:
        _pack_columns(e, panel.index, a["w"], a["pack"], a["inputs"], rows, gates)
    taps = [(list(range(j * rows, (j + 1) * rows)), slot * lanes) for j, slot in enumerate(cell.x_slots)]
    _pairs(e, lambda panel: e.at(a["pack"], e.mul(e.mul(panel, a["hidden"]), gates * rows)), a["hidden"], taps,
           gates * rows, a["dgates"], a["dgate_size"], cell.slots * lanes,
           lambda panel, r: e.mul(e.add(e.mul(panel, rows), r), lanes), a["turned"], a["turned_size"])
    e.barrier(a["threads"])
    with e.loop(e.i(0), a["steps"]) as t:
        _turn(e, t.index, a["dx"], a["inputs"], a["inputs"], e.at(a["turned"], e.mul(t.index, a["turned_size"])),
              a["height"], 1, out=True)
    e.b.ret_void()
    return e.module
