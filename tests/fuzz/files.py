"""Fuzzing the readers of files, led by the lines of theirs that run: ``python -m tests.fuzz.files --reader pickle``.

atheris (``pip install atheris``; wheels for Linux and some versions of Python) mutates files that are valid at first,
and keeps those that reach new lines. Whatever is read, the outcome is a FileFormatError or a load; any other exception,
a crash, ten seconds of work or two gigabytes of memory for one file ends the run with the file kept in ``--keep``.
"""

from __future__ import annotations

import argparse
import gzip
import io
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import atheris
import numpy as np

with atheris.instrument_imports(include=["gpugrad.io", "gpugrad.datasets", "gpugrad.files", "gpugrad.formats"]):
    import gpugrad as gg
    import gpugrad.io.checkpoints
    import gpugrad.io.pickles
    import gpugrad.io.trees
    from gpugrad import datasets

from safetensors.numpy import save as save_safetensors

from tests.test_pt_files import FLOATS, ONE, archive, pickled

_TENSORS = {"x": np.ones(2, np.float32), "n": np.ones((), np.int64)}


def _saved(tree: object) -> bytes:
    file = io.BytesIO()
    gg.save(tree, file)
    return file.getvalue()


def _load(data: bytes) -> None:
    gg.load(io.BytesIO(data), device="cpu")


def _pickle(data: bytes) -> None:
    """The program of a checkpoint, in an archive whose checksums are right."""
    _load(archive(data, {"0": FLOATS}))


def _tree(data: bytes) -> None:
    """The structure around the tensors, in a file whose other parts are right."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return
    _load(save_safetensors(_TENSORS, {"gpugrad.tree": text}))


def _idx(data: bytes) -> None:
    path = Path(tempfile.gettempdir()) / f"gpugrad-fuzz-{os.getpid()}-idx"
    path.write_bytes(data)
    try:
        datasets.read_idx(path)
    finally:
        path.unlink()


_IDX = b"\0\0\x08\2" + np.array([2, 3], ">u4").tobytes() + bytes(range(6))
_STATE = {"w": ONE, "n": [1, 2.5, "text", None, True], "again": ONE}
#: reader -> (what reads, files to begin with)
READERS: dict[str, tuple[Callable[[bytes], None], list[bytes]]] = {
    "checkpoint": (_load, [_saved({"w": gg.arange(4.0), "state": [1, {"k": gg.ones(2, dtype=gg.bfloat16)}]})]),
    "safetensors": (_load, [save_safetensors(_TENSORS), save_safetensors({})]),
    "pt": (_load, [archive(_STATE, {"0": FLOATS})]),
    "pickle": (_pickle, [pickled(_STATE), pickled({"a": (1, {2: "x"})})]),
    "tree": (_tree, [b'{"dict": [["a", {"tensor": "x"}], ["n", {"number": "n"}]]}', b'{"list": [1, "x", null]}']),
    "idx": (_idx, [_IDX, gzip.compress(_IDX, mtime=0)]),
}


def main() -> None:
    """Parse the command line and fuzz one reader; the process ends with libFuzzer's status."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.files", description=__doc__.splitlines()[0])
    parser.add_argument("--reader", choices=READERS, required=True)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--keep", type=Path, default=Path(tempfile.gettempdir()), help="folder for files that failed")
    options = parser.parse_args()
    read, seeds = READERS[options.reader]
    corpus = Path(tempfile.mkdtemp(prefix="gpugrad-corpus-"))
    for i, seed in enumerate(seeds):
        (corpus / str(i)).write_bytes(seed)

    def one(data: bytes) -> None:
        try:
            read(data)
        except gg.FileFormatError:
            pass  # what a damaged file is to end in

    options.keep.mkdir(parents=True, exist_ok=True)
    atheris.Setup([sys.argv[0], str(corpus), f"-max_total_time={max(1, round(60 * options.minutes))}", "-timeout=10",
                   "-rss_limit_mb=2048", "-max_len=2048", "-print_final_stats=1", f"-artifact_prefix={options.keep}/"],
                  one)  # fmt: skip
    atheris.Fuzz()


if __name__ == "__main__":
    main()
