"""Data sets: the IDX reader's checks, and where MNIST is found."""

import gzip
import hashlib
import os
import struct
from pathlib import Path

import numpy as np
import pytest

import gpugrad as gg
from gpugrad import datasets

NAMES = list(datasets.MNIST_SHA256)


def idx(array, code=0x08):
    """``array`` in IDX format."""
    big = array.astype(array.dtype.newbyteorder(">"))
    return bytes([0, 0, code, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + big.tobytes()


def write_set(folder, counts=(6, 6, 4, 4), compress=True):
    """Four small IDX files in place of MNIST's; returns the arrays."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    arrays = []
    for name, n in zip(NAMES, counts, strict=True):
        shape, high = ((n, 5, 5), 256) if "images" in name else ((n,), 10)
        arrays.append(rng.integers(0, high, shape).astype(np.uint8))
        data = idx(arrays[-1])
        (folder / (name + ".gz" * compress)).write_bytes(gzip.compress(data) if compress else data)
    return arrays


# -- IDX -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "dtype"), [(8, "u1"), (9, "i1"), (11, "i2"), (12, "i4"), (13, "f4"), (14, "f8")], ids=str
)
@pytest.mark.parametrize("compress", [False, True])
def test_idx_types(code, dtype, compress, tmp_path):
    array = np.arange(-6, 6).reshape(3, 2, 2).astype(dtype)
    path = tmp_path / "x"
    data = idx(array, code)
    path.write_bytes(gzip.compress(data) if compress else data)
    read = datasets.read_idx(path)
    assert read.dtype == array.dtype and read.dtype.isnative and read.flags.writeable
    assert np.array_equal(read, array)


def test_idx_truncated_at_every_length(tmp_path):
    path = tmp_path / "some-file"
    whole = idx(np.arange(12, dtype=np.uint8).reshape(3, 4))
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(gg.FileFormatError, match=r"some-file is (truncated|not an IDX file)"):
            datasets.read_idx(path)
    path.write_bytes(whole + b"\0")
    with pytest.raises(gg.FileFormatError, match=r"some-file is too long: 25 bytes, shape \(3, 4\) of uint8 takes 24"):
        datasets.read_idx(path)


def test_gzip_truncated_or_altered(tmp_path):
    path = tmp_path / "some-file.gz"
    whole = gzip.compress(idx(np.arange(200, dtype=np.uint8)), mtime=0)
    for length in range(2, len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(gg.FileFormatError, match="some-file.gz is truncated or damaged"):
            datasets.read_idx(path)
    for i in range(10, len(whole)):  # past gzip's own header, whose time and system say nothing about the contents
        path.write_bytes(whole[:i] + bytes([whole[i] ^ 0x55]) + whole[i + 1 :])
        with pytest.raises(gg.FileFormatError, match="some-file.gz"):
            datasets.read_idx(path)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is not an IDX file: it starts with nothing"),
        (b"\x89PNG\r\n", "is not an IDX file: it starts with 89 50 4e 47"),
        (b"\0\0\x07\x01\0\0\0\0", "is not an IDX file"),
        (b"\0\0\x08\x03\0\0\0\x01", "is truncated: 8 bytes, its header alone has 16"),
        (
            b"\0\0\x08\x02\xff\xff\xff\xff\xff\xff\xff\xff",
            "is truncated: 12 bytes, shape .* takes 18446744065119617037",
        ),
    ],
)
def test_idx_headers(data, message, tmp_path):
    path = tmp_path / "some-file"
    path.write_bytes(data)
    with pytest.raises(gg.FileFormatError, match=f"some-file {message}"):
        datasets.read_idx(path)


# -- MNIST ---------------------------------------------------------------------


@pytest.fixture
def empty(tmp_path, monkeypatch):
    """A user without data and without a network."""

    def refuse(url, timeout):
        raise OSError("no network in tests")

    monkeypatch.delenv("GPUGRAD_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(datasets, "urlopen", refuse)
    return tmp_path


@pytest.mark.parametrize("compress", [False, True])
def test_a_folder_of_ones_own(compress, empty):
    arrays = write_set(empty / "mine", compress=compress)
    data = datasets.mnist(empty / "mine")
    assert all(np.array_equal(a, b) for a, b in zip(data, arrays, strict=True))
    assert data.train_labels.dtype == np.int64 and data.train_images.dtype == np.uint8


def test_other_files_do_not_pass_for_mnist(empty, monkeypatch):
    monkeypatch.setenv("GPUGRAD_DATA", str(empty / "data"))
    write_set(empty / "data" / "mnist")
    with pytest.raises(
        gg.FileFormatError, match=r"train-images-idx3-ubyte.gz is not MNIST's file \(its sha256 differs\)"
    ):
        datasets.mnist()


def test_counts_that_disagree(empty):
    write_set(empty / "mine", counts=(6, 5, 4, 4))
    with pytest.raises(gg.FileFormatError, match="train-images.* has 6 images, but .*train-labels.* has 5 labels"):
        datasets.mnist(empty / "mine")


def test_images_in_place_of_labels(empty):
    write_set(empty / "mine")
    os.replace(empty / "mine" / f"{NAMES[0]}.gz", empty / "mine" / f"{NAMES[1]}.gz")
    (empty / "mine" / NAMES[0]).write_bytes(idx(np.zeros((6, 5, 5), np.uint8)))
    with pytest.raises(gg.FileFormatError, match=r"train-labels.* holds uint8 of shape \(6, 5, 5\); 1 dimensions"):
        datasets.mnist(empty / "mine")


def test_absence_names_files_and_folder(empty):
    with pytest.raises(datasets.DatasetNotFoundError) as caught:
        datasets.mnist(empty / "mine")
    assert str(empty / "mine") in str(caught.value)
    assert all(f"{name}.gz" in str(caught.value) for name in NAMES)
    with pytest.raises(datasets.DatasetNotFoundError) as caught:
        datasets.mnist()
    message = str(caught.value)
    assert "no network in tests" in message and str(empty / "cache" / "gpugrad" / "mnist") in message
    with pytest.raises(FileNotFoundError):
        datasets.mnist(download=False)


class Response:
    """What urlopen gives for ``content``, of which ``sent`` bytes arrive."""

    def __init__(self, content, sent=None):
        self.headers = {"Content-Length": str(len(content))}
        self.rest = content[:sent]

    def read(self, n):
        chunk, self.rest = self.rest[:n], self.rest[n:]
        return chunk

    def __enter__(self):
        return self

    def __exit__(self, *error):
        return None


@pytest.fixture
def mirrors(empty, monkeypatch):
    """Two mirrors that serve a small set of images; returns their table of answers."""
    arrays = write_set(empty / "origin")
    files = {f"{name}.gz": (empty / "origin" / f"{name}.gz").read_bytes() for name in NAMES}
    digests = {name: hashlib.sha256(idx(array)).hexdigest() for name, array in zip(NAMES, arrays, strict=True)}
    answers = {mirror + file: Response(content) for mirror in datasets.MIRRORS for file, content in files.items()}
    asked = []

    def answer(url, timeout):
        asked.append(url)
        assert 0 < timeout <= 5
        if isinstance(answers[url], Exception):
            raise answers[url]
        return answers[url]

    monkeypatch.setattr(datasets, "MNIST_SHA256", digests)
    monkeypatch.setattr(datasets, "urlopen", answer)
    return answers, files, asked


def test_download(mirrors, empty, capsys):
    _, files, asked = mirrors
    data = datasets.mnist()
    folder = empty / "cache" / "gpugrad" / "mnist"
    assert sorted(os.listdir(folder)) == sorted(files)
    assert data.test_images.shape == (4, 5, 5)
    assert "fetched " + datasets.MIRRORS[0] in capsys.readouterr().err
    assert len(asked) == 4
    datasets.mnist()
    assert len(asked) == 4  # found in the cache


@pytest.mark.parametrize("fault", ["silent", "altered", "broken off"])
def test_the_second_mirror_takes_over(fault, mirrors, empty):
    answers, files, asked = mirrors
    first = datasets.MIRRORS[0] + f"{NAMES[1]}.gz"
    content = files[f"{NAMES[1]}.gz"]
    answers[first] = {
        "silent": OSError("timed out"),
        "altered": Response(gzip.compress(idx(np.ones(6, np.uint8)))),
        "broken off": Response(content, len(content) // 2),
    }[fault]
    datasets.mnist()
    assert [url.startswith(datasets.MIRRORS[0]) for url in asked] == [True, True, False, False, False]


def test_a_failed_download_leaves_nothing_half_done(mirrors, empty):
    answers, files, _ = mirrors
    for mirror in datasets.MIRRORS:
        answers[mirror + f"{NAMES[2]}.gz"] = OSError("gone")
    with pytest.raises(datasets.DatasetNotFoundError, match="could not be fetched .*gone"):
        datasets.mnist()
    folder = empty / "cache" / "gpugrad" / "mnist"
    assert sorted(os.listdir(folder)) == sorted(f"{name}.gz" for name in NAMES[:2])


def test_a_mirror_that_never_answers_is_given_up(empty, monkeypatch):
    import threading
    import time

    released = threading.Event()
    monkeypatch.setattr(datasets, "TIMEOUT", 0.05)
    monkeypatch.setattr(datasets, "urlopen", lambda url, timeout: released.wait(10))
    began = time.monotonic()
    with pytest.raises(datasets.DatasetNotFoundError, match="did not answer within 0.05 seconds"):
        datasets.mnist()
    released.set()
    assert time.monotonic() - began < 5


def test_the_real_mnist():
    folders = [folder for folder in datasets.mnist_folders() if (folder / f"{NAMES[0]}.gz").is_file()]
    if not folders:
        pytest.skip(f"MNIST is not in {datasets.mnist_folders()[0]}")
    data = datasets.mnist(download=False)
    assert data.train_images.shape == (60000, 28, 28) and data.test_images.shape == (10000, 28, 28)
    assert np.bincount(data.test_labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert data.train_labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]


def test_where_mnist_is_looked_for(monkeypatch):
    monkeypatch.setenv("GPUGRAD_DATA", "/data")
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    assert datasets.mnist_folders() == [Path("/data/mnist"), Path("/cache/gpugrad/mnist")]
    monkeypatch.delenv("GPUGRAD_DATA")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert datasets.mnist_folders() == [Path.home() / ".cache" / "gpugrad" / "mnist"]


# -- from scikit-learn -----------------------------------------------------------


def test_digits():
    pytest.importorskip("sklearn")
    data = datasets.digits()
    assert data.train_images.shape == (1438, 8, 8) and data.test_images.shape == (359, 8, 8)
    assert data.train_images.dtype == np.uint8 and data.train_images.max() == 255
    assert np.bincount(data.test_labels, minlength=10).min() > 20
    assert all(np.array_equal(a, b) for a, b in zip(data, datasets.digits(), strict=True))


def test_moons():
    pytest.importorskip("sklearn")
    points, labels = datasets.moons(50, noise=0.1, seed=3)
    assert points.shape == (50, 2) and points.dtype == np.float32
    assert labels.dtype == np.int64 and np.bincount(labels).tolist() == [25, 25]
    assert np.array_equal(points, datasets.moons(50, noise=0.1, seed=3)[0])
    assert not np.array_equal(points, datasets.moons(50, noise=0.1, seed=4)[0])


def test_without_scikit_learn(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ImportError, match=r'digits needs scikit-learn: pip install "gpugrad\[examples\]"'):
        datasets.digits()


# -- tiny Shakespeare ------------------------------------------------------------


@pytest.fixture
def plays(monkeypatch, tmp_path):
    """A short text in place of Shakespeare's; an empty cache folder."""
    text = b"First Citizen:\nBefore we proceed any further, hear me speak.\n"
    monkeypatch.setattr(datasets, "SHAKESPEARE_SHA256", hashlib.sha256(text).hexdigest())
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("GPUGRAD_DATA", raising=False)
    return text


def test_shakespeare_is_fetched_once_and_kept(plays, monkeypatch, tmp_path):
    asked = []

    def fetch(url):
        asked.append(url)
        return plays

    monkeypatch.setattr(datasets, "_fetch", fetch)
    assert datasets.tiny_shakespeare() == datasets.tiny_shakespeare() == plays.decode()
    assert asked == [datasets.SHAKESPEARE_URL]
    kept = tmp_path / "cache" / "gpugrad" / "tinyshakespeare.txt"
    assert kept.read_bytes() == plays
    kept.write_bytes(plays[:-1])
    with pytest.raises(gg.FileFormatError, match="tinyshakespeare.txt is not tiny Shakespeare"):
        datasets.tiny_shakespeare()
    monkeypatch.setenv("GPUGRAD_DATA", str(tmp_path))
    (tmp_path / "tinyshakespeare.txt").write_bytes(plays)
    assert datasets.tiny_shakespeare() == plays.decode()  # found there first


def test_shakespeare_that_cannot_be_had_is_an_error(plays, monkeypatch, tmp_path):
    with pytest.raises(datasets.DatasetNotFoundError, match="put it at .*tinyshakespeare.txt"):
        datasets.tiny_shakespeare(download=False)
    monkeypatch.setattr(datasets, "_fetch", lambda url: b"<html>not found</html>")
    with pytest.raises(datasets.DatasetNotFoundError, match="is not the file it should be .*put the file there"):
        datasets.tiny_shakespeare()
    assert not list(tmp_path.rglob("tinyshakespeare*"))
