"""Which devices there are, which one is meant, and the backends behind them.

A *backend factory* makes the backend of one device type; ``cpu``, ``cuda`` and ``opencl``
come with the package and are imported when first asked for; others enter through
:func:`register_backend`.
"""

from __future__ import annotations

import importlib
import logging
import os
import threading
from collections.abc import Callable
from typing import Any

from gpugrad.errors import DeviceError

logger = logging.getLogger("gpugrad")

_MODULES = {"cpu": "gpugrad.backends.cpu", "cuda": "gpugrad.backends.cuda", "opencl": "gpugrad.backends.opencl"}
_DLPACK = {1: "cpu", 3: "cpu", 2: "cuda", 13: "cuda"}  # 3: page-locked host memory, 13: managed CUDA memory
_factories: dict[str, Callable[[int], Any]] = {}
_enumerators: dict[str, Callable[..., list[Any]]] = {}
_open: dict[tuple[str, int], Any] = {}
_lock = threading.RLock()
#: what is called with every backend that is opened: empty, or the profiler's
on_open: list[Callable[[Any], None]] = []
_auto: Device | None = None


class Device:
    """A device's name: ``type`` ("cpu", "cuda", "opencl", ...) and ``index``.

    ``device("opencl")``, ``device("cuda:1")``, ``device("cuda", 1)``, ``device(1)`` (of the default
    type), ``device()`` (the default), ``device("auto")``. Naming a device does not open it.
    Also a context manager: inside ``with gg.device("opencl"):`` tensors are created there.
    Raises DeviceError for a type that is not known."""

    __slots__ = ("type", "index")

    type: str
    index: int

    def __init__(self, type: Any = None, index: int | None = None) -> None:
        if index is None and type != "cpu" or type not in known():
            meant = device(type, index)
            self.type, self.index = meant.type, meant.index
        else:
            self.type = type
            self.index = index or 0

    def __eq__(self, other: object) -> bool:
        if isinstance(other, str):
            try:
                other = parse(other)
            except (DeviceError, ValueError):
                return False
        return isinstance(other, Device) and (self.type, self.index) == (other.type, other.index)

    def __hash__(self) -> int:
        return hash((self.type, self.index))

    def __str__(self) -> str:
        return self.type if self.type == "cpu" else f"{self.type}:{self.index}"

    def __repr__(self) -> str:
        if self.type == "cpu":
            return "device(type='cpu')"
        return f"device(type={self.type!r}, index={self.index})"

    def __reduce__(self) -> tuple[Any, ...]:
        return Device, (self.type, self.index)

    def __enter__(self) -> Device:
        _local.entered.append(self)
        return self

    def __exit__(self, *error: object) -> None:
        _local.entered.pop()


class _Local(threading.local):
    """The devices whose contexts this thread is in, the innermost last."""

    def __init__(self) -> None:
        self.entered: list[Device] = []


_local = _Local()
_default: Device | None = None


def register_backend(
    type: str, factory: Callable[[int], Any], enumerate_devices: Callable[..., list[Any]] | None = None
) -> None:
    """Make device type ``type`` known.

    ``factory(index)`` returns its :class:`gpugrad.backends.base.Backend`, or raises
    ``DeviceError`` saying what is missing. ``enumerate_devices(probe=False)`` lists what
    there is, for :func:`devices`; without it the type is listed with index 0."""
    if not type.isidentifier():
        raise ValueError(f"register_backend: {type!r} is not a plain name")
    with _lock:
        _factories[type] = factory
        if enumerate_devices is not None:
            _enumerators[type] = enumerate_devices


def known() -> set[str]:
    """The types of devices that have a backend, present or not."""
    return _MODULES.keys() | _factories.keys()


def _load(type: str) -> None:
    if type not in _factories and type in _MODULES:
        module = importlib.import_module(_MODULES[type])
        _factories.setdefault(type, module.open)
        _enumerators.setdefault(type, module.enumerate_devices)


def backend_of(device: Device) -> Any:
    """The backend of ``device``, opened on first use. Raises DeviceError if it is absent."""
    key = (device.type, device.index)
    found = _open.get(key)
    if found is None:
        with _lock:
            if key not in _open:
                _load(device.type)
                _open[key] = _factories[device.type](device.index)
                for tell in on_open:
                    tell(_open[key])
            found = _open[key]
    return found


def opened(type: str | None = None) -> list[Any]:
    """The backends of devices (of ``type``, if given) that have been opened."""
    with _lock:
        return [backend for (kind, _), backend in _open.items() if type in (None, kind)]


def parse(text: str) -> Device:
    """A Device from "cpu", "cuda:1", "opencl", "auto". Raises DeviceError for an unknown type."""
    kind, _, number = text.strip().lower().partition(":")
    if kind in ("auto", "gpu"):
        return auto_device()
    if kind not in known():
        raise DeviceError(
            f"device {text!r} is unknown: expected auto, {', '.join(sorted(known()))}, with an index as in 'opencl:1'"
        )
    if number and not number.isdigit():
        raise DeviceError(f"device {text!r}: the index must be a number, as in '{kind}:0'")
    if not number and kind == "opencl":
        return Device(kind, _first_working(kind))
    if kind == "cpu" and number.strip("0"):
        raise DeviceError(f"device {text!r} is absent: there is one CPU device, 'cpu'")
    return Device(kind, int(number or 0))


def _first_working(kind: str) -> int:
    """Index of the first device of ``kind`` that opens: a listed OpenCL driver may be unable
    to compile for the processor it runs on."""
    for type, index in _open:
        if type == kind:
            return index
    _load(kind)
    failure: DeviceError | None = None
    for i in range(len(_enumerators[kind]())):
        try:
            backend_of(Device(kind, i))
            return i
        except DeviceError as error:
            logger.info("gpugrad: %s:%d is left out: %s", kind, i, error)
            failure = failure or error
    if failure is not None:
        raise failure
    return 0  # opening it says what is missing


def device(spec: Any = None, index: int | None = None) -> Device:
    """The device meant by a string, a Device, an index of the default type or None (default).

    Does not open it. Raises DeviceError for a type that is not known."""
    if spec is None:
        return current_device()
    if isinstance(spec, Device):
        return spec
    if isinstance(spec, str):
        return parse(spec if index is None else f"{spec}:{index}")
    if isinstance(spec, int) and not isinstance(spec, bool):
        return Device(current_device().type, spec)
    raise TypeError(f"device must be a string such as 'cpu' or 'opencl:0', not {type(spec).__name__}")


def current_device() -> Device:
    """Where new tensors go: the innermost ``with gg.device(...)``, else the default."""
    if _local.entered:
        return _local.entered[-1]
    return _default if _default is not None else _initial_default()


def _initial_default() -> Device:
    global _default
    with _lock:
        if _default is None:
            _default = parse(os.environ.get("GPUGRAD_DEVICE", "cpu") or "cpu")
        return _default


def set_default_device(device: Any) -> None:
    """Where new tensors go from now on (all threads); opens the device. The environment
    variable GPUGRAD_DEVICE sets it from outside; without either it is the CPU."""
    global _default
    chosen = Device(device)
    backend_of(chosen)
    _default = chosen


def get_default_device() -> Device:
    """The device :func:`set_default_device` chose (or the innermost context's)."""
    return current_device()


def auto_device() -> Device:
    """The best device: CUDA, else an OpenCL GPU, else the CPU. Says once which it took."""
    global _auto
    with _lock:
        if _auto is None:
            _auto = _choose()
            logger.warning("gpugrad: device auto is %s (%s)", _auto, backend_of(_auto).info().name)
        return _auto


def _choose() -> Device:
    for kind, wanted in (("cuda", None), ("opencl", "gpu")):
        try:
            _load(kind)
            for i, info in enumerate(_enumerators[kind]()):
                if wanted is None or info.kind == wanted:
                    candidate = Device(kind, i)
                    backend_of(candidate)
                    return candidate
        except DeviceError as error:
            logger.info("gpugrad: no %s device: %s", kind, error)
    return Device("cpu")


def devices(probe: bool = False) -> list[tuple[Device, Any]]:
    """All devices present, as (device, info) pairs; info is a
    :class:`gpugrad.backends.base.DeviceInfo`. With ``probe`` each OpenCL driver is asked to
    compile something, and one that cannot says why in ``info.error``."""
    found = []
    for kind in ("cuda", "opencl", "cpu", *sorted(_factories.keys() - _MODULES.keys())):
        try:
            _load(kind)
            listed = _enumerators[kind](probe=probe) if kind in _enumerators else [backend_of(Device(kind)).info()]
        except DeviceError as error:
            logger.info("gpugrad: no %s device: %s", kind, error)
            continue
        found += [(Device(kind, i), info) for i, info in enumerate(listed)]
    return found


def is_available(kind: str) -> bool:
    """Whether a device of type ``kind`` can be opened."""
    try:
        backend_of(parse(kind))
    except DeviceError:
        return False
    return True


def of_dlpack(foreign: Any) -> Device:
    """The device on which an object with DLPack's methods has its memory. Raises BufferError."""
    number, index = (int(n) for n in foreign.__dlpack_device__())
    kind = _DLPACK.get(number)
    if kind is None:
        raise BufferError(f"from_dlpack: DLPack's device type {number} is none of ours; copy to the CPU first")
    return Device(kind, 0 if kind == "cpu" else index)


def synchronize(spec: Any = None) -> None:
    """Wait until all work queued on a device is done; raises what its kernels flagged."""
    backend_of(device(spec)).synchronize()


def memory_stats(spec: Any = None) -> dict[str, int]:
    """Bytes of memory on a device: ``allocated`` by tensors that live, ``peak``, the most that was allocated since the
    device was opened or :func:`reset_peak_memory_stats`, and ``reserved``: ``allocated`` and what the pool holds for
    later tensors. ``spec``: a device, by default the current one.

    Sizes are those of the memory blocks, which may be a little larger than the tensors. On the CPU, tensors of less
    than 64 KiB are not counted; nor is what an operation uses within itself."""
    return backend_of(device(spec)).memory_stats()


def reset_peak_memory_stats(spec: Any = None) -> None:
    """Let ``peak`` of :func:`memory_stats` begin anew, from what is allocated now."""
    backend_of(device(spec)).reset_peak_memory_stats()
