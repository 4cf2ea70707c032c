"""Optimizer: parameter groups, state, and what is common to all update rules."""

from __future__ import annotations

import functools
import itertools
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ..autograd import versions
from ..autograd.modes import enable_grad, no_grad
from ..backend import backend_of
from ..dtypes import is_floating
from ..tensor import HookHandle, Tensor
from .blocks import finish

__all__ = ["Optimizer", "check_at_least", "check_betas", "required"]

_keys = itertools.count()

#: A default that says: every group must give this option.
required: Any = type("_Required", (), {"__repr__": lambda self: "<required>"})()


def check_at_least(name: str, low: float = 0.0, **values: float) -> None:
    """Raise ValueError unless every value is a number of at least `low`."""
    for argument, value in values.items():
        try:
            fits = value >= low
        except TypeError:
            raise TypeError(f"{name}: {argument} must be a number, got {type(value).__name__}") from None
        if not fits:
            raise ValueError(f"{name}: {argument} must be >= {low:g}, got {value}")


def check_betas(name: str, betas: Any) -> None:
    """Raise ValueError unless `betas` are two numbers in [0, 1)."""
    if not isinstance(betas, Sequence) or len(betas) != 2:
        raise ValueError(f"{name}: betas must be two numbers, got {betas!r}")
    for i, beta in enumerate(betas):
        if not 0.0 <= beta < 1.0:
            raise ValueError(f"{name}: betas[{i}] must be in [0, 1), got {beta}")


def _hooked_step(step: Callable[..., Any]) -> Callable[..., Any]:
    """`step` with the optimizer's hooks around it, once even where it calls its parent's."""

    @functools.wraps(step)
    def call(self: Optimizer, *args: Any, **kwargs: Any) -> Any:
        if self._stepping:
            return step(self, *args, **kwargs)
        self._stepping = True
        try:
            for hook in list(self._hooks["pre"].values()):
                replaced = hook(self, args, kwargs)
                if replaced is not None:
                    if not (isinstance(replaced, tuple) and len(replaced) == 2):
                        raise RuntimeError(
                            "a step pre-hook must return None or a tuple (args, kwargs), "
                            f"got {type(replaced).__name__}"
                        )
                    args, kwargs = replaced
            result = step(self, *args, **kwargs)
            self._steps_taken += 1
            for hook in list(self._hooks["post"].values()):
                hook(self, args, kwargs)
        finally:
            self._stepping = False
        return result

    return call


class Optimizer:
    """The base class of all optimizers.

    A subclass calls `super().__init__(params, defaults)` and defines `step`, or `update_group` which `step` calls.

    Args:
        params: the tensors to optimize; or pairs `(name, tensor)` as from `named_parameters()`; or dicts, one for each
            group, with the tensors under `"params"` and options of that group.
        defaults: the options of groups that do not give them.

    Attributes:
        param_groups: a list of dicts, each with `"params"` and the options.
        state: a dict from parameter to what the optimizer keeps for it.
        defaults: the options by default.

    Raises:
        TypeError: `params` is one Tensor, or holds something else than Tensors.
        ValueError: there are no parameters.

    >>> import cuframe as cf
    >>> from cuframe import nn, optim
    >>> class Sign(optim.Optimizer):
    ...     def __init__(self, params, lr):
    ...         super().__init__(params, {"lr": lr})
    ...
    ...     def update_group(self, group):
    ...         for p in group["params"]:
    ...             p -= group["lr"] * p.grad.sign()
    >>> w = nn.Parameter([1.0])
    >>> w.grad = cf.tensor([3.0])
    >>> Sign([w], lr=0.25).step()
    >>> w.item()
    0.75
    """

    def __init__(self, params: Iterable[Any], defaults: dict[str, Any]) -> None:
        name = type(self).__name__
        if isinstance(params, Tensor):
            raise TypeError(f"{name}: params must be a list of Tensors or dicts, got one Tensor")
        if not isinstance(params, Iterable):
            hint = "; call it" if callable(params) else ""
            hint = "; pass its parameters()" if hasattr(params, "parameters") else hint
            raise TypeError(f"{name}: params must be a list of Tensors or dicts, got {type(params).__name__}{hint}")
        self.defaults = defaults
        self.state: defaultdict[Any, dict[str, Any]] = defaultdict(dict)
        self.param_groups: list[dict[str, Any]] = []
        self._hooks: dict[str, OrderedDict[int, Callable]] = {
            kind: OrderedDict() for kind in ("pre", "post", "save_pre", "save_post", "load_pre", "load_post")
        }
        self._stepping = False
        self._steps_taken = 0
        self._scratch: dict[Any, Any] = {}
        groups: list[Any] = list(params.items() if isinstance(params, Mapping) else params)
        if not groups:
            raise ValueError(
                f"{name}: the list of parameters is empty (an iterator such as model.parameters() serves only once)"
            )
        if not isinstance(groups[0], dict):
            groups = [{"params": groups}]
        for group in groups:
            self.add_param_group(group)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "step" in cls.__dict__:
            cls.step = _hooked_step(cls.__dict__["step"])  # type: ignore[method-assign]

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group of parameters, for instance layers that are trained from now on.

        Args:
            param_group: the tensors under `"params"`, and the options that differ from the defaults.

        Raises:
            TypeError: something else than Tensors; or an option that looks like a misspelt one.
            ValueError: a tensor is in a group already, is not a leaf, or an option without default is missing.

        >>> import cuframe as cf
        >>> from cuframe import nn, optim
        >>> head, body = nn.Linear(2, 1), nn.Linear(2, 2)
        >>> opt = optim.SGD(head.parameters(), lr=0.1)
        >>> opt.add_param_group({"params": body.parameters(), "lr": 0.01})
        >>> [group["lr"] for group in opt.param_groups]
        [0.1, 0.01]
        """
        name = type(self).__name__
        if not isinstance(param_group, dict) or "params" not in param_group:
            came = f"one with {list(param_group)}" if isinstance(param_group, dict) else type(param_group).__name__
            raise TypeError(f'{name}: a parameter group must be a dict with "params", got {came}')
        params = param_group["params"]
        if isinstance(params, Tensor):
            params = [params]
        elif isinstance(params, (set, frozenset)):
            raise TypeError(f"{name}: params must have an order (a list, say), got a {type(params).__name__}")
        params = list(params)
        names = None
        if params and isinstance(params[0], tuple):
            names, params = [str(key) for key, _ in params], [p for _, p in params]
        known = {p for group in self.param_groups for p in group["params"]}
        for i, p in enumerate(params):
            if not isinstance(p, Tensor):
                raise TypeError(f"{name}: parameters must be Tensors, got {type(p).__name__} at position {i}")
            if not p.is_leaf:
                raise ValueError(f"{name}: parameter {i} is the result of {p.grad_fn}; only leaf tensors are optimized")
            if p in known:
                raise ValueError(f"{name}: parameter {i} of shape {tuple(p.shape)} is given twice")
            known.add(p)
        group = {**param_group, "params": params}
        if names is not None:
            group["param_names"] = names
        self._check_options(group)
        for option, default in self.defaults.items():
            if option not in group and default is required:
                raise ValueError(f"{name}: a parameter group lacks the option {option!r}")
            group.setdefault(option, default)
        self.param_groups.append(group)

    def _check_options(self, group: dict[str, Any]) -> None:
        """Groups may carry options of their own, but not ones that were surely meant as others."""
        import difflib

        for option in group:
            if option not in self.defaults and option not in ("params", "param_names"):
                near = difflib.get_close_matches(option, list(self.defaults), n=1, cutoff=0.88)
                if near:
                    raise TypeError(
                        f"{type(self).__name__}: a parameter group has the unknown option {option!r}; "
                        f"did you mean {near[0]!r}?"
                    )

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop the gradients of all parameters, or fill them with zeros.

        >>> import cuframe as cf
        >>> from cuframe import nn, optim
        >>> w = nn.Parameter([1.0])
        >>> w.grad = cf.tensor([3.0])
        >>> optim.SGD([w], lr=0.1).zero_grad()
        >>> w.grad is None
        True
        """
        for group in self.param_groups:
            for p in group["params"]:
                grad = p.grad
                if grad is None:
                    continue
                if set_to_none or getattr(grad, "is_sparse", False):
                    p.grad = None
                elif grad.node is not None:
                    p.grad = Tensor(backend_of(p.array).xp.zeros_like(p.array))
                else:
                    grad.array[...] = 0
                    versions.written(grad.array, "zero_grad")

    # -- the update ---------------------------------------------------------------------------------------------
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update all parameters that have a gradient.

        Args:
            closure: computes the loss again, with gradients; it is called first.

        Returns:
            What the closure returned, or None.
        """
        loss = None
        if closure is not None:
            with enable_grad():
                loss = closure()
        with no_grad():
            for group in self.param_groups:
                try:
                    self.update_group(group)
                finally:
                    if self._scratch:
                        finish(self._scratch)
        return loss

    step = _hooked_step(step)

    def update_group(self, group: dict[str, Any]) -> None:
        """Update the parameters of one group; a subclass that does not define `step` defines this."""
        raise NotImplementedError(f"{type(self).__name__}: neither step nor update_group is defined")

    # -- state --------------------------------------------------------------------------------------------------
    def state_dict(self) -> dict[str, Any]:
        """The state in PyTorch's layout: `{"state": {0: {...}, ...}, "param_groups": [...]}`.

        Parameters are numbered through all groups. The tensors are those of the optimizer, not copies; step counts
        are 0-d float32 tensors.

        >>> import cuframe as cf
        >>> from cuframe import nn, optim
        >>> opt = optim.SGD([nn.Parameter([1.0])], lr=0.1)
        >>> sorted(opt.state_dict())
        ['param_groups', 'state']
        """
        for hook in list(self._hooks["save_pre"].values()):
            hook(self)
        ids: dict[int, int] = {}
        groups = []
        for group in self.param_groups:
            for p in group["params"]:
                ids[id(p)] = len(ids)
            groups.append(
                {
                    **{k: v for k, v in group.items() if k != "params"},
                    "params": [ids[id(p)] for p in group["params"]],
                }
            )
        state = {
            ids.get(id(p), p) if isinstance(p, Tensor) else p: {
                k: Tensor(np.array(v, _COUNTS[k])) if k in _COUNTS else v for k, v in entry.items()
            }
            if isinstance(p, Tensor)
            else entry
            for p, entry in self.state.items()
        }
        result = {"state": state, "param_groups": groups}
        for hook in list(self._hooks["save_post"].values()):
            replaced = hook(self, result)
            if replaced is not None:
                result = replaced
        return result

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take a state as `state_dict` gives it, or as a PyTorch optimizer of the same kind does.

        The parameters must be in the same order; if both sides have names, these are not compared. Tensors and arrays
        are copied, cast to the dtype of their parameter and moved to its device.

        Raises:
            ValueError: the groups differ in number or size. Nothing has been changed.

        >>> import cuframe as cf
        >>> from cuframe import nn, optim
        >>> first, second = (optim.SGD([nn.Parameter([1.0])], lr=lr) for lr in (0.1, 0.2))
        >>> second.load_state_dict(first.state_dict())
        >>> second.param_groups[0]["lr"]
        0.1
        """
        name = type(self).__name__
        given: Any = dict(state_dict)
        for hook in list(self._hooks["load_pre"].values()):
            replaced = hook(self, given)
            if replaced is not None:
                given = replaced
        for key in ("state", "param_groups"):
            if key not in given:
                raise ValueError(f"{name}.load_state_dict: the state_dict has no {key!r}; it has {sorted(given)}")
        theirs = given["param_groups"]
        if len(theirs) != len(self.param_groups):
            raise ValueError(
                f"{name}.load_state_dict: the optimizer has {len(self.param_groups)} parameter group(s), "
                f"the state_dict {len(theirs)}"
            )
        for i, (mine, their) in enumerate(zip(self.param_groups, theirs)):
            if len(mine["params"]) != len(their["params"]):
                raise ValueError(
                    f"{name}.load_state_dict: group {i} has {len(mine['params'])} parameter(s), "
                    f"that of the state_dict {len(their['params'])}"
                )
        params = {
            key: p
            for mine, their in zip(self.param_groups, theirs)
            for key, p in zip(their["params"], mine["params"])
        }
        # Keys that went through JSON have become strings.
        params.update({str(key): p for key, p in params.items()})
        state: defaultdict[Any, dict[str, Any]] = defaultdict(dict)
        for key, entry in given["state"].items():
            p = params.get(key)
            if p is None:
                state[key] = entry
            else:
                state[p] = {k: _loaded(k, v, p, name) for k, v in entry.items()}
        groups = []
        for mine, their in zip(self.param_groups, theirs):
            group = {**mine, **their, "params": mine["params"]}
            if "betas" in group:
                group["betas"] = tuple(group["betas"])
            groups.append(group)
        self.state, self.param_groups = state, groups
        for hook in list(self._hooks["load_post"].values()):
            hook(self)

    # -- hooks --------------------------------------------------------------------------------------------------
    def _register(self, kind: str, hook: Callable, prepend: bool = False) -> HookHandle:
        key = next(_keys)
        self._hooks[kind][key] = hook
        if prepend:
            self._hooks[kind].move_to_end(key, last=False)
        return HookHandle(self._hooks[kind], key)

    def register_step_pre_hook(self, hook: Callable) -> HookHandle:
        """Call `hook(optimizer, args, kwargs)` before each step; it may return new `(args, kwargs)`."""
        return self._register("pre", hook)

    def register_step_post_hook(self, hook: Callable) -> HookHandle:
        """Call `hook(optimizer, args, kwargs)` after each step."""
        return self._register("post", hook)

    def register_state_dict_pre_hook(self, hook: Callable, prepend: bool = False) -> HookHandle:
        """Call `hook(optimizer)` before `state_dict`."""
        return self._register("save_pre", hook, prepend)

    def register_state_dict_post_hook(self, hook: Callable, prepend: bool = False) -> HookHandle:
        """Call `hook(optimizer, state_dict)` after `state_dict`; it may return another one."""
        return self._register("save_post", hook, prepend)

    def register_load_state_dict_pre_hook(self, hook: Callable, prepend: bool = False) -> HookHandle:
        """Call `hook(optimizer, state_dict)` before loading; it may return another one."""
        return self._register("load_pre", hook, prepend)

    def register_load_state_dict_post_hook(self, hook: Callable, prepend: bool = False) -> HookHandle:
        """Call `hook(optimizer)` after loading."""
        return self._register("load_post", hook, prepend)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_scratch": {}}

    def __repr__(self) -> str:
        lines = [f"{type(self).__name__} ("]
        for i, group in enumerate(self.param_groups):
            lines.append(f"Parameter Group {i}")
            lines += [f"    {k}: {group[k]}" for k in sorted(group) if k not in ("params", "param_names")]
        return "\n".join([*lines, ")"])


#: State that is a number and not an array of the parameter's shape, and the dtype that saves it without loss.
_COUNTS = {"step": np.float32, "mu_product": np.float64}


def _loaded(key: str, value: Any, p: Tensor, name: str) -> Any:
    """A value of a state_dict as the optimizer keeps it for parameter `p`."""
    if key in _COUNTS:
        number = float(value.item() if isinstance(value, Tensor) else np.asarray(value))
        return int(number) if key == "step" else number
    if isinstance(value, Tensor):
        array = value.array
    elif hasattr(value, "dtype") and hasattr(value, "shape"):
        array = np.asarray(value)
    else:
        return value
    here, there = backend_of(array), backend_of(p.array)
    dtype = p.array.dtype if is_floating(p.array.dtype) else array.dtype
    if here is not there:
        array = there.from_host(here.to_host(array), there.device_of(p.array))
    if array.shape != p.array.shape:
        raise ValueError(
            f"{name}.load_state_dict: {key} must have the parameter's shape {tuple(p.array.shape)}, "
            f"got {tuple(array.shape)}"
        )
    return Tensor(array.astype(dtype))  # astype copies
