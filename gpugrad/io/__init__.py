"""Saving and loading: any tree of tensors and plain values as one safetensors file, and PyTorch's checkpoints.

Reading a file never executes code.
"""

from __future__ import annotations

import os
from io import BytesIO
from typing import Any, BinaryIO

from gpugrad.io import trees
from gpugrad.io.checkpoints import is_checkpoint, load_checkpoint, placement

__all__ = ["load", "load_metadata", "save"]


def save(
    obj: Any,
    f: str | os.PathLike[str] | BinaryIO,
    pickle_module: Any = None,
    pickle_protocol: int = 2,
    _use_new_zipfile_serialization: bool = True,
    *,
    metadata: dict[str, str] | None = None,
) -> None:
    """Write ``obj`` to ``f``, a path or a binary file object, in safetensors format (a path atomically).

    ``obj`` is a tree of dicts (with strings, numbers or None as keys), lists, tuples and sets over tensors, NumPy
    arrays, numbers, strings, bytes, booleans, dtypes, devices and None: a ``state_dict()`` of a module, of an
    optimizer, or both in one dict beside epoch and rates. Tensors on any device; strided views are saved as what they
    show; Parameters and ``requires_grad`` come back as they were. ``metadata`` adds strings to the header. PyTorch's
    pickle arguments are accepted and change nothing, as nothing is pickled. If anything fails, the file that was at
    ``f`` is still there unharmed. Raises TypeError, naming the place, for what cannot be saved, NotImplementedError for
    whole modules and optimizers, and OSError from the disk."""
    trees.write(obj, f, metadata or {})


def load(
    f: str | os.PathLike[str] | BinaryIO,
    map_location: Any = None,
    pickle_module: Any = None,
    *,
    device: Any = None,
    weights_only: bool | None = None,
    mmap: bool | None = None,
    **pickle_load_args: Any,
) -> Any:
    """What is in the file ``f`` (a path or a binary file object): one of :func:`save`, a safetensors file from
    elsewhere (a dict of tensors by name), or a checkpoint of ``torch.save``.

    Of PyTorch's files, tensors in plain containers can be read: state_dicts of modules and optimizers, Parameters,
    numbers, strings; attributes that somebody gave a tensor are left out. No code of the file is executed, whatever
    ``weights_only`` says; anything else in it is refused by name.

    Tensors go to ``device``, or what PyTorch calls ``map_location``: None, the default device, wherever they were
    saved from; a device; and for PyTorch's files also a dict from saved location to device (others: the default
    device), or a function of (storage, location), called with a stand-in for the storage and returning it,
    its ``cpu()`` or ``cuda()``, a device, or None. ``mmap`` and ``pickle_module`` are accepted and change nothing.
    Raises FileFormatError, naming the file and the reason, if it is truncated, altered or of another format,
    ValueError for both ``device`` and ``map_location``, and OSError if it cannot be read."""
    if device is not None and map_location is not None:
        raise ValueError("load: device and map_location are two names for one thing; give one of them")
    unknown = pickle_load_args.keys() - {"encoding", "errors", "fix_imports"}
    if unknown:
        raise TypeError(f"load: unexpected argument {min(unknown)}")
    place = placement(device if device is not None else map_location)
    name = _name(f)
    if hasattr(f, "read"):
        content = f.read()
        if is_checkpoint(content[:512]):
            return load_checkpoint(name, BytesIO(content), place)
        return trees.read(name, content, place("cpu"))
    with open(f, "rb") as file:
        if is_checkpoint(file.read(512)):
            file.seek(0)
            return load_checkpoint(name, file, place)
        file.seek(0)
        return trees.read(name, file.read(), place("cpu"))


def load_metadata(f: str | os.PathLike[str] | BinaryIO) -> dict[str, str]:
    """The ``metadata`` given to :func:`save`. Raises as :func:`load` does."""
    if hasattr(f, "read"):
        content = f.read()
    else:
        with open(f, "rb") as file:
            content = file.read()
    header, _ = trees.parse(_name(f), content)
    return {key: value for key, value in header.items() if key not in (trees.TREE, trees.DIGEST)}


def _name(f: Any) -> str:
    return str(getattr(f, "name", "the file object")) if hasattr(f, "read") else os.fspath(f)
