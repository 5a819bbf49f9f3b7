"""Files that are damaged or made to do harm: a clear error or a right load, and never code, a crash or silent garbage;
and writing them, killed at any point: the old file or the new one."""

from __future__ import annotations

import errno
import gzip
import io
import json
import os
import struct
import subprocess
import sys
import textwrap
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import gpugrad as gg
from gpugrad import datasets
from gpugrad.backends import cached_files, host_build, kernel_tuning
from tests.test_io import same
from tests.test_pt_files import FLOATS, ONE, Call, Name, archive, emit, pickled, storage, tensor

FIXED = settings(derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))
POSIX = pytest.mark.skipif(os.name != "posix", reason="modes and owners are POSIX's")


def harmless(content, state=None):
    """Load ``content``: True if that was an error that says so, else what it holds, which is ``state`` if given."""
    try:
        loaded = gg.load(io.BytesIO(content))
    except gg.FileFormatError:
        return True
    if state is not None:
        assert same(loaded, state), f"silent garbage: {loaded}"
    return loaded


# -- damage ----------------------------------------------------------------------------


def test_each_byte_and_each_length_of_a_pytorch_file():
    whole = archive({"w": ONE, "n": 3, "s": "text"}, {"0": FLOATS})
    state = gg.load(io.BytesIO(whole))
    for i in range(len(whole)):
        assert harmless(whole[:i]) is True, i
        for mask in (0x01, 0x10, 0xFF):
            damaged = whole[:i] + bytes([whole[i] ^ mask]) + whole[i + 1 :]
            harmless(damaged, state)


def test_each_byte_of_a_foreign_safetensors_file():
    """Without a checksum nobody can tell altered data; structure, names and sizes are checked."""
    from safetensors.numpy import save

    whole = save({"a": np.arange(4, dtype=np.float32), "b": np.ones((2, 2), np.int64)})
    for i in range(len(whole)):
        assert harmless(whole[:i]) is True
        for mask in (0x01, 0xFF):
            loaded = harmless(whole[:i] + bytes([whole[i] ^ mask]) + whole[i + 1 :])
            assert loaded is True or all(t.numel() <= 48 for t in loaded.values())


def test_each_byte_of_an_idx_file(tmp_path):
    path = tmp_path / "x-idx"
    whole = b"\0\0\x08\2" + struct.pack(">2I", 2, 3) + bytes(range(6))
    for packed in (False, True):
        content = gzip.compress(whole, mtime=0) if packed else whole
        for i in range(len(content)):
            for damaged in (content[:i], content[:i] + bytes([content[i] ^ 0xFF]) + content[i + 1 :]):
                path.write_bytes(damaged)
                try:
                    array = datasets.read_idx(path)
                except gg.FileFormatError as error:
                    assert str(path) in str(error)
                else:
                    assert array.size == 6 and (not packed or array.tolist() == [[0, 1, 2], [3, 4, 5]])


@settings(FIXED, max_examples=400)
@given(st.binary(max_size=300), st.sampled_from([b"", b"PK\3\4", b"\x80\2", b"\x80\4\x95", b"\x18\0\0\0\0\0\0\0{"]))
def test_any_bytes(content, start):
    harmless(start + content)


@settings(FIXED, max_examples=400)
@given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=6), st.integers(0, 2))
def test_several_bytes_altered(changes, which):
    whole = bytearray([archive({"w": ONE}, {"0": FLOATS}), pickled({"a": [1, "b"]}), saved()][which])
    for place, value in changes:
        whole[place % len(whole)] = value
    harmless(bytes(whole), {"w": gg.arange(4.0)} if which == 2 else None)


def saved():
    file = io.BytesIO()
    gg.save({"w": gg.arange(4.0)}, file)
    return file.getvalue()


@settings(FIXED, max_examples=300)
@given(st.recursive(st.one_of(st.none(), st.integers(-5, 5), st.sampled_from(["x", "n", "cpu", "float32", "odd"])),
                    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(
                        "tensor leaf parameter frozen buffer array number bytes bytearray dict ordered counter state "
                        "size list tuple set frozenset dtype device".split()), inner, max_size=1)), max_leaves=8))  # fmt: skip  # noqa: E501
def test_any_structure_in_the_header(tree):
    from safetensors.numpy import save

    tensors = {"x": np.ones(2, np.float32), "n": np.ones((), np.int64)}
    harmless(save(tensors, {"gpugrad.tree": json.dumps(tree)}))


@pytest.mark.parametrize("sizes", [(1,) * 100, (0,) + (2**32 - 1,) * 3])
def test_shapes_that_no_array_has(sizes):
    data = b"\0\0\x08" + bytes([len(sizes)]) + struct.pack(f">{len(sizes)}I", *sizes) + b"\7" * min(1, sizes[0])
    with pytest.raises(gg.FileFormatError, match="x-idx cannot be read as an array of shape"):
        datasets.parse_idx(data, "x-idx")


def test_a_device_that_is_none():
    from safetensors.numpy import save

    with pytest.raises(gg.FileFormatError, match="device 'n' is unknown"):
        gg.load(io.BytesIO(save({}, {"gpugrad.tree": '{"device": "n"}'})))


# -- harm ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "tree",
    [
        Call("os system", "touch harm"), Call("builtins eval", "1"), Call("builtins __import__", "os"),
        Call("builtins getattr", Name("builtins list"), "append"), Call("subprocess Popen", ["touch", "harm"]),
        Call("torch.nn.modules.linear Linear"), Call("numpy.core.multiarray _reconstruct"), Call("functools partial"),
        Call("torch.serialization load", "x"), Call("builtins open", "harm", "w"), Call("codecs encode", "x", "zlib"),
    ],
    ids=lambda c: c.function.text.replace(" ", "."),
)  # fmt: skip
def test_programs_are_refused(tree, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(gg.FileFormatError):
        gg.load(io.BytesIO(archive({"w": tree})))
    assert not os.listdir(tmp_path)


def test_absurd_tensors_are_refused():
    six = storage("Float", "0", 6)
    for x in (
        tensor(six, (2**40,), (1,)), tensor(six, (2**62, 4), (0, 1)), tensor(six, (3, 3), (3, 1)),
        tensor(six, (2,), (-1,)), tensor(six, (2, 3), (3,)), tensor(six, (1,) * 70, (1,) * 70),
        tensor(six, (2,), (1,), offset=-1), tensor(six, (2,), (1,), offset=5), tensor(six, (2.0,), (1,)),
        tensor(storage("Float", "0", 2**50), (2,), (1,)), tensor(storage("Float", "0", -1), (2,), (1,)),
        tensor(storage("Float", "../../etc/passwd", 6), (2,), (1,)),
    ):  # fmt: skip
        with pytest.raises(gg.FileFormatError):
            gg.load(io.BytesIO(archive({"x": x}, {"0": FLOATS})))


def test_overlapping_strides_load_as_what_they_show():
    x = gg.load(io.BytesIO(archive(tensor(storage("Float", "0", 6), (3, 2), (1, 1)), {"0": FLOATS})))
    assert x.tolist() == [[0, 1], [1, 2], [2, 3]]


def test_bombs():
    """Compressed records, and pickles that copy what they made again and again: ten thousand copies of a list of ten
    thousand would be a gigabyte out of a hundred kilobytes."""
    with io.BytesIO() as file:
        import zipfile

        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as z:
            z.writestr("archive/data.pkl", bytes(10**7))
        content = file.getvalue()
    with pytest.raises(gg.FileFormatError, match="compressed"):
        gg.load(io.BytesIO(content))
    n = 10_000
    for kind, argument in (("builtins list", b"(" + b"N" * n + b"t"), ("_codecs encode", emit("x" * n))):
        once = emit(Name(kind)) + b"q\0" + b"0" + argument + b"\x85q\1" + b"0"
        copies = b"h\0h\1Ra" * n
        if kind == "builtins list":
            once = emit(Name(kind)) + b"q\0" + b"0" + argument + b"\x85q\1" + b"0"
        program = b"\x80\2" + once + b"]" + copies + b"."
        with pytest.raises(gg.FileFormatError, match="makes far more than the file holds"):
            gg.load(io.BytesIO(archive(program)))


def test_nesting_does_no_harm():
    for program in (b"]" * 200_000, b"(" * 200_000, b"N" + b"\x85" * 200_000, b"]" + b"\x94h\0a" * 3):
        harmless(archive(b"\x80\4" + program + b"."))
    with pytest.raises(gg.FileFormatError):
        harmless_tree = b'{"__metadata__":' * 5000 + b"1" + b"}" * 5000
        gg.load(io.BytesIO(struct.pack("<Q", len(harmless_tree)) + harmless_tree))


def test_a_gzip_bomb_is_read_no_further_than_its_header_says(tmp_path):
    path = tmp_path / "bomb.gz"
    path.write_bytes(gzip.compress(b"\0\0\x08\1" + struct.pack(">I", 5) + bytes(30_000_000)))
    with pytest.raises(gg.FileFormatError, match="too long: 14 bytes"):
        datasets.read_idx(path)


# -- writing ---------------------------------------------------------------------------


@pytest.mark.parametrize("call", ["open", "close", "fsync", "replace"])
def test_each_system_call_that_fails(call, tmp_path, monkeypatch):
    """Whichever of them fails, at whichever time: the old file stays, or the new one is whole."""
    path = tmp_path / "state.safetensors"
    right = getattr(os, call)
    for turn in range(6):
        gg.save({"w": gg.ones(3)}, path)
        calls = []

        def fails(*arguments, turn=turn, calls=calls, **options):
            calls.append(arguments)
            if len(calls) == turn + 1:
                if call == "close":
                    right(*arguments, **options)
                raise OSError(errno.EIO, "Input/output error")
            return right(*arguments, **options)

        with monkeypatch.context() as patch:
            patch.setattr(os, call, fails)
            try:
                gg.save({"w": gg.zeros(5)}, path)
            except OSError as error:
                assert error.errno == errno.EIO
        assert gg.load(path)["w"].tolist() in ([1, 1, 1], [0] * 5)
        assert os.listdir(tmp_path) == [path.name]
        if len(calls) <= turn:
            break
    assert turn, "the call is made at least once"


@POSIX
def test_killed_at_any_point(tmp_path):
    """A process that ends, without cleaning up, at each event that Python reports of its file operations in turn."""
    script = """
        import os, sys, warnings
        warnings.simplefilter("ignore")
        import gpugrad as gg
        import safetensors
        path = sys.argv[1]
        gg.save({"w": gg.ones(3)}, path)
        events = ("open", "os.rename", "os.remove", "os.chmod")
        for k in range(40):
            child = os.fork()
            if not child:
                left = [k]
                def hook(event, arguments):
                    if event in events:
                        if not left[0]:
                            os._exit(9)
                        left[0] -= 1
                sys.addaudithook(hook)
                gg.save({"w": gg.zeros(5)}, path)
                os._exit(0)
            status = os.waitpid(child, 0)[1]
            loaded = gg.load(path)["w"].tolist()
            assert loaded in ([1, 1, 1], [0] * 5), loaded
            if status == 0:
                print(k, loaded)
                break
            gg.save({"w": gg.ones(3)}, path)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(tmp_path / "s.safetensors")],
        capture_output=True, text=True, timeout=120, env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    killed, loaded = done.stdout.split(" ", 1)
    assert int(killed) >= 3 and loaded.strip() == "[0.0, 0.0, 0.0, 0.0, 0.0]"


# -- caches ----------------------------------------------------------------------------


def test_a_damaged_entry_is_made_again(tmp_path):
    path = tmp_path / "cache" / "kernel"
    cached_files.store_sealed(path, b"code of a kernel")
    whole = path.read_bytes()
    assert cached_files.fetch_sealed(path) == b"code of a kernel"
    for i in range(len(whole)):
        for damaged in (whole[:i], whole[:i] + bytes([whole[i] ^ 1]) + whole[i + 1 :]):
            path.write_bytes(damaged)
            assert cached_files.fetch_sealed(path) is None
    assert cached_files.fetch_sealed(tmp_path / "absent") is None


@POSIX
def test_what_others_can_write_is_not_used(tmp_path):
    path = tmp_path / "cache" / "kernel"
    cached_files.store_sealed(path, b"code")
    assert path.parent.stat().st_mode & 0o777 == 0o700 and path.stat().st_mode & 0o077 == 0
    for place, mode in ((path, 0o666), (path.parent, 0o777)):
        before = place.stat().st_mode
        place.chmod(mode)
        assert cached_files.fetch_sealed(path) is None
        place.chmod(before)
    assert cached_files.fetch_sealed(path) == b"code"
    path.parent.chmod(0o777)
    cached_files.store_sealed(path.with_name("other"), b"code")
    assert not path.with_name("other").exists()


def test_tuning_files_of_any_content(tmp_path, monkeypatch):
    monkeypatch.setenv("GPUGRAD_CACHE", str(tmp_path))
    monkeypatch.setenv("GPUGRAD_TUNE", "1")
    for content in (b"", b"{", b"[" * 100_000, b"\xff\xfe", b"[]", b'{"format":1,"choices":{"k":[1]}}', b'{"choices":5}',  # noqa: E501
                    b'{"format":1,"choices":{"k":"not a candidate"}}'):  # fmt: skip
        tuner = kernel_tuning.Tuner(["a device"], [])
        tuner.path.parent.mkdir(mode=0o700, exist_ok=True)
        tuner.path.write_bytes(content)
        tuner.path.chmod(0o600)
        assert (
            tuner.choose("k", ["plain", "tiled"], lambda name, n: n * (0.001 if name == "plain" else 1e-9)) == "tiled"
        )
        assert json.loads(tuner.path.read_bytes())["choices"]["k"] == "tiled"


def test_two_processes_write_one_entry(tmp_path):
    """Each writes a file of its own and renames it: whoever reads sees one or the other."""
    script = (
        "import sys; from pathlib import Path; from gpugrad.backends import cached_files as c\n"
        "p = Path(sys.argv[1])\n"
        "for i in range(200):\n"
        "    c.store_sealed(p, sys.argv[2].encode() * 20_000)\n"
        "    assert c.fetch_sealed(p)[:1] in (b'a', b'b')\n"
    )
    path = tmp_path / "cache" / "entry"
    writers = [subprocess.Popen([sys.executable, "-c", script, str(path), letter]) for letter in "ab"]
    assert [w.wait(timeout=120) for w in writers] == [0, 0]
    assert os.listdir(path.parent) == ["entry"]


@POSIX
@pytest.mark.skipif(host_build.compiler() is None, reason="no C compiler")
def test_compiled_libraries(tmp_path, monkeypatch):
    monkeypatch.setenv("GPUGRAD_CACHE", str(tmp_path / "cache"))
    text = "int answer(void) { return 42; } /* for this test alone */"
    path = host_build.library(text)
    assert path.parent.stat().st_mode & 0o777 == 0o700
    whole = path.read_bytes()
    for damaged in (b"", whole[:100], whole[:-1], whole[:500] + b"\xff" + whole[501:]):
        path.write_bytes(damaged)
        assert host_build.library(text) == path
        assert path.read_bytes()[:4] == b"\x7fELF" and zlib.crc32(path.read_bytes()) != zlib.crc32(damaged)
    path.with_suffix(".sum").unlink()
    assert host_build.library(text).with_suffix(".sum").is_file()
    path.parent.chmod(0o777)
    with pytest.raises(gg.DeviceError, match="can be written by, somebody else"):
        host_build.library(text)
