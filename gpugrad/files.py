"""Writing files so that a crash, a full disk or Ctrl-C never leaves half of one."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary path beside ``path`` to write to; takes its place when the block ends well.

    The file is flushed to the disk before it is renamed, so under the name ``path`` there is
    always the whole old file or the whole new one. If the block raises, the temporary file is
    removed and the old one stays. Raises OSError where the folder cannot be written."""
    target = Path(os.path.realpath(path))  # through a symbolic link, so that the link stays one
    temporary = target.with_name(f".{target.stem[:64]}.{secrets.token_hex(6)}.tmp{target.suffix}")
    try:
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        yield temporary
        _flush(temporary)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
    if os.name == "posix":
        _flush(target.parent)  # the rename itself


def _flush(path: Path) -> None:
    # Windows flushes only what is open for writing; a folder opens read-only everywhere.
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
