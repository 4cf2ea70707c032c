"""cuframe has what the documentation of torch.nn 1.2 promises: names, parameters in order, defaults, attributes."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cuframe as cf
from cuframe import nn
from tests.reference_api import ENTRIES, LOSSES, REQUIRED, SECTIONS, Entry, parse

ROOT = Path(__file__).parent.parent
CLASSES = [e for e in ENTRIES if e.name.count(".") == 1]
ids = {"ids": lambda e: e.name}


def find(name: str) -> Any:
    return reduce(getattr, name.split("."), cf)


def check_signature(where: str, function: Callable, documented: dict[str, Any], added: str = "") -> None:
    """The documented parameters come first, in their order; what is new has a default and follows."""
    actual = {
        name: p for name, p in inspect.signature(function).parameters.items()
        if p.kind in (p.POSITIONAL_OR_KEYWORD, p.POSITIONAL_ONLY)
    }  # fmt: skip
    order = [name for name in actual if name not in added.split()]
    assert order[: len(documented)] == list(documented), f"{where}: {order}, documented {list(documented)}"
    for name, default in documented.items():
        given = actual[name].default
        if default is REQUIRED:
            assert given is inspect.Parameter.empty, f"{where}: {name} has a default, {given!r}"
        else:
            assert given == default and (given is None) == (default is None), f"{where}: {name}={given!r}"
    for name in [n for n in actual if n not in documented]:
        assert actual[name].default is not inspect.Parameter.empty, f"{where}: {name} is new and has no default"


@pytest.mark.parametrize("entry", ENTRIES, **ids)
def test_signature(entry: Entry) -> None:
    thing = find(entry.name)
    if entry.name.endswith("PackedSequence"):  # a tuple: its parameters are those of __new__
        names = list(inspect.signature(thing.__new__).parameters)[1:]
        assert names == list(entry.documented)
        return
    check_signature(entry.name, thing, entry.documented, entry.added)
    assert (inspect.getdoc(thing) or "").strip(), f"{entry.name} has no docstring"


@pytest.mark.parametrize("entry", [e for e in ENTRIES if e.methods], **ids)
def test_methods(entry: Entry) -> None:
    kind = find(entry.name)
    for name, signature in entry.methods.items():
        method = inspect.getattr_static(kind, name)
        bound = isinstance(method, (staticmethod, classmethod))
        function = getattr(kind, name)
        documented = parse(signature) if bound else {"self": REQUIRED, **parse(signature)}
        check_signature(f"{entry.name}.{name}", function, documented)
        assert name == "forward" or (inspect.getdoc(function) or "").strip(), f"{entry.name}.{name} has no docstring"


@pytest.mark.parametrize("entry", CLASSES, **ids)
def test_attributes(entry: Entry) -> None:
    """Settings are attributes under the names of the constructor's parameters; parameters have documented shapes."""
    layers = {
        "nn.TransformerEncoder": lambda: (nn.TransformerEncoderLayer(8, 2, 16), 2),
        "nn.TransformerDecoder": lambda: (nn.TransformerDecoderLayer(8, 2, 16), 2),
        "nn.DataParallel": lambda: (nn.Linear(2, 2),),
    }
    made = layers[entry.name]() if entry.name in layers else entry.made
    module = find(entry.name)(*made)
    missing = [name for name in entry.documented if name not in entry.unkept.split() and not hasattr(module, name)]
    assert not missing
    for name, value in zip(entry.documented, made):
        kept = getattr(module, name) if name not in entry.unkept.split() else None
        if isinstance(kept, (bool, int, float, str)):
            assert kept == value, f"{entry.name}.{name}"
    for name, default in list(entry.documented.items())[len(made) :]:
        kept = getattr(module, name) if name not in entry.unkept.split() else default
        if not isinstance(kept, (cf.Tensor, nn.Module)):
            assert kept == default, f"{entry.name}.{name} is {kept!r} by default"
    state = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    if entry.parameters or not entry.name.startswith("nn.Transformer"):
        assert state == entry.parameters


def test_everything_is_listed_once() -> None:
    names = [e.name for e in ENTRIES]
    assert len(names) == len(set(names)) == 69


@pytest.mark.parametrize("entry", ENTRIES, **ids)
def test_in_the_docs(entry: Entry) -> None:
    """docs/nn.md has a row for it; `python -m tests.test_reference` writes the file."""
    assert f"| `{entry.name}{entry.signature}` | " in (ROOT / "docs" / "nn.md").read_text(encoding="utf-8")


def row(entry: Entry) -> str:
    """One line of docs/nn.md: the name, the documented parameters, the docstring's first sentence."""
    text = inspect.cleandoc(find(entry.name).__doc__ or "").split("\n\n")[0].replace("\n", " ").replace("|", r"\|")
    order = [name for name in inspect.signature(find(entry.name)).parameters if name != "self"]
    after = order[order.index(entry.added) + 1] if entry.added else ""
    between = f" PyTorch has since put `{entry.added}` before `{after}`." if entry.added else ""
    return f"| `{entry.name}{entry.signature}` | {text}{between} |"


def page() -> str:
    lines = [
        "# Layers, losses and utilities",
        "",
        "What the documentation of `torch.nn` lists, with the parameters that it documents. PyTorch's newer parameters",
        "are there, too; `help(cuframe.nn.LSTM)` shows all of them, shapes, formulas and errors.",
        "",
    ]
    for title, entries in SECTIONS.items():
        lines += [f"## {title}", "", "| | |", "|---|---|", *map(row, entries), ""]
    return "\n".join(lines)


# -- the arguments that `reduction` has replaced --------------------------------------------------------------------
OLD = [
    (None, None, "mean"), (None, True, "mean"), (None, False, "none"), (True, None, "mean"), (True, True, "mean"),
    (True, False, "none"), (False, None, "sum"), (False, True, "sum"), (False, False, "none"),
]  # fmt: skip


def loss_inputs(name: str) -> tuple:
    rng = np.random.default_rng(0)
    x, y = (cf.Tensor(rng.uniform(0.1, 0.9, (4, 3))) for _ in range(2))
    classes, sign = cf.tensor([0, 2, 1, 1]), cf.Tensor(np.asarray([1.0, -1.0, 1.0, -1.0]))
    return {
        "CrossEntropyLoss": (x, classes),
        "NLLLoss": (x, classes),
        "MultiMarginLoss": (x, classes),
        "MultiLabelMarginLoss": (x, cf.tensor([[0, 1, -1], [2, -1, 0], [1, 0, 2], [-1, 0, 1]])),
        "MarginRankingLoss": (x[:, 0], y[:, 0], sign),
        "CosineEmbeddingLoss": (x, y, sign),
        "HingeEmbeddingLoss": (x[:, 0], sign),
        "SoftMarginLoss": (x[:, 0], sign),
        "TripletMarginLoss": (x, y, x + y),
    }.get(name, (x, y))


DEPRECATED = [e.name.removeprefix("nn.") for e in LOSSES if "size_average" in e.documented]
FUNCTIONS = {
    "L1Loss": "l1_loss", "MSELoss": "mse_loss", "CrossEntropyLoss": "cross_entropy", "NLLLoss": "nll_loss",
    "PoissonNLLLoss": "poisson_nll_loss", "KLDivLoss": "kl_div", "BCELoss": "binary_cross_entropy",
    "BCEWithLogitsLoss": "binary_cross_entropy_with_logits", "MarginRankingLoss": "margin_ranking_loss",
    "HingeEmbeddingLoss": "hinge_embedding_loss", "MultiLabelMarginLoss": "multilabel_margin_loss",
    "SmoothL1Loss": "smooth_l1_loss", "SoftMarginLoss": "soft_margin_loss",
    "MultiLabelSoftMarginLoss": "multilabel_soft_margin_loss", "CosineEmbeddingLoss": "cosine_embedding_loss",
    "MultiMarginLoss": "multi_margin_loss", "TripletMarginLoss": "triplet_margin_loss",
}  # fmt: skip


@pytest.mark.parametrize(("size_average", "reduce", "same_as"), OLD)
@pytest.mark.parametrize("name", DEPRECATED)
def test_size_average_and_reduce(name: str, size_average: bool | None, reduce: bool | None, same_as: str) -> None:
    """They override `reduction`, with one warning that names what to write; so do those of the function."""
    inputs = loss_inputs(name)
    old: dict[str, Any] = {"size_average": size_average, "reduce": reduce}
    kind, function = getattr(nn, name), getattr(nn.functional, FUNCTIONS[name])
    expected = kind(reduction=same_as)(*inputs)
    overridden = "mean" if same_as != "mean" else "sum"
    if size_average is None and reduce is None:
        assert kind(**old).reduction == "mean"
        return
    for make in (lambda: kind(**old, reduction=overridden)(*inputs), lambda: function(*inputs, **old)):
        with pytest.warns(DeprecationWarning, match=f"reduction='{same_as}'") as caught:
            actual = make()
        assert len(caught) == 1
        assert np.array_equal(actual.numpy(), expected.numpy())
    with pytest.warns(DeprecationWarning):
        module = kind(**old)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        module(*inputs)  # one warning, when it is made
    assert module.reduction == same_as


if __name__ == "__main__":
    (ROOT / "docs" / "nn.md").write_text(page(), encoding="utf-8")
