"""Modules that hold modules or parameters: Sequential, ModuleList, ModuleDict, ParameterList, ParameterDict."""

from __future__ import annotations

import operator
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, SupportsIndex, overload

from ..tensor import Parameter, Tensor
from .module import Module

__all__ = ["ModuleDict", "ModuleList", "ParameterDict", "ParameterList", "Sequential"]


def _position(name: str, index: SupportsIndex, length: int) -> int:
    i = operator.index(index)
    if not -length <= i < length:
        raise IndexError(f"{name}: index {i} is out of range for {length} item(s)")
    return i % length


def _need_module(name: str, module: Any) -> None:
    if not isinstance(module, Module):
        hint = ""
        if isinstance(module, (list, tuple)):
            hint = f"; give them one by one: {name}(*modules)"
        elif callable(module):
            hint = "; functions have modules of their own, nn.ReLU() for F.relu"
        raise TypeError(f"{name}: expected a Module, got {type(module).__name__}{hint}")


class _Row(Module):
    """What Sequential and ModuleList share: children named 0, 1, 2, ..."""

    def _list(self) -> list[Module]:
        return list(self._modules.values())  # type: ignore[arg-type]

    def _replace(self, modules: Iterable[Module]) -> None:
        modules = list(modules)
        for module in modules:
            _need_module(type(self).__name__, module)
        self._modules.clear()
        self._modules.update((str(i), m) for i, m in enumerate(modules))

    def _name_at(self, index: SupportsIndex) -> str:
        names = list(self._modules)
        return names[_position(type(self).__name__, index, len(names))]

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[Module]:
        return iter(self._modules.values())  # type: ignore[arg-type]

    def __contains__(self, module: object) -> bool:
        return any(m is module for m in self._modules.values())

    def __setitem__(self, index: SupportsIndex, module: Module) -> None:
        _need_module(type(self).__name__, module)
        self._modules[self._name_at(index)] = module

    def __delitem__(self, index: SupportsIndex | slice) -> None:
        names = list(self._modules)
        gone = set(names[index]) if isinstance(index, slice) else {self._name_at(index)}
        kept = [m for name, m in self._modules.items() if name not in gone]
        self._replace(kept)  # type: ignore[arg-type]

    def __dir__(self) -> list[str]:
        return [name for name in super().__dir__() if not name.isdigit()]

    def append(self, module: Module) -> Any:
        """Add a module at the end; returns self."""
        _need_module(f"{type(self).__name__}.append", module)
        self.add_module(str(len(self)), module)
        return self

    def extend(self, modules: Iterable[Module]) -> Any:
        """Add several modules at the end; returns self."""
        if isinstance(modules, (str, bytes)) or not isinstance(modules, Iterable):
            raise TypeError(f"{type(self).__name__}.extend: expected modules, got {type(modules).__name__}")
        for module in list(modules):
            self.append(module)
        return self

    def insert(self, index: int, module: Module) -> Any:
        """Put a module before position `index`; returns self."""
        _need_module(f"{type(self).__name__}.insert", module)
        if not -len(self) <= index <= len(self):
            raise IndexError(f"{type(self).__name__}.insert: index {index} is out of range for {len(self)} item(s)")
        modules = self._list()
        modules.insert(index, module)
        self._replace(modules)
        return self

    def pop(self, index: int | slice = -1) -> Any:
        """Take a module out and return it."""
        module = self[index]  # type: ignore[index]
        del self[index]
        return module


class Sequential(_Row):
    """Modules called one after the other, each with the result of the one before.

    Args:
        *modules: the modules, or one OrderedDict from names to modules.

    >>> from cuframe import nn
    >>> nn.Sequential(nn.Sequential(), nn.Sequential())
    Sequential(
      (0): Sequential()
      (1): Sequential()
    )
    """

    def __init__(self, *modules: Any) -> None:
        super().__init__()
        if len(modules) == 1 and isinstance(modules[0], (dict, OrderedDict)):
            for name, module in modules[0].items():
                self.add_module(name, module)
        else:
            for i, module in enumerate(modules):
                _need_module("Sequential", module)
                self.add_module(str(i), module)

    def forward(self, input: Any) -> Any:
        """`input` through all modules."""
        for module in self._modules.values():
            input = module(input)  # type: ignore[misc]
        return input

    @overload
    def __getitem__(self, index: SupportsIndex) -> Module: ...
    @overload
    def __getitem__(self, index: slice) -> Sequential: ...
    def __getitem__(self, index: SupportsIndex | slice) -> Module:
        if isinstance(index, slice):
            return type(self)(OrderedDict(list(self._modules.items())[index]))
        return self._modules[self._name_at(index)]  # type: ignore[return-value]

    def __add__(self, other: Sequential) -> Sequential:
        if not isinstance(other, Sequential):
            return NotImplemented
        return Sequential(*self, *other)

    def __iadd__(self, other: Sequential) -> Sequential:
        if not isinstance(other, Sequential):
            return NotImplemented
        return self.extend(other)

    def __mul__(self, times: int) -> Sequential:
        if not isinstance(times, int) or isinstance(times, bool):
            return NotImplemented
        if times < 1:
            raise ValueError(f"Sequential: can be repeated at least once, got {times}")
        return Sequential(*(self._list() * times))

    __rmul__ = __mul__

    def __imul__(self, times: int) -> Sequential:
        self._replace((self * times)._list())
        return self


class ModuleList(_Row):
    """A list of modules, which are found by `parameters()` and the rest.

    Args:
        modules: to begin with.

    >>> from cuframe import nn
    >>> len(nn.ModuleList([nn.Sequential()]) + [nn.Sequential()])
    2
    """

    def __init__(self, modules: Iterable[Module] | None = None) -> None:
        super().__init__()
        if modules is not None:
            self.extend(modules)

    @overload
    def __getitem__(self, index: SupportsIndex) -> Module: ...
    @overload
    def __getitem__(self, index: slice) -> ModuleList: ...
    def __getitem__(self, index: SupportsIndex | slice) -> Module:
        if isinstance(index, slice):
            return type(self)(self._list()[index])
        return self._modules[self._name_at(index)]  # type: ignore[return-value]

    def __add__(self, other: Iterable[Module]) -> ModuleList:
        return ModuleList([*self, *other])

    def __iadd__(self, other: Iterable[Module]) -> ModuleList:
        return self.extend(other)

    def __repr__(self) -> str:
        """Equal neighbours are shown once, with their count."""
        if not self._modules:
            return f"{self._get_name()}()"
        lines: list[tuple[int, int, str]] = []
        for i, module in enumerate(self):
            text = repr(module)
            if lines and lines[-1][2] == text:
                lines[-1] = (lines[-1][0], i, text)
            else:
                lines.append((i, i, text))
        shown = []
        for first, last, text in lines:
            label = f"({first})" if first == last else f"({first}-{last}): {last - first + 1} x"
            separator = ": " if first == last else " "
            shown.append(label + separator + text.replace("\n", "\n  "))
        return f"{self._get_name()}(\n  " + "\n  ".join(shown) + "\n)"

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """A list cannot be called; loop over it."""
        raise NotImplementedError("ModuleList cannot be called: loop over its modules, or use Sequential")


class _Names:
    """Dict methods on the table that `_table` names."""

    _table: str

    def _items(self) -> dict[str, Any]:
        return self.__dict__[self._table]

    def __len__(self) -> int:
        return len(self._items())

    def __iter__(self) -> Iterator[str]:
        return iter(self._items())

    def __contains__(self, key: object) -> bool:
        return key in self._items()

    def __getitem__(self, key: str) -> Any:
        return self._items()[key]

    def keys(self) -> Iterable[str]:
        """The names."""
        return self._items().keys()

    def values(self) -> Iterable[Any]:
        """What they name."""
        return self._items().values()

    def items(self) -> Iterable[tuple[str, Any]]:
        """Names and what they name."""
        return self._items().items()


class ModuleDict(_Names, Module):
    """A dict of modules, which are found by `parameters()` and the rest; it keeps the order of insertion.

    Args:
        modules: a mapping, or pairs of name and module.

    >>> from cuframe import nn
    >>> list(nn.ModuleDict({"a": nn.Sequential()}))
    ['a']
    """

    _table = "_modules"

    def __init__(self, modules: Mapping[str, Module] | Iterable[tuple[str, Module]] | None = None) -> None:
        super().__init__()
        if modules is not None:
            self.update(modules)

    def __setitem__(self, key: str, module: Module) -> None:
        self.add_module(key, module)

    def __delitem__(self, key: str) -> None:
        del self._modules[key]

    def clear(self) -> None:
        """Remove all."""
        self._modules.clear()

    def pop(self, key: str) -> Module:
        """Take a module out and return it."""
        module = self[key]
        del self[key]
        return module

    def update(self, modules: Mapping[str, Module] | Iterable[tuple[str, Module]]) -> None:
        """Add or replace modules from a mapping or pairs."""
        if not isinstance(modules, (Mapping, Iterable)) or isinstance(modules, str):
            raise TypeError(f"ModuleDict.update: expected a mapping or pairs, got {type(modules).__name__}")
        for key, module in modules.items() if hasattr(modules, "items") else modules:
            self[key] = module

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """A dict cannot be called; call its modules."""
        raise NotImplementedError("ModuleDict cannot be called: call the modules in it")


def _as_parameter(value: Any) -> Any:
    """Tensors become Parameters; whatever else stays itself, as in PyTorch."""
    return Parameter(value) if isinstance(value, Tensor) and not isinstance(value, Parameter) else value


def _described(label: str, value: Any) -> str:
    if isinstance(value, Tensor):
        kind = "Parameter" if isinstance(value, Parameter) else "Tensor"
        size = "x".join(str(n) for n in value.shape)
        where = "" if value.device.type == "cpu" else f" ({value.device})"
        return f"    ({label}): {kind} containing: [{value.dtype.name} of size {size}{where}]"
    return f"    ({label}): Object of type: {type(value).__name__}"


class ParameterList(Module):
    """A list of parameters. Tensors put into it become Parameters; other values are kept, but not trained.

    Args:
        values: to begin with.

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> [p.shape[0] for p in nn.ParameterList([cf.tensor([1.0]), cf.tensor([1.0, 2.0])])]
    [1, 2]
    """

    def __init__(self, values: Iterable[Any] | None = None) -> None:
        super().__init__()
        self._size = 0
        if values is not None:
            self.extend(values)

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[Any]:
        return (getattr(self, str(i)) for i in range(self._size))

    @overload
    def __getitem__(self, index: SupportsIndex) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> ParameterList: ...
    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return type(self)(list(self)[index])
        return getattr(self, str(_position("ParameterList", index, self._size)))

    def __setitem__(self, index: SupportsIndex, value: Any) -> None:
        setattr(self, str(_position("ParameterList", index, self._size)), _as_parameter(value))

    def append(self, value: Any) -> ParameterList:
        """Add a value at the end; returns self."""
        setattr(self, str(self._size), _as_parameter(value))
        self._size += 1
        return self

    def extend(self, values: Iterable[Any]) -> ParameterList:
        """Add several values at the end; returns self."""
        if not isinstance(values, Iterable) or isinstance(values, Tensor):
            raise TypeError(f"ParameterList.extend: expected a list or the like, got {type(values).__name__}")
        for value in list(values):
            self.append(value)
        return self

    def __iadd__(self, values: Iterable[Any]) -> ParameterList:
        return self.extend(values)

    def __dir__(self) -> list[str]:
        return [name for name in super().__dir__() if not name.isdigit()]

    def __repr__(self) -> str:
        lines = [_described(str(i), value) for i, value in enumerate(self)]
        return "\n".join([f"{self._get_name()}(", *lines, ")"]) if lines else f"{self._get_name()}()"

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """A list cannot be called."""
        raise NotImplementedError("ParameterList cannot be called: use its parameters")


class ParameterDict(Module):
    """A dict of parameters in the order of insertion. Tensors put into it become Parameters; other values are kept.

    Args:
        parameters: a mapping, or pairs of name and value.

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> d = nn.ParameterDict({"scale": cf.tensor([1.0])})
    >>> "scale" in d, len(list(d.parameters()))
    (True, 1)
    """

    def __init__(self, parameters: Mapping[str, Any] | Iterable[tuple[str, Any]] | None = None) -> None:
        super().__init__()
        self._keys: dict[str, None] = {}
        if parameters is not None:
            self.update(parameters)

    def __len__(self) -> int:
        return len(self._keys)

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __reversed__(self) -> Iterator[str]:
        return reversed(list(self._keys))

    def __contains__(self, key: object) -> bool:
        return key in self._keys

    def __getitem__(self, key: str) -> Any:
        if key not in self._keys:
            raise KeyError(key)
        return getattr(self, key)

    def __setitem__(self, key: str, value: Any) -> None:
        if not isinstance(key, str):
            raise TypeError(f"ParameterDict: a key must be a string, got {type(key).__name__}")
        if key not in self._keys and hasattr(self, key):
            raise KeyError(f"ParameterDict already has an attribute {key!r}, which cannot be a key")
        setattr(self, key, _as_parameter(value))
        self._keys[key] = None

    def __delitem__(self, key: str) -> None:
        if key not in self._keys:
            raise KeyError(key)
        del self._keys[key]
        delattr(self, key)

    def keys(self) -> Iterable[str]:
        """The names."""
        return self._keys.keys()

    def values(self) -> Iterable[Any]:
        """The parameters."""
        return (self[key] for key in self._keys)

    def items(self) -> Iterable[tuple[str, Any]]:
        """Names and parameters."""
        return ((key, self[key]) for key in self._keys)

    def get(self, key: str, default: Any = None) -> Any:
        """The parameter of that name, or `default`."""
        return self[key] if key in self._keys else default

    def setdefault(self, key: str, default: Any = None) -> Any:
        """The parameter of that name; if there is none, `default` is put there."""
        if key not in self._keys:
            self[key] = default
        return self[key]

    def pop(self, key: str) -> Any:
        """Take a parameter out and return it."""
        value = self[key]
        del self[key]
        return value

    def popitem(self) -> tuple[str, Any]:
        """Take the newest name and parameter out and return them."""
        key = list(self._keys)[-1]
        return key, self.pop(key)

    def clear(self) -> None:
        """Remove all."""
        for key in list(self._keys):
            del self[key]

    def copy(self) -> ParameterDict:
        """Another dict of the same parameters."""
        return ParameterDict(self.items())

    def fromkeys(self, keys: Iterable[str], default: Any = None) -> ParameterDict:
        """A dict with `default` for each key."""
        return ParameterDict((key, default) for key in keys)

    def update(self, parameters: Mapping[str, Any] | ParameterDict | Iterable[tuple[str, Any]]) -> None:
        """Add or replace parameters from a mapping or pairs; those of a plain dict in the order of their names, as in
        PyTorch."""
        if not hasattr(parameters, "items") and (
            not isinstance(parameters, Iterable) or isinstance(parameters, (str, Tensor))
        ):
            raise TypeError(f"ParameterDict.update: expected a mapping or pairs, got {type(parameters).__name__}")
        pairs: Any = parameters
        if isinstance(parameters, (OrderedDict, ParameterDict)):
            pairs = parameters.items()
        elif isinstance(parameters, Mapping):
            pairs = sorted(parameters.items())
        for key, value in pairs:
            self[key] = value

    def __or__(self, other: ParameterDict) -> ParameterDict:
        return ParameterDict([*self.items(), *other.items()])

    def __ior__(self, other: ParameterDict) -> ParameterDict:
        self.update(other)
        return self

    def __repr__(self) -> str:
        lines = [_described(key, value) for key, value in self.items()]
        return "\n".join([f"{self._get_name()}(", *lines, ")"]) if lines else f"{self._get_name()}()"

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """A dict cannot be called."""
        raise NotImplementedError("ParameterDict cannot be called: use its parameters")
