"""LLVM IR of a product by BLAS, for threads that hold no interpreter: Note [Threads of OpenBLAS] in `blas`."""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from .ir import Emitter

__all__ = ["FIELDS", "build"]

# arguments, 8 bytes each: addresses, whether operands are turned, sizes, and numbers between lines
FIELDS = (
    "gemm", "a_turned", "b_turned", "rows", "columns", "depth", "a", "a_step", "b", "b_step", "out", "out_step", "row"
)  # fmt: skip
_BY_ROWS, _PLAIN = 101, 111  # of cblas.h; 112 is turned
_I32, _I64 = ir.IntType(32), ir.IntType(64)


def build(name: str, lanes: int, double: bool, wide: bool) -> ir.Module:
    """out = a b + row, where that is not null; `gemm` is cblas_sgemm or cblas_dgemm, with 64-bit integers if `wide`."""
    e = Emitter(name, FIELDS, lanes, double)
    a, b = e.a, e.b

    def size(field: str) -> Any:
        return a[field] if wide else b.trunc(a[field], _I32)

    one, zero = (ir.Constant(e.real, v) for v in (1.0, 0.0))
    turns = [b.trunc(b.add(a[f], e.i(_PLAIN)), _I32) for f in ("a_turned", "b_turned")]
    arguments = [_I32(_BY_ROWS), *turns, size("rows"), size("columns"), size("depth"), one, a["a"], size("a_step"),
                 a["b"], size("b_step"), zero, a["out"], size("out_step")]  # fmt: skip
    kind = ir.FunctionType(ir.VoidType(), [v.type for v in arguments])
    b.call(b.inttoptr(a["gemm"], kind.as_pointer()), arguments)
    with b.if_then(b.icmp_signed("!=", a["row"], e.i(0))), e.loop(e.i(0), a["rows"]) as row:
        line = e.at(a["out"], e.mul(row.index, a["out_step"]))
        with e.loop(e.i(0), a["columns"], step=lanes) as column:
            mask, at = e.mask(b.sub(a["columns"], column.index)), e.at(line, column.index)
            value = b.fadd(e.masked_load(at, mask), e.masked_load(e.at(a["row"], column.index), mask))
            e.masked_store(value, at, mask)
    b.ret_void()
    return e.module
