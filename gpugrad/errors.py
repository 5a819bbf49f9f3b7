"""Exceptions of gpugrad.

Most mistakes raise the exception type that PyTorch users already catch
(``RuntimeError``, ``TypeError``, ``ValueError``, ``IndexError``); the classes
here are subtypes of those, so either name works in an ``except`` clause.
"""

from __future__ import annotations


class GpugradError(RuntimeError):
    """Base of the errors that gpugrad itself raises."""


class DeviceError(GpugradError):
    """A device is absent, cannot do what is asked, or two devices were mixed."""


class DTypeError(GpugradError, NotImplementedError, TypeError):
    """An op is not defined for a dtype, or its result cannot be stored in one. PyTorch raises any of these bases."""


class DivisionByZeroError(GpugradError, ZeroDivisionError):
    """Integers were divided by zero; a RuntimeError too, as in PyTorch."""


class OutOfRangeError(GpugradError, IndexError):
    """An index in a tensor lies outside the size that it indexes. An IndexError, and a RuntimeError too, which is
    what PyTorch raises for it in ``gather`` and ``scatter``."""


class OutOfMemoryError(DeviceError):
    """A device could not give the memory asked for."""


class FileFormatError(GpugradError, ValueError):
    """A file is truncated, corrupted or not of the expected format."""


class LinAlgError(GpugradError):
    """A matrix has no factorization of the kind asked for: it is singular, or not positive definite."""


class HostTripWarning(UserWarning):
    """A device has no routine for a factorization, so its data goes to the host and back.

    Silence it with ``warnings.filterwarnings("ignore", category=gpugrad.errors.HostTripWarning)``."""
