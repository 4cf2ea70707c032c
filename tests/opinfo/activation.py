"""Activation functions of `nn.functional`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import scipy.special

import cuframe as cf
from cuframe.ops import activation

from .core import FLOATS, HALVES, ErrorInput, Make, OpInfo, Sample

REAL = (*FLOATS, *HALVES)
SIGMOID = scipy.special.expit


def around(*calls: dict, width: float = 3) -> Callable[[Make], Iterable[Sample]]:
    """Elements on both sides of every bend, once for each set of keywords."""

    def samples(make: Make) -> Iterable[Sample]:
        for kwargs in calls or ({},):
            yield Sample((make(3, 4, low=-width, high=width),), kwargs)
        yield Sample((make(low=-width, high=width),), (calls or ({},))[0])
        yield Sample((make(0, 2),), (calls or ({},))[0])

    return samples


def far(make: Make) -> Iterable[Sample]:
    """Where exponentials overflow, underflow or are infinite."""
    values = np.array([-np.inf, -9e3, -100.0, -30.0, 30.0, 100.0, 9e3, np.inf]).astype(make.dtype)
    yield Sample((cf.Tensor(values),))


def tensor_errors(name: str) -> Callable[[Make], Iterable[ErrorInput]]:
    own = "relu" if name == "relu" else name

    def errors(make: Make) -> Iterable[ErrorInput]:
        yield ErrorInput((1.0, *EXTRA.get(name, ())), {}, TypeError, f"{own}: input must be a Tensor, got float")
        if name in ("hardtanh", "relu6", "threshold"):
            x = make(2, dtype="bool")
            yield ErrorInput((x, *EXTRA.get(name, ())), {}, TypeError, f"{own}: input must be a number, got bool")
        elif name not in ("relu", "softsign", "tanhshrink"):
            x = make(2, dtype="int64")
            yield ErrorInput(
                (x, *EXTRA.get(name, ())), {}, TypeError, f"{own}: input must be floating point, got int64"
            )

    return errors


EXTRA = {"threshold": (0.0, 0.0)}


def more(*makers: Callable[[Make], Iterable]) -> Callable[[Make], Iterable]:
    return lambda make: (item for maker in makers for item in maker(make))


def error(*args: Any, exception: type[Exception] = ValueError, match: str, **kwargs: Any) -> Callable:
    return lambda make: [ErrorInput((make(2), *args), kwargs, exception, match)]


def entry(name: str, reference: Callable, *calls: dict, errors: tuple = (), **kwargs: Any) -> OpInfo:
    return OpInfo(
        f"nn.functional.{name}",
        op=getattr(activation, name),
        samples=kwargs.pop("samples", None) or around(*calls, width=kwargs.pop("width", 3)),
        reference=reference,
        dtypes=REAL,
        errors=more(tensor_errors(name), *errors),
        **kwargs,
    )


def extreme(name: str, reference: Callable) -> OpInfo:
    return OpInfo(
        f"nn.functional.{name}", op=getattr(activation, name), samples=far, reference=reference, gradient=False,
        variant="far",
    )  # fmt: skip


def thresholds(make: Make) -> Iterable[Sample]:
    yield Sample((make(3, 4), 0.5, -1.0))
    yield Sample((make(),), {"threshold": 0.1, "value": 2.0})


def prelus(make: Make) -> Iterable[Sample]:
    yield Sample((make(2, 3), make(3)))
    yield Sample((make(2, 3, 2), make(3)))
    yield Sample((make(2, 3, 2), make(1)))
    yield Sample((make(4), make(1)))
    yield Sample((make(2, 1), make()))


def prelu_errors(make: Make) -> Iterable[ErrorInput]:
    x = make(2, 3)
    yield ErrorInput((x, make(2)), {}, RuntimeError, r"prelu: weight must be \(1,\) or \(3,\), got \(2,\)")
    yield ErrorInput((x, make(3, dtype="float64")), {}, RuntimeError, "prelu: weight must be float32 .*float64")
    yield ErrorInput((x, 0.1), {}, TypeError, "prelu: weight must be a Tensor, got float")


def _prelu_ref(x: Any, w: Any) -> Any:
    return np.where(x > 0, x, x * w.reshape([-1 if i == 1 else 1 for i in range(x.ndim)] if w.size > 1 else ()))


def glus(make: Make) -> Iterable[Sample]:
    yield Sample((make(4),))
    yield Sample((make(2, 3), 0))
    yield Sample((make(2, 4, 3),), {"dim": 1})


def glu_errors(make: Make) -> Iterable[ErrorInput]:
    yield ErrorInput((make(3),), {}, RuntimeError, "glu: input must have an even size along dim -1, got 3")
    yield ErrorInput((make(()),), {}, RuntimeError, "glu: input must have at least one dimension")
    yield ErrorInput((make(2), 1), {}, IndexError, r"glu: dim must be in \[-1, 0\], got 1")


def _glu_ref(x: Any, dim: int = -1) -> Any:
    a, b = np.split(x, 2, axis=dim)
    return a * SIGMOID(b)


def _elu(x: Any, alpha: float = 1.0) -> Any:
    return np.where(x > 0, x, (alpha * np.expm1(np.minimum(x, 0))).astype(x.dtype))


def _celu(x: Any, alpha: float = 1.0) -> Any:
    return np.where(x > 0, x, (alpha * np.expm1(np.minimum(x, 0) / alpha)).astype(x.dtype))


def _gelu(x: Any, approximate: str = "none") -> Any:
    if approximate == "tanh":
        return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    return x * scipy.special.ndtr(x)


def _softplus(x: Any, beta: float = 1.0, threshold: float = 20.0) -> Any:
    return np.where(x * beta > threshold, x, np.logaddexp(x * beta, 0) / beta).astype(x.dtype)


def _softshrink(x: Any, lambd: float = 0.5) -> Any:
    return np.sign(x) * np.maximum(np.abs(x) - lambd, 0)


OPS = [
    entry("relu", lambda x: np.maximum(x, 0)),
    entry("relu6", lambda x: np.clip(x, 0, 6), width=9),
    entry("leaky_relu", lambda x, negative_slope=0.01: np.where(x > 0, x, x * negative_slope), {},
          {"negative_slope": 0.3}),
    entry("rrelu", lambda x, lower=1 / 8, upper=1 / 3: np.where(x > 0, x, x * ((lower + upper) / 2)), {},
          {"lower": 0.1, "upper": 0.5}, variant="eval",
          errors=(error(0.5, 0.1, match="rrelu: lower must not be larger"),)),
    entry("threshold", lambda x, threshold, value: np.where(x > threshold, x, np.asarray(value, x.dtype)),
          samples=thresholds),
    OpInfo("nn.functional.prelu", op=activation.prelu, samples=prelus, reference=_prelu_ref, dtypes=REAL,
           errors=prelu_errors),
    entry("hardtanh", lambda x, min_val=-1.0, max_val=1.0: np.clip(x, min_val, max_val), {},
          {"min_val": -0.5, "max_val": 2.0}, errors=(error(1.0, -1.0, match="hardtanh: max_val must be larger"),)),
    entry("hardsigmoid", lambda x: np.clip(x + 3, 0, 6) / 6, width=5),
    entry("hardswish", lambda x: x * np.clip(x + 3, 0, 6) / 6, width=5),
    entry("softshrink", _softshrink, {}, {"lambd": 1.0},
          errors=(error(-0.1, match="softshrink: lambd must not be negative, got -0.1"),)),
    entry("hardshrink", lambda x, lambd=0.5: np.where(np.abs(x) > lambd, x, 0).astype(x.dtype), {}, {"lambd": 1.0}),
    # x - tanh(x) cancels near 0; float32 keeps the absolute error of tanh
    entry("tanhshrink", lambda x: x - np.tanh(x)),
    entry("elu", _elu, {}, {"alpha": 0.5}),
    entry("celu", _celu, {}, {"alpha": 2.0}, errors=(error(0.0, match="celu: alpha must not be 0"),)),
    entry("selu", lambda x: 1.0507009873554805 * _elu(x, 1.6732632423543772)),
    entry("softplus", _softplus, {}, {"beta": 2.0, "threshold": 3.0}),
    entry("logsigmoid", scipy.special.log_expit, width=6),
    entry("gelu", _gelu, {}, {"approximate": "tanh"},
          errors=(error("fast", match="gelu: approximate must be 'none' or 'tanh', got 'fast'"),)),
    entry("silu", lambda x: x * SIGMOID(x), width=6),
    entry("mish", lambda x: x * np.tanh(np.logaddexp(x, 0)), width=6),
    entry("softsign", lambda x: x / (1 + np.abs(x))),
    OpInfo("nn.functional.glu", op=activation.glu, samples=glus, reference=_glu_ref, dtypes=REAL, errors=glu_errors),
    extreme("elu", _elu),
    extreme("softplus", _softplus),
    extreme("logsigmoid", lambda x: scipy.special.log_expit(x.astype(np.float64)).astype(x.dtype)),
    extreme("softsign", lambda x: np.where(np.isinf(x), np.nan, x / (1 + np.abs(x)))),
]  # fmt: skip
