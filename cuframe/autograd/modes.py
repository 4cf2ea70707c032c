"""The switches of recording: no_grad, enable_grad, set_grad_enabled, inference_mode; each for one thread."""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable
from typing import Any, TypeVar

from .graph import mode, switch_recording

__all__ = [
    "enable_grad", "inference_mode", "is_grad_enabled", "is_inference_mode_enabled", "no_grad",
    "set_grad_enabled",
]  # fmt: skip

F = TypeVar("F", bound=Callable[..., Any])


def is_grad_enabled() -> bool:
    """True if operations are recorded in this thread.

    >>> import cuframe as cf
    >>> with cf.no_grad():
    ...     cf.is_grad_enabled()
    False
    """
    return mode.grad


def is_inference_mode_enabled() -> bool:
    """True inside `inference_mode`.

    >>> import cuframe as cf
    >>> with cf.inference_mode():
    ...     cf.is_inference_mode_enabled()
    True
    """
    return mode.inference


class _Switch:
    """A context manager, and a decorator (parentheses or not) of functions, generators and coroutines."""

    __slots__ = ("_before",)

    def __new__(cls, *args: Any) -> Any:
        if len(args) == 1 and inspect.isroutine(args[0]):
            return cls()(args[0])
        return super().__new__(cls)

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
        switch_recording(*self._before.pop())

    def _steps(self, running: Any) -> Any:
        """Run a generator or coroutine; between two of its values the caller's mode is back."""
        step, value = running.send, None
        while True:
            with self._twin():
                try:
                    produced = step(value)
                except StopIteration as stop:
                    return stop.value
            try:
                value = yield produced
                step = running.send
            except GeneratorExit:
                with self._twin():
                    running.close()
                raise
            except BaseException as error:
                step, value = running.throw, error

    def __call__(self, function: F) -> F:
        if inspect.isgeneratorfunction(function):

            @functools.wraps(function)
            def generator(*args: Any, **kwargs: Any) -> Any:
                return (yield from self._steps(function(*args, **kwargs)))

            return generator  # type: ignore[return-value]
        if inspect.iscoroutinefunction(function):
            steps = types.coroutine(self._steps)

            @functools.wraps(function)
            async def coroutine(*args: Any, **kwargs: Any) -> Any:
                return await steps(function(*args, **kwargs))

            return coroutine  # type: ignore[return-value]

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
        switch_recording(False, mode.inference)


class enable_grad(_Switch):
    """Record operations again inside `no_grad`.

    Inside `inference_mode` it changes nothing.

    >>> import cuframe as cf
    >>> x = cf.ones(2, requires_grad=True)
    >>> with cf.no_grad():
    ...     with cf.enable_grad():
    ...         y = x * 2
    >>> y.requires_grad
    True
    """

    __slots__ = ()

    def _enter(self) -> None:
        switch_recording(not mode.inference, mode.inference)


class set_grad_enabled(_Switch):
    """Record operations or not, by a flag; takes effect at once, and ends with the `with` block if any.

    Args:
        flag: True records.

    >>> import cuframe as cf
    >>> training = False
    >>> with cf.set_grad_enabled(training):
    ...     y = cf.ones(2, requires_grad=True) * 2
    >>> y.requires_grad
    False
    """

    __slots__ = ("_flag",)

    def __init__(self, flag: bool) -> None:
        super().__init__()
        self._flag = bool(flag)
        self._before.append((mode.grad, mode.inference))
        switch_recording(self._flag and not mode.inference, mode.inference)

    def _twin(self) -> _Switch:
        return set_grad_enabled(self._flag)

    def __enter__(self) -> None:
        switch_recording(self._flag and not mode.inference, mode.inference)

    def __call__(self, function: F) -> F:
        switch_recording(*self._before.pop())
        return super().__call__(function)


class inference_mode(_Switch):
    """`no_grad`, and no tensor may be asked to require a gradient inside.

    Args:
        flag: False leaves inference mode, and records again.

    >>> import cuframe as cf
    >>> x = cf.ones(2, requires_grad=True)
    >>> with cf.inference_mode():
    ...     y = x * 2
    >>> y.requires_grad
    False
    """

    __slots__ = ("_flag",)

    def __init__(self, flag: bool = True) -> None:
        super().__init__()
        self._flag = bool(flag)

    def _twin(self) -> _Switch:
        return inference_mode(self._flag)

    def _enter(self) -> None:
        switch_recording(not self._flag, self._flag)
