"""The Tensor: PyTorch's manners over the ops table.

Most methods are ops with the tensor as first argument; ``gpugrad/surface.py`` attaches them,
in-place forms and operators included. Written out here is what is more than that.
"""

from __future__ import annotations

import builtins
import warnings
from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import numpy as np

from gpugrad import dtypes, live
from gpugrad.autograd.graph import Variable
from gpugrad.devices import Device, backend_of, parse
from gpugrad.devices import device as resolve_device
from gpugrad.ops import creation, elementwise, inplace, joining, linear, memory, movement, splitting, subscript, table
from gpugrad.printing import format_tensor
from gpugrad.tensor_grad import TensorGrad
from gpugrad.tensor_info import Size

_CPU = Device("cpu")


class Tensor(TensorGrad):
    """An n-dimensional array on some device, with its place in the autograd graph.

    ``Tensor(data)`` copies a number, lists or an array as the default dtype, ``Tensor(2, 3)`` is
    uninitialised of that shape, ``Tensor()`` and ``Tensor(None)`` have no elements.
    :func:`gpugrad.tensor` keeps dtypes."""

    __slots__ = ()
    __array_priority__ = 1000  # numpy operators leave the work to ours

    def __new__(cls, *data: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
        d = dtypes.get_default_dtype() if dtype is None else dtype
        first = data[0] if data else ()
        if isinstance(first, Size) or len(data) > 1 and isinstance(first, int):
            return creation.empty(*data, dtype=d, device=device, requires_grad=requires_grad)
        if len(data) > 1:
            raise TypeError("Tensor: expected one argument with the values, or sizes as integers")
        t = creation.tensor(() if first is None else first, dtype=d, device=device)
        return t.requires_grad_() if requires_grad else t

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...
        def __add__(self, other: Any) -> Tensor: ...
        def __radd__(self, other: Any) -> Tensor: ...
        def __sub__(self, other: Any) -> Tensor: ...
        def __rsub__(self, other: Any) -> Tensor: ...
        def __mul__(self, other: Any) -> Tensor: ...
        def __rmul__(self, other: Any) -> Tensor: ...
        def __truediv__(self, other: Any) -> Tensor: ...
        def __rtruediv__(self, other: Any) -> Tensor: ...
        def __floordiv__(self, other: Any) -> Tensor: ...
        def __rfloordiv__(self, other: Any) -> Tensor: ...
        def __mod__(self, other: Any) -> Tensor: ...
        def __rmod__(self, other: Any) -> Tensor: ...
        def __pow__(self, other: Any) -> Tensor: ...
        def __rpow__(self, other: Any) -> Tensor: ...
        def __and__(self, other: Any) -> Tensor: ...
        def __rand__(self, other: Any) -> Tensor: ...
        def __or__(self, other: Any) -> Tensor: ...
        def __ror__(self, other: Any) -> Tensor: ...
        def __xor__(self, other: Any) -> Tensor: ...
        def __rxor__(self, other: Any) -> Tensor: ...
        def __lshift__(self, other: Any) -> Tensor: ...
        def __rlshift__(self, other: Any) -> Tensor: ...
        def __rshift__(self, other: Any) -> Tensor: ...
        def __rrshift__(self, other: Any) -> Tensor: ...
        def __iadd__(self, other: Any) -> Tensor: ...
        def __isub__(self, other: Any) -> Tensor: ...
        def __imul__(self, other: Any) -> Tensor: ...
        def __itruediv__(self, other: Any) -> Tensor: ...
        def __ifloordiv__(self, other: Any) -> Tensor: ...
        def __imod__(self, other: Any) -> Tensor: ...
        def __ipow__(self, other: Any) -> Tensor: ...
        def __iand__(self, other: Any) -> Tensor: ...
        def __ior__(self, other: Any) -> Tensor: ...
        def __ixor__(self, other: Any) -> Tensor: ...
        def __lt__(self, other: Any) -> Tensor: ...
        def __le__(self, other: Any) -> Tensor: ...
        def __gt__(self, other: Any) -> Tensor: ...
        def __ge__(self, other: Any) -> Tensor: ...
        def __eq__(self, other: Any) -> Any: ...
        def __ne__(self, other: Any) -> Any: ...
        def __neg__(self) -> Tensor: ...
        def __abs__(self) -> Tensor: ...

    @classmethod
    def _wrap(cls, array: Any, backend: Any) -> Tensor:
        return table.wrap(array, backend)

    def __len__(self) -> int:
        if not self._array.ndim:
            raise TypeError("len: a 0-d tensor has no length; it holds one number, see item()")
        return self._array.shape[0]

    def __repr__(self) -> str:
        return format_tensor(self)

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if not self._array.ndim else object.__format__(self, spec)

    __hash__ = object.__hash__

    # -- values --------------------------------------------------------------
    def item(self) -> Any:
        """The only element as a Python number. Raises RuntimeError if there is not exactly one."""
        if self._array.size != 1:
            raise RuntimeError(f"item: a tensor of shape {tuple(self.shape)} has {self._array.size} elements, not one")
        value = self._backend.to_host(self._array).reshape(-1)[0]
        return (
            value.item()
            if hasattr(value, "item") and not isinstance(value, dtypes.bfloat16.numpy.type)
            else float(value)
        )

    def tolist(self) -> Any:
        """Nested lists of Python numbers (a number for a 0-d tensor)."""
        host = self._backend.to_host(self._array)
        if host.dtype == dtypes.bfloat16.numpy:
            host = host.astype(np.float32)
        return host.tolist()

    def numpy(self, *, force: bool = False) -> np.ndarray:
        """A NumPy array that shares memory with this CPU tensor. ``force``: detach and copy to the
        CPU as needed. Raises RuntimeError or TypeError otherwise."""
        if force:
            return self.detach().cpu().numpy()
        if self.requires_grad:
            raise RuntimeError("numpy: the tensor requires grad; call .detach().numpy()")
        if self._backend.name != "cpu":
            raise TypeError(f"numpy: the tensor is on {self.device}; call .cpu().numpy()")
        if live.recorder is not None:
            live.recorder.broken("looks at the memory of a tensor with NumPy")
        return self._array

    def to_numpy(self) -> np.ndarray:
        """A copy of the values as a NumPy array, from any device."""
        return self._backend.to_host(self._array)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        array = self.numpy()
        if dtype is not None and array.dtype != dtype:
            return array.astype(dtype)
        return array.copy() if copy else array

    def __array_wrap__(self, array: Any, context: Any = None, return_scalar: bool = False) -> Any:
        """What a NumPy ufunc makes of a tensor is a tensor again."""
        return creation.from_numpy(np.asarray(array))

    def __dlpack__(self, **options: Any) -> Any:
        """The DLPack capsule that shares this tensor's memory. Raises BufferError where the device
        cannot share it, RuntimeError for a tensor that requires grad."""
        if self.requires_grad:
            raise BufferError("__dlpack__: the tensor requires grad, which others would not see; call .detach() first")
        return self._backend.export(self._array).__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._backend.export(self._array).__dlpack_device__()

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """What CuPy, Numba and PyTorch need to share CUDA memory; AttributeError elsewhere."""
        if self.requires_grad:
            raise RuntimeError("__cuda_array_interface__: the tensor requires grad; call .detach() first")
        try:
            return self._backend.export(self._array).__cuda_array_interface__
        except BufferError as error:
            raise AttributeError(str(error)) from None

    def __bool__(self) -> bool:
        if self._array.size != 1:
            raise RuntimeError(
                f"the truth of a tensor of shape {tuple(self.shape)} is ambiguous; use .any() or .all(), "
                "or .item() for one element"
            )
        return bool(self.item())

    def __float__(self) -> float:
        return float(self._one_number())

    def __int__(self) -> int:
        return int(self._one_number())

    def _one_number(self) -> Any:
        if self._array.size != 1:
            raise ValueError(
                f"a tensor of shape {tuple(self.shape)} has {self._array.size} elements and is no one number; "
                "see tolist()"
            )
        return self.item()

    def __index__(self) -> int:
        if self.dtype.category == 2 or self._array.size != 1:
            raise TypeError(
                f"index: a Tensor of shape {tuple(self.shape)} and dtype {self.dtype.name} cannot stand for an int; it "
                "takes one element of an integer dtype"
            )
        return int(self.item())

    def __iter__(self) -> Iterator[Tensor]:
        if not self._array.ndim:
            raise TypeError("iter: a 0-d tensor has nothing to go through; it holds one number, see item()")
        return iter(splitting.unbind(self))

    def __reversed__(self) -> Tensor:
        """Flipped along every dimension."""
        return joining.flip(self, tuple(range(self.ndim)))

    def __contains__(self, value: Any) -> bool:
        return bool((self == value).any())

    # -- moving, converting ------------------------------------------------------
    def to(self, *args: Any, copy: bool = False, **options: Any) -> Tensor:
        """Converted and moved: ``to(dtype)``, ``to(device)``, ``to(device, dtype)``, ``to(other)``; itself if
        nothing changes (unless ``copy``). Differentiable, also across devices."""
        device = options.pop("device", None)
        dtype = options.pop("dtype", None)
        for unused in ("non_blocking", "memory_format"):
            options.pop(unused, None)
        if options:
            raise TypeError(f"to: unexpected argument {', '.join(options)}")
        switches = [a for a in args if isinstance(a, bool)]  # non_blocking and copy by position
        copy = copy or switches[1:] == [True]
        for a in args:
            if isinstance(a, Tensor):
                device, dtype = a.device, a.dtype
            elif isinstance(a, dtypes.DType) or (isinstance(a, type) and a in (bool, int, float)):
                dtype = a
            elif isinstance(a, (str, Device)):
                device = a
            elif isinstance(a, bool):
                continue
            elif isinstance(a, int):
                device = a
            elif a is not None:
                raise TypeError(f"to: expected a device, a dtype or a tensor, got {type(a).__name__}")
        x = self
        if dtype is not None:
            d = dtypes.as_dtype(dtype)
            if device is not None and d.itemsize > x.dtype.itemsize:
                x = creation.to_device(x, resolve_device(device))  # the narrow type travels
            x = creation.cast(x, d)
        if device is not None:
            x = creation.to_device(x, resolve_device(device))
        return movement.clone(x) if copy and x is self else x

    def cpu(self, memory_format: Any = None) -> Tensor:
        """On the CPU."""
        return creation.to_device(self, _CPU)

    def cuda(self, device: Any = None, non_blocking: bool = False, memory_format: Any = None) -> Tensor:
        """On a CUDA device (the first unless given)."""
        index = device if isinstance(device, int) else 0
        return creation.to_device(
            self, Device("cuda", index) if device is None or isinstance(device, int) else resolve_device(device)
        )

    def opencl(self, index: int | None = None) -> Tensor:
        """On an OpenCL device (the first that works unless given)."""
        return creation.to_device(self, parse("opencl" if index is None else f"opencl:{index}"))

    def type(self, dtype: Any = None, non_blocking: bool = False) -> Any:
        """Converted to ``dtype``, also given as "FloatTensor" and the like; without one, the name of
        the type: "gpugrad.FloatTensor"."""
        if dtype is None:
            stem = next(stem for stem, d in dtypes.STEMS.items() if d is self.dtype)
            return "gpugrad." + ("" if self.is_cpu else f"{self.device.type}.") + f"{stem}Tensor"
        try:
            wanted = dtypes.of_type_name(dtype)
        except TypeError as error:
            raise (ValueError if isinstance(dtype, str) else TypeError)(f"type: {error}") from None
        return creation.cast(self, wanted)

    def type_as(self, other: Tensor) -> Tensor:
        """Converted to the dtype (and moved to the device) of ``other``."""
        return self.to(other.device, other.dtype)

    def contiguous(self, memory_format: Any = None) -> Tensor:
        """Itself if its elements lie in C order without gaps, else a copy. ``memory_format`` changes
        nothing: the C order is the only one that is made here."""
        return creation.contiguous(self)

    def as_subclass(self, cls: builtins.type) -> Any:
        """The same memory and place in the graph, as a ``cls``."""
        return adopt(cls, self)

    def share_memory_(self) -> Tensor:
        """Raises NotImplementedError: processes exchange tensors by pickling them."""
        raise NotImplementedError(
            "share_memory_: memory shared between processes is not supported; a queue passes tensors on as copies"
        )

    def apply_(self, callable: Callable[[Any], Any]) -> Tensor:
        """In place: ``callable(value)`` of every element, called from Python. On the CPU only."""
        return self._map_in_place("apply_", callable)

    def map_(self, tensor: Tensor, callable: Callable[[Any, Any], Any]) -> Tensor:
        """In place: ``callable(value, tensor's value)`` of every element. On the CPU only."""
        return self._map_in_place("map_", callable, tensor)

    def _map_in_place(self, name: str, function: Callable[..., Any], *others: Tensor) -> Tensor:
        if any(not t.is_cpu for t in (self, *others)):
            raise TypeError(f"{name}: calls Python for every element, on the CPU only; call .cpu(), or use ops")
        if self.requires_grad:
            raise RuntimeError(f"{name}: a Python function has no derivative, but the tensor requires grad")
        columns = [movement.expand(t, self.shape).tolist() if self.ndim else [t.item()] for t in (self, *others)]
        flat = [np.asarray(c, dtype=object).reshape(-1) for c in columns]
        values = [function(*v) for v in zip(*flat, strict=True)]
        return self.copy_(creation.tensor(np.array(values, self.dtype.numpy).reshape(self.shape)))

    def __copy__(self) -> Tensor:
        if not self.is_leaf:
            return self.clone()
        copy = self.detach()
        if type(self) is not Tensor:
            copy = adopt(type(self), copy)
        copy._requires_grad = self._requires_grad
        copy.__dict__.update(self._users_attributes())
        return copy

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        if not self.is_leaf:
            raise RuntimeError("only leaf tensors can be deep-copied; call .detach() first")
        copy = self.detach().clone()
        if type(self) is not Tensor:
            copy = adopt(type(self), copy)
        copy._requires_grad = self._requires_grad
        if self._grad is not None:
            copy._grad = self._grad.detach().clone()
        memo[id(self)] = copy
        copy.__dict__.update({k: deepcopy(v, memo) for k, v in self._users_attributes().items()})
        return copy

    def _users_attributes(self) -> dict[str, Any]:
        """What users set on this tensor: copies and pickles have it too, hooks they have not."""
        return {k: v for k, v in self.__dict__.items() if k not in ("_post_hooks", "retains_grad")}

    def __reduce__(self) -> Any:
        host = self._backend.to_host(self._array)
        return (
            _unpickle,
            (
                host.tobytes(),
                self.dtype.name,
                tuple(self.shape),
                str(self.device),
                self._requires_grad,
                type(self),
            ),
            self._users_attributes() or None,
        )

    # -- creation like this one -----------------------------------------------------
    def new_tensor(self, data: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
        """:func:`gpugrad.tensor` with this dtype and device."""
        return creation.tensor(
            data, dtype=dtype or self.dtype, device=device or self.device, requires_grad=requires_grad
        )

    def new_full(
        self, size: Any, fill_value: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False
    ) -> Tensor:
        """:func:`gpugrad.full` with this dtype and device."""
        return creation.full(
            size, fill_value, dtype=dtype or self.dtype, device=device or self.device, requires_grad=requires_grad
        )

    def new_zeros(self, *size: Any, **options: Any) -> Tensor:
        """:func:`gpugrad.zeros` with this dtype and device."""
        return creation.zeros(*size, **({"dtype": self.dtype, "device": self.device} | options))

    def new_ones(self, *size: Any, **options: Any) -> Tensor:
        """:func:`gpugrad.ones` with this dtype and device."""
        return creation.ones(*size, **({"dtype": self.dtype, "device": self.device} | options))

    def new_empty(self, *size: Any, **options: Any) -> Tensor:
        """:func:`gpugrad.empty` with this dtype and device."""
        return creation.empty(*size, **({"dtype": self.dtype, "device": self.device} | options))

    @staticmethod
    def zeros(*size: Any, **options: Any) -> Tensor:
        """:func:`gpugrad.zeros`."""
        return creation.zeros(*size, **options)

    @staticmethod
    def ones(*size: Any, **options: Any) -> Tensor:
        """:func:`gpugrad.ones`."""
        return creation.ones(*size, **options)

    @staticmethod
    def empty(*size: Any, **options: Any) -> Tensor:
        """:func:`gpugrad.empty`."""
        return creation.empty(*size, **options)

    # -- shape -------------------------------------------------------------------
    def view(self, *shape: Any, size: Any = None, dtype: Any = None) -> Tensor:
        """The same memory under another shape (one size may be -1), or read as another dtype of
        any width. Raises RuntimeError where the strides do not allow it."""
        if dtype is not None or (len(shape) == 1 and isinstance(shape[0], dtypes.DType)):
            return memory.reinterpret(self, shape[0] if dtype is None else dtype)
        if size is not None:
            shape = (size,)
        return movement.view_as_shape(self, *shape)

    def view_as(self, other: Tensor) -> Tensor:
        """``view(other.shape)``."""
        return movement.view_as_shape(self, other.shape)

    def reshape_as(self, other: Tensor) -> Tensor:
        """``reshape(other.shape)``."""
        return movement.reshape(self, other.shape)

    def expand_as(self, other: Tensor) -> Tensor:
        """``expand(other.shape)``."""
        return movement.expand(self, other.shape)

    @property
    def T(self) -> Tensor:
        """All dimensions in reverse order."""
        return movement.permute(self, tuple(range(self.ndim))[::-1])

    @property
    def H(self) -> Tensor:
        """The transpose of a matrix: its adjoint, as there are no complex numbers."""
        if self.ndim not in (0, 2):
            raise RuntimeError(f"H: only of 0-d and 2-d tensors, not of shape {tuple(self.shape)}; use mH for batches")
        return self.mT if self.ndim else self

    @property
    def mH(self) -> Tensor:
        """:attr:`mT`: the adjoint, as there are no complex numbers."""
        return self.mT

    @property
    def mT(self) -> Tensor:
        """The last two dimensions exchanged."""
        return movement.transpose(self, -1, -2)

    # -- indexing -------------------------------------------------------------------
    def __getitem__(self, index: Any) -> Tensor:
        return subscript.getitem(self, index)

    def __delitem__(self, index: Any) -> None:
        raise TypeError("del: the elements of a tensor cannot be removed; select those to keep")

    def __setitem__(self, index: Any, value: Any) -> None:
        subscript.setitem(self, index, value)

    # -- in place ---------------------------------------------------------------------
    def copy_(self, source: Any, non_blocking: bool = False) -> Tensor:
        """Write the values of ``source`` (any dtype and device, broadcast) into this tensor."""
        x = source if isinstance(source, Tensor) else creation.tensor(source)
        x = x.to(self.device)
        if x.dtype is not self.dtype:
            x = creation.cast(x, self.dtype)
        if x.shape != self.shape:
            try:
                x = movement.expand(x, self.shape)
            except RuntimeError:
                raise RuntimeError(
                    f"copy_: a source of shape {tuple(x.shape)} does not broadcast to {tuple(self.shape)}"
                ) from None
        return inplace.write("copy_", self, x)

    def fill_(self, value: Any) -> Tensor:
        """Set every element to ``value``."""
        if isinstance(value, Tensor):
            if value.ndim:
                raise RuntimeError(f"fill_: value must be a number or a 0-d tensor, got shape {tuple(value.shape)}")
            return self.copy_(value)
        edge = inplace.check_inplace("fill_", self)
        self._backend.fill(self._array, value)
        inplace.changed("fill_", self)
        if edge is not None:
            inplace.overwritten(self, edge)
        return self

    def ones_like_root(self) -> Tensor:
        """Ones of this shape, dtype and device, for the walk to begin with."""
        array = self._backend.empty(self._array.shape, self._array.dtype)
        self._backend.fill(array, 1)
        return table.wrap(array, self._backend)

    def accumulate_(self, gradient: Tensor) -> None:
        """In place ``add_`` outside the graph, for the walk: nothing to promote, to broadcast or to record."""
        backend = self._backend
        mine, other = self._array, gradient._array
        if backend is not gradient._backend or mine.dtype != other.dtype or mine.shape != other.shape:
            self.add_(gradient)
            return
        backend.map(elementwise.add.kernel, (mine, other), mine.dtype, mine.dtype, mine)
        inplace.changed("add_", self)

    def zero_(self) -> Tensor:
        """Set every element to 0."""
        return self.fill_(0)

    # -- operators ----------------------------------------------------------------------
    def __pos__(self) -> Tensor:
        return self

    def __matmul__(self, other: Any) -> Any:
        return linear.matmul(self, other) if isinstance(other, Tensor) else NotImplemented

    def where(self, condition: Tensor, other: Any) -> Tensor:
        """This tensor where ``condition``, else ``other``."""
        return elementwise.where(condition, self, other)

    def __invert__(self) -> Tensor:
        return elementwise.bitwise_not(self)


_FIELDS = tuple(name for name in Variable.__slots__ if not name.startswith("__"))


def adopt(cls: type, x: Tensor) -> Any:
    """``x`` as a ``cls``, a subclass of Tensor: the same memory and the same place in the graph."""
    own: Any = object.__new__(cls)
    for name in _FIELDS:
        setattr(own, name, getattr(x, name))
    return own


def _unpickle(data: bytes, dtype: str, shape: tuple[int, ...], device: str, requires_grad: bool, cls: type) -> Tensor:
    host = np.frombuffer(data, dtypes.as_dtype(dtype).numpy).reshape(shape)
    try:
        place = resolve_device(device)
        backend_of(place)
    except RuntimeError as error:
        warnings.warn(f"a pickled tensor of {device} comes to the CPU, as that device is absent: {error}", stacklevel=2)
        place = _CPU
    t = creation.to_device(creation.from_numpy(host.copy()), place)
    if cls is not Tensor:
        t = adopt(cls, t)
    t._requires_grad = requires_grad
    return t


table.bind(Tensor)
