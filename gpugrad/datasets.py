"""Small data sets for examples and tests, as NumPy arrays and text.

Nothing is bundled: MNIST and tiny Shakespeare are read from a folder or fetched, the rest comes with scikit-learn.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import struct
import sys
import threading
import zlib
from collections.abc import Callable
from io import BytesIO
from math import prod
from pathlib import Path
from typing import Any, NamedTuple
from urllib.request import urlopen

import numpy as np

from gpugrad.errors import FileFormatError, GpugradError
from gpugrad.files import atomic_path

MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
# Of the decompressed files: the same whatever program compressed them.
MNIST_SHA256 = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
SHAKESPEARE_URL = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
SHAKESPEARE_SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"
TIMEOUT = 4.0  # seconds without an answer; two mirrors, so a machine without a network waits for eight

_IDX_TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


class DatasetNotFoundError(GpugradError, FileNotFoundError):
    """A data set is neither in its folder nor could it be fetched."""


class Images(NamedTuple):
    """Labelled images: ``images`` uint8 ``[n, height, width]``, ``labels`` int64 ``[n]``."""

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray


# -- IDX -----------------------------------------------------------------------


def read_idx(path: str | os.PathLike[str]) -> np.ndarray:
    """The array in an IDX file (Yann LeCun's format), plain or gzipped, in native byte order.

    Raises FileFormatError, naming the file, if it is truncated, damaged, too long or not IDX."""
    return parse_idx(_contents(Path(path)), os.fspath(path))


def parse_idx(data: bytes, name: str) -> np.ndarray:
    """The array in the bytes of a decompressed IDX file; errors speak of it as ``name``."""
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] not in _IDX_TYPES:
        raise FileFormatError(f"{name} is not an IDX file: it starts with {data[:4].hex(' ') or 'nothing'}")
    dtype, ndim = np.dtype(_IDX_TYPES[data[2]]), data[3]
    start = 4 + 4 * ndim
    if len(data) < start:
        raise FileFormatError(f"{name} is truncated: {len(data)} bytes, its header alone has {start}")
    shape = struct.unpack(f">{ndim}I", data[4:start])
    expected = start + dtype.itemsize * int(np.prod(shape, dtype=object))
    if len(data) != expected:
        kind = "truncated" if len(data) < expected else "too long"
        raise FileFormatError(f"{name} is {kind}: {len(data)} bytes, shape {shape} of {dtype.name} takes {expected}")
    try:
        return np.frombuffer(data, dtype, offset=start).reshape(shape).astype(dtype.newbyteorder("="))
    except ValueError as error:  # too many dimensions, or huge ones beside one of size 0
        raise FileFormatError(f"{name} cannot be read as an array of shape {shape}: {error}") from error


def _contents(path: Path) -> bytes:
    raw = path.read_bytes()
    if raw[:2] != b"\x1f\x8b":
        return raw
    try:
        return _unpacked(raw)
    except (EOFError, OSError, zlib.error) as error:
        raise FileFormatError(f"{path} is truncated or damaged: {error}") from error


def _unpacked(raw: bytes) -> bytes:
    """A gzipped IDX file's content, and no more than a byte beyond what its header says: a small file may unpack to
    any size."""
    with gzip.GzipFile(fileobj=BytesIO(raw)) as file:
        head = file.read(4)
        if len(head) < 4 or head[2] not in _IDX_TYPES:
            return head
        sizes = file.read(4 * head[3])
        count = prod(struct.unpack(f">{len(sizes) // 4}I", sizes[: len(sizes) // 4 * 4]))
        left = count * np.dtype(_IDX_TYPES[head[2]]).itemsize + 1  # to the end, where the checksum is
        parts = [head, sizes]
        while left > 0 and (part := file.read(min(left, 1 << 20))):  # not all at once: the header may lie
            parts.append(part)
            left -= len(part)
        return b"".join(parts)


# -- MNIST ---------------------------------------------------------------------


def mnist(root: str | os.PathLike[str] | None = None, download: bool = True) -> Images:
    """MNIST (LeCun, Cortes, Burges): 60,000 images to train on and 10,000 to test, 28 x 28.

    The four IDX files, gzipped or not, are looked for in ``root``; without it in
    ``$GPUGRAD_DATA/mnist``, then in the user's cache folder, and if they are in neither and
    ``download`` is true they are fetched from public mirrors into the first of the two. Those
    files must be the original ones (sha256); a ``root`` may hold any data set of that shape.
    Raises DatasetNotFoundError naming the files and the folder, FileFormatError for a file that
    is truncated or altered."""
    folders = [Path(root)] if root is not None else mnist_folders()
    for folder in folders:
        files = _find(folder)
        if files is not None:
            return _assemble(files, verify=root is None)
    names = ", ".join(f"{name}.gz" for name in MNIST_SHA256)
    if root is not None or not download:
        places = " or ".join(str(folder) for folder in folders)
        raise DatasetNotFoundError(f"MNIST is not in {places}: put the files {names} there")
    try:
        _download(folders[0])
    except OSError as error:
        raise DatasetNotFoundError(
            f"MNIST is not in {folders[0]} and could not be fetched ({error}): put the files {names} there"
        ) from error
    return mnist(root, download=False)


def mnist_folders() -> list[Path]:
    """Where :func:`mnist` looks, in this order."""
    return [folder / "mnist" for folder in data_folders()]


def data_folders() -> list[Path]:
    """Where data sets are looked for: ``$GPUGRAD_DATA``, then the user's cache folder."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    data = os.environ.get("GPUGRAD_DATA")
    return [*([Path(data)] if data else []), cache / "gpugrad"]


def _find(folder: Path) -> dict[str, Path] | None:
    found = {}
    for name in MNIST_SHA256:
        spellings = (name, name.replace("-idx", ".idx"))
        paths = [folder / (spelling + end) for spelling in spellings for end in (".gz", "")]
        present = [path for path in paths if path.is_file()]
        if not present:
            return None
        found[name] = present[0]
    return found


def _assemble(files: dict[str, Path], verify: bool) -> Images:
    arrays = []
    for name, path in files.items():
        data = _contents(path)
        array = parse_idx(data, str(path))
        if verify and hashlib.sha256(data).hexdigest() != MNIST_SHA256[name]:
            raise FileFormatError(f"{path} is not MNIST's file (its sha256 differs): delete it to fetch it again")
        wanted = 3 if "images" in name else 1
        if array.ndim != wanted or array.dtype != np.uint8:
            raise FileFormatError(
                f"{path} holds {array.dtype} of shape {array.shape}; {wanted} dimensions of uint8 were expected"
            )
        arrays.append(array)
    paths = list(files.values())
    for i in (0, 2):
        if len(arrays[i]) != len(arrays[i + 1]):
            raise FileFormatError(
                f"{paths[i]} has {len(arrays[i])} images, but {paths[i + 1]} has {len(arrays[i + 1])} labels"
            )
    train_images, train_labels, test_images, test_labels = arrays
    return Images(train_images, train_labels.astype(np.int64), test_images, test_labels.astype(np.int64))


def _download(folder: Path) -> None:
    """Fetch what is missing into ``folder``. Raises OSError with the last mirror's reason."""
    folder.mkdir(parents=True, exist_ok=True)
    mirrors = list(MIRRORS)
    for name, digest in MNIST_SHA256.items():
        target = folder / f"{name}.gz"
        while not target.is_file():
            try:
                content = _fetch(f"{mirrors[0]}{name}.gz")
                if hashlib.sha256(gzip.decompress(content)).hexdigest() != digest:
                    raise OSError(f"{mirrors[0]}{name}.gz is not the file it should be (sha256)")
            except (OSError, EOFError, zlib.error) as error:
                del mirrors[0]  # not asked again: each silent one costs TIMEOUT
                if not mirrors:
                    raise OSError(str(error)) from error
                continue
            with atomic_path(target) as temporary:
                temporary.write_bytes(content)


def _fetch(url: str) -> bytes:
    """The body at ``url``, with progress on stderr. Raises OSError."""
    with _in_time(lambda: urlopen(url, timeout=TIMEOUT), url) as response:
        total = int(response.headers.get("Content-Length") or 0)
        chunks: list[bytes] = []
        done = 0
        while chunk := response.read(1 << 16):
            chunks.append(chunk)
            done += len(chunk)
            if sys.stderr.isatty():
                share = f"{100 * done // total:3d}%" if total else f"{done >> 10} KiB"
                print(f"\r{share}  {url}", end="", file=sys.stderr, flush=True)
    print(f"\r{done >> 10:6d} KiB  {url}" if sys.stderr.isatty() else f"fetched {url}", file=sys.stderr)
    if total and done != total:
        raise OSError(f"{url} broke off after {done} of {total} bytes")
    return b"".join(chunks)


def _in_time(call: Callable[[], Any], what: str) -> Any:
    """``call()``, given up after TIMEOUT: a socket's timeout does not cover the name look-up."""
    outcome: list[Any] = []

    def work() -> None:
        try:
            outcome.extend((call(), None))
        except Exception as error:  # handed to the caller's thread below
            outcome.extend((None, error))

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(TIMEOUT)
    if not outcome:
        raise OSError(f"{what} did not answer within {TIMEOUT:g} seconds")
    result, error = outcome
    if error is not None:
        raise error if isinstance(error, OSError) else OSError(f"{what}: {error}")
    return result


# -- text ------------------------------------------------------------------------


def tiny_shakespeare(download: bool = True) -> str:
    """Forty thousand lines of Shakespeare's plays, 1,115,394 characters of 65 kinds, as Karpathy's char-rnn has them.

    The file ``tinyshakespeare.txt`` is looked for in ``$GPUGRAD_DATA``, then in the user's cache folder; if it is in
    neither and ``download`` is true it is fetched into the first of the two. Raises DatasetNotFoundError naming file
    and folder, FileFormatError for a file that is altered (sha256)."""
    paths = [folder / "tinyshakespeare.txt" for folder in data_folders()]
    for path in paths:
        if path.is_file():
            content = path.read_bytes()
            if hashlib.sha256(content).hexdigest() != SHAKESPEARE_SHA256:
                raise FileFormatError(f"{path} is not tiny Shakespeare (sha256): delete it to fetch it again")
            return content.decode("ascii")
    if not download:
        raise DatasetNotFoundError(f"tiny Shakespeare is not there: put it at {' or '.join(map(str, paths))}")
    try:
        content = _fetch(SHAKESPEARE_URL)
        if hashlib.sha256(content).hexdigest() != SHAKESPEARE_SHA256:
            raise OSError(f"{SHAKESPEARE_URL} is not the file it should be (sha256)")
        paths[0].parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(paths[0]) as temporary:
            temporary.write_bytes(content)
    except OSError as error:
        raise DatasetNotFoundError(
            f"tiny Shakespeare is not at {paths[0]} and could not be fetched ({error}): put the file there"
        ) from error
    return content.decode("ascii")


# -- from scikit-learn -----------------------------------------------------------


def digits() -> Images:
    """The 1,797 scanned digits that scikit-learn ships (Alpaydin, Kaynak), 8 x 8, 0 to 255.

    A fifth of them, drawn once and for all, is held out to test on. Raises ImportError naming
    the extra to install."""
    data = _sklearn("digits").load_digits()
    # RandomState: its stream is frozen by NumPy, so the fifth is the same with every version.
    order = np.random.RandomState(0).permutation(len(data.images))
    test, train = np.split(order, [len(order) // 5])
    images = np.rint(data.images * (255 / 16)).astype(np.uint8)
    labels = data.target.astype(np.int64)
    return Images(images[train], labels[train], images[test], labels[test])


def moons(n: int = 200, noise: float = 0.1, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Two interleaved half circles: points float32 ``[n, 2]``, labels int64 ``[n]`` (0 or 1).

    Raises ImportError naming the extra to install."""
    points, labels = _sklearn("moons").make_moons(n, noise=noise, random_state=seed)
    return points.astype(np.float32), labels.astype(np.int64)


def _sklearn(what: str) -> Any:
    try:
        import sklearn.datasets
    except ImportError as error:
        raise ImportError(f'{what} needs scikit-learn: pip install "gpugrad[examples]"') from error
    return sklearn.datasets
