"""LLVM IR of optimizers' steps over float32 arrays: Note [Compiled step] in `cuframe.cpu.optim`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .ir import Emitter

__all__ = ["FIELDS", "RULES", "build"]

# arguments of a kernel, 8 bytes each: a table of `count` rows (p, g, *states, size), and the address of the settings
FIELDS = ("table", "count", "settings", "threads")
_UNROLL = 4


def _root(e: Emitter, v: Any) -> Any:
    return e.intrinsic(f"llvm.sqrt.{e.kind}", e.vec, [v])


def _sgd(e: Emitter, s: dict, p: Any, g: Any) -> tuple:
    return (e.fma(g, s["step"], p),)


def _momentum(e: Emitter, s: dict, p: Any, g: Any, buf: Any) -> tuple:
    buf = e.fma(g, s["rest"], e.b.fmul(buf, s["momentum"]))
    return e.fma(buf, s["step"], p), buf


def _nesterov(e: Emitter, s: dict, p: Any, g: Any, buf: Any) -> tuple:
    buf = e.fma(g, s["rest"], e.b.fmul(buf, s["momentum"]))
    return e.fma(e.fma(buf, s["ahead"], g), s["step"], p), buf


def _adam(e: Emitter, s: dict, p: Any, g: Any, m: Any, v: Any) -> tuple:
    m = e.fma(g, s["rest1"], e.b.fmul(m, s["beta1"]))
    v = e.fma(e.b.fmul(g, g), s["rest2"], e.b.fmul(v, s["beta2"]))
    change = e.b.fdiv(m, e.b.fadd(_root(e, v), s["eps"]))
    return e.fma(change, s["step"], e.b.fmul(p, s["shrink"])), m, v


def _adagrad(e: Emitter, s: dict, p: Any, g: Any, total: Any) -> tuple:
    total = e.fma(g, g, total)
    return e.fma(e.b.fdiv(g, e.b.fadd(_root(e, total), s["eps"])), s["step"], p), total


def _rmsprop(centered: bool, moving: bool) -> Callable[..., tuple]:
    def formula(e: Emitter, s: dict, p: Any, g: Any, squares: Any, *states: Any) -> tuple:
        b = e.b
        squares = below = e.fma(b.fmul(g, g), s["rest"], b.fmul(squares, s["alpha"]))
        changed = [squares]
        if centered:
            mean = e.fma(g, s["rest"], b.fmul(states[0], s["alpha"]))
            below = b.fsub(squares, b.fmul(mean, mean))  # both rounded: they may be equal
            changed.append(mean)
        change = b.fdiv(g, b.fadd(_root(e, below), s["eps"]))
        if moving:
            change = e.fma(states[-1], s["momentum"], change)
            changed.append(change)
        return (e.fma(change, s["step"], p), *changed)

    return formula


# the settings after `l2`, how many states, and what becomes of p and them with a gradient that has l2 * p in it
RULES: dict[str, tuple[tuple[str, ...], int, Callable[..., tuple]]] = {
    "sgd": (("step",), 0, _sgd),
    "momentum": (("step", "momentum", "rest"), 1, _momentum),
    "nesterov": (("step", "momentum", "rest", "ahead"), 1, _nesterov),
    "adam": (("beta1", "rest1", "beta2", "rest2", "step", "eps", "shrink"), 2, _adam),
    "adagrad": (("step", "eps"), 1, _adagrad),
    **{
        f"rmsprop{'_centered' * centered}{'_moving' * moving}": (
            ("step", "alpha", "rest", "eps", "momentum"), 1 + centered + moving, _rmsprop(centered, moving))
        for centered in (False, True) for moving in (False, True)
    },
}  # fmt: skip


def build(rule: str, lanes: int) -> Any:
    """The kernel of a rule for sets of arrays, of each of which every thread takes its share."""
    settings, states, formula = RULES[rule]
    e = Emitter(rule, FIELDS, lanes)
    s = {f: e.splat(e.number(e.add(e.a["settings"], 4 * i))) for i, f in enumerate(("l2", *settings))}
    words = 3 + states

    def update(arrays: list[Any], offset: Any, mask: Any = None) -> None:
        places = [e.at(a, offset) for a in arrays]
        p, g, *rest = [e.load(a) if mask is None else e.masked_load(a, mask) for a in places]
        for value, place in zip(formula(e, s, p, e.fma(p, s["l2"], g), *rest), (places[0], *places[2:])):
            if mask is None:
                e.store(value, place)
            else:
                e.masked_store(value, place, mask)

    with e.loop(e.i(0), e.a["count"]) as each:
        row = e.add(e.a["table"], e.mul(each.index, 8 * words))
        *arrays, size = [e.index(e.add(row, 8 * i)) for i in range(words)]
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
