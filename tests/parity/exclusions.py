"""What is left out of the comparison with PyTorch, or called in another way, each with its reason."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

import cuframe as cf
from tests.parity.bridge import quietly

# Entries of op_db that name something in cuframe, yet are not compared.
OPS: dict[str, str] = {
    "as_strided.partial_views": "memory around a view: the comparison copies the view alone (tests/test_strided.py)",
    "norm.nuc": "the nuclear norm needs an SVD; cuframe has none",
}

# Results drawn from a generator, or not initialised: shapes and dtypes are compared.
RANDOM = set(
    "bernoulli empty empty_like multinomial new_empty normal normal.in_place normal.number_mean rand_like randint "
    "randint_like randn randn_like uniform nn.functional.dropout nn.functional.dropout2d nn.functional.dropout3d "
    "nn.functional.alpha_dropout nn.functional.feature_alpha_dropout.with_train "
    "nn.functional.feature_alpha_dropout.without_train nn.functional.rrelu".split()
)

# Which of several equal elements is named is not defined; indices of integers and bools are full of them.
TIES = {"argsort", "kthvalue", "mode", "sort", "topk"}

# float32 results that PyTorch computes with more than a few roundings: (rtol, atol).
TOLERANCES = {
    "polygamma": (5e-5, 1e-5),
    # Sums of 64 products reach 443; PyTorch's float32 results are 6.6e-5 from its float64 ones.
    "nn.functional.conv3d": (5e-5, 5e-5),
    # Scores reach 200, whose rounding alone is 1e-5; PyTorch's float32 results are 1.7e-5 from its float64 ones.
    "nn.functional.scaled_dot_product_attention": (5e-5, 5e-5),
}

# The functions of networks that take no integers here, though PyTorch's do.
NO_INTEGERS = {
    "nn.functional.local_response_norm",
    *(f"nn.functional.{kind}{d}d" for kind in ("avg_pool", "conv", "conv_transpose", "max_pool") for d in (1, 2, 3)),
}  # fmt: skip


def _fractional_pool(dims: int) -> Callable:
    """Fractional pooling with the numbers that PyTorch draws after the seed that op_db sets in each call."""

    def pool(input: cf.Tensor, *args: Any, **kwargs: Any) -> Any:
        torch.manual_seed(42)
        lead = tuple(input.shape[:-dims])
        samples = torch.rand(*(lead if len(lead) == 2 else (1, *lead)), dims, dtype=getattr(torch, input.dtype.name))
        kwargs.setdefault("_random_samples", cf.Tensor(samples.numpy()))
        return getattr(cf.nn.functional, f"fractional_max_pool{dims}d")(input, *args, **kwargs)

    return pool


# op_db calls these with other operands than the public function has, or in another order.
ADAPTED: dict[str, Callable] = {
    "einsum": lambda operands, equation: cf.einsum(equation, *operands),
    # its distance_function is a module of PyTorch's, the default
    "nn.functional.triplet_margin_with_distance_loss": lambda *args, distance_function=None, **kwargs: (
        cf.nn.functional.triplet_margin_with_distance_loss(*args, **kwargs)
    ),
    "polygamma": lambda input, n: cf.polygamma(n, input),
    "where": lambda input, condition, other: cf.where(condition, input, other),
    "zero_": lambda input: input.clone().zero_(),
    "broadcast_shapes": lambda *shapes: cf.broadcast_shapes(*shapes),
    "normal.in_place": lambda input, *args: cf.Tensor.normal_(input.detach(), *args),
    "nn.functional.fractional_max_pool2d": _fractional_pool(2),
    "nn.functional.fractional_max_pool3d": _fractional_pool(3),
    "nn.functional.upsample_bilinear": partial(quietly, cf.nn.functional.upsample_bilinear),
    "nn.functional.upsample_nearest": partial(quietly, cf.nn.functional.upsample_nearest),
    "nn.functional.embedding": lambda weight, input, **kwargs: cf.nn.functional.embedding(input, weight, **kwargs),
    "nn.functional.embedding_bag": lambda weight, input, **kwargs: (
        cf.nn.functional.embedding_bag(input, weight, **kwargs)
    ),
    "uniform": lambda input, *args: cf.Tensor.uniform_(input.detach(), *args),
}


def _integer(t: Any) -> bool:
    return isinstance(t, torch.Tensor) and not t.dtype.is_floating_point


def _fractional(value: Any) -> bool:
    return isinstance(value, float) and not value.is_integer()


def excluded_sample(name: str, sample: Any) -> str | None:
    """Why this call is not compared; None if it is."""
    x, args, kwargs = sample.input, sample.args, sample.kwargs
    if name in NO_INTEGERS and _integer(x):
        return "integers in convolution, pooling and local_response_norm: cuframe raises"
    if "out" in kwargs:
        return "out="
    if kwargs.get("pin_memory") or "layout" in kwargs:
        return "pinned memory and layouts"
    if name in ("add", "sub", "rsub") and isinstance(kwargs.get("alpha"), bool):
        return "alpha given as a bool"
    if name in ("addmv", "addmm", "addbmm", "baddbmm", "addr") and _integer(x):
        if _fractional(kwargs.get("alpha")) or _fractional(kwargs.get("beta")):
            return "fractional alpha or beta for integers: PyTorch truncates, cuframe raises"
    if name.partition(".")[0] in ("arange", "linspace", "logspace") and kwargs.get("dtype") is torch.int64:
        values = [v.item() if isinstance(v, torch.Tensor) else v for v in (x, *args)]
        if any(_fractional(v) for v in values) or name.startswith("logspace"):
            return "fractional bounds with an integer dtype: PyTorch truncates bounds or steps, by kernel"
    if name == "__rpow__" and _integer(x):
        return "negative integer powers of integers: cuframe raises"
    if (
        name in ("quantile", "nanquantile")
        and args
        and isinstance(args[0], torch.Tensor)
        and args[0].requires_grad
    ):
        return "gradient with respect to the probability q"
    if name == "nn.functional.scaled_dot_product_attention" and kwargs.get("dropout_p"):
        return "dropout: other numbers are drawn"
    if name == "nn.functional.multi_head_attention_forward" and args[9] and kwargs.get("training", True):
        return "dropout: other numbers are drawn"
    if name == "nn.functional.batch_norm" and x.ndim < 2:
        return "batch_norm of an input without channels: cuframe raises"
    if name == "gather" and args[1].ndim != x.ndim:
        return "an empty index with another number of dimensions: cuframe raises"
    if name == "scatter" and _integer(x) and _fractional(args[2]):
        return "a fractional value for integers: PyTorch truncates, cuframe raises"
    if name == "tensordot" and isinstance(kwargs.get("dims"), (list, tuple)):
        a, b = kwargs["dims"]
        if any(x.shape[i] != args[0].shape[j] for i, j in zip(a, b)):
            return "contracted dimensions of size 1 against n: cuframe raises"
    return None


# Modules of module_db that cuframe has, yet are not compared.
MODULES: dict[str, str] = {}


def excluded_module_sample(name: str, constructor: Any, forward: Any) -> str | None:
    """Why this case is not compared; None if it is."""
    return None


# -- bad calls ------------------------------------------------------------------------------------------------------

# Under which names an operation's errors come, where it is made of another one.
SHOWN_AS: dict[str, tuple[str, ...]] = {
    "aminmax": ("amin",), "clamp_max": ("clamp",), "clamp_min": ("clamp",), "rsub": ("sub",), "vdot": ("dot",),
    "normal": ("normal_",), "triplet_margin_with_distance_loss": ("pairwise_distance",),
    "__radd__": ("add",), "__rand__": ("bitwise_and",), "__rmod__": ("remainder",), "__rmul__": ("mul",),
    "__ror__": ("bitwise_or",), "__rpow__": ("pow",), "__rsub__": ("sub",), "__rxor__": ("bitwise_xor",),
    # modules speak through their functions
    "BatchNorm1d": ("batch_norm",), "BatchNorm2d": ("batch_norm",), "BatchNorm3d": ("batch_norm",),
    "CrossEntropyLoss": ("cross_entropy",), "Embedding": ("embedding",), "MaxPool2d": ("max_pool2d",),
    "MultiMarginLoss": ("multi_margin_loss",), "NLLLoss": ("nll_loss",),
}  # fmt: skip

# Where the type of an error differs from PyTorch's.
OTHER_ERRORS: dict[str, tuple[type[Exception], ...]] = {
    # PyTorch's cases have a target of floats as well, which is what cuframe names first
    "nn.functional.multi_margin_loss": (ValueError, TypeError),
    # a wrong number of dimensions, for which PyTorch raises RuntimeError in all other poolings
    **{f"nn.functional.adaptive_{k}_pool{d}d": (ValueError, RuntimeError) for k in ("avg", "max") for d in (2, 3)},
}


def excluded_error(name: str, args: tuple, kwargs: dict, wanted: type[Exception]) -> str | None:
    """Why a call that PyTorch refuses need not be refused; None if it must."""
    if "out" in kwargs:
        return "out="
    if any(isinstance(v, torch.Tensor) and v.ndim > 64 for v in args):
        return "more than 64 dimensions: NumPy has no such arrays"
    numbers = sum(isinstance(v, (int, float)) and not isinstance(v, bool) for v in args)
    if wanted is Exception and len(args) == 2 and numbers == 1:
        return "a number in the place of a tensor, where PyTorch has no such overload: cuframe takes it"
    return None
