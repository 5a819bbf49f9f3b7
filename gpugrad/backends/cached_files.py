"""Files that can be made again: where backends keep compiled kernels and what they tuned."""

from __future__ import annotations

import logging
import os
import tempfile
from pathlib import Path

logger = logging.getLogger("gpugrad")


def cache_folder() -> Path:
    """``$GPUGRAD_CACHE``, else gpugrad's part of the user's cache folder."""
    base = os.environ.get("GPUGRAD_CACHE") or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "gpugrad"
    )
    return Path(base)


def store(path: Path, content: bytes) -> None:
    """Keep ``content`` for the next process, whole or not at all; a cache that cannot be written costs only time."""
    temporary = ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.replace(temporary, path)
    except OSError as error:
        logger.info("gpugrad: cannot keep %s for the next time: %s", path, error)
        if temporary:
            Path(temporary).unlink(missing_ok=True)
