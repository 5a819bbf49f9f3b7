"""Making tensors: from data, filled, ranges; copies, casts and moves between devices."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from gpugrad import dtypes, layout
from gpugrad.autograd.graph import edge_of
from gpugrad.autograd.modes import mode
from gpugrad.backends.base import StridedArray
from gpugrad.devices import Device, backend_of
from gpugrad.devices import device as resolve_device
from gpugrad.errors import DeviceError, DTypeError
from gpugrad.ops import table
from gpugrad.ops.table import Op, composite, primitive, record, wrap
from gpugrad.ops.table import Sample as S


def backend_for(device: Any, dtype: dtypes.DType, op: str) -> Any:
    """The backend of ``device`` (None: the current one). Raises DeviceError if it cannot
    store ``dtype``."""
    backend = backend_of(resolve_device(device))
    require_dtype(backend, dtype, op)
    return backend


def require_dtype(backend: Any, dtype: dtypes.DType, op: str) -> None:
    """Raises DeviceError if ``backend`` cannot store and compute on ``dtype``."""
    if not backend.supports(dtype.numpy):
        info = backend.info()
        raise DeviceError(
            f"{op}: {dtype.name} is not supported on {table.device_of(backend)} ({info.name}); use float32 there"
        )


def shape_of(size: tuple[Any, ...], op: str) -> tuple[int, ...]:
    """A shape given as separate integers or as one sequence. Raises TypeError, RuntimeError."""
    try:
        if len(size) == 1 and not isinstance(size[0], (int, np.integer)):
            size = tuple(size[0])
        shape = tuple(operator.index(n) for n in size)
    except TypeError:
        raise TypeError(f"{op}: sizes must be integers, got {size}") from None
    if any(n < 0 for n in shape):
        raise RuntimeError(f"{op}: sizes must not be negative, got {shape}")
    return shape


def check_options(op: str, options: dict[str, Any]) -> None:
    """The options of PyTorch's that change nothing here: ``layout`` (strided), ``pin_memory``,
    ``memory_format``. Raises TypeError for others, NotImplementedError for other layouts."""
    for name, value in options.items():
        if name not in ("layout", "pin_memory", "memory_format"):
            raise TypeError(f"{op}: unexpected argument {name!r}")
        if name == "layout" and value is not None and getattr(value, "name", value) != "strided":
            raise NotImplementedError(f"{op}: layout {value} does not exist here; tensors are strided (dense)")


def rounded_once(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function`` of tensors and numbers, computed in float32 for half types and rounded once, at its end. Autocast,
    where it is on, chooses the dtypes in it instead."""

    def half(x: Any) -> bool:
        return isinstance(x, table.Tensor) and x._array.dtype in dtypes.HALVES

    def wide(x: Any) -> Any:
        return cast(x, dtypes.float32) if half(x) else x

    @functools.wraps(function)
    def call(*args: Any, **named: Any) -> Any:
        if mode.autocast or not (any(map(half, args)) or any(map(half, named.values()))):
            return function(*args, **named)
        tensors = [x for x in (*args, *named.values()) if isinstance(x, table.Tensor)]
        result = function(*map(wide, args), **{k: wide(v) for k, v in named.items()})
        return cast(result, table.result_type(*tensors))

    return call


def _finish(t: Any, requires_grad: bool) -> Any:
    return t.requires_grad_() if requires_grad else t


# -- from data ---------------------------------------------------------------


def tensor(
    data: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False, pin_memory: bool = False
) -> Any:
    """A new tensor with a copy of ``data``: a number, nested lists of numbers or of tensors,
    an ndarray, a tensor. Python floats become the default dtype, ints int64.

    Raises ValueError for ragged lists, TypeError for elements that are not numbers."""
    if isinstance(data, table.Tensor):
        place = data.device if device is None else resolve_device(device)
        t = data.detach().clone() if dtype is None else cast(data.detach(), dtypes.as_dtype(dtype), copy=True)
        t = to_device(t, place)
        return _finish(t, requires_grad)
    array = _host_array(data, dtype)
    d = dtypes.from_numpy(array.dtype)
    backend = backend_for(device, d, "tensor")
    return _finish(wrap(backend.from_host(array), backend), requires_grad)


def _host_array(data: Any, dtype: Any) -> np.ndarray:
    wanted = None if dtype is None else dtypes.as_dtype(dtype)
    typed = isinstance(data, (np.ndarray, np.generic)) or hasattr(data, "__array_interface__")
    if not typed:
        data = _plain(data)
    try:
        array = np.asarray(data)
    except ValueError as error:
        raise ValueError(f"tensor: the nested lists are ragged, rows of one level differ in length ({error})") from None
    except OverflowError as error:
        raise RuntimeError(f"tensor: a value does not fit ({error})") from None
    if not typed and array.dtype.kind in "Ou" and _offender(data) == "int" and wanted is not dtypes.uint64:
        raise ValueError("tensor: an integer does not fit in int64; use a float, or uint64 for up to 2**64 - 1")
    if array.dtype.kind in "OUSMmVc" and dtypes.bfloat16.numpy != array.dtype:
        kind = _offender(data)
        raise DTypeError(
            f"tensor: cannot make a tensor of {kind}; elements must be numbers or bools (NumPy reads the data as "
            f"dtype {array.dtype})"
        )
    if wanted is None and not typed:
        if array.dtype.kind == "f":
            wanted = _floating_of(data) or dtypes.get_default_dtype()
        if array.size == 0:
            wanted = dtypes.get_default_dtype()
    d = wanted or dtypes.from_numpy(array.dtype)
    with np.errstate(all="ignore"):
        return array.astype(d.numpy, copy=False)


def _plain(data: Any) -> Any:
    """``data`` with the tensors inside its lists turned into ndarrays."""
    if isinstance(data, table.Tensor):
        return data.detach().cpu().numpy()
    if isinstance(data, (list, tuple)):
        return [_plain(x) for x in data] if _holds_tensor(data) else data
    return data


def _holds_tensor(data: Any) -> bool:
    if isinstance(data, table.Tensor):
        return True
    return isinstance(data, (list, tuple)) and any(_holds_tensor(x) for x in data)


_PLAIN = frozenset((float, int, bool))


def _floating_of(data: Any) -> Any:
    """What the floating numbers in nested lists promote to: Python's have the default dtype, NumPy's their own."""
    if isinstance(data, (list, tuple)):
        kinds = set(map(type, data))
        if kinds <= _PLAIN:
            return dtypes.get_default_dtype() if float in kinds else None
        found = {_floating_of(x) for x in data} - {None}
        return functools.reduce(dtypes.promote_types, found) if found else None
    if isinstance(data, (np.ndarray, np.generic)):
        d = dtypes.from_numpy(data.dtype)
        return d if d.is_floating_point else None
    return dtypes.get_default_dtype() if isinstance(data, float) else None


def _offender(data: Any) -> str:
    if isinstance(data, (list, tuple)):
        for x in data:
            kind = _offender(x)
            if kind not in ("int", "float", "bool"):
                return kind
        return "int"
    return type(data).__name__


def as_tensor(data: Any, dtype: Any = None, device: Any = None) -> Any:
    """``data`` as a tensor, sharing memory where nothing has to change."""
    if isinstance(data, table.Tensor):
        t = data if dtype is None else cast(data, dtypes.as_dtype(dtype))
        return t if device is None else to_device(t, resolve_device(device))
    place = resolve_device(device)
    if isinstance(data, np.ndarray) and place.type == "cpu" and data.flags.writeable:
        if dtype is None or dtypes.as_dtype(dtype).numpy == data.dtype:
            return from_numpy(data)
    return tensor(data, dtype=dtype, device=place)


def from_numpy(ndarray: np.ndarray) -> Any:
    """A CPU tensor that shares memory with ``ndarray``. Raises TypeError for other types and
    unsupported dtypes, ValueError for negative strides."""
    array = ndarray
    if not isinstance(array, np.ndarray):
        raise TypeError(f"from_numpy: expected an ndarray, got {type(array).__name__}")
    dtypes.from_numpy(array.dtype)
    if any(s < 0 for s in array.strides):
        raise ValueError("from_numpy: the array has negative strides; pass array.copy()")
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    return wrap(array.view(np.ndarray), backend_of(Device("cpu")))


# -- filled ---------------------------------------------------------------------


def full(
    size: Any, fill_value: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False, **options: Any
) -> Any:
    """A tensor of shape ``size`` with every element ``fill_value``, whose type sets the dtype."""
    if options:
        check_options("full", options)
    if isinstance(size, int):
        raise TypeError(f"full: size must be a sequence of integers, got {size}; write full(({size},), ...)")
    shape = shape_of(tuple(size), "full")
    if isinstance(fill_value, table.Tensor):
        fill_value = fill_value.item()
    d = table.number_dtype(fill_value) if dtype is None else dtypes.as_dtype(dtype)
    backend = backend_for(device, d, "full")
    array = backend.empty(shape, d.numpy)
    backend.fill(array, fill_value)
    return _finish(wrap(array, backend), requires_grad)


def _sized(name: str, value: float | None) -> Any:
    def make(
        *sizes: Any,
        size: Any = None,
        dtype: Any = None,
        device: Any = None,
        requires_grad: bool = False,
        **options: Any,
    ) -> Any:
        if options:
            check_options(name, options)
        if not sizes and size is None:
            raise TypeError(f"{name}: the size is missing; {name}(()) makes a 0-d tensor")
        shape = shape_of(sizes if size is None else (size,), name)
        d = dtypes.get_default_dtype() if dtype is None else dtypes.as_dtype(dtype)
        backend = backend_for(device, d, name)
        array = backend.empty(shape, d.numpy)
        if value is not None:
            backend.fill(array, value)
        return _finish(wrap(array, backend), requires_grad)

    content = "uninitialised" if value is None else f"filled with {value:g}"
    make.__name__ = make.__qualname__ = name
    make.__doc__ = (
        f"A tensor of shape ``size`` (integers or one sequence), {content}."
        " dtype: the default one; device: the current one."
    )
    return make


zeros = _sized("zeros", 0)
ones = _sized("ones", 1)
empty = _sized("empty", None)


def full_like(
    input: Any, fill_value: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False, **options: Any
) -> Any:
    """:func:`full` of the shape of ``input``, and of its dtype and device unless given."""
    if options:
        check_options("full_like", options)
    if isinstance(fill_value, table.Tensor):
        fill_value = fill_value.item()
    d = input.dtype if dtype is None else dtypes.as_dtype(dtype)
    backend = input._backend if device is None else backend_of(resolve_device(device))
    require_dtype(backend, d, "full_like")
    array = backend.empty(input._array.shape, d.numpy)
    backend.fill(array, fill_value)
    return _finish(wrap(array, backend), requires_grad)


def zeros_like(
    input: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False, **options: Any
) -> Any:
    """Zeros of the shape, dtype and device of ``input``."""
    return full_like(input, 0, dtype=dtype, device=device, requires_grad=requires_grad, **options)


def ones_like(input: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False, **options: Any) -> Any:
    """Ones of the shape, dtype and device of ``input``."""
    return full_like(input, 1, dtype=dtype, device=device, requires_grad=requires_grad, **options)


def empty_like(
    input: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False, **options: Any
) -> Any:
    """Uninitialised, of the shape, dtype and device of ``input``."""
    return empty(
        input._array.shape,
        dtype=input.dtype if dtype is None else dtype,
        device=input.device if device is None else device,
        requires_grad=requires_grad,
        **options,
    )


def fill(input: Any, value: Any) -> Any:
    """A tensor like ``input`` with every element ``value``, a number or a 0-d tensor (differentiable)."""
    from gpugrad.ops.inplace import constant_in

    if not isinstance(value, table.Tensor):
        return constant_in(input, full_like(input, value))
    if value._array.ndim:
        raise RuntimeError(f"fill: value must be a number or a 0-d tensor, got {table.describe(value)}")
    from gpugrad.ops.movement import expand

    wide = clone(expand(cast(to_device(value, input.device), input.dtype), tuple(input._array.shape)))
    return constant_in(input, wide)


# -- ranges and matrices -----------------------------------------------------------


def arange(
    start: Any = None,
    end: Any = None,
    step: Any = 1,
    *,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
    **options: Any,
) -> Any:
    """``start``, ``start + step``, ... up to but without ``end``; ``arange(end)`` starts at 0.
    int64 if all arguments are integers, else the default dtype. Raises RuntimeError if ``step``
    is 0 or leads away from ``end``."""
    if options:
        check_options("arange", options)
    if end is None:
        start, end = 0, start
    if end is None:
        raise TypeError("arange: at least its end must be given, as in arange(5)")
    start = 0 if start is None else start
    start, end, step = (x.item() if hasattr(x, "item") else x for x in (start, end, step))
    if not all(math.isfinite(v) for v in (start, end, step)):
        raise RuntimeError(f"arange: start, end and step must be finite, got {start}, {end} and {step}")
    if step == 0:
        raise RuntimeError("arange: step must not be zero")
    if (end - start) * (1 if step > 0 else -1) < 0:
        raise RuntimeError(f"arange: end {end} is on the wrong side of start {start} for step {step}")
    if dtype is not None:
        d = dtypes.as_dtype(dtype)
    elif all(isinstance(x, int) for x in (start, end, step)):
        d = dtypes.int64
    else:
        d = dtypes.get_default_dtype()
    if d is dtypes.int64:
        start, end, step = int(start), int(end), int(step)
        if not step:
            raise RuntimeError("arange: step must not be zero, and becomes so as an int64")
    n = math.ceil((end - start) / step)
    if all(isinstance(x, int) for x in (start, end, step)):
        n = -((start - end) // step)
    if d.category == 1:
        start, step = int(start), int(step)
    backend = backend_for(device, d, "arange")
    return _finish(wrap(backend.arange(n, start, step, d.numpy), backend), requires_grad)


def eye(
    n: int,
    m: int | None = None,
    *,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
    **options: Any,
) -> Any:
    """``[n, m]`` with ones on the diagonal (m: n unless given)."""
    t = zeros(n, n if m is None else m, dtype=dtype, device=device, **options)
    size = t._array.itemsize
    diagonal = t._backend.as_strided(t._array, (min(t._array.shape),), ((t._array.shape[1] + 1) * size,), 0)
    t._backend.fill(diagonal, 1)
    return _finish(t, requires_grad)


def _triangle(input: Any, diagonal: int, lower: bool) -> Any:
    from gpugrad.ops import elementwise as e

    if input._array.ndim < 2:
        raise RuntimeError(
            f"{'tril' if lower else 'triu'}: expected at least 2 dimensions, got shape {tuple(input.shape)}"
        )
    n, m = input._array.shape[-2:]
    with Device(input._backend.name, input._backend.index):
        row, column = arange(n).reshape(n, 1), arange(m)
    keep = e.le(column, e.add(row, diagonal)) if lower else e.ge(column, e.add(row, diagonal))
    if input.dtype is dtypes.bool_:
        return e.logical_and(input, keep)
    return e.where(keep, input, 0)


_MATRIX = (S(((4, 5),)), S(((3, 3),), {"diagonal": 1}), S(((2, 3, 4),), {"diagonal": -1}))


@composite(reference=lambda a, diagonal=0: np.tril(a, diagonal), samples=_MATRIX)
def tril(input: Any, diagonal: int = 0) -> Any:
    """The lower triangle of the last two dimensions, up to ``diagonal``; zero above."""
    return _triangle(input, diagonal, True)


@composite(reference=lambda a, diagonal=0: np.triu(a, diagonal), samples=_MATRIX)
def triu(input: Any, diagonal: int = 0) -> Any:
    """The upper triangle of the last two dimensions, from ``diagonal`` on; zero below."""
    return _triangle(input, diagonal, False)


# -- copies, casts, moves --------------------------------------------------------------


@primitive("clone", (lambda g: g,), reference=lambda a: a.copy(), samples=(S(((3, 4),)), S(((),)), S(((0, 2),))))
def _clone(backend: Any, a: Any) -> Any:
    return backend.copy(a)


def clone(input: Any, *, memory_format: Any = None) -> Any:
    """A copy in memory of its own, in C order; differentiable."""
    return _clone(input)


_clone.op.function = clone  # type: ignore[attr-defined]


@primitive(
    "cast",
    (lambda g: g,),
    samples=(S(((3, 4),), {"dtype": np.dtype(np.float32)}),),
    reference=lambda a, dtype: a.astype(dtype),
    torch="Tensor.type",
)
def _cast(backend: Any, a: Any, dtype: np.dtype) -> Any:
    return backend.copy(a, dtype)


def cast(x: Any, dtype: dtypes.DType, copy: bool = False) -> Any:
    """``x`` converted to ``dtype``; itself if it has that dtype and ``copy`` is not asked."""
    if x._array.dtype == dtype.numpy:
        return clone(x) if copy else x
    require_dtype(x._backend, dtype, "to")
    if not dtype.is_floating_point:
        x = wrap(x._array, x._backend)  # outside the graph: integers and booleans have no derivative
    return _cast(x, dtype=dtype.numpy)


_to_device = Op("to_device", "transfer", (lambda g, source: to_device(g, source),))


def to_device(x: Any, device: Device, copy: bool = False) -> Any:
    """``x`` on ``device``; itself if it is there already. Differentiable: the gradient
    travels back."""
    target = backend_of(device)
    source = x._backend
    if target is source:
        return clone(x) if copy else x
    require_dtype(target, x.dtype, "to")
    out = wrap(target.from_host(source.to_host(x._array)), target)
    if mode.enabled:
        edge = edge_of(x)
        if edge is not None:
            record(_to_device, out, (x,), (edge,), {"source": table.device_of(source)})
    return out


_to_device.function = to_device


def contiguous(x: Any) -> Any:
    """``x`` if its elements lie in C order without gaps, else a copy that does."""
    return x if is_contiguous(x) else clone(x)


def is_contiguous(x: Any) -> bool:
    """Whether the elements lie in memory in C order without gaps."""
    array = x._array
    if isinstance(array, np.ndarray):
        return array.flags.c_contiguous
    if isinstance(array, StridedArray):
        return array.is_contiguous
    return layout.is_contiguous(array.shape, array.strides, array.itemsize)
