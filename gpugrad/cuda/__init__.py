"""``torch.cuda``'s questions and settings, answered for gpugrad's CUDA devices.

Where there is none, :func:`is_available` says False, counts are 0 and seeding does nothing harmful, so
that programs which ask first run everywhere. Other devices: ``gpugrad.devices()``."""

from __future__ import annotations

import importlib
from typing import Any, NamedTuple

from gpugrad import random as _random
from gpugrad.absent import missing
from gpugrad.devices import Device, backend_of, opened
from gpugrad.devices import devices as _devices
from gpugrad.devices import is_available as _is_available
from gpugrad.errors import OutOfMemoryError

__all__ = [
    "OutOfMemoryError",
    "current_device",
    "device",
    "device_count",
    "empty_cache",
    "get_device_capability",
    "get_device_name",
    "get_device_properties",
    "get_rng_state",
    "initial_seed",
    "is_available",
    "is_bf16_supported",
    "is_initialized",
    "manual_seed",
    "manual_seed_all",
    "max_memory_allocated",
    "mem_get_info",
    "memory_allocated",
    "memory_reserved",
    "reset_max_memory_allocated",
    "reset_peak_memory_stats",
    "seed",
    "seed_all",
    "set_device",
    "set_rng_state",
    "synchronize",
]

_current = 0


class DeviceProperties(NamedTuple):
    """Name, bytes of memory, compute capability and processors of a device."""

    name: str
    total_memory: int
    major: int
    minor: int
    multi_processor_count: int


def is_available() -> bool:
    """Whether a CUDA device can be opened."""
    return _is_available("cuda")


def is_initialized() -> bool:
    """Whether a CUDA device has been opened."""
    return bool(opened("cuda"))


def device_count() -> int:
    """How many CUDA devices there are."""
    return sum(d.type == "cuda" for d, _ in _devices())


def current_device() -> int:
    """The index that :func:`set_device` chose, 0 before."""
    return _current


def set_device(device: Any) -> None:
    """Mean this device by "cuda" in the functions here. For tensors use ``gpugrad.device``."""
    global _current
    _current = _index(device)


def device(device: Any) -> Device:
    """A context in which tensors are created on this CUDA device."""
    return Device("cuda", _index(device))


def _index(device: Any) -> int:
    if device is None:
        return _current
    if isinstance(device, int):
        return device
    found = Device(device)
    if found.type != "cuda":
        raise ValueError(f"cuda: expected a CUDA device, got {found}")
    return found.index


def _backend(device: Any) -> Any:
    return backend_of(Device("cuda", _index(device)))


def get_device_name(device: Any = None) -> str:
    """The product name of a device. Raises DeviceError if it is absent."""
    return _backend(device).info().name


def get_device_capability(device: Any = None) -> tuple[int, int]:
    """(major, minor) compute capability."""
    major, minor = _backend(device).info().extra["capability"].split(".")
    return int(major), int(minor)


def get_device_properties(device: Any = None) -> DeviceProperties:
    """Name, memory, capability, number of multiprocessors."""
    info = _backend(device).info()
    return DeviceProperties(info.name, info.memory, *get_device_capability(device), info.compute_units)


def is_bf16_supported() -> bool:
    """Whether a device is there: bfloat16 is stored and computed with on every one."""
    return is_available()


def synchronize(device: Any = None) -> None:
    """Wait for all queued work; raises what kernels flagged."""
    _backend(device).synchronize()


def empty_cache() -> None:
    """Give unused pooled memory back to the driver, on every CUDA device that is open."""
    for backend in opened("cuda"):
        backend.release_cached()


def _bytes(what: str, device: Any) -> int:
    return _backend(device).memory_stats()[what] if is_available() else 0


def memory_allocated(device: Any = None) -> int:
    """Bytes that tensors hold."""
    return _bytes("allocated", device)


def max_memory_allocated(device: Any = None) -> int:
    """The most bytes that tensors held so far, or since :func:`reset_peak_memory_stats`."""
    return _bytes("peak", device)


def reset_peak_memory_stats(device: Any = None) -> None:
    """Let :func:`max_memory_allocated` begin anew."""
    if is_available():
        _backend(device).reset_peak_memory_stats()


reset_max_memory_allocated = reset_peak_memory_stats


def memory_reserved(device: Any = None) -> int:
    """Bytes that the pool holds."""
    return _bytes("reserved", device)


def mem_get_info(device: Any = None) -> tuple[int, int]:
    """(free, total) bytes of the device, as far as this process knows."""
    backend = _backend(device)
    total = backend.info().memory
    return total - backend.memory_stats()["reserved"], total


def manual_seed(seed: int) -> None:
    """``gpugrad.manual_seed``: one stream of random numbers serves all devices."""
    _random.manual_seed(seed)


def manual_seed_all(seed: int) -> None:
    """As :func:`manual_seed`."""
    _random.manual_seed(seed)


def seed() -> None:
    """``gpugrad.seed``."""
    _random.seed()


seed_all = seed
initial_seed = _random.initial_seed


def get_rng_state(device: Any = None) -> tuple[int, int]:
    """State of the one generator."""
    return _random.get_rng_state()


def set_rng_state(new_state: tuple[int, int], device: Any = None) -> None:
    """Restore what :func:`get_rng_state` returned."""
    _random.set_rng_state(new_state)


_missing = missing("cuda")


def __getattr__(name: str) -> Any:
    if name == "amp":
        return importlib.import_module("gpugrad.cuda.amp")
    return _missing(name)
