"""What a tensor is: shape, dtype, device, memory. The half of Tensor that computes nothing."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from gpugrad import dtypes, layout
from gpugrad.autograd.graph import Variable, storage_of
from gpugrad.autograd.modes import no_grad
from gpugrad.devices import Device
from gpugrad.formats import strided
from gpugrad.ops import creation, table


class Size(tuple[int, ...]):
    """A tensor's shape: a tuple with ``numel()``. Parts, sums and multiples of it are Sizes too."""

    __slots__ = ()

    def numel(self) -> int:
        """The number of elements."""
        return math.prod(self)

    def __getitem__(self, index: Any) -> Any:
        part = tuple.__getitem__(self, index)
        return Size(part) if isinstance(index, slice) else part

    def __add__(self, other: Any) -> Any:
        return Size((*self, *other)) if isinstance(other, tuple) else NotImplemented

    def __radd__(self, other: Any) -> Any:
        return Size((*other, *self)) if isinstance(other, tuple) else NotImplemented

    def __mul__(self, times: Any) -> Any:
        return Size(tuple.__mul__(self, times))

    __rmul__ = __mul__

    def __reduce__(self) -> Any:
        return Size, (tuple(self),)

    def __repr__(self) -> str:
        return f"gpugrad.Size({list(self)})"


class UntypedStorage:
    """Memory that tensors share: the address of its first byte and the number of bytes."""

    __slots__ = ("address", "size_in_bytes")

    def __init__(self, address: int, size_in_bytes: int) -> None:
        self.address = address
        self.size_in_bytes = size_in_bytes

    def data_ptr(self) -> int:
        """Address of the first byte."""
        return self.address

    def nbytes(self) -> int:
        """Number of bytes."""
        return self.size_in_bytes

    size = nbytes


class TypedStorage(UntypedStorage):
    """The same memory seen as elements of one dtype: ``len``, iteration and indexing as of a flat tensor."""

    __slots__ = ("elements",)

    def __init__(self, address: int, size_in_bytes: int, elements: Any) -> None:
        super().__init__(address, size_in_bytes)
        self.elements = elements

    @property
    def dtype(self) -> dtypes.DType:
        """What the elements are."""
        return self.elements.dtype

    def size(self) -> int:
        """Number of elements."""
        return self.elements.numel()

    __len__ = size

    def __getitem__(self, index: int) -> Any:
        return self.elements[index].item()

    def __setitem__(self, index: int, value: Any) -> None:
        self.elements[index] = value

    def __iter__(self) -> Iterator[Any]:
        return iter(self.tolist())

    def tolist(self) -> list[Any]:
        """The elements as Python numbers."""
        return self.elements.tolist()

    def untyped(self) -> UntypedStorage:
        """The bytes."""
        return UntypedStorage(self.address, self.size_in_bytes)

    def __repr__(self) -> str:
        lines = "\n".join(f" {value}" for value in self.tolist())
        device = self.elements.device
        return f"{lines}\n[gpugrad.storage.TypedStorage(dtype={self.dtype}, device={device}) of size {self.size()}]"


class TensorInfo(Variable):
    """The part of :class:`gpugrad.Tensor` that answers questions."""

    __slots__ = ()

    # -- what it is ----------------------------------------------------------
    @property
    def shape(self) -> Size:
        """Sizes of the dimensions."""
        return Size(self._array.shape)

    @property
    def dtype(self) -> dtypes.DType:
        """Element type."""
        return dtypes.from_numpy(self._array.dtype)

    @property
    def device(self) -> Device:
        """Where the elements are."""
        return table.device_of(self._backend)

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return self._array.ndim

    @property
    def itemsize(self) -> int:
        """Bytes of an element."""
        return self._array.itemsize

    @property
    def nbytes(self) -> int:
        """Bytes of all elements."""
        return self._array.nbytes

    @property
    def is_cuda(self) -> bool:
        """Whether it is on a CUDA device."""
        return self._backend.name == "cuda"

    @property
    def is_cpu(self) -> bool:
        """Whether it is on the CPU."""
        return self._backend.name == "cpu"

    def size(self, dim: int | None = None) -> Any:
        """The shape, or the size of one dimension."""
        return self.shape if dim is None else self.shape[layout.normalize_axis(dim, self.ndim, "size")]

    def dim(self) -> int:
        """Number of dimensions."""
        return self._array.ndim

    ndimension = dim

    def numel(self) -> int:
        """Number of elements."""
        return int(self._array.size)

    nelement = numel

    def element_size(self) -> int:
        """Bytes of an element."""
        return self._array.itemsize

    def stride(self, dim: int | None = None) -> Any:
        """Strides in elements, or that of one dimension."""
        strides = tuple(s // self._array.itemsize for s in self._array.strides)
        if not self._array.size and self.is_contiguous():
            strides = layout.contiguous_strides(self._array.shape, 1)
        return strides if dim is None else strides[dim]

    def dim_order(self, *, ambiguity_check: Any = False) -> tuple[int, ...]:
        """The dimensions from the widest stride to the narrowest."""
        strides = self.stride()
        return tuple(sorted(range(self.ndim), key=lambda i: (-strides[i], i)))

    def to_dense(self, dtype: Any = None, *, masked_grad: bool = True) -> Any:
        """Itself (converted to ``dtype``): all tensors are dense here."""
        return self if dtype is None else self.to(dtype)  # type: ignore[attr-defined]

    def storage_offset(self) -> int:
        """Elements from the start of the storage to the first one of this tensor."""
        return self._offset // self._array.itemsize

    def is_contiguous(self, memory_format: Any = None) -> bool:
        """Whether the elements lie in C order without gaps; with ``memory_format=channels_last`` whether
        they do when the second dimension is counted as the last."""
        if memory_format is not None and getattr(memory_format, "name", "").startswith("channels_last"):
            order = (0, *range(2, self.ndim), 1)
            strides = tuple(self._array.strides[i] for i in order)
            return self.ndim > 3 and layout.is_contiguous([self.shape[i] for i in order], strides, self.itemsize)
        return creation.is_contiguous(self)

    def is_floating_point(self) -> bool:
        """Whether the dtype is a floating-point one."""
        return self.dtype.is_floating_point

    def is_complex(self) -> bool:
        """Always False: there are no complex tensors."""
        return False

    def get_device(self) -> int:
        """The device's index, -1 for the CPU."""
        return -1 if self._backend.name == "cpu" else self._backend.index

    def is_signed(self) -> bool:
        """Whether the dtype has negative numbers."""
        return self.dtype.is_signed

    def is_nonzero(self) -> bool:
        """Whether the only element is not zero. Raises RuntimeError if there are several or none."""
        if self._array.size != 1:
            raise RuntimeError(
                f"is_nonzero: a tensor of shape {tuple(self.shape)} has {self._array.size} elements, not one; use "
                ".any() or .all()"
            )
        return bool(self._backend.to_host(self._array).reshape(-1)[0] != 0)

    def is_inference(self) -> bool:
        """False: tensors made in inference mode are ordinary ones here."""
        return False

    def is_conj(self) -> bool:
        """False: there are no complex tensors."""
        return False

    is_neg = is_coalesced = is_distributed = is_inference

    def is_pinned(self, device: Any = None) -> bool:
        """False: host memory is not page-locked."""
        return False

    def pin_memory(self, device: Any = None) -> Any:
        """Itself: transfers do not need page-locked memory here."""
        return self

    def is_shared(self) -> bool:
        """False: memory is not shared between processes."""
        return False

    #: kinds of tensors that exist in PyTorch and not here
    retains_grad = False
    is_sparse = is_quantized = is_meta = is_mkldnn = is_mps = is_xpu = is_nested = is_sparse_csr = False

    @property
    def layout(self) -> Any:
        """``gg.strided``, the only way in which elements are stored."""
        return strided

    @property
    def names(self) -> tuple[None, ...]:
        """None for each dimension: they have no names here."""
        return (None,) * self.ndim

    @property
    def output_nr(self) -> int:
        """Which of the results of ``grad_fn`` it is."""
        return getattr(self._node, "index", 0) or 0

    def data_ptr(self) -> int:
        """Address of the first element: equal for tensors whose memory begins at one place."""
        return self._backend.address(self._array)

    def untyped_storage(self) -> UntypedStorage:
        """What is known of the memory that tensors share: its address and its size."""
        return UntypedStorage(self.data_ptr() - self._offset, storage_of(self).nbytes)

    def storage(self) -> TypedStorage:
        """The memory this tensor lies in, as elements of its dtype."""
        held = storage_of(self).nbytes
        count, rest = held // self.itemsize, self._offset % self.itemsize
        with no_grad():
            flat = table.make_view(self.detach(), (count - bool(rest),), (self.itemsize,), rest - self._offset)  # type: ignore[attr-defined]
        return TypedStorage(self.data_ptr() - self._offset, held, flat)

    def is_set_to(self, tensor: Any) -> bool:
        """Whether both have the same memory, shape and strides."""
        return (
            self._backend is tensor._backend
            and self.shape == tensor.shape
            and self._array.strides == tensor._array.strides
            and self.data_ptr() == tensor.data_ptr()
        )

    def is_same_size(self, other: Any) -> bool:
        """Whether the shapes are equal."""
        return self.shape == other.shape
