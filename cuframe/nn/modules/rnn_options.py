"""What recurrent modules take beyond PyTorch: layer normalisation, dropout held over time, zoneout."""

from __future__ import annotations

from typing import Any

from ...ops.rnn_options import keep_factors, zoneout_mask
from ...tensor import Tensor

__all__: list[str] = ["NORM_KINDS", "check_probability", "check_switch", "draw_noise", "norm_shapes", "zoneout_pair"]

#: Parameters of the layer normalisations: gains for W_ih x, W_hh h and c, and the bias of that for c.
NORM_KINDS = ("weight_ln_ih", "weight_ln_hh", "weight_ln_c", "bias_ln_c")


def check_probability(name: str, argument: str, value: Any) -> float:
    """`value` as a float, refused unless it is a number in [0, 1]."""
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 <= value <= 1:
        raise ValueError(f"{name}: {argument} must be a probability in [0, 1], got {value!r}")
    return float(value)


def check_switch(name: str, argument: str, value: Any) -> bool:
    """`value`, refused unless it is a bool."""
    if not isinstance(value, bool):
        raise TypeError(f"{name}: {argument} must be a bool, got {type(value).__name__}")
    return value


def zoneout_pair(name: str, cell: str, value: Any) -> tuple[float, float]:
    """The probabilities with which h and c stay; a number stands for both."""
    if isinstance(value, (tuple, list)):
        if cell != "lstm":
            raise ValueError(f"{name}: zoneout must be a number, a pair (h, c) is for LSTM only, got {value!r}")
        if len(value) != 2:
            raise ValueError(f"{name}: zoneout must be a number or a pair (h, c), got {value!r}")
        return check_probability(name, "zoneout of h", value[0]), check_probability(name, "zoneout of c", value[1])
    p = check_probability(name, "zoneout", value)
    return p, p if cell == "lstm" else 0.0


def norm_shapes(cell: str, gates: int, hidden: int, bias: bool) -> dict[str, tuple[int, ...]]:
    """The shapes of the parameters that `layer_norm=True` adds to a layer."""
    shapes: dict[str, tuple[int, ...]] = {"weight_ln_ih": (gates,), "weight_ln_hh": (gates,)}
    if cell == "lstm":
        shapes["weight_ln_c"] = (hidden,)
        if bias:
            shapes["bias_ln_c"] = (hidden,)
    return shapes


def draw_noise(
    x: Tensor, sizes: Any, order: Any, features: int, hidden: int, dropout: float, zoneout: tuple[float, float],
    training: bool,
) -> dict[str, Any]:  # fmt: skip
    """What `rnn_options_layer` takes of recurrent dropout and zoneout for one direction of one layer; may be empty."""
    found: dict[str, Any] = {}
    steps, batch = (len(sizes), int(sizes[0]) if len(sizes) else 0) if sizes is not None else x.shape[:2]
    if dropout and training:
        found["mask"] = keep_factors(dropout, batch, features, x.array, order)
    for key, p, size in (("zone_h", zoneout[0], features), ("zone_c", zoneout[1], hidden)):
        if p:
            found[key] = zoneout_mask(p, steps, batch, size, x.array, sizes, order) if training else p
    return found
