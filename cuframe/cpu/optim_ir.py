"""LLVM IR of Adam's step over float32 arrays: Note [Compiled step] in `cuframe.cpu.optim`."""

from __future__ import annotations

from typing import Any

from .ir import Emitter

__all__ = ["FIELDS", "SETTINGS", "build_adam"]

# arguments of the kernel, 8 bytes each: a table of `count` rows (p, g, m, v, size), and the address of the settings
FIELDS = ("table", "count", "settings", "threads")
SETTINGS = ("beta1", "rest1", "beta2", "rest2", "step", "eps", "l2", "shrink")
_ROW = 5
_UNROLL = 4


def build_adam(name: str, lanes: int) -> Any:
    """`adam` for sets of arrays, of each of which every thread takes its share."""
    e = Emitter(name, FIELDS, lanes)
    s = {f: e.splat(e.number(e.add(e.a["settings"], 4 * i))) for i, f in enumerate(SETTINGS)}

    def update(arrays: list[Any], offset: Any, mask: Any = None) -> None:
        places = [e.at(a, offset) for a in arrays]
        p, g, m, v = [e.load(a) if mask is None else e.masked_load(a, mask) for a in places]
        g = e.fma(p, s["l2"], g)
        m = e.fma(g, s["rest1"], e.b.fmul(m, s["beta1"]))
        v = e.fma(e.b.fmul(g, g), s["rest2"], e.b.fmul(v, s["beta2"]))
        root = e.intrinsic(f"llvm.sqrt.v{lanes}f32", e.vec, [v])
        p = e.fma(e.b.fdiv(m, e.b.fadd(root, s["eps"])), s["step"], e.b.fmul(p, s["shrink"]))
        for value, place in zip((p, m, v), (places[0], *places[2:])):
            if mask is None:
                e.store(value, place)
            else:
                e.masked_store(value, place, mask)

    with e.loop(e.i(0), e.a["count"]) as each:
        row = e.add(e.a["table"], e.mul(each.index, 8 * _ROW))
        *arrays, size = [e.index(e.add(row, 8 * i)) for i in range(_ROW)]
        width = _UNROLL * lanes
        first, last = e.share(e.b.sdiv(e.add(size, width - 1), e.i(width)))
        start, stop = e.mul(first, width), e.least(e.mul(last, width), size)
        whole = e.b.and_(stop, e.i(-width))
        with e.loop(start, whole, step=width) as turn:
            for u in range(_UNROLL):
                update(arrays, e.add(turn.index, u * lanes))
        with e.loop(whole, stop, step=lanes) as turn:
            update(arrays, turn.index, e.mask(e.b.sub(stop, turn.index)))
    e.b.ret_void()
    return e.module
