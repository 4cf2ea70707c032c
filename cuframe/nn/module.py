"""Module: the base of every layer and model."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from ..autograd import versions
from ..backend import Device, backend_for, backend_of, device_types
from ..dtypes import as_dtype, is_floating
from ..ops.convert import target_dtype
from ..tensor import HookHandle, Parameter, Tensor
from . import hooks as _hooks
from .state import IncompatibleKeys, array_of, load, plan_assign, plan_copy

__all__ = ["Module"]

M = TypeVar("M", bound="Module")


class _NoAttribute(AttributeError):
    """Looks for a near name only when it is shown, so that `hasattr` stays cheap."""

    def __init__(self, module: Module, name: str) -> None:
        super().__init__(name)
        self._module = module
        self._missing = name

    def __str__(self) -> str:
        text = f"{type(self._module).__name__} has no attribute {self._missing!r}"
        if "_parameters" not in self._module.__dict__:
            return f"{text}; was super().__init__() called?"
        if not self._missing.startswith("__"):
            for name, child in self._module._modules.items():  # a wrapper such as DataParallel is no stand-in
                if child is not None and hasattr(child, self._missing):
                    return f"{text}; .{name}.{self._missing} is there"
            import difflib

            near = difflib.get_close_matches(self._missing, dir(self._module), n=1)
            if near:
                return f"{text}; did you mean {near[0]!r}?"
        return text


class Module:
    """The base class of all layers and models.

    Parameters, buffers and modules assigned to attributes are found by `parameters()`, `state_dict()`, `to()` and the
    rest. A subclass calls `super().__init__()` first and defines `forward`.

    >>> from cuframe import nn
    >>> class Scale(nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.factor = nn.Parameter([2.0])
    ...     def forward(self, x):
    ...         return x * self.factor
    >>> [name for name, _ in Scale().named_parameters()]
    ['factor']
    """

    training: bool
    _parameters: dict[str, Parameter | None]
    _buffers: dict[str, Tensor | None]
    _modules: dict[str, Module | None]
    _transient: set[str]
    _hooks: dict[str, OrderedDict]

    def __init__(self) -> None:
        # Past __setattr__, which looks for these.
        self.__dict__.update(
            training=True, _parameters={}, _buffers={}, _transient=set(), _modules={}, _hooks={}
        )

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the module computes; every subclass defines it."""
        raise NotImplementedError(f"{type(self).__name__}: forward is not defined")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._hooks or _hooks.GLOBAL:
            return _hooks.call_hooked(self, args, kwargs)
        return self.forward(*args, **kwargs)

    # -- attributes ---------------------------------------------------------------------------------------------
    def __getattr__(self, name: str) -> Any:
        # Only reached when the instance and its class have no such attribute.
        own = self.__dict__
        try:
            return own["_parameters"][name]
        except KeyError:
            pass
        for kind in ("_modules", "_buffers"):
            if kind in own and name in own[kind]:
                return own[kind][name]
        if isinstance(getattr(type(self), name, None), property):
            return object.__getattribute__(self, name)  # a property that failed: show its own error
        raise _NoAttribute(self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        own = self.__dict__
        if isinstance(value, Parameter):
            self._forget(name, "_parameters", value)
            self.register_parameter(name, value)
            return
        if isinstance(value, Module):
            self._forget(name, "_modules", value)
            self.add_module(name, value)
            return
        if "_parameters" in own:
            if name in own["_parameters"]:
                if value is not None:
                    raise TypeError(
                        f"{type(self).__name__}.{name} is a parameter: only a Parameter or None can be assigned to it, "
                        f"got {type(value).__name__} (to change its values: with cf.no_grad(): m.{name}.copy_(...))"
                    )
                own["_parameters"][name] = None
                return
            if name in own["_modules"]:
                if value is not None:
                    raise TypeError(
                        f"{type(self).__name__}.{name} is a module: only a Module or None can be assigned to it, "
                        f"got {type(value).__name__}"
                    )
                own["_modules"][name] = None
                return
            if name in own["_buffers"]:
                if value is not None and not isinstance(value, Tensor):
                    raise TypeError(
                        f"{type(self).__name__}.{name} is a buffer: only a Tensor or None can be assigned to it, "
                        f"got {type(value).__name__}"
                    )
                own["_buffers"][name] = value
                return
        object.__setattr__(self, name, value)

    def _forget(self, name: str, keep: str, value: Any) -> None:
        """Make place for a parameter or module of that name, whatever the attribute held."""
        own = self.__dict__
        if "_parameters" not in own:
            raise AttributeError(
                f"{type(self).__name__}: super().__init__() must run before {name!r} (a {type(value).__name__}) "
                "is assigned"
            )
        own.pop(name, None)
        for kind in ("_parameters", "_buffers", "_modules"):
            if kind != keep:
                own[kind].pop(name, None)
        own["_transient"].discard(name)

    def __delattr__(self, name: str) -> None:
        for kind in ("_parameters", "_buffers", "_modules"):
            if name in self.__dict__.get(kind, ()):
                del self.__dict__[kind][name]
                self._transient.discard(name)
                return
        object.__delattr__(self, name)

    def __dir__(self) -> list[str]:
        names = {*dir(type(self)), *self.__dict__, *self._parameters, *self._buffers, *self._modules}
        return sorted(name for name in names if name.isidentifier())

    def _check_name(self, kind: str, name: Any, table: str) -> None:
        if table not in self.__dict__:
            raise AttributeError(f"{type(self).__name__}: super().__init__() must run before a {kind} is registered")
        if not isinstance(name, str):
            raise TypeError(f"the name of a {kind} must be a string, got {type(name).__name__}")
        if "." in name:
            raise KeyError(f"the name of a {kind} must not contain '.', got {name!r}")
        if not name:
            raise KeyError(f"the name of a {kind} must not be empty")
        if name not in self.__dict__[table] and hasattr(self, name):
            raise KeyError(f"{type(self).__name__} already has an attribute {name!r}")

    def register_parameter(self, name: str, param: Parameter | None) -> None:
        """Add a parameter; None reserves the name for none.

        Raises:
            TypeError: it is not a Parameter.
            KeyError: the name is taken, empty, or has a dot in it.
            ValueError: it is the result of a recorded operation.
        """
        self._check_name("parameter", name, "_parameters")
        if param is not None:
            if not isinstance(param, Parameter):
                raise TypeError(f"parameter {name!r} must be a Parameter or None, got {type(param).__name__}")
            if not param.is_leaf:
                raise ValueError(f"parameter {name!r} must be a leaf, got the result of {param.grad_fn}")
        self._parameters[name] = param

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """Add a tensor that belongs to the module's state but is not trained.

        Args:
            name: the attribute it is found under.
            tensor: the buffer; None reserves the name.
            persistent: part of `state_dict`.

        >>> import cuframe as cf
        >>> from cuframe import nn
        >>> layer = nn.Linear(2, 2)
        >>> layer.register_buffer("mean", cf.zeros(2))
        >>> list(layer.state_dict())
        ['weight', 'bias', 'mean']
        """
        self._check_name("buffer", name, "_buffers")
        if tensor is not None and not isinstance(tensor, Tensor):
            raise TypeError(f"buffer {name!r} must be a Tensor or None, got {type(tensor).__name__}")
        self._buffers[name] = tensor
        if persistent:
            self._transient.discard(name)
        else:
            self._transient.add(name)

    def add_module(self, name: str, module: Module | None) -> None:
        """Add a child module under a name."""
        self._check_name("module", name, "_modules")
        if module is not None and not isinstance(module, Module):
            raise TypeError(f"module {name!r} must be a Module or None, got {type(module).__name__}")
        self._modules[name] = module

    def register_module(self, name: str, module: Module | None) -> None:
        """As `add_module`."""
        self.add_module(name, module)

    def _find(self, target: str, kind: str) -> tuple[Module, str]:
        path, _, name = target.rpartition(".")
        owner = self.get_submodule(path)
        table = getattr(owner, "_" + kind + "s")
        if name not in table:
            raise AttributeError(f"{type(owner).__name__} has no {kind} {name!r} (in {target!r})")
        return owner, name

    def get_submodule(self, target: str) -> Module:
        """The module at a dotted path such as `"encoder.layers.0"`; `""` is the module itself.

        >>> from cuframe import nn
        >>> model = nn.Sequential(nn.Sequential(nn.Linear(2, 3)))
        >>> model.get_submodule("0.0")
        Linear(in_features=2, out_features=3, bias=True)
        """
        module = self
        for name in target.split(".") if target else ():
            child = module._modules.get(name)
            if child is None:
                raise AttributeError(f"{type(module).__name__} has no module {name!r} (in {target!r})")
            module = child
        return module

    def set_submodule(self, target: str, module: Module) -> None:
        """Put `module` at a dotted path whose parent exists."""
        path, _, name = target.rpartition(".")
        self.get_submodule(path).add_module(name, module)

    def get_parameter(self, target: str) -> Parameter:
        """The parameter at a dotted path such as `"encoder.weight"`."""
        owner, name = self._find(target, "parameter")
        return owner._parameters[name]  # type: ignore[return-value]

    def get_buffer(self, target: str) -> Tensor:
        """The buffer at a dotted path."""
        owner, name = self._find(target, "buffer")
        return owner._buffers[name]  # type: ignore[return-value]

    # -- what is inside -----------------------------------------------------------------------------------------
    def named_modules(
        self, memo: set[Module] | None = None, prefix: str = "", remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Module]]:
        """This module and all below it with their dotted names, parents first, each once unless told otherwise."""
        memo = set() if memo is None else memo
        if self in memo:
            return
        if remove_duplicate:
            memo.add(self)
        yield prefix, self
        for name, child in self._modules.items():
            if child is not None:
                yield from child.named_modules(memo, f"{prefix}.{name}" if prefix else name, remove_duplicate)

    def modules(self) -> Iterator[Module]:
        """This module and all below it, each once."""
        for _, module in self.named_modules():
            yield module

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """The direct children with their names, each once."""
        seen = set()
        for name, child in self._modules.items():
            if child is not None and child not in seen:
                seen.add(child)
                yield name, child

    def children(self) -> Iterator[Module]:
        """The direct children, each once."""
        for _, child in self.named_children():
            yield child

    def _named(self, table: str, prefix: str, recurse: bool, remove_duplicate: bool) -> Iterator[tuple[str, Any]]:
        seen: set[int] = set()
        if recurse:
            modules = self.named_modules(prefix=prefix, remove_duplicate=remove_duplicate)
        else:
            modules = iter([(prefix, self)])
        for path, module in modules:
            for name, tensor in getattr(module, table).items():
                if tensor is None or id(tensor) in seen:
                    continue
                if remove_duplicate:
                    seen.add(id(tensor))
                yield (f"{path}.{name}" if path else name), tensor

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Parameter]]:
        """The parameters with their dotted names.

        Args:
            prefix: put before every name, with a dot.
            recurse: those of the modules below as well.
            remove_duplicate: a shared parameter once, under its first name.

        >>> from cuframe import nn
        >>> [(name, p.shape) for name, p in nn.Linear(2, 3).named_parameters()]
        [('weight', cuframe.Size([3, 2])), ('bias', cuframe.Size([3]))]
        """
        return self._named("_parameters", prefix, recurse, remove_duplicate)

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        """The parameters, each once: what an optimizer is given."""
        for _, param in self.named_parameters(recurse=recurse):
            yield param

    def named_buffers(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Tensor]]:
        """The buffers with their dotted names; arguments as in `named_parameters`."""
        return self._named("_buffers", prefix, recurse, remove_duplicate)

    def buffers(self, recurse: bool = True) -> Iterator[Tensor]:
        """The buffers, each once."""
        for _, buffer in self.named_buffers(recurse=recurse):
            yield buffer

    # -- state --------------------------------------------------------------------------------------------------
    def get_extra_state(self) -> Any:
        """State beyond parameters and buffers; a subclass that has some defines this and `set_extra_state`."""
        raise NotImplementedError(f"{type(self).__name__}: get_extra_state is not defined")

    def set_extra_state(self, state: Any) -> None:
        """Take back what `get_extra_state` gave."""
        raise NotImplementedError(f"{type(self).__name__}: set_extra_state is not defined")

    def _state_names(self) -> list[str]:
        """The keys of this module's own entries, in the order of `state_dict`."""
        names = [name for name, p in self._parameters.items() if p is not None]
        names += [name for name, b in self._buffers.items() if b is not None and name not in self._transient]
        if type(self).get_extra_state is not Module.get_extra_state:
            names.append("_extra_state")
        return names

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        """Put this module's own entries, not those of its children, into `destination`."""
        for name in self._state_names():
            if name == "_extra_state":
                destination[prefix + name] = self.get_extra_state()
            else:
                table = self._parameters if name in self._parameters else self._buffers
                tensor = table[name]
                destination[prefix + name] = tensor if keep_vars else tensor.detach()  # type: ignore[union-attr]

    def state_dict(
        self, *, destination: dict[str, Any] | None = None, prefix: str = "", keep_vars: bool = False
    ) -> OrderedDict[str, Any]:
        """All parameters and persistent buffers by their dotted names, sharing the module's memory.

        Args:
            destination: put the entries into this dict, which is then returned.
            prefix: put before every name.
            keep_vars: the Parameters themselves instead of detached tensors.

        >>> from cuframe import nn
        >>> {name: t.shape for name, t in nn.Sequential(nn.Linear(2, 3)).state_dict().items()}
        {'0.weight': cuframe.Size([3, 2]), '0.bias': cuframe.Size([3])}
        """
        result: Any = OrderedDict() if destination is None else destination
        for hook, _ in self._hooks.get("state_dict_pre", {}).values():
            hook(self, prefix, keep_vars)
        self._save_to_state_dict(result, prefix, keep_vars)
        for name, child in self._modules.items():
            if child is not None:
                child.state_dict(destination=result, prefix=f"{prefix}{name}.", keep_vars=keep_vars)
        for hook, _ in self._hooks.get("state_dict_post", {}).values():
            if hook(self, result, prefix, {}) is not None:
                raise RuntimeError("a state_dict post-hook must return None; it may edit the state_dict it is given")
        return result

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> IncompatibleKeys:
        """Copy values into the parameters and buffers of these names.

        Args:
            state_dict: Tensors or arrays by name, as `state_dict` gives them. They are cast and moved as needed.
            strict: the names must be exactly those of this module.
            assign: take the given tensors themselves in place of the old ones, with their dtype and device.

        Returns:
            A named tuple `(missing_keys, unexpected_keys)`.

        Raises:
            RuntimeError: names (with `strict`) or shapes do not fit. The message lists all of them, and nothing has
                been changed.

        >>> import cuframe as cf
        >>> from cuframe import nn
        >>> first, second = nn.Linear(2, 3), nn.Linear(2, 3)
        >>> second.load_state_dict(first.state_dict())
        <All keys matched successfully>
        >>> cf.equal(first.weight, second.weight)
        True
        """
        return load(self, state_dict, strict, assign)

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        """Check this module's own entries and plan their loading (`local_metadata["plan"]`).

        A subclass that reads older layouts edits `state_dict` and then calls this.
        """
        plan, assign = local_metadata["plan"], local_metadata["assign"]
        for name in self._state_names():
            key = prefix + name
            if key not in state_dict:
                if strict:
                    missing_keys.append(key)
                continue
            value = state_dict[key]
            if name == "_extra_state":
                plan.append(lambda value=value: self.set_extra_state(value))
                continue
            table: dict[str, Any] = self._parameters if name in self._parameters else self._buffers
            tensor = table[name]
            source = array_of(value)
            if source is None:
                error_msgs.append(f"{key}: expected a Tensor or an array, got {type(value).__name__}")
            elif source.shape != tensor.array.shape and (tensor.array.ndim or source.shape != (1,)):
                error_msgs.append(
                    f"{key}: size mismatch, the state_dict has shape {tuple(source.shape)}, "
                    f"the module {tuple(tensor.array.shape)}"
                )
            elif assign:
                plan.append(plan_assign(table, name, tensor, value, source))
            else:
                plan.append(plan_copy(tensor, source))

    # -- modes and conversion -----------------------------------------------------------------------------------
    def train(self: M, mode: bool = True) -> M:
        """Set this module and all below it to training mode (or evaluation mode); returns self.

        >>> from cuframe import nn
        >>> model = nn.Sequential(nn.Dropout(0.5))
        >>> model.train(False)[0].training
        False
        """
        if not isinstance(mode, bool):
            raise ValueError(f"train: mode must be a bool, got {type(mode).__name__}")
        self.training = mode
        for child in self.children():
            child.train(mode)
        return self

    def eval(self: M) -> M:
        """Set evaluation mode: dropout and the like are off; returns self.

        >>> import cuframe as cf
        >>> from cuframe import nn
        >>> nn.Dropout(0.5).eval()(cf.ones(2))
        tensor([1., 1.])
        """
        return self.train(False)

    def requires_grad_(self: M, requires_grad: bool = True) -> M:
        """Set `requires_grad` of all parameters; returns self.

        >>> from cuframe import nn
        >>> frozen = nn.Linear(2, 2).requires_grad_(False)
        >>> any(p.requires_grad for p in frozen.parameters())
        False
        """
        for param in self.parameters():
            param.requires_grad_(requires_grad)
        return self

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop the gradients of all parameters, or fill them with zeros.

        >>> import cuframe as cf
        >>> from cuframe import nn
        >>> layer = nn.Linear(2, 1)
        >>> layer(cf.ones(1, 2)).sum().backward()
        >>> layer.zero_grad()
        >>> layer.weight.grad is None
        True
        """
        for param in self.parameters():
            grad = param.grad
            if set_to_none or grad is None:
                param.grad = None
            elif getattr(grad, "is_sparse", False) or grad.node is not None:
                param.grad = Tensor(backend_of(param.array).xp.zeros_like(param.array))
            else:
                grad.array[...] = 0
                versions.written(grad.array, "zero_grad")

    def apply(self: M, fn: Callable[[Module], Any]) -> M:
        """Call `fn` on all modules below and then on this one, as one does to initialize weights; returns self.

        >>> from cuframe import nn
        >>> model = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1))
        >>> _ = model.apply(lambda m: nn.init.ones_(m.weight) if isinstance(m, nn.Linear) else None)
        >>> model[1].weight.item()
        1.0
        """
        for child in self.children():
            child.apply(fn)
        fn(self)
        return self

    def _apply(self: M, fn: Callable[[Tensor], Tensor]) -> M:
        """Replace the array of every parameter, gradient and buffer by that of `fn(tensor)`; returns self."""
        for child in self.children():
            child._apply(fn)
        for param in self._parameters.values():
            if param is not None:
                grad = param.grad
                param.data = fn(param.detach())
                if isinstance(grad, Tensor):
                    param.grad = fn(grad)
                elif grad is not None:
                    rows = fn(Tensor(grad.rows)).array.astype(grad.rows.dtype)
                    param.grad = type(grad)(rows, fn(Tensor(grad.data)).array, grad.shape)
        for name, buffer in self._buffers.items():
            if buffer is not None:
                self._buffers[name] = fn(buffer)
        return self

    def to(self: M, *args: Any, **kwargs: Any) -> M:
        """Move all parameters and buffers and cast the floating-point ones; in place, returns self.

        Called as `to(device)`, `to(dtype)`, `to(device, dtype)` or `to(tensor)`.

        Args:
            device: such as `"cuda:0"`.
            dtype: a floating-point dtype.
            tensor: its device and dtype are taken.

        >>> import cuframe as cf
        >>> from cuframe import nn
        >>> layer = nn.Linear(2, 2).to(cf.float64)
        >>> layer.weight.dtype
        dtype('float64')
        """
        device, dtype = _parse_to(*args, **kwargs)

        def convert(t: Tensor) -> Tensor:
            array = t.array
            if dtype is not None and is_floating(array.dtype) and array.dtype != dtype:
                array = array.astype(dtype)
            if device is not None:
                here, there = backend_of(array), backend_for(device)
                if here is there:
                    array = here.copy_to(array, device)
                else:
                    array = there.from_host(here.to_host(array), device)
            return t if array is t.array else Tensor(array)

        return self._apply(convert)

    def cpu(self: M) -> M:
        """Move everything to the CPU; returns self."""
        return self.to("cpu")

    def cuda(self: M, device: int | str | Device | None = None) -> M:
        """Move everything to a CUDA device, the first by default; returns self."""
        return self.to(Device("cuda", device) if isinstance(device, int) else Device(device or "cuda"))

    def type(self: M, dst_type: Any) -> M:
        """Cast all parameters and buffers, whatever their dtype; returns self."""
        dtype = as_dtype(dst_type)
        return self._apply(lambda t: Tensor(t.array.astype(dtype)))

    def float(self: M) -> M:
        """Cast floating-point parameters and buffers to float32; returns self."""
        return self.to(dtype="float32")

    def double(self: M) -> M:
        """Cast floating-point parameters and buffers to float64; returns self."""
        return self.to(dtype="float64")

    def half(self: M) -> M:
        """Cast floating-point parameters and buffers to float16; returns self."""
        return self.to(dtype="float16")

    def bfloat16(self: M) -> M:
        """Cast floating-point parameters and buffers to bfloat16; returns self."""
        return self.to(dtype="bfloat16")

    # -- hooks --------------------------------------------------------------------------------------------------
    def register_forward_pre_hook(
        self, hook: Callable[..., Any], *, prepend: bool = False, with_kwargs: bool = False
    ) -> HookHandle:
        """Call `hook(module, args)` before every forward; what it returns, if not None, are the new arguments.

        Args:
            hook: with `with_kwargs` it is called as `hook(module, args, kwargs)` and returns both or None.
            prepend: before the hooks registered so far.
        """
        return _hooks.register(self._hooks, "forward_pre", hook, prepend, with_kwargs=with_kwargs)

    def register_forward_hook(
        self,
        hook: Callable[..., Any],
        *,
        prepend: bool = False,
        with_kwargs: bool = False,
        always_call: bool = False,
    ) -> HookHandle:
        """Call `hook(module, args, output)` after every forward; what it returns, if not None, is the new output.

        Args:
            hook: with `with_kwargs` it is called as `hook(module, args, kwargs, output)`.
            prepend: before the hooks registered so far.
            always_call: also (with output None) when forward raised.

        >>> import cuframe as cf
        >>> from cuframe import nn
        >>> layer = nn.ReLU()
        >>> handle = layer.register_forward_hook(lambda module, inputs, output: print(output.shape))
        >>> _ = layer(cf.ones(2, 3))
        cuframe.Size([2, 3])
        >>> handle.remove()
        """
        return _hooks.register(
            self._hooks, "forward", hook, prepend, with_kwargs=with_kwargs, always_call=always_call
        )

    def register_full_backward_hook(
        self, hook: Callable[..., Any], prepend: bool = False
    ) -> HookHandle:
        """Call `hook(module, grad_input, grad_output)` when the gradients for the inputs have been computed.

        Both are tuples with one entry for each positional argument or output, None where it is no tensor or got no
        gradient. What the hook returns, if not None, replaces `grad_input`.
        """
        return _hooks.register(self._hooks, "backward", hook, prepend)

    def register_full_backward_pre_hook(
        self, hook: Callable[..., Any], prepend: bool = False
    ) -> HookHandle:
        """Call `hook(module, grad_output)` before backward goes through the module; it may replace `grad_output`."""
        return _hooks.register(self._hooks, "backward_pre", hook, prepend)

    def register_state_dict_pre_hook(self, hook: Callable[..., None]) -> HookHandle:
        """Call `hook(module, prefix, keep_vars)` before `state_dict` collects."""
        return _hooks.register(self._hooks, "state_dict_pre", hook)

    def register_state_dict_post_hook(self, hook: Callable[..., None]) -> HookHandle:
        """Call `hook(module, state_dict, prefix, local_metadata)` after `state_dict` collected; it may edit it."""
        return _hooks.register(self._hooks, "state_dict_post", hook)

    def register_load_state_dict_pre_hook(self, hook: Callable[..., None]) -> HookHandle:
        """Call `hook(module, state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs)`
        before this module reads its entries; it may edit the state_dict, which is a copy."""
        return _hooks.register(self._hooks, "load_state_dict_pre", hook)

    def register_load_state_dict_post_hook(self, hook: Callable[..., None]) -> HookHandle:
        """Call `hook(module, incompatible_keys)` after `load_state_dict` has loaded."""
        return _hooks.register(self._hooks, "load_state_dict_post", hook)

    # -- text ---------------------------------------------------------------------------------------------------
    def _get_name(self) -> str:
        return type(self).__name__

    def extra_repr(self) -> str:
        """The settings shown in `repr`, between the parentheses."""
        return ""

    def __repr__(self) -> str:
        extra = self.extra_repr()
        lines = extra.split("\n") if extra else []
        children = [f"({name}): " + _indent(repr(child)) for name, child in self._modules.items()]
        if not children and len(lines) <= 1:
            return f"{self._get_name()}({extra})"
        return f"{self._get_name()}(\n  " + "\n  ".join(lines + children) + "\n)"


def _indent(text: str) -> str:
    return text.replace("\n", "\n  ")


def _parse_to(*args: Any, **kwargs: Any) -> tuple[Device | None, Any]:
    """The device and dtype that the arguments of `Module.to` mean."""
    device, dtype = kwargs.pop("device", None), kwargs.pop("dtype", None)
    tensor = kwargs.pop("tensor", None)
    kwargs.pop("non_blocking", None)
    if kwargs:
        raise TypeError(f"to: unknown argument(s) {', '.join(sorted(kwargs))}")
    for value in (*args, tensor):
        if value is None or isinstance(value, bool):
            continue
        if isinstance(value, Tensor):
            device, dtype = value.device, value.dtype
        elif isinstance(value, Device) or (isinstance(value, str) and value.partition(":")[0] in device_types()):
            device = value
        elif isinstance(value, int):
            device = Device("cuda", value)
        else:
            dtype = value
    if dtype is not None:
        dtype = target_dtype(dtype)
        if not is_floating(dtype):
            raise TypeError(f"to: a module can be cast to floating point dtypes only, got {dtype.name}")
    return (None if device is None else Device(device)), dtype
