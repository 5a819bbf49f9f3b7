"""Reading what ``torch.save`` writes: tensors in plain containers, without running any code of the file.

A file of today is a zip archive: a pickle of the structure (``data.pkl``), in which every tensor names a record with
the bytes of its storage. Before PyTorch 1.6 it was a row of pickles with the storages behind them. The pickles are
run by :mod:`gpugrad.io.pickles`; here are the names that make tensors, and the checks of what they are given.
"""

from __future__ import annotations

import math
import os
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from typing import Any, BinaryIO, NoReturn

import numpy as np

from gpugrad import dtypes
from gpugrad.devices import device as as_device
from gpugrad.errors import DeviceError, FileFormatError
from gpugrad.io.pickles import PLAIN, Known, Machine
from gpugrad.nn.parameter import Buffer, Parameter
from gpugrad.ops import creation
from gpugrad.tensor import Size, Tensor

MAGIC = 0x1950A86A20F9469CFC6C
_ZIP = b"PK\x03\x04"
_LACKING = {
    "complex tensors": ("ComplexFloatStorage", "ComplexDoubleStorage", "complex32", "complex64", "complex128"),
    "sparse tensors": ("_rebuild_sparse_tensor", "_rebuild_sparse_csr_tensor", "_get_layout"),
    "quantised tensors": (
        "_rebuild_qtensor", "QInt8Storage", "QUInt8Storage", "QInt32Storage", "QUInt4x2Storage", "QUInt2x4Storage",
        "qint8", "quint8", "qint32", "quint4x2", "quint2x4"),
    "8-bit floating-point tensors": ("float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz",
                                     "float8_e8m0fnu"),
    "nested tensors": ("_rebuild_nested_tensor",),
    "tensors without data": ("_rebuild_meta_tensor_no_storage",),
    "tensor subclasses": ("_rebuild_wrapper_subclass",),
}  # fmt: skip


def is_checkpoint(start: bytes) -> bool:
    """Whether a file that starts like this is one for :func:`load_checkpoint`, to be read or to be refused."""
    if start[:4] == _ZIP or start[257:262] == b"ustar":
        return True
    # A safetensors file starts with a length, of which any byte may be these, but then comes its JSON.
    return start[:1] == b"\x80" and start[1:2] in (b"\1", b"\2", b"\3", b"\4", b"\5") and start[8:9] != b"{"


def load_checkpoint(name: str, file: BinaryIO, place: Callable[[str], Any]) -> Any:
    """The object in ``file`` (seekable, called ``name`` in errors); ``place(location)`` is the device for storages
    that were saved from ``location``. Raises FileFormatError."""
    start = file.read(512)
    file.seek(0)
    if start[:4] == _ZIP:
        return _load_zip(name, file, place)
    if start[257:262] == b"ustar":
        raise FileFormatError(
            f"{name} is in the tar format of PyTorch before 0.1.10; load and save it again with a PyTorch of today"
        )
    return _load_legacy(name, file, place)


def placement(map_location: Any) -> Callable[[str], Any]:
    """From PyTorch's ``map_location`` to the device for a saved location ("cpu", "cuda:0", ...).

    None: the default device, wherever it was; a device or its name: that one; a dict: from location to device, the
    default device for others; a function of (storage, location): called with a stand-in for the storage, on the CPU,
    that knows ``cpu()``, ``cuda(index)`` and ``to(device)``, and returns one, a device, or None for the default."""
    if isinstance(map_location, dict):
        return lambda location: as_device(map_location.get(location))
    if callable(map_location):

        def asked(location: str) -> Any:
            answer = map_location(_StandIn("cpu"), location)
            return as_device(answer.device if isinstance(answer, _StandIn) else answer)

        return asked
    return lambda location: as_device(map_location)


class _StandIn:
    """What a ``map_location`` function gets instead of a storage: only the device counts."""

    def __init__(self, device: Any) -> None:
        self.device = device

    def cpu(self) -> _StandIn:
        return _StandIn("cpu")

    def cuda(self, device: Any = 0) -> _StandIn:
        return _StandIn(f"cuda:{device}" if isinstance(device, int) else device)

    def to(self, *, device: Any) -> _StandIn:
        return _StandIn(device)


# -- tensors -----------------------------------------------------------------------


@dataclass(frozen=True)
class StorageType:
    """The type of a storage in a pickle; ``dtype`` None for one of bytes."""

    dtype: dtypes.DType | None


@dataclass(frozen=True)
class Storage:
    """What a persistent id says: ``numel`` elements of ``dtype`` (None: bytes) in the record ``key``."""

    dtype: dtypes.DType | None
    key: str
    location: str
    numel: int


class _NumpyType:
    """A NumPy dtype whose byte order a pickle sets after it was made."""

    def __init__(self, text: str, *rest: Any) -> None:
        self.dtype = np.dtype(text)
        if self.dtype.kind not in "biuf":
            raise TypeError(f"the NumPy type {text}")

    def build_from_pickle(self, state: Any) -> None:
        order = state[1]
        if order in ("<", ">", "="):
            self.dtype = self.dtype.newbyteorder(order)


def _numpy_scalar(kind: _NumpyType, data: bytes) -> Any:
    if not isinstance(kind, _NumpyType) or len(data) != kind.dtype.itemsize:
        raise TypeError("a NumPy number")
    return np.frombuffer(data, kind.dtype)[0]


class Tensors:
    """Makes the tensors of one file. ``read(key)``: the bytes of a record; None on a first look, which makes None of
    every tensor."""

    def __init__(self, name: str, read: Callable[[str], bytes] | None, order: str, place: Callable[[str], Any]) -> None:
        self.name = name
        self.read = read
        self.order = order
        self.place = place
        self.storages: dict[str, Storage] = {}
        self._flat: dict[tuple[str, dtypes.DType], Tensor] = {}
        self.names: dict[str, Any] = {
            **PLAIN,
            "torch._utils _rebuild_tensor": Known("_rebuild_tensor", self._tensor_v1),
            "torch._utils _rebuild_tensor_v2": Known("_rebuild_tensor_v2", self._tensor_v2),
            "torch._utils _rebuild_tensor_v3": Known("_rebuild_tensor_v3", self._tensor_v3),
            "torch._utils _rebuild_parameter": Known("_rebuild_parameter", self._parameter),
            "torch._utils _rebuild_parameter_with_state": Known("_rebuild_parameter_with_state", self._parameter),
            "torch._tensor _rebuild_from_type_v2": Known("_rebuild_from_type_v2", self._from_type),
            "torch.nn.parameter Parameter": Known("Parameter"),
            "torch.nn.parameter Buffer": Known("Buffer"),
            "torch Tensor": Known("Tensor"),
            "torch Size": Known("Size", lambda sizes=(): Size(sizes)),
            "torch device": Known("device", self._device),
            "torch.torch_version TorchVersion": Known("TorchVersion", str),
            "numpy dtype": Known("dtype", _NumpyType),
            "numpy.core.multiarray scalar": Known("scalar", _numpy_scalar),
            "numpy._core.multiarray scalar": Known("scalar", _numpy_scalar),
        }  # fmt: skip
        for dtype in dtypes.ALL:
            self.names[f"torch {dtype.name}"] = dtype
        for stem, dtype in dtypes.STEMS.items():
            self.names[f"torch {stem}Storage"] = self.names[f"torch.cuda {stem}Storage"] = StorageType(dtype)
        for module in ("torch", "torch.storage"):
            self.names[f"{module} UntypedStorage"] = StorageType(None)

    def missing(self, module: str, name: str) -> NoReturn:
        """Raise FileFormatError for a name that is not known."""
        if module.partition(".")[0] == "torch":
            for what, names in _LACKING.items():
                if name in names:
                    raise FileFormatError(f"{self.name} holds {what} ({module}.{name}), which gpugrad does not have")
        raise FileFormatError(
            f"{self.name}: the file refers to {module}.{name}, which is neither a tensor nor a plain container, and "
            "gpugrad runs no code out of files; save only tensors, as of state_dict(), numbers, strings, lists and "
            "dicts"
        )

    def persistent(self, identity: Any) -> Storage:
        """The storage that a persistent id describes."""
        if type(identity) is tuple and identity and identity[0] == "module":
            raise FileFormatError(f"{self.name} holds a whole module with its source; save its state_dict() instead")
        if type(identity) is not tuple or len(identity) not in (5, 6) or identity[0] != "storage":
            raise ValueError("a persistent id of unknown kind")
        _, kind, key, location, numel = identity[:5]
        if not isinstance(kind, StorageType) or not (type(key) is type(location) is str) or not _is_size(numel):
            raise ValueError("the persistent id of a storage with parts of wrong types")
        if len(identity) == 6 and identity[5] is not None:
            raise FileFormatError(f"{self.name} holds views of storages, as only PyTorch before 0.4 made them")
        found = self.storages.setdefault(key, Storage(kind.dtype, key, location, numel))
        if (found.dtype, found.numel) != (kind.dtype, numel):
            raise ValueError(f"storage {key} is described in two ways")
        return found

    def _elements(self, storage: Storage, dtype: dtypes.DType) -> Tensor:
        """All elements of a storage: one tensor, of which those that share it are views."""
        flat = self._flat.get((storage.key, dtype))
        if flat is None:
            assert self.read is not None
            expected = storage.numel * (1 if storage.dtype is None else storage.dtype.itemsize)
            data = self.read(storage.key)
            if len(data) != expected:
                raise ValueError(f"storage {storage.key} should have {expected} bytes and has {len(data)}")
            if len(data) % dtype.itemsize:
                raise ValueError(f"storage {storage.key} does not divide into elements of {dtype.name}")
            values = _decode(data, dtype, self.order)
            flat = self._flat[storage.key, dtype] = creation.tensor(values, device=self.place(storage.location))
        return flat

    def _strided(self, storage: Any, offset: Any, size: Any, stride: Any, dtype: dtypes.DType | None) -> Any:
        if not isinstance(storage, Storage) or dtype is None:
            raise TypeError("a tensor without a storage")
        if type(size) not in (tuple, Size) or type(stride) is not tuple or len(size) != len(stride):
            raise ValueError("a tensor whose shape and strides do not fit")
        if not all(map(_is_size, (offset, *size, *stride))) or len(size) > 64:
            raise ValueError(f"a tensor of shape {tuple(size)[:8]}, strides {stride[:8]}, offset {offset}")
        available = storage.numel * (1 if storage.dtype is None else storage.dtype.itemsize) // dtype.itemsize
        empty = 0 in size
        last = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
        if not empty and last >= available:
            raise ValueError(f"a tensor of shape {tuple(size)} reaches element {last} of a storage of {available}")
        if math.prod(n for n in size if n) * dtype.itemsize > 2**60:
            raise ValueError(f"a tensor of shape {tuple(size)}")
        if self.read is None:
            return None
        if empty:
            return creation.empty(size, dtype=dtype, device=self.place(storage.location))
        flat = self._elements(storage, dtype)
        return flat.as_strided(size, stride, offset).detach()

    # -- what the pickle calls -----------------------------------------------------
    def _tensor_v1(self, storage: Any, offset: Any, size: Any, stride: Any) -> Any:
        return self._strided(storage, offset, size, stride, getattr(storage, "dtype", None))

    def _tensor_v2(
        self, storage: Any, offset: Any, size: Any, stride: Any, requires_grad: Any, hooks: Any, metadata: Any = None
    ) -> Any:
        return self._tensor_v3(
            storage, offset, size, stride, requires_grad, hooks, getattr(storage, "dtype", None), metadata
        )

    def _tensor_v3(
        self, storage: Any, offset: Any, size: Any, stride: Any, requires_grad: Any, hooks: Any, dtype: Any,
        metadata: Any = None,
    ) -> Any:  # fmt: skip
        if hooks or metadata:
            raise FileFormatError(f"{self.name}: a tensor comes with {'hooks' if hooks else 'a sign or conjugate bit'}")
        x = self._strided(storage, offset, size, stride, dtype)
        return x.requires_grad_() if requires_grad and x is not None else x

    def _parameter(self, data: Any, requires_grad: Any, hooks: Any, state: Any = None) -> Any:
        if hooks:
            raise FileFormatError(f"{self.name}: a parameter comes with hooks")
        return None if self.read is None else Parameter(data, bool(requires_grad))

    def _device(self, kind: str, index: int | None = None) -> Any:
        try:
            return as_device(kind if index is None or kind == "cpu" else f"{kind}:{index}")
        except DeviceError as error:
            raise FileFormatError(f"{self.name} names a device that gpugrad does not have: {error}") from error

    def _from_type(self, function: Any, kind: Any, arguments: Any, state: Any) -> Any:
        """A tensor that somebody gave attributes, which are left out."""
        if not (isinstance(function, Known) and isinstance(kind, Known) and function.call is not None):
            raise TypeError("a tensor of a type of its own")
        x = function.call(*arguments)
        if not isinstance(x, Tensor) or kind.name == "Tensor" or isinstance(x, Parameter):
            return x
        return Parameter(x, x.requires_grad) if kind.name == "Parameter" else Buffer(x)


def _is_size(n: Any) -> bool:
    return type(n) is int and 0 <= n < 2**62


def _decode(data: bytes, dtype: dtypes.DType, order: str) -> np.ndarray:
    """Bytes in the given order ("little" or "big") as an array. (ml_dtypes' bfloat16 has no byte order of its own.)"""
    width = dtype.itemsize
    bits = np.frombuffer(data, f"{'>' if order == 'big' else '<'}u{width}").astype(f"=u{width}", copy=False)
    return bits != 0 if dtype is dtypes.bool_ else bits.view(dtype.numpy)


# -- the two containers ------------------------------------------------------------


class _Archive:
    """The records of a zip file, checked before any is read."""

    def __init__(self, name: str, file: BinaryIO) -> None:
        self.name = name
        total = file.seek(0, os.SEEK_END)
        file.seek(0)
        try:
            self.zip = zipfile.ZipFile(file)
            infos = self.zip.infolist()
        except (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error, EOFError, OSError) as error:
            raise FileFormatError(f"{name} is a truncated or damaged zip archive ({error})") from error
        self.infos: dict[str, zipfile.ZipInfo] = {}
        for info in infos:
            if info.filename in self.infos or info.filename.startswith(("/", "\\")) or ".." in info.filename.split("/"):
                self.fail(f"has a record of the name {info.filename!r}, which PyTorch does not write")
            if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1 or info.file_size != info.compress_size:
                self.fail(f"has the compressed or encrypted record {info.filename!r}; PyTorch writes none")
            self.infos[info.filename] = info
        if sum(info.file_size for info in infos) > total:
            self.fail("has records that overlap or are longer than the file")
        roots = [n.removesuffix("data.pkl") for n in self.infos if n.endswith("/data.pkl") and n.count("/") == 1]
        if len(roots) != 1:
            self.fail("is a zip archive without a data.pkl: not what torch.save writes")
        self.root = roots[0]
        if f"{self.root}constants.pkl" in self.infos or any(n.startswith(f"{self.root}code/") for n in self.infos):
            self.fail("is a TorchScript program; save the module's state_dict() instead")

    def fail(self, reason: str) -> NoReturn:
        """Raise FileFormatError."""
        raise FileFormatError(f"{self.name} {reason}")

    def read(self, record: str) -> bytes:
        """The bytes of a record, against its checksum."""
        info = self.infos.get(self.root + record)
        if info is None:
            self.fail(f"lacks the record {record!r}")
        try:
            return self.zip.read(info)
        except (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error, EOFError, OSError) as error:
            raise FileFormatError(f"{self.name}: the record {record!r} is truncated or damaged ({error})") from error


def _load_zip(name: str, file: BinaryIO, place: Callable[[str], Any]) -> Any:
    archive = _Archive(name, file)
    order = "little"
    if f"{archive.root}byteorder" in archive.infos:
        order = archive.read("byteorder").decode("latin1")
        if order not in ("little", "big"):
            archive.fail(f"has the byte order {order[:20]!r}")
    tensors = Tensors(name, lambda key: archive.read(f"data/{key}"), order, place)
    pickled = BytesIO(archive.read("data.pkl"))
    return Machine(pickled, name, tensors.names, tensors.missing, tensors.persistent).run()


def _load_legacy(name: str, file: BinaryIO, place: Callable[[str], Any]) -> Any:
    """Five pickles (a magic number, a version, sizes and byte order, the object, the keys of storages), then the
    storages. The object is gone through twice: what its storages are has to be known to find the end of each."""
    first = Tensors(name, None, "little", place)
    machine = Machine(file, name, first.names, first.missing, first.persistent)
    if machine.run() != MAGIC:
        raise FileFormatError(f"{name} is a pickle, but not of torch.save; gpugrad reads no others")
    version, system = machine.run(), machine.run()
    if version != 1001 or type(system) is not dict:
        machine.fail(f"its format has the version {str(version)[:20]}; 1001 is known")
    order = "little" if system.get("little_endian", True) else "big"
    begin = file.tell()
    machine.run()
    keys = machine.run()
    if type(keys) is not list or not all(type(key) is str and key in first.storages for key in keys):
        machine.fail("its list of storages does not fit its tensors")
    records: dict[str, bytes] = {}
    for key in keys:
        storage = first.storages[key]
        size = storage.numel * (1 if storage.dtype is None else storage.dtype.itemsize)
        if int.from_bytes(file.read(8), order) != storage.numel:  # type: ignore[arg-type]
            machine.fail(f"storage {key} is truncated or damaged")
        records[key] = _read_exactly(file, size)
    second = Tensors(name, lambda key: records.get(key, b""), order, place)
    file.seek(begin)
    return Machine(file, name, second.names, second.missing, second.persistent).run()


def _read_exactly(file: BinaryIO, size: int) -> bytes:
    """Up to ``size`` bytes, without believing that there are so many."""
    here = file.tell()
    left = file.seek(0, os.SEEK_END) - here
    file.seek(here)
    return file.read(min(size, left))
