"""Attention; the reference writes the formula out."""

import numpy as np

import cuframe as cf
import cuframe.nn.functional as F
from cuframe.random import manual_seed

from .core import FLOATS, HALVES, ErrorInput, OpInfo, Sample

NAME = "scaled_dot_product_attention"


def seen(make, *shape):
    """A mask of bools, in which every row sees the first key."""
    mask = make(*shape, dtype="bool")
    mask.array[..., 0] = True
    return mask


def samples(make):
    yield Sample((make(3, 4), make(5, 4), make(5, 2)))
    yield Sample((make(2, 3, 4), make(2, 5, 4), make(2, 5, 4), seen(make, 3, 5)))
    yield Sample((make(2, 2, 3, 4), make(2, 2, 5, 4), make(2, 2, 5, 3), seen(make, 2, 1, 1, 5)), {"scale": 0.3})
    yield Sample((make(2, 2, 3, 4), make(2, 2, 5, 4), make(2, 2, 5, 4), make(2, 1, 3, 5)))
    yield Sample((make(2, 3, 2), make(2, 4, 2), make(2, 4, 2), make(4)))
    yield Sample((make(2, 4, 3), make(2, 4, 3), make(2, 4, 3)), {"is_causal": True})
    yield Sample((make(4, 3), make(2, 3), make(2, 3)), {"is_causal": True})
    yield Sample((make(2, 3), make(4, 3), make(4, 3)), {"is_causal": True})
    yield Sample((make(3, 2, 4), make(2, 3, 5, 4), make(2, 1, 5, 4)))
    yield Sample((make(2, 4, 2, 3), make(2, 2, 3, 3), make(2, 2, 3, 3)), {"enable_gqa": True})
    lengths = {"key_lengths": cf.tensor([2, 0, 5])}
    yield Sample((make(3, 2, 2, 4), make(3, 2, 5, 4), make(3, 2, 5, 3), seen(make, 2, 5)), lengths)
    yield Sample((make(3, 2, 4), make(3, 5, 4), make(3, 5, 4), make(3, 1, 5)), lengths)
    blind = seen(make, 3, 4)
    blind.array[1] = False
    yield Sample((make(3, 2), make(4, 2), make(4, 2), blind))
    hidden = make(3, 4, requires_grad=False)
    hidden.array[1] = -np.inf
    yield Sample((make(3, 2), make(4, 2), make(4, 2), hidden))


def attention(q, k, v, mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False, key_lengths=None):
    if enable_gqa:
        k, v = (np.repeat(a, q.shape[-3] // a.shape[-3], -3) for a in (k, v))
    s = q @ np.swapaxes(k, -1, -2) * (1 / np.sqrt(q.shape[-1]) if scale is None else scale)
    if is_causal:
        s = np.where(np.tril(np.ones(s.shape[-2:], bool)), s, -np.inf)
    if key_lengths is not None:
        own = np.arange(s.shape[-1]) < key_lengths[:, None]
        s = np.where(own[:, None] if s.ndim == 3 else own[:, None, None], s, -np.inf)
    if mask is not None:
        s = np.where(mask, s, -np.inf) if mask.dtype == bool else s + mask
    e = np.exp(s - np.maximum(s.max(axis=-1, keepdims=True), -1e30))
    total = e.sum(axis=-1, keepdims=True)
    return (e / np.where(total == 0, 1, total) @ v).astype(q.dtype)


def errors(make):
    q, k, v = make(2, 3, 4), make(2, 5, 4), make(2, 5, 4)
    yield ErrorInput((q, make(2, 5, 3), v), {}, RuntimeError, rf"{NAME}: key must be \(..., S, 4\) .*, got \(2, 5, 3\)")
    yield ErrorInput((q, k, make(2, 4, 4)), {}, RuntimeError, rf"{NAME}: value must be \(..., 5, Ev\)")
    yield ErrorInput((q, k, make(2, 5, 4, dtype="float64")), {}, RuntimeError, f"{NAME}: value must be float32")
    yield ErrorInput((make(4), k, v), {}, RuntimeError, f"{NAME}: query must have at least 2 dimensions")
    yield ErrorInput((q, make(3, 5, 4), v), {}, RuntimeError, f"{NAME}: the leading .* cannot be broadcast")
    yield ErrorInput((q, k, v, make(4, 5)), {}, RuntimeError, r"attn_mask must broadcast to \(2, 3, 5\), got \(4, 5\)")
    yield ErrorInput((q, k, v, make(3, 5, dtype="int64")), {}, RuntimeError, "attn_mask must be bool or float32")
    yield ErrorInput((q, k, v, make(3, 5)), {"is_causal": True}, RuntimeError, "either attn_mask or is_causal")
    yield ErrorInput((q, k, v), {"dropout_p": 1.5}, ValueError, rf"{NAME}: dropout_p must be in \[0, 1\], got 1.5")
    long, five = {"key_lengths": cf.tensor([1, 6])}, {"key_lengths": cf.tensor([1] * 5)}
    yield ErrorInput((q, k, v), long, IndexError, rf"{NAME}: key_lengths must be in \[0, 6\), got 6")
    yield ErrorInput((q, k, v), five, RuntimeError, r"key_lengths must be \(2,\) for query \(2, 3, 4\), got \(5,\)")
    few = (make(3, 4), make(5, 4), make(5, 4))
    yield ErrorInput(few, long, RuntimeError, r"key_lengths needs a query \(N, L, E\) or \(N, H, L, E\), got \(3, 4\)")
    parts = {"key_lengths": make(2)}
    yield ErrorInput((q, k, v), parts, RuntimeError, "key_lengths must be integers, got float32")
    yield ErrorInput((make(3, 2, 4), k, v), {"enable_gqa": True}, RuntimeError, "must be a multiple of key's, got 2")
    yield ErrorInput((make(2, 3, 4, dtype="int64"), k, v), {}, TypeError, f"{NAME}: query must be floating point")


def dropped(*args, **kwargs):
    manual_seed(3)
    return F.scaled_dot_product_attention(*args, **kwargs)


def dropout_samples(make):
    yield Sample((make(2, 3, 4), make(2, 5, 4), make(2, 5, 4)), {"dropout_p": 0.4})
    yield Sample((make(2, 4, 3), make(2, 4, 3), make(2, 4, 3)), {"dropout_p": 0.4, "is_causal": True})
    yield Sample((make(3, 4), make(5, 4), make(5, 4), make(3, 5)), {"dropout_p": 0.4})
    yield Sample((make(3, 4), make(5, 4), make(5, 4)), {"dropout_p": 1.0})


def maps(make, embed, keys=None, values=None):
    """Arguments from in_proj_weight to out_proj_bias; larger weights would make gradients whose last digits cancel."""
    packed = None if keys else make(3 * embed, embed, low=-1, high=1)
    return (packed, make(3 * embed), None, None, False, 0.0, make(embed, embed, low=-1, high=1), make(embed))


def multi_head_samples(make):
    x = make(3, 2, 4)
    yield Sample((x, x, x, 4, 2, *maps(make, 4)))
    yield Sample((x, x, x, 4, 2, *maps(make, 4)), {"need_weights": False})
    memory = make(5, 2, 4)
    yield Sample((x, memory, memory, 4, 2, *maps(make, 4)), {"average_attn_weights": False})
    weights = {f"{n}_proj_weight": make(4, size) for n, size in zip("qkv", (4, 3, 6))}
    arguments = (make(3, 2, 4), make(5, 2, 3), make(5, 2, 6), 4, 2, *maps(make, 4, 3, 6))
    yield Sample(arguments, {"use_separate_proj_weight": True, **weights})
    extra = (make(12, 4), None, make(1, 1, 4), make(1, 1, 4), True, 0.0, make(4, 4), None)
    hidden = cf.Tensor(~seen(make, 3, 5).array)
    padding = cf.tensor([[False] * 5, [False] * 3 + [True] * 2])
    masks = {"attn_mask": hidden, "key_padding_mask": padding}
    yield Sample((make(3, 2, 4), make(5, 2, 4), make(5, 2, 4), 4, 2, *extra), {"need_weights": False, **masks})
    yield Sample((make(3, 2, 4), make(5, 2, 4), make(5, 2, 4), 4, 2, *extra), masks)
    static = {"static_k": make(4, 5, 2), "static_v": make(4, 5, 2)}
    yield Sample((make(3, 2, 4), make(5, 2, 4), make(5, 2, 4), 4, 2, *maps(make, 4)), static)
    yield Sample((make(3, 4), make(5, 4), make(5, 4), 4, 2, *maps(make, 4)), {"attn_mask": make(2, 3, 5)})


def multi_head(
    query, key, value, embed, heads, w, b, bias_k, bias_v, add_zero, p, w_out, b_out, need_weights=True,
    attn_mask=None, key_padding_mask=None, average_attn_weights=True, use_separate_proj_weight=False,
    q_proj_weight=None, k_proj_weight=None, v_proj_weight=None, static_k=None, static_v=None,
):  # fmt: skip
    flat = query.ndim == 2
    if flat:
        query, key, value = (a[:, None] for a in (query, key, value))
    three = (q_proj_weight, k_proj_weight, v_proj_weight) if use_separate_proj_weight else np.split(w, 3)
    biases = np.split(b, 3) if b is not None else (0, 0, 0)
    q, k, v = (x @ m.T + c for x, m, c in zip((query, key, value), three, biases))
    length, batch, _ = query.shape
    mask = np.zeros((batch, heads, length, key.shape[0]))
    if attn_mask is not None:
        m = np.where(attn_mask, -np.inf, 0) if attn_mask.dtype == bool else attn_mask
        mask = mask + (m if m.ndim == 2 else m.reshape(mask.shape))
    if key_padding_mask is not None:
        mask = mask + np.where(key_padding_mask, -np.inf, 0)[:, None, None]
    if bias_k is not None:
        k, v = (np.concatenate([a, np.repeat(c, batch, 1)]) for a, c in ((k, bias_k), (v, bias_v)))
    q, k, v = (a.reshape(a.shape[0], batch, heads, -1).transpose(1, 2, 0, 3) for a in (q, k, v))
    if static_k is not None:
        k, v = (a.reshape(batch, heads, *a.shape[1:]) for a in (static_k, static_v))
    if add_zero:
        k, v = (np.concatenate([a, np.zeros_like(a[:, :, :1])], 2) for a in (k, v))
    mask = np.concatenate([mask, np.zeros((*mask.shape[:3], k.shape[2] - mask.shape[3]))], 3)
    s = q @ np.swapaxes(k, -1, -2) / np.sqrt(q.shape[-1]) + mask
    e = np.exp(s - s.max(axis=-1, keepdims=True))
    weights = e / e.sum(axis=-1, keepdims=True)
    out = (weights @ v).transpose(2, 0, 1, 3).reshape(length, batch, embed) @ w_out.T
    out = out if b_out is None else out + b_out
    weights = weights.mean(1) if average_attn_weights else weights
    if flat:
        out, weights = out[:, 0], weights[0]
    return (out, weights) if need_weights else out


def multi_head_call(*args, **kwargs):
    out, weights = F.multi_head_attention_forward(*args, **kwargs)
    return out if weights is None else (out, weights)


def multi_head_errors(make):
    x, rest = make(3, 2, 4), maps(make, 4)
    yield ErrorInput((x, x, x, 6, 2, *rest), {}, RuntimeError, r"query must be \(..., 6\), got \(3, 2, 4\)")
    yield ErrorInput((x, x, x, 4, 3, *rest), {}, RuntimeError, "embed_dim 4 must be a multiple of num_heads 3")
    yield ErrorInput((x, make(3, 4), x, 4, 2, *rest), {}, RuntimeError, "key must have 3 dimensions as query has")
    yield ErrorInput((x, x, make(2, 2, 4), 4, 2, *rest), {}, RuntimeError, r"value must be \(3, 2, 4\) in its leading")
    yield ErrorInput((x, make(3, 3, 4), make(3, 3, 4), 4, 2, *rest), {}, RuntimeError, "key must have batch size 2")
    yield ErrorInput((x, x, x, 4, 2, *rest), {"attn_mask": make(3, 4)}, RuntimeError, r"attn_mask must be \(3, 3\)")
    yield ErrorInput((x, x, x, 4, 2, *rest), {"is_causal": True}, RuntimeError, "is_causal is a hint about attn_mask")
    padding = {"key_padding_mask": make(3, 2, dtype="bool")}
    yield ErrorInput((x, x, x, 4, 2, *rest), padding, RuntimeError, r"key_padding_mask must be \(2, 3\), got \(3, 2\)")
    yield ErrorInput((x, x, x, 4, 2, None, *rest[1:]), {}, RuntimeError, "in_proj_weight must be given")


OPS = [
    OpInfo(
        f"nn.functional.{NAME}", samples=samples, reference=attention, dtypes=(*FLOATS, *HALVES), errors=errors,
        zero_size=False,
    ),
    OpInfo(
        f"nn.functional.{NAME}", variant="dropout", op=dropped, samples=dropout_samples, dtypes=FLOATS, method=False,
        zero_size=False,
    ),
    OpInfo("nn.functional.multi_head_attention_forward", samples=multi_head_samples, reference=None, zero_size=False,
           errors=multi_head_errors),
    OpInfo(
        "nn.functional.multi_head_attention_forward", variant="values", op=multi_head_call, samples=multi_head_samples,
        reference=multi_head, gradient=False, zero_size=False, method=False,
    ),
]  # fmt: skip
