"""Saving and loading: any tree of tensors and plain values, as one safetensors file.

The tensors are ordinary safetensors entries, named by their path in the tree
(``{"model": {"0.weight": t}}`` becomes ``model.0.weight``), so every safetensors reader can
open the file. Two metadata entries are ours: ``gpugrad.tree``, the tree as JSON with a name
where each tensor was, and ``gpugrad.sha256`` over names, dtypes, shapes, metadata and data,
because the format itself has no checksum. Reading a file never executes code.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from typing import Any, BinaryIO

import numpy as np

from gpugrad import dtypes
from gpugrad.devices import device as as_device
from gpugrad.errors import FileFormatError
from gpugrad.files import atomic_path
from gpugrad.ops.creation import tensor
from gpugrad.tensor import Tensor

_TREE = "gpugrad.tree"
_DIGEST = "gpugrad.sha256"
_CODES = {
    "BOOL": dtypes.bool_, "U8": dtypes.uint8, "I8": dtypes.int8, "I16": dtypes.int16, "I32": dtypes.int32,
    "I64": dtypes.int64, "U16": dtypes.uint16, "U32": dtypes.uint32, "U64": dtypes.uint64,
    "F16": dtypes.float16, "BF16": dtypes.bfloat16, "F32": dtypes.float32, "F64": dtypes.float64,
}  # fmt: skip
_NAMES = {dtype.name: code for code, dtype in _CODES.items()}


def save(obj: Any, path: str | os.PathLike[str] | BinaryIO, metadata: dict[str, str] | None = None) -> None:
    """Write ``obj`` to ``path`` (or a binary file object) in safetensors format, atomically.

    ``obj`` is a tree of dicts (with string or integer keys), lists and tuples over tensors,
    NumPy arrays, numbers, strings, booleans and None: a ``state_dict()`` of a module, of an
    optimizer, or both in one dict. Tensors on any device; strided views are saved as what they
    show. ``metadata`` adds strings to the header. If anything fails, the file that was at
    ``path`` is still there unharmed. Raises TypeError, naming the place, for what cannot be
    saved, and OSError from the disk."""
    import safetensors

    arrays: dict[str, np.ndarray] = {}
    header = {str(key): str(value) for key, value in (metadata or {}).items()}
    reserved = {_TREE, _DIGEST} & header.keys()
    if reserved:
        raise ValueError(f"save: the metadata name {min(reserved)!r} is taken by gpugrad itself; use another")
    header[_TREE] = json.dumps(_flatten(obj, "", arrays), separators=(",", ":"))
    rows = [(name, _NAMES[a.dtype.name], a.shape, a.reshape(-1).view(np.uint8)) for name, a in arrays.items()]
    header[_DIGEST] = _digest(header, rows)
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


def load(
    path: str | os.PathLike[str] | BinaryIO, device: Any = None, *, map_location: Any = None, weights_only: bool = True
) -> Any:
    """What :func:`save` wrote, with its tensors on ``device`` (None: the default device).

    A safetensors file from elsewhere gives a dict of tensors by name. ``map_location`` is
    PyTorch's name for ``device``; ``weights_only`` is accepted and changes nothing, since
    loading never executes code. Raises FileFormatError, naming the file and the reason, if it
    is truncated, altered or not safetensors, and OSError if it cannot be read."""
    name, header, entries = _read(path)
    where = as_device(device if device is not None else map_location)
    arrays = {key: _array(name, key, code, shape, data) for key, code, shape, data in entries}
    tree = header.get(_TREE)
    if tree is None:
        return {key: tensor(array, device=where) for key, array in arrays.items()}
    try:
        return _restore(json.loads(tree), arrays, where)
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise FileFormatError(f"{name}: the structure in its header does not fit its tensors ({error!r})") from error


def load_metadata(path: str | os.PathLike[str] | BinaryIO) -> dict[str, str]:
    """The ``metadata`` given to :func:`save`. Raises as :func:`load` does."""
    return {key: value for key, value in _read(path)[1].items() if key not in (_TREE, _DIGEST)}


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
    if node is None or isinstance(node, (bool, int, float, str)):
        return node
    if isinstance(node, Tensor):
        return {"tensor": _keep(node.detach().numpy(force=True), path, arrays)}
    if isinstance(node, np.ndarray):
        if node.dtype.name not in _NAMES:
            raise TypeError(f"save: {path or 'the object'} is a NumPy array of {node.dtype}, which safetensors lacks")
        return {"array": _keep(node, path, arrays)}
    if isinstance(node, dict):
        for key in node:
            if not isinstance(key, (str, int)):
                raise TypeError(f"save: the key {key!r} in {path or 'the dict'} is neither a string nor an integer")
        return {"dict": [[key, _flatten(value, _join(path, key), arrays)] for key, value in node.items()]}
    if isinstance(node, (list, tuple)):
        kind = "list" if isinstance(node, list) else "tuple"
        return {kind: [_flatten(value, _join(path, i), arrays) for i, value in enumerate(node)]}
    raise TypeError(
        f"save: {path or 'the object'} is a {type(node).__name__}; only tensors, NumPy arrays, numbers, strings, "
        f"None, and dicts, lists and tuples of them can be saved"
    )


def _keep(array: np.ndarray, path: str, arrays: dict[str, np.ndarray]) -> str:
    name = path or "tensor"
    while name in arrays or name == "__metadata__":  # {"a.b": x, "a": {"b": y}}
        name += "'"
    arrays[name] = np.asarray(array, dtype=array.dtype.newbyteorder("<"), order="C")
    return name


def _join(path: str, key: object) -> str:
    return f"{path}.{key}" if path else str(key)


def _restore(node: Any, arrays: dict[str, np.ndarray], device: Any) -> Any:
    if not isinstance(node, dict):
        return node
    ((kind, value),) = node.items()
    if kind == "tensor":
        return tensor(arrays[value], device=device)
    if kind == "array":
        return arrays[value].copy()
    if kind == "dict":
        return {key: _restore(item, arrays, device) for key, item in value}
    items = [_restore(item, arrays, device) for item in value]
    if kind == "list":
        return items
    if kind == "tuple":
        return tuple(items)
    raise ValueError(f"unknown node {kind!r}")


# -- the file ------------------------------------------------------------------

_Entry = tuple[str, str, tuple[int, ...], Any]  # name, dtype code, shape, bytes


def _read(path: str | os.PathLike[str] | BinaryIO) -> tuple[str, dict[str, str], list[_Entry]]:
    """Name, metadata and entries of a safetensors file, checked as far as it allows."""
    import safetensors

    if hasattr(path, "read"):
        name, content = getattr(path, "name", "the file object"), path.read()
    else:
        name = os.fspath(path)
        with open(path, "rb") as file:
            content = file.read()
    try:
        found = safetensors.deserialize(content)
        length = _header_length(content)
        header = json.loads(content[8 : 8 + length]).get("__metadata__") or {}
    except (safetensors.SafetensorError, ValueError) as error:
        reason = "it is empty" if not content else f"truncated, altered or another format: {error}"
        raise FileFormatError(f"{name} is not a complete safetensors file ({reason})") from error
    entries = [(key, row["dtype"], tuple(row["shape"]), row["data"]) for key, row in found]
    if _DIGEST in header and header[_DIGEST] != _digest(header, entries):
        raise FileFormatError(f"{name} is damaged: its contents do not match the checksum it was saved with")
    return name, header, entries


def _digest(header: dict[str, str], entries: Iterable[_Entry]) -> str:
    """sha256 over everything that :func:`load` looks at."""
    rows = sorted(entries, key=lambda row: row[0])
    known = {key: value for key, value in header.items() if key != _DIGEST}
    summary = [sorted(known.items()), [[name, code, list(shape)] for name, code, shape, _ in rows]]
    digest = hashlib.sha256(json.dumps(summary).encode())
    for *_, data in rows:
        digest.update(data)
    return digest.hexdigest()


def _array(name: str, key: str, code: str, shape: tuple[int, ...], data: Any) -> np.ndarray:
    if code not in _CODES:
        raise FileFormatError(f"{name}: tensor {key!r} has the type {code}, which gpugrad does not support")
    return np.frombuffer(data, _CODES[code].numpy.newbyteorder("<")).reshape(shape)
