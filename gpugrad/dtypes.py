"""Element types and the rules by which they combine (PyTorch's)."""

from __future__ import annotations

import builtins
from functools import cache
from typing import Any

import ml_dtypes
import numpy as np


class DType:
    """An element type. ``numpy`` is the ``numpy.dtype`` that stores it."""

    __slots__ = ("name", "numpy", "category", "itemsize", "is_floating_point", "is_signed", "is_complex")

    def __init__(self, name: str, numpy: Any, category: Any) -> None:
        self.name = name
        self.numpy = np.dtype(numpy)
        self.category = category  # 0 bool, 1 integer, 2 floating
        self.itemsize = self.numpy.itemsize
        self.is_floating_point = category == 2
        self.is_signed = category == 2 or self.numpy.kind == "i"
        self.is_complex = False

    def __repr__(self) -> str:
        return f"gpugrad.{self.name}"

    def __reduce__(self) -> str:
        return self.name  # pickles and deep copies as the module's one object


bool_ = DType("bool", np.bool_, 0)
uint8 = DType("uint8", np.uint8, 1)
int8 = DType("int8", np.int8, 1)
int16 = DType("int16", np.int16, 1)
int32 = DType("int32", np.int32, 1)
int64 = DType("int64", np.int64, 1)
uint16 = DType("uint16", np.uint16, 1)
uint32 = DType("uint32", np.uint32, 1)
uint64 = DType("uint64", np.uint64, 1)
float16 = DType("float16", np.float16, 2)
bfloat16 = DType("bfloat16", ml_dtypes.bfloat16, 2)
float32 = DType("float32", np.float32, 2)
float64 = DType("float64", np.float64, 2)
bool = bool_  # the name PyTorch gives it; this module uses no Python bool below
half, float, double = float16, float32, float64
short, int, long = int16, int32, int64

ALL = (bool_, uint8, int8, int16, int32, int64, uint16, uint32, uint64, float16, bfloat16, float32, float64)
HALVES = frozenset((float16.numpy, bfloat16.numpy))

#: the first part of the names of PyTorch's typed constructors: FloatTensor, LongTensor, ...
STEMS = {
    "Float": float32, "Double": float64, "Half": float16, "BFloat16": bfloat16, "Long": int64, "Int": int32,
    "Short": int16, "Char": int8, "Byte": uint8, "Bool": bool_,
}  # fmt: skip
_FROM_NUMPY = {d.numpy: d for d in ALL}
_FROM_NAME = {d.name: d for d in ALL} | {"half": float16, "float": float32, "double": float64,
                                         "long": int64, "int": int32, "short": int16}  # fmt: skip
_PYTHON = {builtins.bool: bool_, builtins.int: int64}

_default = float32


def get_default_dtype() -> DType:
    """The dtype of tensors made from Python floats: float32 unless changed."""
    return _default


def set_default_dtype(dtype: Any) -> None:
    """Set what :func:`get_default_dtype` returns. Raises TypeError unless floating."""
    global _default
    d = as_dtype(dtype)
    if not d.is_floating_point:
        raise TypeError(f"set_default_dtype: only floating-point types can be the default, not {d}")
    _default = d


def from_numpy(dtype: np.dtype) -> DType:
    """The DType stored as ``dtype``. Raises TypeError for complex, object, string, ..."""
    found = _FROM_NUMPY.get(dtype)
    if found is None:
        native = dtype.newbyteorder("=")
        found = _FROM_NUMPY.get(native)
    if found is None:
        names = ", ".join(d.name for d in ALL)
        raise TypeError(f"NumPy dtype {dtype} has no gpugrad counterpart; supported are {names}")
    return found


def as_dtype(value: Any) -> DType:
    """A DType from itself, its name, a Python type or anything NumPy reads as a dtype."""
    if isinstance(value, DType):
        return value
    if isinstance(value, str) and value in _FROM_NAME:
        return _FROM_NAME[value]
    if value in _PYTHON:
        return _PYTHON[value]
    if value is builtins.float:
        return _default
    try:
        return from_numpy(np.dtype(value))
    except TypeError as error:
        raise TypeError(f"{value!r} is not a dtype gpugrad knows") from error


def of_type_name(value: Any) -> DType:
    """:func:`as_dtype`, and of a typed constructor or its name ("FloatTensor", "torch.cuda.LongTensor")."""
    text = value if isinstance(value, str) else getattr(value, "__name__", "")
    found = STEMS.get(text.rpartition(".")[2].removesuffix("Tensor")) if text.endswith("Tensor") else None
    return found or as_dtype(value)


@cache
def promote_types(type1: DType, type2: DType) -> DType:
    """The smallest type that both convert to: the higher category wins (bool < integer <
    floating); two floats meet at the wider one, float16 and bfloat16 at float32; integers
    as in NumPy, but uint64 with a signed type is refused (PyTorch refuses it too)."""
    a, b = type1, type2
    if not isinstance(a, DType) or not isinstance(b, DType):
        raise TypeError(f"promote_types: expected two dtypes, got {a!r} and {b!r}")
    if a is b:
        return a
    if a.category != b.category:
        return a if a.category > b.category else b
    if a.category == 2:
        if a.itemsize == b.itemsize:
            return float32
        return a if a.itemsize > b.itemsize else b
    result = np.promote_types(a.numpy, b.numpy)
    if result.kind == "f":
        raise TypeError(f"promotion of {a} with {b} is not supported: convert one of them first")
    return _FROM_NUMPY[result]


class finfo:
    """Machine limits of a floating-point type: bits, eps, max, min, tiny, resolution."""

    def __init__(self, dtype: Any = None) -> None:
        d = _default if dtype is None else as_dtype(dtype)
        if not d.is_floating_point:
            raise TypeError(f"finfo: {d} is not a floating-point type; use iinfo")
        info = ml_dtypes.finfo(d.numpy)
        real = builtins.float
        self.dtype = d.name
        self.bits = d.itemsize * 8
        self.eps = real(info.eps)
        self.max = real(info.max)
        self.min = real(info.min)
        self.tiny = self.smallest_normal = real(info.tiny)
        self.resolution = real(info.resolution)

    def __repr__(self) -> str:
        names = ("resolution", "min", "max", "eps", "smallest_normal", "tiny")
        return f"finfo({', '.join(f'{n}={getattr(self, n):g}' for n in names)}, dtype={self.dtype})"


class iinfo:
    """Limits of an integer type: bits, max, min."""

    def __init__(self, dtype: Any) -> None:
        d = as_dtype(dtype)
        if d.category != 1:
            raise TypeError(f"iinfo: {d} is not an integer type")
        info = np.iinfo(d.numpy)
        self.dtype = d.name
        self.bits = info.bits
        self.max = info.max
        self.min = info.min

    def __repr__(self) -> str:
        return f"iinfo(min={self.min}, max={self.max}, dtype={self.dtype})"
