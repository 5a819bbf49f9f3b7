"""Names of PyTorch's package that are neither ops nor modules: questions about tensors, settings of
the process, constants, memory formats and the typed constructors of old programs."""

from __future__ import annotations

import math
from typing import Any

from gpugrad import arguments, dtypes, formats
from gpugrad.autograd.modes import is_inference_mode_enabled as is_inference_mode_enabled
from gpugrad.backends.switches import matmul as _products
from gpugrad.devices import Device, backend_of, of_dlpack
from gpugrad.ops import table
from gpugrad.ops.table import wrap
from gpugrad.tensor import Tensor

inf, nan, pi, e = math.inf, math.nan, math.pi, math.e
newaxis = None


# -- questions ---------------------------------------------------------------------


def is_tensor(obj: Any) -> Any:
    """Whether ``obj`` is a Tensor."""
    return isinstance(obj, Tensor)


def is_floating_point(input: Tensor) -> Any:
    """Whether the dtype of ``input`` is a floating-point one."""
    return table.as_tensor_arg("is_floating_point", input).dtype.is_floating_point


def is_complex(input: Tensor) -> Any:
    """False: there are no complex tensors."""
    return table.as_tensor_arg("is_complex", input).is_complex()


def is_signed(input: Tensor) -> Any:
    """Whether the dtype of ``input`` has negative numbers."""
    return table.as_tensor_arg("is_signed", input).is_signed()


def is_nonzero(input: Tensor) -> Any:
    """Whether the only element of ``input`` is not zero. Raises RuntimeError if there are several."""
    return table.as_tensor_arg("is_nonzero", input).is_nonzero()


def is_same_size(input: Tensor, other: Tensor) -> Any:
    """Whether two tensors have one shape."""
    return input.shape == other.shape


def is_inference(input: Tensor) -> Any:
    """False: tensors made in inference mode are ordinary ones here."""
    return table.as_tensor_arg("is_inference", input).is_inference()


def is_storage(obj: Any) -> Any:
    """False: there is no storage class."""
    return False


def numel(input: Tensor) -> Any:
    """The number of elements."""
    return table.as_tensor_arg("numel", input).numel()


def get_device(input: Tensor) -> Any:
    """Index of the device ``input`` is on, -1 for the CPU."""
    return input.get_device()


def typename(obj: Any) -> Any:
    """``gpugrad.FloatTensor`` and the like for a tensor, else the full name of the type."""
    if isinstance(obj, Tensor):
        return obj.type()
    cls = obj if isinstance(obj, type) else type(obj)
    return cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"


def can_cast(from_: Any, to: Any) -> Any:
    """Whether a result of dtype ``from_`` may be stored in a tensor of dtype ``to``: floating numbers
    not as integers, numbers not as bool."""
    return arguments.can_cast(dtypes.as_dtype(from_), dtypes.as_dtype(to))


def detach(input: Tensor) -> Tensor:
    """The same memory, outside the graph."""
    return input.detach()


def detach_(input: Tensor) -> Tensor:
    """Take ``input`` out of the graph, in place."""
    return input.detach_()


# -- memory of other libraries ----------------------------------------------------------


def from_dlpack(ext_tensor: Any, *, device: Any = None, copy: bool | None = None) -> Tensor:
    """A tensor that shares memory with an array of another library (PyTorch, CuPy, NumPy, JAX, ...)
    through DLPack; on the device where that memory is, or moved to ``device``. Changes are seen on
    both sides unless ``copy``. Raises BufferError where the memory cannot be shared."""
    if not hasattr(ext_tensor, "__dlpack_device__"):
        raise TypeError(
            f"from_dlpack: expected an object with __dlpack__ and __dlpack_device__, got {type(ext_tensor).__name__}"
        )
    backend = backend_of(of_dlpack(ext_tensor))
    array = backend.adopt(ext_tensor)
    dtypes.from_numpy(array.dtype)
    out = wrap(array, backend)
    if copy:
        out = out.clone()
    return out if device is None else out.to(device)


def to_dlpack(tensor: Tensor) -> Any:
    """A DLPack capsule that shares the memory of ``tensor``."""
    return tensor.__dlpack__()


# -- settings -------------------------------------------------------------------------------


def get_num_threads() -> Any:
    """How many threads the CPU backend uses (GPUGRAD_THREADS sets it from outside)."""
    return backend_of(Device("cpu")).threads


def set_num_threads(num: Any) -> None:
    """Let the CPU backend use ``num`` threads. Results do not depend on it. Raises RuntimeError unless ``num`` is
    positive."""
    _positive("set_num_threads", num)
    backend_of(Device("cpu")).threads = num


def get_num_interop_threads() -> Any:
    """1: operations run one after another."""
    return 1


def set_num_interop_threads(num: Any) -> None:
    """Accepted for PyTorch's sake: operations run one after another whatever ``num`` is."""
    _positive("set_num_interop_threads", num)


def _positive(op: str, num: Any) -> None:
    if not isinstance(num, int) or num < 1:
        raise RuntimeError(f"{op}: expected a positive number, got {num!r}")


def use_deterministic_algorithms(mode: Any, *, warn_only: bool = False) -> None:
    """Accepted for PyTorch's sake: all algorithms here are deterministic, so that the same program gives the same bits
    each time, for any number of threads (docs/determinism.md)."""


def are_deterministic_algorithms_enabled() -> Any:
    """True: there are no others."""
    return True


def is_deterministic_algorithms_warn_only_enabled() -> Any:
    """False: nothing would be warned of."""
    return False


def set_flush_denormal(mode: Any) -> Any:
    """False: denormals are always kept, the setting is not supported."""
    return False


def set_default_tensor_type(t: Any) -> None:
    """The default dtype by the name of a typed constructor, as in old programs."""
    dtypes.set_default_dtype(_typed(t).dtype)


def get_float32_matmul_precision() -> Any:
    """What :func:`set_float32_matmul_precision` was given, "highest" before."""
    return _products.float32_precision


def set_float32_matmul_precision(precision: Any) -> None:
    """How exact products of float32 matrices have to be at least: "highest", "high" or "medium".
    "high" lets CUDA devices compute in TF32 and "medium" with operands rounded to bfloat16, both by cuBLAS; all other
    devices compute in float32 whichever it is. Raises RuntimeError for another word."""
    if precision not in ("highest", "high", "medium"):
        raise RuntimeError(f"set_float32_matmul_precision: expected highest, high or medium, got {precision!r}")
    _products.float32_precision = precision


# -- typed constructors -------------------------------------------------------------------------


class TypedTensor:
    """``gg.FloatTensor`` and its like: makes tensors of one dtype, and is what ``isinstance`` and
    ``Tensor.type`` take in old programs."""

    def __init__(self, name: str, dtype: dtypes.DType) -> None:
        self.__name__ = self.__qualname__ = name
        self.dtype = dtype

    def __call__(self, *data: Any, device: Any = None) -> Tensor:
        return Tensor(*data, dtype=self.dtype, device=device)

    def __instancecheck__(self, obj: Any) -> bool:
        return isinstance(obj, Tensor) and obj.dtype is self.dtype

    def __repr__(self) -> str:
        return f"<class 'gpugrad.{self.__name__}'>"


TYPED = {f"{stem}Tensor": TypedTensor(f"{stem}Tensor", dtype) for stem, dtype in dtypes.STEMS.items()}


def _typed(t: Any) -> Any:
    """A typed constructor, given as such or by its name."""
    found = t if isinstance(t, TypedTensor) else TYPED.get(str(t).rpartition(".")[2])
    if found is None:
        raise TypeError(f"expected one of {', '.join(TYPED)}, got {t!r}")
    return found


def names() -> dict[str, Any]:
    """What belongs into the namespace of the package."""
    public = {k: v for k, v in globals().items() if not k.startswith("_") and k not in _NOT_PUBLIC}
    return public | TYPED | formats.names()


_NOT_PUBLIC = set(
    "Any Device TYPED Tensor TypedTensor annotations arguments backend_of of_dlpack dtypes formats "
    "math names table wrap".split()
)
