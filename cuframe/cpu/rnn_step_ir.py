"""LLVM IR of a recurrent cell's formulas over one step: Note [Compiled steps] in `rnn_step_compiled`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .ir import Emitter

__all__ = ["FIELDS", "GATES", "build"]

GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}

# Arguments, 8 bytes each. An array that has a `_step`, the numbers from row to row, is one row of zeros with step 0
# where it is missing. Both kernels do the columns from `thread * chunk` on, in all `rows`.
_SHAPE = ("hidden", "rows", "chunk")
FIELDS = {
    "forward": ("z", "zh", "zh_step", "b_ih", "b_hh", "h0", "h0_step", "c0", "c0_step", "out", "c", "extra", *_SHAPE),
    "backward": ("gates", "out", "extra", "h0", "h0_step", "c0", "c0_step", "gh", "gh_step", "gc", "gc_step", "dz",
                 "dzh", "gh0", "gc0", "gb_ih", "gb_hh", *_SHAPE),
}  # fmt: skip


class _Step(Emitter):
    """The vector of columns at hand: its numbers in arrays of rows, of which some have a part for each gate."""

    row: Any
    column: Any
    mask_: Any

    def __init__(self, name: str, fields: tuple[str, ...], lanes: int, gates: int) -> None:
        super().__init__(name, fields, lanes)
        self.gates = gates

    def _place(self, field: str, gate: int) -> Any:
        parts = self.gates if field in ("z", "zh", "gates", "dz", "dzh") else 1
        step = self.a[f"{field}_step"] if f"{field}_step" in self.a else self.mul(self.a["hidden"], parts)
        start = self.i(0) if field.startswith(("b_", "gb_")) else self.mul(self.row, step)
        return self.at(self.a[field], start, self.mul(self.a["hidden"], gate), self.column)

    def get(self, field: str, gate: int = 0) -> Any:
        return self.masked_load(self._place(field, gate), self.mask_)

    def put(self, value: Any, field: str, gate: int = 0) -> None:
        self.masked_store(value, self._place(field, gate), self.mask_)

    def grow(self, value: Any, field: str, gate: int) -> None:
        """Add to a sum over rows."""
        self.put(self.b.fadd(self.get(field, gate), value), field, gate)

    def rest(self, s: Any) -> Any:
        return self.b.fsub(self.const(1.0), s)

    def bend(self, s: Any) -> Any:
        """The slope of a sigmoid."""
        return self.b.fmul(s, self.rest(s))

    def flat(self, t: Any) -> Any:
        """The slope of a tanh."""
        return self.fma(self.b.fneg(t), t, self.const(1.0))


def build(name: str, backward: bool, cell: str, lanes: int) -> Any:
    """The kernel of a cell."""
    e = _Step(name, FIELDS["backward" if backward else "forward"], lanes, GATES[cell])
    first = e.mul(e.a["chunk"], e.thread)
    last = e.least(e.add(first, e.a["chunk"]), e.a["hidden"])
    with e.loop(e.i(0), e.a["rows"]) as row, e.loop(first, last, step=lanes) as turn:
        e.row, e.column, e.mask_ = row.index, turn.index, e.mask(e.b.sub(last, turn.index))
        _FORMULAS[cell][backward](e)
    e.b.ret_void()
    return e.module


def _sides(e: _Step, gate: int) -> tuple[Any, Any]:
    b = e.b
    return tuple(b.fadd(e.get(z, gate), e.get(bias, gate)) for z, bias in (("z", "b_ih"), ("zh", "b_hh")))  # type: ignore[return-value]


def _lstm(e: _Step) -> None:
    b = e.b
    v = [b.fadd(*_sides(e, gate)) for gate in range(4)]
    i, f, g, o = e.sigmoid(v[0]), e.sigmoid(v[1]), e.tanh(v[2]), e.sigmoid(v[3])
    for gate, value in enumerate((i, f, g, o)):
        e.put(value, "z", gate)
    c = e.fma(f, e.get("c0"), b.fmul(i, g))
    t = e.tanh(c)
    for value, field in ((c, "c"), (t, "extra"), (b.fmul(o, t), "out")):
        e.put(value, field)


def _lstm_back(e: _Step) -> None:
    b = e.b
    i, f, g, o = (e.get("gates", gate) for gate in range(4))
    t, gh = e.get("extra"), e.get("gh")
    dc = e.fma(b.fmul(gh, o), e.flat(t), e.get("gc"))
    slopes = (
        b.fmul(b.fmul(dc, g), e.bend(i)), b.fmul(b.fmul(dc, e.get("c0")), e.bend(f)),
        b.fmul(b.fmul(dc, i), e.flat(g)), b.fmul(b.fmul(gh, t), e.bend(o)),
    )  # fmt: skip
    for gate, d in enumerate(slopes):
        e.put(d, "dz", gate)
        e.grow(d, "gb_ih", gate)
    e.put(b.fmul(dc, f), "gc0")


def _gru(e: _Step) -> None:
    b = e.b
    r, u = (e.sigmoid(b.fadd(*_sides(e, gate))) for gate in range(2))
    x, h = _sides(e, 2)
    n = e.tanh(e.fma(r, h, x))
    for gate, value in enumerate((r, u, n)):
        e.put(value, "z", gate)
    e.put(h, "extra")
    e.put(e.fma(u, b.fsub(e.get("h0"), n), n), "out")


def _gru_back(e: _Step) -> None:
    b = e.b
    r, u, n = (e.get("gates", gate) for gate in range(3))
    gh = e.get("gh")
    dn = b.fmul(b.fmul(gh, e.rest(u)), e.flat(n))
    du = b.fmul(b.fmul(gh, b.fsub(e.get("h0"), n)), e.bend(u))
    dr = b.fmul(b.fmul(dn, e.get("extra")), e.bend(r))
    for gate, by_x, by_h in ((0, dr, dr), (1, du, du), (2, dn, b.fmul(dn, r))):
        e.put(by_x, "dz", gate)
        e.put(by_h, "dzh", gate)
        e.grow(by_x, "gb_ih", gate)
        e.grow(by_h, "gb_hh", gate)
    e.put(b.fmul(gh, u), "gh0")


def _plain(relu: bool) -> tuple[Callable[[_Step], None], Callable[[_Step], None]]:
    def forward(e: _Step) -> None:
        v = e.b.fadd(*_sides(e, 0))
        e.put(e.b.select(e.b.fcmp_ordered("<", v, e.const(0.0)), e.const(0.0), v) if relu else e.tanh(v), "out")

    def backward(e: _Step) -> None:
        out, gh = e.get("out"), e.get("gh")
        positive = e.b.fcmp_ordered(">", out, e.const(0.0))
        d = e.b.select(positive, gh, e.const(0.0)) if relu else e.b.fmul(gh, e.flat(out))
        e.put(d, "dz")
        e.grow(d, "gb_ih", 0)

    return forward, backward


_FORMULAS: dict[str, tuple[Callable[[_Step], None], Callable[[_Step], None]]] = {
    "lstm": (_lstm, _lstm_back), "gru": (_gru, _gru_back), "rnn_tanh": _plain(False), "rnn_relu": _plain(True),
}  # fmt: skip
