"""The one way a kernel is launched: declared argument types, checked and cast, on whichever device the arrays are.

    SCALE = Kernel("scale.cu", "scale", ("T* x[n]", "float factor", "int64 n"), types={"T": ("float32", "float16")})
    SCALE(blocks, 256, x, 0.5, x.size)

Note [Arguments] An argument is declared as in C: `const T* x[rows, cols]`, `int32* lengths?[N]`, `float eps`.

- Pointers take arrays.  The dtype must be the declared one; a type parameter (`T`) takes that of the first array
  declared with it and so chooses the instance; `acc_t<T>`, in an argument after one of T, is what T accumulates in:
  float64 for float64, else float32.  In brackets stands the shape, for the check and for the reader: names
  are those of scalar arguments, `4*hidden` is a product; the array must have that many elements.  `?` after the name
  allows None, which arrives as a null pointer.  Arrays are C-contiguous, unless `strided` stands in front: such a
  kernel is given the strides as arguments of its own.
- Scalars are cast to the declared type; one that it cannot hold raises.

All arrays must be on one device.  Its type selects the launcher (`register_launcher`), which loads the instance once
and gets the arguments as a packed block, an 8-byte slot each.

Note [Launch cost] A launch is to cost less than 3 us of Python: benchmarks/launch_cost.py.  What the checks depend on
is gathered by functions that are C code throughout: dtype, size, contiguity and device of each array, which are None,
the scalars that shapes are made of, the template's constants.  There are four ways on, each slower than the one before:
all of it is as in the last launch; or as in a launch that passed the checks; or all but the sizes, which are then
compared with the declared shapes; or it goes through all the checks, which have the words for what is wrong, and so
does what cannot be gathered.
"""

from __future__ import annotations

import ctypes
import itertools
import re
import struct
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from math import prod
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np

from cuframe.cuda.sources import Source, find_source, read_source, text_source

__all__ = ["CLUSTERS", "C_NAMES", "Kernel", "Launcher", "Loaded", "accumulator", "declared_kernels", "kernel",
           "launcher_of", "register_launcher"]

# a way to launch: see Loaded
CLUSTERS = 2
C_NAMES = {"float32": "float", "float64": "double", "float16": "half", "bfloat16": "bf16", "int8": "int8",
           "int16": "int16", "int32": "int32", "int64": "int64", "uint8": "uint8", "uint32": "uint32",
           "uint64": "uint64", "bool": "bool"}
_DTYPE_NAMES = {c: dtype for dtype, c in C_NAMES.items()}
# the packed form of a scalar: 8 bytes each
_SCALARS = {"float": "f4x", "double": "d", "int32": "i4x", "uint32": "I4x", "int64": "q", "uint64": "Q", "bool": "?7x"}

_ARGUMENT = re.compile(r"(?P<strided>strided\s+)?(?:const\s+)?(?P<type>acc_t<\w+>|\w+)\s*(?P<star>\*)?\s*(?P<name>\w+)"
                       r"(?P<optional>\?)?\s*(?:\[(?P<shape>[^\]]*)\])?\s*$")


class Loaded(Protocol):
    """An instance of a kernel on one device, ready to run."""

    def __call__(self, grid: tuple[int, int, int], block: tuple[int, int, int], shared: int, params: int,
                 cooperative: int) -> None:
        """Launch on the current stream; `params` is the address of an array of pointers to the arguments.

        `cooperative`: 1 if all blocks are to run at once, CLUSTERS if those of each row of the grid are.
        """


class Launcher(Protocol):
    """What a kind of device does for kernels."""

    @property
    def look(self) -> Callable[[Any], tuple[Any, int, bool, int]]:
        """What tells launches apart: dtype, size, whether C-contiguous, device.

        AttributeError for another kind of array.  `operator.attrgetter` makes one that takes the time of a single call.
        """

    def device(self, array: Any, /) -> int:
        """The index of the device that holds `array`."""

    def address(self, array: Any, /) -> int:
        """Where its first element is."""

    def stream(self, device: int) -> int:
        """What is current there: work in one stream runs in order."""

    def facts(self, device: int) -> tuple[str, int, int]:
        """Its architecture ("sm_90"), multiprocessors, and bytes of shared memory that a block may have."""

    def load(self, source: Source, expression: str, device: int, options: tuple[str, ...],
             siblings: Sequence[str]) -> Loaded:
        """Compile and load one instance; `siblings` are all of its file, for where one go is cheaper."""


# keys that a kernel remembers; a program that goes on to make new sizes shall not fill the memory
_MOST_PASSED = 4096

_launchers: dict[type, Launcher] = {}
_declared: list[Kernel] = []


def register_launcher(array_type: type, launcher: Launcher) -> None:
    """Let kernels take arrays of `array_type`."""
    _launchers[array_type] = launcher


def launcher_of(array: Any) -> Launcher:
    """The launcher for arrays like this one, for tables of addresses."""
    return _launchers[type(array)]


def device_facts(array_type: type, device: int) -> tuple[str, int, int]:
    """Architecture, multiprocessors and shared memory of a device that holds arrays of `array_type`.

    Raises:
        ValueError: kernels do not run on such arrays.
    """
    launcher = _launchers.get(array_type)
    if launcher is None:
        raise ValueError(f"kernels run on arrays of a 'cuda' or 'sim' device, not on {array_type.__name__}")
    return launcher.facts(device)


def declared_kernels() -> list[Kernel]:
    """The kernels of the modules imported so far."""
    return list(_declared)


# per dimension: a factor, and the positions of scalar arguments
_Shape = tuple[tuple[int, tuple[int, ...]], ...]


class _Argument(NamedTuple):
    name: str
    ctype: str                          # as written: a type parameter or a C name
    pointer: bool
    optional: bool
    strided: bool
    shape: _Shape


# A launch that passed the checks: type of the arrays; which are None, and how a form gathers the others, the scalars
# and both; how to look, what was seen, the scalars of shapes, constants; how to find addresses, the instance; dtypes,
# contiguity and devices; the form.  A plain tuple, because it is taken apart at each launch.
_Passed: TypeAlias = "tuple[Any, ...]"


class Kernel:
    """A kernel of a `.cu` file, with all its instances.

    Args:
        source: a file of `kernels/`, or a path, or a `Source`.
        name: the function's name, a template where `types` or `constants` are given.
        args: the declared arguments: Note [Arguments].
        types: type parameters and the dtypes they take, in the template's order.
        constants: further template parameters, integers or bools, with the values that are compiled ahead.
        threads: of a block, as it is usually launched; for the resource table.
        least: the first architecture that runs it, 80 for sm_80, or that of some dtypes; it is not compiled ahead for
            older ones.
        cooperative: all blocks must run at once, since they wait for one another.
        options: further compiler options.

    Raises:
        ValueError: a declaration that makes no sense.

    >>> import cuframe as cf
    >>> source = '''
    ... #include "common/platform.cuh"
    ... __global__ void twice(const float* x, float* y, int64 n) {
    ...     int64 i = blockIdx.x * static_cast<int64>(blockDim.x) + threadIdx.x;
    ...     if (i < n) y[i] = 2 * x[i];
    ... }
    ... '''
    >>> twice = cf.cuda.kernel(source, "twice", ("const float* x[n]", "float* y[n]", "int64 n"))
    >>> isinstance(twice, cf.cuda.Kernel), twice.name
    (True, 'twice')
    """

    def __init__(self, source: str | Path | Source, name: str, args: Sequence[str], *,
                 types: Mapping[str, Sequence[str]] | None = None,
                 constants: Mapping[str, Sequence[int | bool]] | None = None, threads: int = 256,
                 least: int | Mapping[str, int] = 0,
                 cooperative: bool = False, options: Sequence[str] = (), declare: bool = True) -> None:
        self.name = name
        self.threads = threads
        self.least = least
        self.types = {k: tuple(v) for k, v in (types or {}).items()}
        self.constants = {k: tuple(v) for k, v in (constants or {}).items()}
        self.cooperative = cooperative
        self.options = tuple(options)
        self._source = source
        self._opened: Source | None = None
        self._arguments = tuple(self._parse(args))
        self._count = len(self._arguments)
        self._optional = tuple(i for i, a in enumerate(self._arguments) if a.optional)
        self._prepare()
        self._forms: dict[tuple[int, ...], _Form] = {}
        self._whole = self._form(())
        self._blocks: list[tuple[Any, int, Any]] = []
        self._forget()
        if declare:
            _declared.append(self)

    def _forget(self) -> None:
        """Be as new: nothing loaded, nothing checked."""
        self._loaded: dict[Any, Loaded] = {}
        self._passed: dict[Hashable, _Passed] = {}
        self._last: _Passed = (None, (), *self._whole[:3], None, [], (), {}, None, None, None, self._whole)

    def _prepare(self) -> None:
        """What the checks need, in the form that is quickest to walk."""
        pointers = [(i, a) for i, a in enumerate(self._arguments) if a.pointer]
        self._places = [i for i, _ in pointers]
        if not pointers:
            raise ValueError(f"{self.name}: no array among the arguments, so no device to run on")
        # a class of pointers is a type parameter or a C type: one dtype in a launch
        self._classes = list(dict.fromkeys(a.ctype for _, a in pointers))
        self._dtypes = [_dtype(_DTYPE_NAMES[c]) if c in _DTYPE_NAMES else None for c in self._classes]
        # the class that an acc_t<T> follows
        self._follows = {i: self._classes.index(c[6:-1]) for i, c in enumerate(self._classes) if c.startswith("acc_t<")}
        self._shapes = list(dict.fromkeys(a.shape for _, a in pointers if a.shape))
        self._checks = [
            (i, a.name, self._classes.index(a.ctype), tuple(_dtype(d) for d in self.types.get(a.ctype, ())), a.optional,
             a.strided, self._shapes.index(a.shape) if a.shape else None) for i, a in pointers]
        named = {place for shape in self._shapes for _, places in shape for place in places}
        self._extents = _picker(sorted(named))
        self._areas = [_area(shape) for shape in self._shapes]

    def _form(self, absent: tuple[int, ...]) -> _Form:
        """How arguments are gathered where those at these places are None."""
        found = self._forms.get(absent)
        if found is None:
            pointers = [i for i, a in enumerate(self._arguments) if a.pointer]
            scalars = [i for i, a in enumerate(self._arguments) if not a.pointer]
            # padding packs as zeros: a null pointer
            layout = "".join("8x" if i in absent else "Q" for i in pointers)
            layout += "".join(_SCALARS[self._arguments[i].ctype] for i in scalars)
            there = [i for i in pointers if i not in absent]
            shaped = [(there.index(i), shape) for i, *_, shape in self._checks if i in there and shape is not None]
            found = self._forms[absent] = _Form(
                _picker(there), _picker(scalars), struct.Struct(layout).pack_into,
                _picker([place for place, _ in shaped]), _picker([shape for _, shape in shaped]))
        return found

    def _new_block(self) -> tuple[Any, int, Any]:
        """Slots for one launch, the address of pointers to them, as the driver takes it, and the pointers."""
        # arrays come first
        order = sorted(range(self._count), key=lambda i: not self._arguments[i].pointer)
        buffer = (ctypes.c_char * (8 * self._count))()
        start = ctypes.addressof(buffer)
        pointers = (ctypes.c_void_p * self._count)(*(start + 8 * order.index(i) for i in range(self._count)))
        return buffer, ctypes.addressof(pointers), pointers

    @property
    def source(self) -> Source:
        """The source, read at first use."""
        if self._opened is None:
            given = self._source
            if isinstance(given, Source):
                self._opened = given
            elif isinstance(given, Path):
                self._opened = read_source(given)
            else:
                self._opened = read_source(find_source(given))
        return self._opened

    def instances(self, arch: str | None = None) -> Iterator[str]:
        """The name expressions of all declared instances, or of those that `arch` ("sm_90") runs."""
        number = int(arch[3:].rstrip("a")) if arch else 10**6

        def runs(dtype: str) -> bool:
            return number >= (self.least if isinstance(self.least, int) else self.least.get(dtype, 0))

        if isinstance(self.least, int) and number < self.least:
            return
        types = [[C_NAMES[d] for d in dtypes if runs(d)] for dtypes in self.types.values()]
        constants = [[_constant(v) for v in values] for values in self.constants.values()]
        for chosen in itertools.product(*types, *constants):
            yield self._expression(chosen)

    def _expression(self, chosen: Sequence[str]) -> str:
        return f"{self.name}<{', '.join(chosen)}>" if chosen else self.name

    def _parse(self, declarations: Sequence[str]) -> Iterator[_Argument]:
        found = [_ARGUMENT.match(text.strip()) for text in declarations]
        for text, m in zip(declarations, found):
            if m is None:
                raise ValueError(f"{self.name}: cannot read the argument {text!r}; "
                                 "expected a form such as 'const float* x[rows, cols]' or 'int64 n'")
        scalars = {m["name"]: i for i, m in enumerate(found) if m and not m["star"]}
        for text, m in zip(declarations, found):
            assert m is not None
            derived = {f"acc_t<{t}>" for t in self.types}
            known = {*self.types, *derived, *_DTYPE_NAMES} if m["star"] else set(_SCALARS)
            if m["type"] not in known:
                raise ValueError(f"{self.name}: unknown type {m['type']!r} in {text!r}; "
                                 f"known: {', '.join(sorted(known))}")
            shape = tuple(self._dimension(text, d, scalars) for d in (m["shape"] or "").split(",") if d.strip())
            yield _Argument(m["name"], m["type"], bool(m["star"]), bool(m["optional"]), bool(m["strided"]), shape)

    def _dimension(self, text: str, dimension: str, scalars: Mapping[str, int]) -> tuple[int, tuple[int, ...]]:
        factor, places = 1, []
        for part in dimension.split("*"):
            part = part.strip()
            if part.isdigit():
                factor *= int(part)
            elif part in scalars:
                places.append(scalars[part])
            else:
                raise ValueError(f"{self.name}: {part!r} in {text!r} is no scalar argument; there are: "
                                 f"{', '.join(scalars) or 'none'}")
        return factor, tuple(places)

    def __call__(self, grid: int | tuple[int, ...], block: int | tuple[int, ...], /, *values: Any, shared: int = 0,
                 cluster: bool = False, **constants: int | bool) -> None:
        """Launch on the arrays' device, on its current stream.

        Args:
            grid, block: sizes in up to three dimensions.
            values: arrays and scalars, as declared.
            shared: bytes of dynamic shared memory.
            cluster: each row of the grid is a cluster of blocks (sm_90).
            constants: the template parameters that are no types.

        Raises:
            TypeError, ValueError: an argument that is not as declared; nothing is launched.
        """
        if len(values) != self._count:
            raise TypeError(f"{self.name}: takes {self._count} arguments "
                            f"({', '.join(a.name for a in self._arguments)}), got {len(values)}")
        last = self._last
        passed: _Passed | None = last
        (kind, absent, arrays_of, scalars_of, pack_into, look, looks, extents, chosen, address, loaded, _, _) = last
        arrays = arrays_of(values)
        try:
            now, sizes = [*map(look, arrays)], self._extents(values)
            if now != looks or sizes != extents or constants != chosen or type(arrays[0]) is not kind:
                key = (type(arrays[0]), absent, sizes, *now, *constants, *constants.values())
                passed = self._passed.get(key) or self._resized(last, key, values, now, sizes, constants)
            for i in absent:
                if values[i] is not None:
                    passed = None
        except (AttributeError, TypeError, ValueError):  # another kind of array, or a scalar that is an array
            passed = None
        if passed is not last:
            self._last = passed = passed or self._find(values, constants)
            _, _, arrays_of, scalars_of, pack_into, _, _, _, _, address, loaded, _, _ = passed
            arrays = arrays_of(values)
        try:
            slots = self._blocks.pop()
        except IndexError:
            slots = self._new_block()
        buffer, pointers, _ = slots
        try:
            pack_into(buffer, 0, *map(address, arrays), *scalars_of(values))
        except struct.error:
            raise self._bad_scalar(values) from None
        loaded((grid, 1, 1) if type(grid) is int else _three(grid),
               (block, 1, 1) if type(block) is int else _three(block), shared, pointers,
               CLUSTERS if cluster else self.cooperative)
        self._blocks.append(slots)

    def _find(self, values: Sequence[Any], constants: Mapping[str, int | bool]) -> _Passed:
        """What a launch that differs from the last one needs."""
        absent: tuple[int, ...] = ()
        for i in self._optional:
            if values[i] is None:
                absent += (i,)
        form = self._form(absent)
        arrays = form.arrays(values)
        launcher = _launchers.get(type(arrays[0])) if arrays else None
        if launcher is None:
            launcher = self._find_launcher(arrays)
        kind = type(arrays[0])
        try:
            looks, extents = [*map(launcher.look, arrays)], self._extents(values)
            key = (kind, absent, extents, *looks, *constants, *constants.values())
            passed = self._passed.get(key)
            if passed is None:
                loaded = self._check(launcher, values, constants)
                dtypes, _, dense, devices = zip(*looks)
                passed = (kind, absent, *form[:3], launcher.look, looks, extents, constants, launcher.address, loaded,
                          (dtypes, dense, devices), form)
                self._remember(key, passed)
        except (AttributeError, TypeError, ValueError):
            # None, another kind of array, or a scalar that is an array: the checks know what is wrong, if anything is
            loaded = self._check(launcher, values, constants)
            passed = None, absent, *form[:3], None, [], (), constants, launcher.address, loaded, None, form
        return passed

    def _resized(self, last: _Passed, key: tuple, values: Sequence[Any], looks: Sequence[tuple],
                 extents: Sequence[Any], constants: Mapping[str, int | bool]) -> _Passed | None:
        """What a launch needs that differs from the last one in sizes alone, if those are as declared."""
        kind, *same, look, _, _, chosen, address, loaded, fixed, form = last
        dtypes, sizes, dense, devices = zip(*looks)
        if (constants != chosen or (dtypes, dense, devices) != fixed or key[0] is not kind
                or form.sizes(sizes) != form.areas(tuple([area(values) for area in self._areas]))):
            return None
        passed: _Passed = (kind, *same, look, looks, extents, chosen, address, loaded, fixed, form)
        self._remember(key, passed)
        return passed

    def _remember(self, key: Hashable, passed: _Passed) -> None:
        if len(self._passed) >= _MOST_PASSED:
            self._passed.clear()
        self._passed[key] = passed

    def _check(self, launcher: Launcher, values: Sequence[Any], constants: Mapping[str, int | bool]) -> Loaded:
        """The instance for these arguments, if nothing is wrong with them."""
        device_of = launcher.device
        first = next(values[i] for i in self._places if values[i] is not None)
        kind, device = type(first), device_of(first)
        dtypes = list(self._dtypes)
        sizes: list[int] = [_product(shape, values) for shape in self._shapes]
        for i, name, place, accepted, optional, strided, shape in self._checks:
            array = values[i]
            if array is None:
                if not optional:
                    raise TypeError(f"{self.name}: {name} must be an array, got None")
                continue
            if type(array) is not kind:
                raise TypeError(f"{self.name}: {name} must be {kind.__name__}, as the others are, "
                                f"got {type(array).__name__}")
            dtype = array.dtype
            if dtype is not dtypes[place]:
                wanted = dtypes[place]
                if wanted is None and place in self._follows:
                    wanted = dtypes[place] = accumulator(dtypes[self._follows[place]])
                if wanted is None and dtype in accepted:
                    dtypes[place] = dtype
                elif wanted is None or dtype != wanted:  # a dtype equals None where it is float64
                    known = wanted or "one of " + ", ".join(map(str, accepted))
                    raise TypeError(f"{self.name}: {name} must be {known}, got {dtype}")
            if not (strided or array.flags.c_contiguous):
                raise ValueError(f"{self.name}: {name} must be C-contiguous, got shape {array.shape} with strides "
                                 f"{array.strides} bytes")
            if device_of(array) != device:
                raise ValueError(f"{self.name}: {name} is on device {device_of(array)}, the first array on {device}")
            if shape is not None and array.size != sizes[shape]:
                raise self._bad_size(name, self._shapes[shape], array, values)
        key = (kind, device, *dtypes, *constants.items())
        loaded = self._loaded.get(key)
        if loaded is None:
            loaded = self._loaded[key] = self._load(launcher, device, dtypes, constants)
        return loaded

    def _bad_size(self, name: str, shape: _Shape, array: Any, values: Sequence[Any]) -> Exception:
        sizes = [_product((dimension,), values) for dimension in shape]
        text = ", ".join(map(str, sizes))
        return ValueError(f"{self.name}: {name} must have shape ({text}), that is {_product(shape, values)} elements, "
                          f"got {array.shape}")

    def _load(self, launcher: Launcher, device: int, dtypes: Sequence[Any],
              constants: Mapping[str, int | bool]) -> Loaded:
        if constants.keys() != self.constants.keys():
            raise TypeError(f"{self.name}: template constants must be {', '.join(self.constants) or 'none'}, "
                            f"got {', '.join(constants) or 'none'}")
        found = dict(zip(self._classes, dtypes))
        for name in self.types:
            if found.get(name) is None:
                raise TypeError(f"{self.name}: no array given tells the type {name}")
        chosen = [C_NAMES[found[n].name] for n in self.types] + [_constant(constants[n]) for n in self.constants]
        expression = self._expression(chosen)
        arch = launcher.facts(device)[0]
        siblings = [e for k in (_declared if self in _declared else [self]) if k._source == self._source
                    and k.options == self.options for e in k.instances(arch)]
        return launcher.load(self.source, expression, device, self.options,
                             siblings if expression in siblings else [expression])

    def _find_launcher(self, arrays: Sequence[Any]) -> Launcher:
        first = next((a for a in arrays if a is not None), None)
        if first is None:
            raise TypeError(f"{self.name}: no array among the arguments, so no device to run on")
        found = _launchers.get(type(first))
        if found is None:
            raise TypeError(f"{self.name}: runs on arrays of a 'cuda' or 'sim' device, got {type(first).__name__}")
        return found

    def _bad_scalar(self, values: Sequence[Any]) -> Exception:
        for a, value in zip(self._arguments, values):
            if not a.pointer:
                try:
                    struct.pack("=" + _SCALARS[a.ctype], value)
                except (struct.error, OverflowError, TypeError):
                    return TypeError(f"{self.name}: {a.name} must be {a.ctype}, got {value!r}")
        return TypeError(f"{self.name}: arguments cannot be packed: {values!r}")

    @property
    def file(self) -> str:
        """The name of its source file."""
        return self._source if isinstance(self._source, str) else self._source.name

    def __repr__(self) -> str:
        return f"<Kernel {self.name} of {self.file}>"


class _Form(NamedTuple):
    """How arguments are gathered: the arrays that are there, the scalars, and both packed one after the other.

    And of those arrays that have a declared shape, the sizes among all sizes, and the sizes that they should have.
    """

    arrays: Callable[[Sequence[Any]], Sequence[Any]]
    scalars: Callable[[Sequence[Any]], Sequence[Any]]
    pack_into: Callable[..., None]
    sizes: Callable[[Sequence[int]], Sequence[int]]
    areas: Callable[[Sequence[int]], Sequence[int]]


def _picker(places: Sequence[int]) -> Callable[[Sequence[Any]], Sequence[Any]]:
    """A function of a sequence that gives what is at these places, as a sequence however many they are."""
    first = places[0] if places else 0
    if list(places) == list(range(first, first + len(places))):
        return itemgetter(slice(first, first + len(places)))
    return itemgetter(*places)


def _area(shape: _Shape) -> Callable[[Sequence[Any]], int]:
    """A function of all arguments that gives how many elements an array of this shape has; quick where it is short."""
    factor, places = prod(factor for factor, _ in shape), [place for _, some in shape for place in some]
    if len(places) == 1 and factor == 1:
        return itemgetter(places[0])
    if len(places) == 2:
        first, second = places
        return lambda values: factor * values[first] * values[second]
    return lambda values: factor * prod([values[i] for i in places])


def _product(shape: _Shape, values: Sequence[Any]) -> int:
    size = 1
    for factor, places in shape:
        size *= factor
        for place in places:
            size *= values[place]
    return size


def _three(size: int | tuple[int, ...]) -> tuple[int, int, int]:
    if isinstance(size, int):
        return (size, 1, 1)
    return (*size, 1, 1)[:3]  # type: ignore[return-value]


def _constant(value: int | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else str(int(value))


def accumulator(dtype: np.dtype[Any] | None) -> np.dtype[Any]:
    """What numbers of `dtype` are summed in: `acc_t<T>` of the kernels."""
    return np.dtype(np.float64 if dtype is not None and dtype == np.float64 else np.float32)


def _dtype(name: str) -> np.dtype[Any]:
    if name == "bfloat16":
        import ml_dtypes

        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype(name)


def kernel(source: str | Path, name: str, args: Sequence[str], *, types: Mapping[str, Sequence[str]] | None = None,
           constants: Mapping[str, Sequence[int | bool]] | None = None, cooperative: bool = False,
           options: Sequence[str] = ()) -> Kernel:
    """A kernel of one's own: `source` is CUDA C++ text, or the path of a `.cu` file.

    It runs on arrays of `cuda` and `sim` devices alike.  Arguments are declared as in C, `const float* x[n]`, and
    checked at each launch.

    Args:
        source: the text, or a `pathlib.Path`.  It may `#include "common/platform.cuh"` and the other headers there.
        name: the `__global__` function's name.
        args: its arguments; types: its type parameters with the dtypes that each may take; constants: further template
            parameters with the values to compile ahead.
        cooperative: its blocks wait for one another.
        options: further compiler options, such as `-DTILE=32`.

    Returns:
        A `Kernel`: call it with grid, block and arguments.

    Raises:
        ValueError: a declaration that makes no sense.

    >>> import cuframe as cf
    >>> source = '''
    ... #include "common/platform.cuh"
    ... __global__ void twice(const float* x, float* y, int64 n) {
    ...     int64 i = blockIdx.x * static_cast<int64>(blockDim.x) + threadIdx.x;
    ...     if (i < n) y[i] = 2 * x[i];
    ... }
    ... '''
    >>> twice = cf.cuda.kernel(source, "twice", ("const float* x[n]", "float* y[n]", "int64 n"))
    >>> x, y = cf.arange(3.0, device="sim"), cf.empty(3, device="sim")
    >>> twice(1, 32, x.array, y.array, 3)
    >>> y
    tensor([0., 2., 4.], device='sim:0')
    """
    opened = source if isinstance(source, Path) else text_source(source)
    return Kernel(opened, name, args, types=types, constants=constants, cooperative=cooperative, options=options,
                  declare=False)
