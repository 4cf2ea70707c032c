"""A pickle interpreter that cannot run code.

Note [Reading a pickle without unpickling]
A pickle is a program for a stack machine.  `pickletools.genops` splits it into opcodes; `Machine` executes
the ones that build plain data.  A global is not imported: its name is looked up in the table the caller
gives, whose entries are values or functions of ours, and any other name is an error.  Every function checks
its arguments, so the worst a hostile pickle can ask for is a wrong number, or an error.

What is bounded: the containers and calls it makes, the bytes that calls copy (through the memo one long
string is the argument of a million calls), nesting, cycles, and keys that take exponential time to hash.
"""

from __future__ import annotations

import pickletools
import struct
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from .files import CheckpointError

__all__ = ["Global", "Machine"]

_MAX_NEW = 2_000_000  # containers and calls
_MAX_DEPTH = 200  # levels of nesting
_SCALARS = (bool, str, int, float, complex, bytes, type(None))


class Global:
    """A name that a pickle may use: the value it stands for, or the function that a call of it runs."""

    __slots__ = ("call", "name", "value")

    def __init__(self, name: str, call: Callable[..., Any] | None = None, value: Any = None) -> None:
        self.name, self.call, self.value = name, call, value


class Machine:
    """Executes one pickle.

    Args:
        names: what the globals that the pickle may use stand for: a `Global` (its ``call`` gets the machine
        and the
            argument tuple) or a plain value.
        refuse: raises the caller's error for a reason that follows the file's name.
    """

    def __init__(self, names: Mapping[str, Any], refuse: Callable[[str], NoReturn]) -> None:
        self.names, self.refuse = names, refuse
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.made = self.copied = self.copy_limit = 0

    # -- what a kind of file adds --
    def persistent(self, pid: Any) -> Any:
        """The object that a persistent id stands for."""
        self.refuse("has a persistent id, which this kind of file does not use")

    def set_state(self, target: Any, state: Any) -> None:
        """BUILD on an object that the machine does not know."""
        self.refuse(f"has a damaged pickle: it sets the state of a {type(target).__name__}")

    def is_value(self, obj: Any) -> bool:
        """True for a leaf that may be part of the result."""
        return isinstance(obj, _SCALARS)

    # -- the machine --
    def run(self, program: bytes) -> Any:
        """Executes the program and returns the object it leaves."""
        self.copy_limit = 4 * len(program) + 1_000_000
        try:
            for op, arg, _ in pickletools.genops(program):
                if op.name == "STOP":
                    if self.marks or len(self.stack) != 1:
                        self.refuse("has a damaged pickle: it does not end with one object")
                    self.check_tree(self.stack[0])
                    return self.stack[0]
                if op.name not in _HANDLERS:
                    self.refuse(f"uses the pickle opcode {op.name}, which is not on the allow-list")
                _HANDLERS[op.name](self, arg)
        except CheckpointError:
            raise
        except (ValueError, OverflowError, struct.error, Warning) as e:
            # a Warning where warnings are errors: pickletools reads a global's name as a string literal
            self.refuse(f"has a damaged pickle: {e}")
        return self.refuse("has a damaged pickle: it has no end")

    def pop(self) -> Any:
        if not self.stack:
            self.refuse("has a damaged pickle: it takes an object from an empty stack")
        return self.stack.pop()

    def top(self, op: str, *kinds: type) -> Any:
        if not self.stack or not isinstance(self.stack[-1], kinds):
            self.refuse(f"has a damaged pickle: {op} without a {' or '.join(k.__name__ for k in kinds)}")
        return self.stack[-1]

    def mark(self) -> None:
        self.marks.append(self.stack)
        self.stack = []

    def pop_mark(self) -> list[Any]:
        if not self.marks:
            self.refuse("has a damaged pickle: a mark is missing")
        items, self.stack = self.stack, self.marks.pop()
        return items

    def count(self, copied: int = 0) -> None:
        """Counts one container or call, and what it copies; refuses a pickle that exceeds its means."""
        self.made += 1
        self.copied += copied
        if self.made > _MAX_NEW or self.copied > self.copy_limit:
            self.refuse(
                f"has a pickle that makes too much: {self.made} objects, {self.copied} elements copied"
            )

    def push(self, obj: Any) -> None:
        self.stack.append(obj)

    def push_new(self, obj: Any) -> None:
        self.count()
        self.stack.append(obj)

    def pop_n(self, n: int) -> list[Any]:
        return [self.pop() for _ in range(n)][::-1]

    def check_key(self, key: Any) -> None:
        # hashing tuples of tuples that share elements through the memo takes exponential time: one level only
        flat = isinstance(key, tuple) and all(isinstance(k, _SCALARS) for k in key)
        if not flat and not isinstance(key, _SCALARS):
            self.refuse(
                f"has a dict key or set element of type {type(key).__name__}; str, numbers, bytes, None and "
                "tuples of these are supported"
            )
        self.copied += len(key) if isinstance(key, tuple) else 1
        self.count()

    def set_items(self, target: dict[Any, Any], items: list[Any]) -> None:
        if len(items) % 2:
            self.refuse("has a damaged pickle: a dict gets a key without a value")
        for key, value in zip(items[0::2], items[1::2]):
            self.check_key(key)
            target[key] = value

    def add_items(self, target: set[Any], items: list[Any]) -> set[Any]:
        for item in items:
            self.check_key(item)
            target.add(item)
        return target

    def append_to(self, items: list[Any]) -> None:
        self.top("APPEND", list).extend(items)

    def set_in(self, items: list[Any]) -> None:
        self.set_items(self.top("SETITEM", dict), items)

    def add_to(self, items: list[Any]) -> None:
        self.add_items(self.top("ADDITEMS", set), items)

    def push_dict(self, items: list[Any]) -> None:
        target: dict[Any, Any] = {}
        self.set_items(target, items)
        self.push_new(target)

    def get(self, index: Any) -> None:
        if int(index) not in self.memo:
            self.refuse(f"has a damaged pickle: memo entry {index} was never stored")
        self.stack.append(self.memo[int(index)])

    def put(self, index: Any) -> None:
        self.memo[int(index)] = self.top("PUT", object)

    def memoize(self) -> None:
        self.memo[len(self.memo)] = self.top("MEMOIZE", object)

    def find(self, module: Any, attribute: Any) -> None:
        name = f"{module}.{attribute}"
        if not isinstance(module, str) or not isinstance(attribute, str) or name not in self.names:
            self.refuse(
                f"asks for `{name}`, which is not on the allow-list (nothing was run). Tensors, NumPy arrays,"
                " numbers, str, bytes, dict, list, tuple and set are; save state_dict(), not a model"
            )
        self.stack.append(self.names[name])

    def stack_global(self) -> None:
        attribute, module = self.pop(), self.pop()
        self.find(module, attribute)

    def reduce(self) -> None:
        args, function = self.pop(), self.pop()
        if not isinstance(function, Global) or function.call is None or not isinstance(args, tuple):
            what = function.name if isinstance(function, Global) else type(function).__name__
            self.refuse(f"has a damaged pickle: it calls {what} with a {type(args).__name__}")
        self.count(len(args))
        self.stack.append(function.call(self, args))

    def new_object(self) -> None:
        args, cls = self.pop(), self.pop()
        if (
            not isinstance(cls, Global)
            or cls.name != "argparse.Namespace"
            or not isinstance(args, tuple)
            or args
        ):
            self.refuse(
                f"has a damaged pickle: it makes an object of {getattr(cls, 'name', type(cls).__name__)}"
            )
        self.push_new({})

    def build(self) -> None:
        state = self.pop()
        target = self.top("BUILD", object)
        if type(target) is OrderedDict:
            return  # the attributes of a state_dict: _metadata, with module versions
        if type(target) is dict:
            if not isinstance(state, dict):
                self.refuse("has a damaged pickle: it sets the state of a namespace to something not a dict")
            self.count(len(state))
            target.update(state)  # argparse.Namespace
        else:
            self.set_state(target, state)

    def check_tree(self, root: Any) -> None:
        """Refuses leaves that are no values, cycles, and nesting that recursive code would fall over."""
        heights: dict[int, int] = {}  # of finished containers; 0 for those on the way to this one
        pending: list[tuple[Any, bool]] = [(root, False)]
        while pending:
            obj, finished = pending.pop()
            if not isinstance(obj, (dict, list, tuple, set, frozenset)):
                if not self.is_value(obj):
                    what = obj.name if isinstance(obj, Global) else f"a bare {type(obj).__name__.lower()}"
                    self.refuse(f"holds {what} where a value is expected")
                continue
            children = obj.values() if isinstance(obj, dict) else obj
            if finished:
                height = 1 + max((heights.get(id(c), 0) for c in children), default=0)
                if height > _MAX_DEPTH:
                    self.refuse(f"is nested deeper than {_MAX_DEPTH} levels")
                heights[id(obj)] = height
            elif id(obj) not in heights:
                heights[id(obj)] = 0
                pending.append((obj, True))
                for child in children:
                    if heights.get(id(child)) == 0:
                        self.refuse(f"holds a {type(child).__name__} that contains itself")
                    pending.append((child, False))


def _frozenset(m: Machine, _: Any) -> None:
    m.push_new(frozenset(m.add_items(set(), m.pop_mark())))


_CONSTANTS = (
    "INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING UNICODE "
    "BINUNICODE SHORT_BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8"
).split()
_HANDLERS: dict[str, Callable[[Machine, Any], Any]] = {
    "PROTO": lambda m, _: None,
    "FRAME": lambda m, _: None,
    "NONE": lambda m, _: m.push(None),
    "NEWTRUE": lambda m, _: m.push(True),
    "NEWFALSE": lambda m, _: m.push(False),
    **dict.fromkeys(_CONSTANTS, Machine.push),
    "EMPTY_LIST": lambda m, _: m.push_new([]),
    "EMPTY_TUPLE": lambda m, _: m.push_new(()),
    "EMPTY_DICT": lambda m, _: m.push_new({}),
    "EMPTY_SET": lambda m, _: m.push_new(set()),
    "LIST": lambda m, _: m.push_new(m.pop_mark()),
    "TUPLE": lambda m, _: m.push_new(tuple(m.pop_mark())),
    "TUPLE1": lambda m, _: m.push_new(tuple(m.pop_n(1))),
    "TUPLE2": lambda m, _: m.push_new(tuple(m.pop_n(2))),
    "TUPLE3": lambda m, _: m.push_new(tuple(m.pop_n(3))),
    "DICT": lambda m, _: m.push_dict(m.pop_mark()),
    "FROZENSET": _frozenset,
    "APPEND": lambda m, _: m.append_to([m.pop()]),
    "APPENDS": lambda m, _: m.append_to(m.pop_mark()),
    "SETITEM": lambda m, _: m.set_in(m.pop_n(2)),
    "SETITEMS": lambda m, _: m.set_in(m.pop_mark()),
    "ADDITEMS": lambda m, _: m.add_to(m.pop_mark()),
    "MARK": lambda m, _: m.mark(),
    "POP": lambda m, _: m.pop() if m.stack else m.pop_mark(),
    "POP_MARK": lambda m, _: m.pop_mark(),
    "DUP": lambda m, _: m.push(m.top("DUP", object)),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), Machine.get),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), Machine.put),
    "MEMOIZE": lambda m, _: m.memoize(),
    "GLOBAL": lambda m, name: m.find(*name.split(" ", 1)),
    "STACK_GLOBAL": lambda m, _: m.stack_global(),
    "REDUCE": lambda m, _: m.reduce(),
    "NEWOBJ": lambda m, _: m.new_object(),
    "BUILD": lambda m, _: m.build(),
    "BINPERSID": lambda m, _: m.push_new(m.persistent(m.pop())),
}
