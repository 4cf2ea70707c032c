"""Parametrizations: a parameter computed from others, as a symmetric matrix is from its upper triangle.

Note [How a module is parametrized]
    The tensor moves into `module.parametrizations[name]`, as `original`, and the module gets a class of its own, a
    subclass of its old one, with a property in the tensor's place that computes it. Attributes of one object cannot
    be computed otherwise, and other objects of the old class stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from ...autograd import versions
from ...autograd.modes import no_grad
from ...tensor import Parameter, Tensor
from ..containers import ModuleDict, ModuleList
from ..module import Module

__all__ = [
    "ParametrizationList", "cached", "is_parametrized", "register_parametrization", "remove_parametrizations",
    "type_before_parametrizations",
]  # fmt: skip

# (id, name) -> module and tensor; the module is kept, so that no other one, a later replica say, gets its id
_cache: dict[tuple[int, str], tuple[Module, Tensor]] = {}
_cache_depth = 0


@contextmanager
def cached() -> Iterator[None]:
    """Within this context every parametrized tensor is computed once, at its first use.

    >>> from cuframe.nn.utils import parametrize
    >>> with parametrize.cached():
    ...     pass
    """
    global _cache_depth
    _cache_depth += 1
    try:
        yield
    finally:
        _cache_depth -= 1
        if not _cache_depth:
            _cache.clear()


class ParametrizationList(ModuleList):
    """The parametrizations of one tensor, applied one after the other, and the tensor they begin with.

    That is `original`; or `original0`, `original1`, ... where `right_inverse` of the first gives several.

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> m = nn.utils.parametrizations.weight_norm(nn.Linear(2, 3))
    >>> table = m.parametrizations.weight
    >>> type(table).__name__, table.original0.shape, table.original1.shape
    ('ParametrizationList', cuframe.Size([3, 1]), cuframe.Size([3, 2]))
    """

    def __init__(self, modules: Sequence[Module], original: Tensor, unsafe: bool = False) -> None:
        super().__init__(modules)
        self.unsafe = unsafe
        value: Any = original
        with no_grad():
            for module in reversed(list(modules)):
                value = _inverted(module, value)
        trained = isinstance(original, Parameter)
        if isinstance(value, Tensor):
            self.is_tensor = True
            self.ntensors = 1
            if trained:
                # The very Parameter stays, so that an optimizer that has it goes on with it.
                if value is not original:
                    original.data = value
                self.original = original
            else:
                self.register_buffer("original", value)
        elif isinstance(value, (tuple, list)) and value and all(isinstance(v, Tensor) for v in value):
            self.is_tensor = False
            self.ntensors = len(value)
            for i, v in enumerate(value):
                if trained:
                    setattr(self, f"original{i}", Parameter(v.detach(), requires_grad=original.requires_grad))
                else:
                    self.register_buffer(f"original{i}", v)
        else:
            raise ValueError(
                f"register_parametrization: right_inverse must return a Tensor or several, got {type(value).__name__}"
            )

    def _originals(self) -> list[Tensor]:
        if self.is_tensor:
            return [self.original]
        return [getattr(self, f"original{i}") for i in range(self.ntensors)]

    def right_inverse(self, value: Tensor) -> None:
        """Set the originals so that the parametrized tensor becomes `value`: what assigning to it does.

        Raises:
            RuntimeError: a parametrization has no `right_inverse`.
            ValueError: it returned other shapes or another number of tensors.
        """
        with no_grad():
            result: Any = value
            for module in reversed(list(self)):
                if not hasattr(module, "right_inverse"):
                    raise RuntimeError(
                        f"{type(module).__name__} has no right_inverse, so the parametrized tensor cannot be assigned"
                    )
                result = module.right_inverse(result)
            given = [result] if isinstance(result, Tensor) else list(result)
            originals = self._originals()
            if len(given) != len(originals):
                raise ValueError(f"right_inverse must return {len(originals)} tensor(s), got {len(given)}")
            for i, (old, new) in enumerate(zip(originals, given)):
                if new.shape != old.shape or new.dtype != old.dtype:
                    raise ValueError(
                        f"right_inverse: tensor {i} must be {tuple(old.shape)} of {old.dtype.name}, "
                        f"got {tuple(new.shape)} of {new.dtype.name}"
                    )
            for old, new in zip(originals, given):
                old.array[...] = new.array
                versions.written(old.array, "right_inverse")

    def forward(self) -> Tensor:  # type: ignore[override]
        """The parametrized tensor."""
        modules = iter(self)
        x = next(modules)(*self._originals())
        for module in modules:
            x = module(x)
        return x


def is_parametrized(module: Module, tensor_name: str | None = None) -> bool:
    """True if the module has a parametrized tensor, or one of that name.

    Args:
        module: the module.
        tensor_name: of a parameter or buffer; None asks for any.

    >>> from cuframe import nn
    >>> from cuframe.nn.utils import parametrizations, parametrize
    >>> m = parametrizations.orthogonal(nn.Linear(2, 2))
    >>> parametrize.is_parametrized(m), parametrize.is_parametrized(m, "bias")
    (True, False)
    """
    table = module.__dict__.get("_modules", {}).get("parametrizations")
    if not isinstance(table, ModuleDict):
        return False
    return len(table) > 0 if tensor_name is None else tensor_name in table


def type_before_parametrizations(module: Module) -> type:
    """The module's class without its parametrizations.

    >>> from cuframe import nn
    >>> from cuframe.nn.utils import parametrizations, parametrize
    >>> m = parametrizations.orthogonal(nn.Linear(2, 2))
    >>> type(m).__name__, parametrize.type_before_parametrizations(m).__name__
    ('ParametrizedLinear', 'Linear')
    """
    return type(module).__bases__[0] if is_parametrized(module) else type(module)


def _get(name: str) -> Any:
    def get(self: Module) -> Tensor:
        if not _cache_depth:
            return self.parametrizations[name]()
        key = (id(self), name)
        if key not in _cache:
            _cache[key] = self, self.parametrizations[name]()
        return _cache[key][1]

    def put(self: Module, value: Tensor) -> None:
        self.parametrizations[name].right_inverse(value)

    return property(get, put)


def _own_class(module: Module) -> None:
    base = type(module)
    own = {"__reduce_ex__": _reduce, "__module__": base.__module__}
    module.__class__ = type(f"Parametrized{base.__name__}", (base,), own)


def _reduce(self: Module, protocol: Any) -> tuple:
    # The class exists for this object alone: copies make theirs anew.
    return _rebuild, (type(self).__bases__[0], list(self.parametrizations.keys())), self.__dict__


def _rebuild(base: Any, names: list[str]) -> Module:
    module = base.__new__(base)
    _own_class(module)
    for name in names:
        setattr(type(module), name, _get(name))
    return module


def register_parametrization(
    module: Module, tensor_name: str, parametrization: Module, *, unsafe: bool = False
) -> Module:
    """From now on `module.<tensor_name>` is `parametrization(original)`.

    `original` is what the tensor was, or what `parametrization.right_inverse` made of it, unless there is none or it
    raises NotImplementedError; it is found in `module.parametrizations.<tensor_name>`. A second parametrization of the
    tensor is applied to the result of the first. Assigning to the tensor goes through `right_inverse`.

    Args:
        module: that has the parameter or buffer.
        tensor_name: its name.
        parametrization: from the original(s) to the tensor, of the same shape and dtype.
        unsafe: skip the checks of shape and dtype; the parametrization may then change them.

    Returns:
        The module.

    Raises:
        ValueError: there is no such tensor, or the parametrization changes shape or dtype. Nothing is changed then.

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> from cuframe.nn.utils import parametrize
    >>> class Double(nn.Module):
    ...     def forward(self, x):
    ...         return 2 * x
    >>> m = nn.ParameterDict({"w": cf.tensor([1.0])})
    >>> m = parametrize.register_parametrization(m, "w", Double())
    >>> m.w.item()
    2.0
    """
    if not isinstance(parametrization, Module):
        raise TypeError(f"register_parametrization: expected a Module, got {type(parametrization).__name__}")
    parametrization.train(module.training)
    if is_parametrized(module, tensor_name):
        table = module.parametrizations[tensor_name]
        if not unsafe:
            value = getattr(module, tensor_name)
            _check_shape(parametrization, value)
        if hasattr(parametrization, "right_inverse"):
            with no_grad():
                given = parametrization.right_inverse(getattr(module, tensor_name))
            if not isinstance(given, Tensor):
                raise ValueError(
                    "register_parametrization: right_inverse of a further parametrization must return one Tensor, "
                    f"got {type(given).__name__}"
                )
            ParametrizationList.right_inverse(table, given)
        table.append(parametrization)
        table.unsafe |= unsafe
        return module
    if tensor_name in module._parameters:
        original: Any = module._parameters[tensor_name]
    else:
        original = module._buffers.get(tensor_name)
    if original is None:
        raise ValueError(
            f"register_parametrization: {type(module).__name__} has no parameter or buffer {tensor_name!r}"
        )
    if not unsafe:
        _check_first(parametrization, original)
    table = ParametrizationList([parametrization], original, unsafe)
    delattr(module, tensor_name)
    if not is_parametrized(module):
        _own_class(module)
        module.parametrizations = ModuleDict()
    setattr(type(module), tensor_name, _get(tensor_name))
    module.parametrizations[tensor_name] = table
    return module


def _inverted(parametrization: Any, value: Any) -> Any:
    """What a parametrization begins with for a tensor of this value: the value itself where it has no inverse."""
    if not hasattr(parametrization, "right_inverse"):
        return value
    try:
        return parametrization.right_inverse(value)
    except NotImplementedError:
        return value


def _check_same(what: str, new: Any, old: Tensor) -> None:
    if not isinstance(new, Tensor):
        raise ValueError(f"register_parametrization: {what} must return a Tensor, got {type(new).__name__}")
    if new.shape != old.shape or new.dtype != old.dtype:
        raise ValueError(
            f"register_parametrization: {what} must keep shape {tuple(old.shape)} and dtype {old.dtype.name}, "
            f"got {tuple(new.shape)} and {new.dtype.name}; unsafe=True allows it"
        )


def _check_shape(parametrization: Module, value: Tensor) -> None:
    with no_grad():
        _check_same("the parametrization", parametrization(value), value)
        if hasattr(parametrization, "right_inverse"):
            _check_same("right_inverse", parametrization.right_inverse(value), value)


def _check_first(parametrization: Module, original: Tensor) -> None:
    """As `_check_shape`, for one whose `right_inverse` may give several tensors."""
    with no_grad():
        given: Any = _inverted(parametrization, original)
        if isinstance(given, Tensor) and given.dtype != original.dtype:
            _check_same("right_inverse", given, original)
        several = given if isinstance(given, (tuple, list)) else (given,)
        _check_same("the parametrization", parametrization(*several), original)


def remove_parametrizations(module: Module, tensor_name: str, leave_parametrized: bool = True) -> Module:
    """Make `module.<tensor_name>` a plain parameter or buffer again.

    Args:
        module: that is parametrized.
        tensor_name: which tensor.
        leave_parametrized: it keeps the value it has now; otherwise it becomes the original.

    Returns:
        The module.

    Raises:
        ValueError: the tensor is not parametrized, or it has several originals and none can take its place.

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> from cuframe.nn.utils import parametrize
    >>> class Symmetric(nn.Module):
    ...     def forward(self, x):
    ...         return x.triu() + x.triu(1).T
    >>> m = parametrize.register_parametrization(nn.Linear(2, 2), "weight", Symmetric())
    >>> m = parametrize.remove_parametrizations(m, "weight")
    >>> type(m.weight).__name__, bool((m.weight == m.weight.T).all())
    ('Parameter', True)
    """
    if not is_parametrized(module, tensor_name):
        raise ValueError(
            f"remove_parametrizations: {tensor_name!r} of {type(module).__name__} is not parametrized"
        )
    table = module.parametrizations[tensor_name]
    first = table._originals()[0]
    if leave_parametrized:
        with no_grad():
            value = getattr(module, tensor_name).detach()
        if table.is_tensor and isinstance(first, Parameter):
            first.data = value.clone() if value.array is first.array else value
            result: Tensor = first
        elif isinstance(first, Parameter):
            result = Parameter(value, requires_grad=first.requires_grad)
        else:
            result = value
    elif table.is_tensor:
        result = first
    else:
        raise ValueError(
            f"remove_parametrizations: {tensor_name!r} has {table.ntensors} originals; leave_parametrized must be True"
        )
    delattr(type(module), tensor_name)
    del module.parametrizations[tensor_name]
    if not len(module.parametrizations):
        delattr(module, "parametrizations")
        module.__class__ = type(module).__bases__[0]
    if isinstance(result, Parameter):
        module.register_parameter(tensor_name, result)
    else:
        module.register_buffer(tensor_name, result)
    return module
