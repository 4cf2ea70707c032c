"""The switches of recording: no_grad, enable_grad, set_grad_enabled, inference_mode; each for one thread."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

from .graph import mode

__all__ = [
    "enable_grad", "inference_mode", "is_grad_enabled", "is_inference_mode_enabled", "no_grad",
    "set_grad_enabled",
]  # fmt: skip

F = TypeVar("F", bound=Callable[..., Any])


def is_grad_enabled() -> bool:
    """True if operations are recorded in this thread."""
    return mode.grad


def is_inference_mode_enabled() -> bool:
    """True inside `inference_mode`."""
    return mode.inference


class _Switch:
    """A context manager that is a decorator as well, for functions and generators."""

    __slots__ = ("_before",)

    def __init__(self) -> None:
        self._before: list[tuple[bool, bool]] = []

    def _twin(self) -> _Switch:
        return type(self)()

    def _enter(self) -> None:
        raise NotImplementedError

    def __enter__(self) -> None:
        self._before.append((mode.grad, mode.inference))
        self._enter()

    def __exit__(self, *exc: object) -> None:
        mode.grad, mode.inference = self._before.pop()

    def __call__(self, function: F) -> F:
        if inspect.isgeneratorfunction(function):

            @functools.wraps(function)
            def generator(*args: Any, **kwargs: Any) -> Any:
                # The caller's mode comes back between two values.
                running = function(*args, **kwargs)
                value = None
                while True:
                    with self._twin():
                        try:
                            produced = running.send(value)
                        except StopIteration as stop:
                            return stop.value
                    value = yield produced

            return generator  # type: ignore[return-value]

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            with self._twin():
                return function(*args, **kwargs)

        return call  # type: ignore[return-value]


class no_grad(_Switch):
    """Do not record operations.

    >>> import cuframe as cf
    >>> x = cf.ones(2, requires_grad=True)
    >>> with cf.no_grad():
    ...     y = x * 2
    >>> y.requires_grad
    False
    """

    __slots__ = ()

    def _enter(self) -> None:
        mode.grad = False


class enable_grad(_Switch):
    """Record operations again inside `no_grad`."""

    __slots__ = ()

    def _enter(self) -> None:
        mode.grad = not mode.inference


class set_grad_enabled(_Switch):
    """Record operations or not, by a flag; takes effect at once, and ends with the `with` block if any."""

    __slots__ = ("_flag",)

    def __init__(self, flag: bool) -> None:
        super().__init__()
        self._flag = bool(flag)
        self._before.append((mode.grad, mode.inference))
        mode.grad = self._flag and not mode.inference

    def _twin(self) -> _Switch:
        return set_grad_enabled(self._flag)

    def __enter__(self) -> None:
        mode.grad = self._flag and not mode.inference

    def __call__(self, function: F) -> F:
        mode.grad, mode.inference = self._before.pop()
        return super().__call__(function)


class inference_mode(_Switch):
    """`no_grad`, and no tensor made inside may be asked to require a gradient there."""

    __slots__ = ("_flag",)

    def __init__(self, flag: bool = True) -> None:
        super().__init__()
        self._flag = bool(flag)

    def _twin(self) -> _Switch:
        return inference_mode(self._flag)

    def _enter(self) -> None:
        mode.inference = self._flag
        if self._flag:
            mode.grad = False
