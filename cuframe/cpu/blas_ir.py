"""LLVM IR of products by BLAS, for threads that hold no interpreter: Note [Threads of OpenBLAS] in `blas`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir

from .ir import Emitter

__all__ = ["FIELDS", "build"]

# arguments, 8 bytes each: addresses, whether operands are turned, sizes, numbers between lines, bytes between operands
FIELDS = (
    "gemm", "a_turned", "b_turned", "rows", "columns", "depth", "a", "a_step", "b", "b_step", "out", "out_step", "row",
    "column", "count", "a_next", "b_next", "out_next", "column_next",
)  # fmt: skip
_BY_ROWS, _PLAIN = 101, 111  # of cblas.h; 112 is turned
_I32, _I64 = ir.IntType(32), ir.IntType(64)


def build(name: str, lanes: int, double: bool, wide: bool) -> ir.Module:
    """out = a b plus a row and a column, where they are not null; `count` times, the next operands lying `next` bytes
    further. Products are summed where the next result has the same place.

    `gemm` is cblas_sgemm or cblas_dgemm, with 64-bit integers if `wide`.
    """
    e = Emitter(name, FIELDS, lanes, double)
    a, b = e.a, e.b

    def size(field: str) -> Any:
        return a[field] if wide else b.trunc(a[field], _I32)

    one, zero = (ir.Constant(e.real, v) for v in (1.0, 0.0))
    turns = [b.trunc(b.add(a[f], e.i(_PLAIN)), _I32) for f in ("a_turned", "b_turned")]
    with e.loop(e.i(0), a["count"]) as i:
        fresh = b.or_(b.icmp_signed("==", i.index, e.i(0)), b.icmp_signed("!=", a["out_next"], e.i(0)))
        left, right, out = (b.add(a[f], b.mul(i.index, a[f"{f}_next"])) for f in ("a", "b", "out"))
        kept = b.select(fresh, zero, one)
        arguments = [_I32(_BY_ROWS), *turns, size("rows"), size("columns"), size("depth"), one, left, size("a_step"),
                     right, size("b_step"), kept, out, size("out_step")]  # fmt: skip
        kind = ir.FunctionType(ir.VoidType(), [v.type for v in arguments])
        b.call(b.inttoptr(a["gemm"], kind.as_pointer()), arguments)
        own = b.add(a["column"], b.mul(i.index, a["column_next"]))
        _add(e, "row", out, lambda row, column, mask: e.masked_load(e.at(a["row"], column), mask))
        _add(e, "column", out, lambda row, column, mask: e.splat(e.number(e.at(own, row))))
    b.ret_void()
    return e.module


def _add(e: Emitter, field: str, out: Any, vector: Callable[[Any, Any, Any], Any]) -> None:
    """Add `vector(row, column, mask)` to each place of a result, unless the field is null."""
    a, b = e.a, e.b
    with b.if_then(b.icmp_signed("!=", a[field], e.i(0))), e.loop(e.i(0), a["rows"]) as row:
        line = e.at(out, e.mul(row.index, a["out_step"]))
        with e.loop(e.i(0), a["columns"], step=e.lanes) as column:
            mask, at = e.mask(b.sub(a["columns"], column.index)), e.at(line, column.index)
            value = b.fadd(e.masked_load(at, mask), vector(row.index, column.index, mask))
            e.masked_store(value, at, mask)
