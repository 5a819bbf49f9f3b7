"""``autocast``: inside it, functions that lose little by it compute in half precision."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any

from gpugrad import dtypes
from gpugrad.autograd.modes import mode
from gpugrad.devices import Device, is_available, known
from gpugrad.ops import autocast as casting
from gpugrad.tensor import Tensor

__all__ = ["autocast", "custom_bwd", "custom_fwd", "is_autocast_available"]

_HALVES = (dtypes.float16, dtypes.bfloat16)
_watched = False


def _type_of(device_type: Any) -> str:
    """The device type that a string names. Raises ValueError, RuntimeError (DeviceError)."""
    if not isinstance(device_type, str):
        raise ValueError(f"autocast: device_type must be a string such as 'cuda', not {type(device_type).__name__}")
    kind = device_type.partition(":")[0]
    return kind if kind in known() else Device(device_type).type  # which says what is known


def _watch_methods() -> None:
    """From the first use on, methods of tensors look whether autocast is on, as functions do always."""
    global _watched
    if not _watched:
        _watched = True
        for name in sorted(casting.NAMES):
            method = getattr(Tensor, name, None)
            if method is not None:
                setattr(Tensor, name, casting.listed(name, method))


class autocast:
    """``with autocast("cuda"):`` or ``@autocast("cuda")``: products and convolutions of tensors on devices of that type
    compute in ``dtype`` (float16; on the CPU bfloat16), functions that need the range in float32, as
    ``gpugrad/ops/autocast.py`` lists them (Micikevicius et al., "Mixed precision training", 2018).

    Parameters stay as they are; their casts are kept until the outermost context ends (``cache_enabled``), and their
    gradients have their own dtype. Contexts nest, and act on the thread that entered them. With a type of device that
    is absent, or a ``dtype`` that is not float16 or bfloat16, it warns and does nothing. Raises ValueError,
    RuntimeError for a type that is not known."""

    def __init__(
        self, device_type: str, dtype: Any = None, enabled: bool = True, cache_enabled: bool | None = None
    ) -> None:
        self.device = _type_of(device_type)
        self.fast_dtype = casting.dtype_for(self.device) if dtype is None else dtypes.as_dtype(dtype)
        self._cache_enabled = casting.state.keeps_casts if cache_enabled is None else cache_enabled
        self._enabled = bool(enabled)
        self._before: list[tuple[bool, bool, Any, bool]] = []
        if self._enabled and not is_available(self.device):
            warnings.warn(f"autocast: there is no {self.device} device here, so nothing will be cast", stacklevel=2)
            self._enabled = False
        if self._enabled and self.fast_dtype not in _HALVES:
            warnings.warn(
                f"autocast: dtype must be float16 or bfloat16, not {self.fast_dtype.name}; nothing will be cast",
                stacklevel=2,
            )
            self._enabled = False

    def __enter__(self) -> autocast:
        state = casting.state
        kind = self.device
        self._before.append((mode.autocast, kind in state.enabled, state.dtypes.get(kind), state.keeps_casts))
        state.depth += 1
        state.keeps_casts = self._cache_enabled
        if self._enabled:
            set_autocast_dtype(kind, self.fast_dtype)
        set_autocast_enabled(kind, self._enabled)
        return self

    def __exit__(self, *error: object) -> None:
        state = casting.state
        casts, enabled, dtype, state.keeps_casts = self._before.pop()
        state.depth -= 1
        if not state.depth:
            state.casts.clear()
        if dtype is None:
            state.dtypes.pop(self.device, None)
        else:
            state.dtypes[self.device] = dtype
        set_autocast_enabled(self.device, enabled)
        mode.autocast = casts  # False inside a listed function and on the way back through the graph

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def inside(*args: Any, **named: Any) -> Any:
            with self:
                return function(*args, **named)

        return inside


# -- the settings one by one ---------------------------------------------------------------------


def is_autocast_available(device_type: str) -> bool:
    """Whether autocast knows this type of device, present or not. Raises RuntimeError for types that nobody knows."""
    _type_of(device_type)
    return True


def is_autocast_enabled(device_type: str = "cuda") -> bool:
    """Whether this thread casts on devices of this type now."""
    return _type_of(device_type) in casting.state.enabled


def set_autocast_enabled(device_type: Any, enabled: bool | None = None) -> None:
    """Switch autocast for a type of device on or off, for this thread; with one argument, that of CUDA."""
    if enabled is None:
        device_type, enabled = "cuda", device_type
    kind = _type_of(device_type)
    if enabled:
        _watch_methods()
        casting.state.enabled.add(kind)
    else:
        casting.state.enabled.discard(kind)
    casting.refresh()


def get_autocast_dtype(device_type: str) -> dtypes.DType:
    """What products compute in where autocast is on."""
    return casting.dtype_for(_type_of(device_type))


def set_autocast_dtype(device_type: str, dtype: Any) -> None:
    """Let products on this type of device compute in ``dtype`` where autocast is on, in this thread."""
    casting.state.dtypes[_type_of(device_type)] = dtypes.as_dtype(dtype)


def is_autocast_cache_enabled() -> bool:
    """Whether casts of parameters are kept until the outermost context ends."""
    return casting.state.keeps_casts


def set_autocast_cache_enabled(enabled: bool) -> None:
    """Keep casts of parameters, or cast at each use."""
    casting.state.keeps_casts = bool(enabled)


def clear_autocast_cache() -> None:
    """Forget the casts of parameters."""
    casting.state.casts.clear()


def autocast_increment_nesting() -> int:
    """Count one context more, as on entering one."""
    casting.state.depth += 1
    return casting.state.depth


def autocast_decrement_nesting() -> int:
    """Count one context less, as on leaving one."""
    casting.state.depth -= 1
    return casting.state.depth


class settings:
    """A context in which autocast is set as it was where this was made: for what runs again later."""

    def __init__(self) -> None:
        state = casting.state
        self._then = (mode.autocast, set(state.enabled), dict(state.dtypes), state.keeps_casts)
        self._before: list[Any] = []

    def __enter__(self) -> None:
        state = casting.state
        self._before.append((mode.autocast, state.enabled, state.dtypes, state.keeps_casts))
        mode.autocast, enabled, chosen, state.keeps_casts = self._then
        state.enabled, state.dtypes = set(enabled), dict(chosen)
        state.depth += 1

    def __exit__(self, *error: object) -> None:
        state = casting.state
        mode.autocast, state.enabled, state.dtypes, state.keeps_casts = self._before.pop()
        state.depth -= 1
        if not state.depth:
            state.casts.clear()


# -- in a Function -----------------------------------------------------------------------------------


def custom_fwd(fwd: Callable[..., Any] | None = None, *, device_type: str, cast_inputs: Any = None) -> Any:
    """Decorates ``forward`` of a :class:`gpugrad.autograd.Function`: its ``backward`` is to run with autocast as this
    forward did (:func:`custom_bwd`). With ``cast_inputs`` the floating inputs on that type of device are cast to it
    where autocast is on, and forward runs with autocast off."""
    kind = _type_of(device_type)
    if fwd is None:
        return functools.partial(custom_fwd, device_type=device_type, cast_inputs=cast_inputs)
    forward = fwd

    @functools.wraps(forward)
    def inside(ctx: Any, *args: Any, **named: Any) -> Any:
        ctx._dtype = get_autocast_dtype(kind)
        if cast_inputs is None:
            ctx._fwd_used_autocast = is_autocast_enabled(kind)
            return forward(ctx, *args, **named)
        ctx._fwd_used_autocast = False
        if not is_autocast_enabled(kind):
            return forward(ctx, *args, **named)
        dtype = dtypes.as_dtype(cast_inputs)
        with autocast(kind, enabled=False):
            named = {k: _cast_inputs(x, kind, dtype) for k, x in named.items()}
            return forward(ctx, *(_cast_inputs(x, kind, dtype) for x in args), **named)

    return inside


def custom_bwd(bwd: Callable[..., Any] | None = None, *, device_type: str) -> Any:
    """Decorates ``backward`` of a Function whose forward has :func:`custom_fwd`."""
    kind = _type_of(device_type)
    if bwd is None:
        return functools.partial(custom_bwd, device_type=device_type)
    backward = bwd

    @functools.wraps(backward)
    def inside(ctx: Any, *args: Any, **named: Any) -> Any:
        with autocast(kind, enabled=ctx._fwd_used_autocast, dtype=ctx._dtype):
            return backward(ctx, *args, **named)

    return inside


def _cast_inputs(x: Any, kind: str, dtype: dtypes.DType) -> Any:
    """The floating tensors in ``x`` on devices of this type (but for float64 ones) in ``dtype``."""
    if isinstance(x, Tensor):
        return x.to(dtype) if casting._eligible(x, kind) else x
    if isinstance(x, dict):
        return {k: _cast_inputs(v, kind, dtype) for k, v in x.items()}
    if type(x) in (list, tuple):
        return type(x)(_cast_inputs(v, kind, dtype) for v in x)
    return x
