"""Any tree of tensors and plain values as one safetensors file.

The tensors are ordinary safetensors entries, named by their path in the tree
(``{"model": {"0.weight": t}}`` becomes ``model.0.weight``), so every safetensors reader can
open the file. Two metadata entries are ours: ``gpugrad.tree``, the tree as JSON with a name
where each tensor was, and ``gpugrad.sha256`` over names, dtypes, shapes, metadata and data,
because the format itself has no checksum. Reading a file never executes code.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from gpugrad import dtypes
from gpugrad.devices import Device
from gpugrad.devices import device as as_device
from gpugrad.errors import DeviceError, FileFormatError, GpugradError
from gpugrad.files import atomic_path
from gpugrad.nn.parameter import Buffer, Parameter
from gpugrad.ops.creation import tensor
from gpugrad.tensor import Size, Tensor

TREE = "gpugrad.tree"
DIGEST = "gpugrad.sha256"
_CODES = {
    "BOOL": dtypes.bool_, "U8": dtypes.uint8, "I8": dtypes.int8, "I16": dtypes.int16, "I32": dtypes.int32,
    "I64": dtypes.int64, "U16": dtypes.uint16, "U32": dtypes.uint32, "U64": dtypes.uint64,
    "F16": dtypes.float16, "BF16": dtypes.bfloat16, "F32": dtypes.float32, "F64": dtypes.float64,
}  # fmt: skip
_NAMES = {dtype.name: code for code, dtype in _CODES.items()}


def write(obj: Any, path: Any, metadata: dict[str, str]) -> None:
    """Write the tree ``obj`` with more ``metadata`` to ``path``, a path or a binary file object."""
    import safetensors

    arrays: dict[str, np.ndarray] = {}
    header = {str(key): str(value) for key, value in metadata.items()}
    reserved = {TREE, DIGEST} & header.keys()
    if reserved:
        raise ValueError(f"save: the metadata name {min(reserved)!r} is taken by gpugrad itself; use another")
    header[TREE] = json.dumps(_flatten(obj, "", arrays), separators=(",", ":"))
    rows = [(name, _NAMES[a.dtype.name], a.shape, a.reshape(-1).view(np.uint8)) for name, a in arrays.items()]
    header[DIGEST] = _digest(header, rows)
    specs = {
        name: safetensors.TensorSpec(
            dtype=a.dtype.name, shape=list(a.shape), data_ptr=a.ctypes.data if a.size else 0, data_len=a.nbytes
        )
        for name, a in arrays.items()
    }
    if hasattr(path, "write"):
        content = bytes(safetensors.serialize(specs, metadata=header))
        end = 8 + _header_length(content)
        path.write(content[:8] + _sorted_header(content[8:end]))
        path.write(memoryview(content)[end:])
        return
    with atomic_path(path) as temporary:
        safetensors.serialize_file(specs, str(temporary), metadata=header)
        with open(temporary, "r+b") as file:
            length = _header_length(file.read(8))
            ordered = _sorted_header(file.read(length))
            file.seek(8)
            file.write(ordered)


def read(name: str, content: bytes, where: Any) -> Any:
    """The tree in the file ``name`` of the given ``content``, its tensors on ``where``."""
    header, entries = parse(name, content)
    arrays = {key: _array(name, key, code, shape, data) for key, code, shape, data in entries}
    tree = header.get(TREE)
    if tree is None:
        return {key: tensor(array, device=where) for key, array in arrays.items()}
    try:
        return _restore(json.loads(tree), arrays, where)
    except GpugradError:  # of the device
        raise
    except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise FileFormatError(f"{name}: the structure in its header does not fit its tensors ({error!r})") from error


def _header_length(start: bytes) -> int:
    return int.from_bytes(start[:8], "little")


def _sorted_header(header: bytes) -> bytes:
    """``header`` with its metadata in order of their names: safetensors leaves them in one that changes
    from run to run, and the same weights should be the same file."""
    fields = json.loads(header)
    fields["__metadata__"] = dict(sorted(fields["__metadata__"].items()))
    text = json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode().ljust(len(header))
    return text if len(text) == len(header) else header


# -- the tree ------------------------------------------------------------------


def _flatten(node: Any, path: str, arrays: dict[str, np.ndarray]) -> Any:
    """``node`` as JSON values; its tensors go into ``arrays`` under the names left in it."""
    if node is None or isinstance(node, (bool, int, float, str)) and not isinstance(node, np.generic):
        return node
    if isinstance(node, Tensor):
        kept = _keep(node.detach().numpy(force=True), path, arrays)
        if isinstance(node, Parameter):
            return {"parameter" if node.requires_grad else "frozen": kept}
        if isinstance(node, Buffer):
            return {"buffer" if node.persistent else "passing": kept}
        return {"leaf" if node.requires_grad else "tensor": kept}
    if isinstance(node, (np.ndarray, np.generic)):
        if node.dtype.name not in _NAMES:
            raise TypeError(f"save: {path or 'the object'} is a NumPy array of {node.dtype}, which safetensors lacks")
        return {"array" if isinstance(node, np.ndarray) else "number": _keep(np.asarray(node), path, arrays)}
    if isinstance(node, (bytes, bytearray)):
        return {type(node).__name__: _keep(np.frombuffer(node, np.uint8), path, arrays)}
    if isinstance(node, dict):
        for key in node:
            if key is not None and not isinstance(key, (str, int, float)):
                raise TypeError(f"save: the key {key!r} in {path or 'the dict'} is neither a string nor a number")
        kind = "counter" if isinstance(node, Counter) else "ordered" if isinstance(node, OrderedDict) else "dict"
        items = [[key, _flatten(value, _join(path, key), arrays)] for key, value in node.items()]
        metadata = getattr(node, "_metadata", None)  # the versions of modules that a state_dict carries
        if kind == "ordered" and metadata is not None:
            return {"state": [items, _flatten(metadata, _join(path, "_metadata"), arrays)]}
        return {kind: items}
    if isinstance(node, (list, tuple, set, frozenset)):
        kind = next(name for name, made in _SEQUENCES.items() if isinstance(node, made))
        return {kind: [_flatten(value, _join(path, i), arrays) for i, value in enumerate(node)]}
    if isinstance(node, dtypes.DType):
        return {"dtype": node.name}
    if isinstance(node, Device):
        return {"device": str(node)}
    if callable(getattr(node, "state_dict", None)):
        raise NotImplementedError(
            f"save: {path or 'the object'} is a whole {type(node).__name__}, and its code cannot be saved; save its "
            "state_dict(), and load that into a new one by load_state_dict()"
        )
    raise TypeError(
        f"save: {path or 'the object'} is a {type(node).__name__}; only tensors, NumPy arrays, numbers, strings, "
        f"None, and dicts, lists, tuples and sets of them can be saved"
    )


def _keep(array: np.ndarray, path: str, arrays: dict[str, np.ndarray]) -> str:
    name = path or "tensor"
    while name in arrays or name == "__metadata__":  # {"a.b": x, "a": {"b": y}}
        name += "'"
    arrays[name] = np.asarray(array, dtype=array.dtype.newbyteorder("<"), order="C")
    return name


def _join(path: str, key: object) -> str:
    return f"{path}.{key}" if path else str(key)


_SEQUENCES: dict[str, type] = {"size": Size, "list": list, "tuple": tuple, "set": set, "frozenset": frozenset}
_TENSORS: dict[str, Callable[[Tensor], Any]] = {
    "tensor": lambda x: x,
    "leaf": lambda x: x.requires_grad_(),
    "parameter": Parameter,
    "frozen": lambda x: Parameter(x, requires_grad=False),
    "buffer": Buffer,
    "passing": lambda x: Buffer(x, persistent=False),
}
_ARRAYS: dict[str, Callable[[np.ndarray], Any]] = {
    "array": np.ndarray.copy,
    "number": lambda a: a[()],
    "bytes": np.ndarray.tobytes,
    "bytearray": lambda a: bytearray(a.tobytes()),
}
_DICTS: dict[str, type] = {"dict": dict, "ordered": OrderedDict, "counter": Counter}


def _restore(node: Any, arrays: dict[str, np.ndarray], device: Any) -> Any:
    if not isinstance(node, dict):
        return node
    ((kind, value),) = node.items()
    if kind in _TENSORS:
        return _TENSORS[kind](tensor(arrays[value], device=device))
    if kind in _ARRAYS:
        return _ARRAYS[kind](arrays[value])
    if kind in _DICTS:
        return _DICTS[kind]({key: _restore(item, arrays, device) for key, item in value})
    if kind == "state":
        state = _restore({"ordered": value[0]}, arrays, device)
        state._metadata = _restore(value[1], arrays, device)
        return state
    if kind in _SEQUENCES:
        return _SEQUENCES[kind]([_restore(item, arrays, device) for item in value])
    if kind == "dtype":
        return dtypes.as_dtype(value)
    if kind == "device":
        try:
            return as_device(value)
        except DeviceError as error:  # the file's fault, unlike a device that load() was asked to put tensors on
            raise ValueError(str(error)) from error
    raise ValueError(f"unknown node {kind!r}")


# -- the file ------------------------------------------------------------------

_Entry = tuple[str, str, tuple[int, ...], Any]  # name, dtype code, shape, bytes


def parse(name: str, content: bytes) -> tuple[dict[str, str], list[_Entry]]:
    """Metadata and entries of a safetensors file, checked as far as it allows."""
    import safetensors

    try:
        found = safetensors.deserialize(content)
        length = _header_length(content)
        header = json.loads(content[8 : 8 + length]).get("__metadata__") or {}
    except (safetensors.SafetensorError, ValueError) as error:
        reason = "it is empty" if not content else f"truncated, altered or another format: {error}"
        raise FileFormatError(f"{name} is not a complete safetensors file ({reason})") from error
    entries = [(key, row["dtype"], tuple(row["shape"]), row["data"]) for key, row in found]
    if DIGEST in header and header[DIGEST] != _digest(header, entries):
        raise FileFormatError(f"{name} is damaged: its contents do not match the checksum it was saved with")
    return header, entries


def _digest(header: dict[str, str], entries: Iterable[_Entry]) -> str:
    """sha256 over everything that :func:`load` looks at."""
    rows = sorted(entries, key=lambda row: row[0])
    known = {key: value for key, value in header.items() if key != DIGEST}
    summary = [sorted(known.items()), [[name, code, list(shape)] for name, code, shape, _ in rows]]
    digest = hashlib.sha256(json.dumps(summary).encode())
    for *_, data in rows:
        digest.update(data)
    return digest.hexdigest()


def _array(name: str, key: str, code: str, shape: tuple[int, ...], data: Any) -> np.ndarray:
    if code not in _CODES:
        raise FileFormatError(f"{name}: tensor {key!r} has the type {code}, which gpugrad does not support")
    return np.frombuffer(data, _CODES[code].numpy.newbyteorder("<")).reshape(shape)
