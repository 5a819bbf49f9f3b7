"""C text into a loaded library: with the system's C compiler, each text once per machine.

Libraries are kept in a folder that the user alone can read and write (``GPUGRAD_CACHE``, else ``gpugrad`` in
``XDG_CACHE_HOME`` or ``~/.cache``), under a hash of the text, the compiler's version, its flags and the processor, as
they hold instructions of this one. Several processes may build the same library at a time: each writes a file of its
own and renames it.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from gpugrad.errors import DeviceError

FLAGS = (
    "-O3 -march=native -fPIC -shared -std=gnu11 -fno-math-errno -fno-trapping-math -ffp-contract=off -fwrapv "
    "-fno-strict-aliasing -fopenmp-simd -fvisibility=hidden -w"
).split()

#: seconds after which a compiler is given up
LONGEST = 600


class BuildError(DeviceError):
    """The C compiler refused a text, or its library could not be loaded."""


def named() -> str | None:
    """The C compiler that the user names; the empty name is for none."""
    return os.environ.get("GPUGRAD_CC", os.environ.get("CC"))


@cache
def compiler() -> tuple[str, ...] | None:
    """The command of the C compiler: ``$CC``, else the first of cc, gcc and clang that is found. None if there is none,
    or if what is found cannot build a library for this processor."""
    given = named()
    if given is not None and not given.strip():
        return None  # an empty name switches it off
    for command in (shlex.split(given),) if given else (["cc"], ["gcc"], ["clang"]):
        if shutil.which(command[0]) and _works(command):
            return tuple(command)
    return None


def _works(command: list[str]) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        source, library = Path(folder, "probe.c"), Path(folder, "probe.so")
        source.write_text("int probe(int x) { return x + 1; }\n")
        try:
            done = subprocess.run([*command, *FLAGS, str(source), "-o", str(library)], capture_output=True, timeout=60)
        except (OSError, subprocess.TimeoutExpired):
            return False
        return done.returncode == 0 and library.is_file()


@cache
def vector_bytes() -> int:
    """The bytes of the widest vector that the compiler uses on this processor."""
    command = needed()
    told = subprocess.run([*command, *FLAGS, "-dM", "-E", "-x", "c", os.devnull], capture_output=True, text=True,
                          timeout=60).stdout.split()  # fmt: skip
    return 64 if "__AVX512F__" in told else 32 if "__AVX__" in told else 16


def needed() -> tuple[str, ...]:
    """:func:`compiler`. Raises BuildError where there is none."""
    command = compiler()
    if command is None:
        raise BuildError("no C compiler was found (cc, gcc or clang); install one, or name it in CC")
    return command


@cache
def _identity() -> str:
    """What a library depends on besides its text."""
    command = needed()
    version = subprocess.run([*command, "--version"], capture_output=True, text=True, timeout=60).stdout
    return "\n".join((*command, *FLAGS, version, platform.machine(), _processor()))


def _processor() -> str:
    """The processor's model and abilities, for ``-march=native``."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            lines = file.read().split("\n\n", 1)[0].splitlines()
    except OSError:
        return platform.processor()
    wanted = ("vendor_id", "cpu family", "model", "stepping", "flags", "Features", "CPU ")
    return "\n".join(line for line in lines if line.startswith(wanted))


def folder() -> Path:
    """Where libraries are kept; made if need be. Raises BuildError if somebody else could write to it."""
    given = os.environ.get("GPUGRAD_CACHE")
    base = Path(given) if given else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gpugrad"
    place = base / "host"
    try:
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        info = place.stat()
    except (OSError, RuntimeError):
        return _fallback()
    if hasattr(os, "getuid") and (info.st_uid != os.getuid() or stat.S_IMODE(info.st_mode) & 0o022):
        raise BuildError(
            f"compile: the folder {place} belongs to, or can be written by, somebody else, so compiled code from it is "
            "not run; remove it, or name another one in GPUGRAD_CACHE"
        )
    return place if os.access(place, os.W_OK) else _fallback()


@cache
def _fallback() -> Path:
    """A folder of this process alone, where there is no home to write to."""
    return Path(tempfile.mkdtemp(prefix="gpugrad-"))


def library(text: str, flags: Sequence[str] = ()) -> Path:
    """The file of the library built from ``text``, with ``flags`` besides FLAGS; built now if it is not there, or
    damaged. Raises BuildError."""
    key = hashlib.sha256("\0".join((_identity(), *flags, text)).encode()).hexdigest()[:32]
    place = folder()
    target = place / f"{key}.so"
    if not _sound(target):
        _build(text, flags, place, target)
    return target


def _sound(target: Path) -> bool:
    """Whether the file is a whole library: its digest is in a second file beside it."""
    try:
        return target.with_suffix(".sum").read_text() == hashlib.sha256(target.read_bytes()).hexdigest()
    except OSError:
        return False


def _build(text: str, flags: Sequence[str], place: Path, target: Path) -> None:
    command = needed()
    with tempfile.TemporaryDirectory(dir=place) as scratch:
        source, made = Path(scratch, "text.c"), Path(scratch, "made.so")
        source.write_text(text, encoding="utf-8")
        try:
            done = subprocess.run(
                [*command, *FLAGS, *flags, str(source), "-o", str(made), "-lm"], capture_output=True, text=True,
                timeout=LONGEST,
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired) as error:
            raise BuildError(f"compile: {' '.join(command)} did not finish: {error}") from error
        if done.returncode != 0:
            raise BuildError(f"compile: {' '.join(command)} refused generated code:\n{done.stderr[-4000:]}")
        digest = Path(scratch, "made.sum")
        digest.write_text(hashlib.sha256(made.read_bytes()).hexdigest())
        # Between the two, another process may see a library and no digest of it: it builds its own, which is the same.
        os.replace(made, target)
        os.replace(digest, target.with_suffix(".sum"))


_loaded: dict[tuple[str, ...], tuple[ctypes.CDLL, ctypes.PyDLL]] = {}


def load(text: str, flags: Sequence[str] = ()) -> tuple[ctypes.CDLL, ctypes.PyDLL]:
    """The library of ``text`` twice: with calls that let go of the interpreter lock, and with calls that keep it, which
    are quicker. Raises BuildError."""
    found = _loaded.get((text, *flags))
    if found is None:
        path = library(text, flags)
        try:
            found = ctypes.CDLL(str(path)), ctypes.PyDLL(str(path))
        except OSError as error:
            raise BuildError(f"compile: the library built by {compiler()} cannot be loaded: {error}") from error
        _loaded[text, *flags] = found
    return found
