"""Whether operations record themselves for differentiation: a flag of each thread."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any

_GENERATOR = 0x20  # the flag of generator functions' code objects; the inspect module is slow to load


class _Mode(threading.local):
    enabled = True
    inference = False
    autocast = False  # whether functions on autocast's lists cast their inputs


mode = _Mode()


def is_grad_enabled() -> bool:
    """Whether operations of this thread are recorded now."""
    return mode.enabled


def is_inference_mode_enabled() -> bool:
    """Whether this code runs inside :class:`inference_mode`."""
    return mode.inference


class _GradMode:
    """Context manager and decorator that sets the flag and restores it."""

    def __init__(self, enabled: bool) -> None:
        self._enabled = enabled
        self._before: list[bool] = []

    def _fresh(self) -> _GradMode:
        return _GradMode(self._enabled)

    def __enter__(self) -> None:
        self._before.append(mode.enabled)
        mode.enabled = self._enabled

    def __exit__(self, *error: object) -> None:
        mode.enabled = self._before.pop()

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        if getattr(getattr(function, "__code__", None), "co_flags", 0) & _GENERATOR:

            @functools.wraps(function)
            def generate(*args: Any, **kwargs: Any) -> Any:
                # The flag must not leak to the consumer while the generator is suspended.
                with self._fresh():
                    steps = function(*args, **kwargs)
                while True:
                    with self._fresh():
                        try:
                            value = next(steps)
                        except StopIteration as stop:
                            return stop.value
                    yield value

            return generate

        @functools.wraps(function)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            with self._fresh():
                return function(*args, **kwargs)

        return wrapped


class no_grad(_GradMode):
    """Nothing inside is recorded. ``with no_grad():`` or ``@no_grad()`` or ``@no_grad``."""

    def __new__(cls, function: Callable[..., Any] | None = None) -> Any:
        self = super().__new__(cls)
        if function is None:
            return self
        self.__init__()  # type: ignore[misc]
        return self(function)

    def __init__(self) -> None:
        super().__init__(False)


class enable_grad(no_grad):
    """Everything inside is recorded, also within :class:`no_grad`."""

    def __init__(self) -> None:
        _GradMode.__init__(self, True)


class inference_mode(_GradMode):
    """As :class:`no_grad`; ``inference_mode(False)`` changes nothing."""

    def __init__(self, mode: bool = True) -> None:
        super().__init__(not mode)
        self._outside: list[bool] = []

    def _fresh(self) -> inference_mode:
        return inference_mode(not self._enabled)

    def __enter__(self) -> None:
        self._outside.append(mode.inference)
        mode.inference = not self._enabled
        super().__enter__()

    def __exit__(self, *error: object) -> None:
        mode.inference = self._outside.pop()
        super().__exit__(*error)


class set_grad_enabled(_GradMode):
    """Sets the flag at once; as a context manager, restores it at the end."""

    def __init__(self, mode: bool) -> None:
        super().__init__(bool(mode))
        self._before.append(_swap(bool(mode)))

    def __enter__(self) -> None:
        return None

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        mode.enabled = self._before.pop()  # as a decorator it acts on calls alone
        return super().__call__(function)


def _swap(enabled: bool) -> bool:
    before = mode.enabled
    mode.enabled = enabled
    return before
