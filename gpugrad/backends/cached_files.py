"""Files that can be made again: where backends keep compiled kernels and what they tuned."""

from __future__ import annotations

import hashlib
import logging
import os
import stat
import tempfile
from pathlib import Path

logger = logging.getLogger("gpugrad")


def cache_folder() -> Path:
    """``$GPUGRAD_CACHE``, else gpugrad's part of the user's cache folder."""
    base = os.environ.get("GPUGRAD_CACHE") or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "gpugrad"
    )
    return Path(base)


def private(path: Path) -> bool:
    """Whether nobody else can have written ``path`` or what is in its folder, which is said in the log if not: what is
    kept there is run. Raises OSError where there is nothing."""
    if not hasattr(os, "getuid"):
        return True
    for place in (path, path.parent) if path.is_file() else (path,):
        info = place.stat()
        if info.st_uid != os.getuid() or stat.S_IMODE(info.st_mode) & 0o022:
            logger.info("gpugrad: %s belongs to, or can be written by, somebody else, and is not used", place)
            return False
    return True


def store_sealed(path: Path, content: bytes) -> None:
    """:func:`store` with a digest, for :func:`fetch_sealed`."""
    store(path, hashlib.sha256(content).digest() + content)


def fetch_sealed(path: Path) -> bytes | None:
    """What :func:`store_sealed` kept at ``path``; None, to be made again, if there is nothing, it is damaged, or
    somebody else can have written it."""
    try:
        if not private(path):
            return None
        kept = path.read_bytes()
    except OSError:
        return None
    size = hashlib.sha256().digest_size
    if hashlib.sha256(kept[size:]).digest() != kept[:size]:
        logger.info("gpugrad: %s is damaged and is made again", path)
        return None
    return kept[size:]


def store(path: Path, content: bytes) -> None:
    """Keep ``content`` for the next process, whole or not at all; a cache that cannot be written costs only time."""
    temporary = ""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not private(path.parent):
            return
        handle, temporary = tempfile.mkstemp(dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.replace(temporary, path)
    except OSError as error:
        logger.info("gpugrad: cannot keep %s for the next time: %s", path, error)
        if temporary:
            Path(temporary).unlink(missing_ok=True)
