"""Saving and loading: exact round trips, and a clear error for every damaged file."""

import errno
import io
import json
import os
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gpugrad as gg
from gpugrad import nn

FLOATS = (gg.float16, gg.bfloat16, gg.float32, gg.float64)
DTYPES = (*FLOATS, gg.bool, gg.uint8, gg.int8, gg.int16, gg.int32, gg.int64)


def same(a, b):
    """Equal in type, structure, dtype, shape and bits (NaN included)."""
    if isinstance(a, gg.Tensor):
        return isinstance(b, gg.Tensor) and a.dtype == b.dtype and same(a.numpy(force=True), b.numpy(force=True))
    if isinstance(a, np.ndarray):
        return type(a) is type(b) and a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b or a != a and b != b


@pytest.fixture
def path(tmp_path):
    return tmp_path / "state.safetensors"


def small(path):
    """A file with every kind of thing in it, and what it holds."""
    state = {"w": gg.tensor([[1.5, -2.0], [0.25, 8.0]]), "n": gg.tensor([3], dtype=gg.int64), "epoch": 7, "tag": "a.b"}
    gg.save(state, path, metadata={"note": "kept"})
    return state


# -- round trips -----------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (1,), (5,), (2, 3, 4)], ids=str)
def test_every_dtype_and_shape(dtype, shape, path):
    values = np.arange(np.prod(shape)).reshape(shape) - 3
    tensor = gg.tensor(values).to(dtype)
    gg.save({"x": tensor}, path)
    assert same(gg.load(path), {"x": tensor})


def test_bits_survive(path):
    special = np.array([np.nan, -np.nan, np.inf, -np.inf, -0.0, 1e-45, np.finfo(np.float32).max], np.float32)
    gg.save(gg.from_numpy(special), path)
    assert gg.load(path).numpy().tobytes() == special.tobytes()


def test_views_are_saved_as_what_they_show(path):
    base = gg.arange(24).reshape(4, 6)
    state = {"t": base.t(), "step": base[::2, 1::2], "flip": base.flip(0), "wide": base[:1].expand(3, 6)}
    gg.save(state, path)
    assert same(gg.load(path), state)


def test_to_and_from_a_device(device, path):
    tensor = gg.arange(12, dtype=gg.float32).reshape(3, 4).to(device)
    gg.save({"x": tensor[:, 1:]}, path)
    loaded = gg.load(path, device=device)["x"]
    assert loaded.device == tensor.device
    assert loaded.cpu().tolist() == tensor[:, 1:].cpu().tolist()
    assert gg.load(path, map_location="cpu")["x"].device == gg.device("cpu")
    with gg.device(device):
        assert gg.load(path)["x"].device == tensor.device


def test_parameters_and_requires_grad_come_back(path):
    state = {
        "p": nn.Parameter(gg.ones(2)),
        "f": nn.Parameter(gg.ones(2), requires_grad=False),
        "r": gg.ones(2, requires_grad=True) * 2,
        "b": nn.Buffer(gg.zeros(1)),
        "t": gg.zeros(1),
    }
    gg.save(state, path)
    loaded = gg.load(path)
    assert [type(t) for t in loaded.values()] == [type(t) for t in state.values()]
    assert [t.requires_grad for t in loaded.values()] == [True, False, True, False, False]
    assert all(t.is_leaf for t in loaded.values())


def test_what_training_scripts_save(path):
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    optimizer = gg.optim.Adam(model.parameters())
    schedule = gg.optim.lr_scheduler.MultiStepLR(optimizer, [3, 5, 5])
    train_a_step(model, optimizer)
    state = {
        "model": model.state_dict(), "optimizer": optimizer.state_dict(), "schedule": schedule.state_dict(),
        "epoch": 3, "lr": 1e-3, "name": "run 1", "best": np.float64(0.25), "count": np.int64(7), "done": False,
        "args": None, "shape": gg.ones(2, 3).shape, "sizes": (2, (3,)), "dtype": gg.bfloat16, "raw": b"\x00\xff",
        "device": gg.device("cpu"), "seen": {1, 2}, "labels": frozenset({"a"}), "history": [{"loss": 1.5}],
        "buffer": bytearray(b"ab"), 3: "int key", 0.5: "float key", None: "no key", True: "bool key",
    }  # fmt: skip
    gg.save(state, path)
    loaded = gg.load(path)
    assert list(loaded) == list(state)
    for key, value in state.items():
        if key not in ("model", "optimizer", "schedule"):
            assert type(loaded[key]) is type(value) and loaded[key] == value
    assert type(loaded["model"]) is type(state["model"]) and same(json_free(loaded["model"]), json_free(state["model"]))
    assert loaded["model"]._metadata == state["model"]._metadata
    schedule.load_state_dict(loaded["schedule"])
    assert schedule.milestones == {3: 1, 5: 2} and sorted(schedule.milestones.elements()) == [3, 5, 5]
    optimizer.load_state_dict(loaded["optimizer"])
    for whole in (model, optimizer, schedule):
        with pytest.raises(NotImplementedError, match=r"save: x is a whole .* save its state_dict\(\)"):
            gg.save({"x": whole}, path)


def test_pytorchs_arguments_are_taken(path, tmp_path):
    gg.save(obj=[1], f=str(path), pickle_protocol=4)
    assert gg.load(f=path, weights_only=False, mmap=True) == gg.load(path, "cpu", weights_only=True) == [1]
    with pytest.raises(ValueError, match="load: device and map_location"):
        gg.load(path, "cpu", device="cpu")
    with pytest.raises(TypeError, match="load: unexpected argument wrong"):
        gg.load(path, wrong=1)


def test_loaded_tensors_can_be_written_to(path):
    gg.save(gg.zeros(3), path)
    loaded = gg.load(path)
    loaded += 1
    assert loaded.tolist() == [1, 1, 1]
    assert gg.load(path).tolist() == [0, 0, 0]


keys = st.one_of(st.text(max_size=5), st.integers(-(2**70), 2**70))
leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=8),
    st.lists(st.floats(width=32), max_size=3).map(lambda v: gg.tensor(v, dtype=gg.float32)),
    st.lists(st.integers(0, 255), max_size=3).map(lambda v: np.array(v, np.uint8)),
)
trees = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.lists(inner, max_size=3).map(tuple), st.dictionaries(keys, inner, max_size=4)
    ),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None)
@given(trees)
def test_any_tree(tree):
    file = io.BytesIO()
    gg.save(tree, file)
    file.seek(0)
    assert same(gg.load(file), tree)


def test_names_that_collide_in_the_file(path):
    state = {"a.b": gg.ones(1), "a": {"b": gg.zeros(1), "b'": gg.tensor([2.0])}, "__metadata__": gg.tensor([3.0])}
    gg.save(state, path)
    assert same(gg.load(path), state)


def train_a_step(model, optimizer):
    loss = (model(gg.ones(2, 3)) ** 2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW"])
def test_model_and_optimizer_go_on_as_if_nothing_had_happened(name, path):
    def make():
        gg.manual_seed(1)
        model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 1))
        options = {"momentum": 0.9} if name == "SGD" else {}
        return model, getattr(gg.optim, name)(model.parameters(), lr=0.1, **options)

    model, optimizer = make()
    train_a_step(model, optimizer)
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "random": gg.get_rng_state()}
    gg.save(state, path)
    loaded = gg.load(path)
    assert same(loaded["optimizer"], json_free(state["optimizer"]))
    assert loaded["random"] == gg.get_rng_state()
    train_a_step(model, optimizer)

    again, optimizer_again = make()
    again.load_state_dict(loaded["model"])
    optimizer_again.load_state_dict(loaded["optimizer"])
    train_a_step(again, optimizer_again)
    assert same(json_free(again.state_dict()), json_free(model.state_dict()))


def json_free(tree):
    """The same tree with plain dicts for ordered ones."""
    if isinstance(tree, dict):
        return {key: json_free(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [json_free(value) for value in tree]
    return tree


# -- the format ------------------------------------------------------------------


def test_other_readers_can_open_the_file(path):
    from safetensors.numpy import load_file

    gg.save({"layers": [{"weight": gg.ones(2, 3)}], "lr": 0.1}, path)
    assert {key: value.tolist() for key, value in load_file(path).items()} == {"layers.0.weight": [[1.0] * 3] * 2}


def test_files_of_other_writers_can_be_loaded(path):
    from safetensors.numpy import save_file

    save_file({"b": np.float16([[1, 2]]), "a.c": np.int32([5])}, path, metadata={"format": "np"})
    loaded = gg.load(path)
    assert loaded["b"].dtype == gg.float16 and loaded["b"].tolist() == [[1, 2]]
    assert loaded["a.c"].tolist() == [5]
    assert gg.io.load_metadata(path) == {"format": "np"}


def test_metadata(path):
    small(path)
    assert gg.io.load_metadata(path) == {"note": "kept"}
    with pytest.raises(ValueError, match=r"save: the metadata name 'gpugrad.tree' is taken"):
        gg.save({}, path, metadata={"gpugrad.tree": "mine"})


def test_types_that_are_not_supported(path):
    header = json.dumps({"x": {"dtype": "F8_E4M3", "shape": [1], "data_offsets": [0, 1]}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + b"\0")
    with pytest.raises(gg.FileFormatError, match="tensor 'x' has the type F8_E4M3, which gpugrad does not support"):
        gg.load(path)


# -- what cannot be saved ----------------------------------------------------------


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"a": {"b": [1, 2j]}}, "save: a.b.1 is a complex; only tensors"),
        ({"f": len}, "save: f is a builtin_function_or_method; only tensors"),
        ({"x": np.array(["s"])}, r"save: x is a NumPy array of <U1, which safetensors lacks"),
        ({"x": {(1, 2): 3}}, r"save: the key \(1, 2\) in x is neither a string nor a number"),
        (range(3), "save: the object is a range; only tensors"),
    ],
)
def test_what_cannot_be_saved_is_named(tree, message, path):
    with pytest.raises(TypeError, match=message):
        gg.save(tree, path)
    assert not path.exists()


# -- damaged files -----------------------------------------------------------------


def test_truncated_at_every_length(path):
    small(path)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(gg.FileFormatError, match=r"state\.safetensors is not a complete safetensors file"):
            gg.load(path)
    path.write_bytes(whole + b"\0")
    with pytest.raises(gg.FileFormatError, match="state.safetensors is not a complete safetensors file"):
        gg.load(path)


@pytest.mark.parametrize("mask", [0x01, 0x80, 0xFF])
def test_each_byte_altered(mask, path):
    state = small(path)
    whole = path.read_bytes()
    refused = 0
    for i in range(len(whole)):
        path.write_bytes(whole[:i] + bytes([whole[i] ^ mask]) + whole[i + 1 :])
        try:
            loaded = gg.load(path)
        except gg.FileFormatError as error:
            assert "state.safetensors" in str(error)
            refused += 1
        else:
            assert same(loaded, state), f"byte {i} altered, loaded {loaded}"
    assert refused > 0.9 * len(whole)  # what loads all the same is white space and the checksum's own name


def test_altered_data_is_told_from_a_truncated_file(path):
    small(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(gg.FileFormatError, match="is damaged: its contents do not match the checksum"):
        gg.load(path)


def test_the_same_tree_is_the_same_file(tmp_path):
    import io

    tree = {"w": gg.arange(5.0), "deep": {"é\x1f\n": gg.ones(2, 2), "n": [1, 2.5, None]}}
    files = set()
    for i in range(6):
        gg.save(tree, tmp_path / f"{i}.safetensors", metadata={"z": "1", "a": "ü\t", "m": "3"})
        files.add((tmp_path / f"{i}.safetensors").read_bytes())
        buffer = io.BytesIO()
        gg.save(tree, buffer, metadata={"z": "1", "a": "ü\t", "m": "3"})
        files.add(buffer.getvalue())
    assert len(files) == 1
    assert gg.load(tmp_path / "0.safetensors")["deep"]["é\x1f\n"].tolist() == [[1, 1], [1, 1]]


def test_other_formats(path):
    for content, text in (
        (b"", "is not a complete safetensors file"),
        (b"\xff" * 64, "is not a complete safetensors file"),
        (b"{}", "is not a complete safetensors file"),
        (b"PK\3\4" + bytes(100), "is a truncated or damaged zip archive"),
        (b"\x80\x04K\x01.", "is a pickle, but not of torch.save"),
        (bytes(257) + b"ustar" + bytes(250), "is in the tar format of PyTorch"),
    ):
        path.write_bytes(content)
        with pytest.raises(gg.FileFormatError, match=f"state.safetensors {text}"):
            gg.load(path)


def test_a_tree_that_does_not_fit(path):
    from safetensors.numpy import save_file

    for tree in ('{"tensor":"absent"}', '{"odd":1}', "{}", "not json", '{"dict":[1]}', "[" * 100_000):
        save_file({"x": np.zeros(1)}, path, metadata={"gpugrad.tree": tree})
        with pytest.raises(gg.FileFormatError, match="the structure in its header does not fit its tensors"):
            gg.load(path)


def test_absent_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere.safetensors"):
        gg.load(tmp_path / "nowhere.safetensors")
    with pytest.raises(FileNotFoundError):
        gg.save({}, tmp_path / "no" / "folder.safetensors")


# -- the old file survives -----------------------------------------------------------


def fail(*arguments):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("broken", ["fsync", "replace"])
def test_the_old_checkpoint_survives_a_failing_save(broken, path, monkeypatch):
    state = small(path)
    with monkeypatch.context() as patch:
        patch.setattr(os, broken, fail)
        with pytest.raises(OSError, match="No space left"):
            gg.save({"w": gg.zeros(100)}, path)
    assert same(gg.load(path), state)
    assert os.listdir(path.parent) == [path.name]


def test_the_old_checkpoint_survives_a_writer_that_dies_midway(path, monkeypatch):
    import safetensors

    state = small(path)

    def half(specs, name, metadata):
        with open(name, "wb") as file:
            file.write(b"half of it")
        raise KeyboardInterrupt

    monkeypatch.setattr(safetensors, "serialize_file", half)
    with pytest.raises(KeyboardInterrupt):
        gg.save({"w": gg.zeros(100)}, path)
    assert same(gg.load(path), state)
    assert os.listdir(path.parent) == [path.name]


def test_a_symbolic_link_stays_one(tmp_path):
    real, link = tmp_path / "real.safetensors", tmp_path / "link.safetensors"
    small(real)
    link.symlink_to(real)
    gg.save({"x": gg.ones(1)}, link)
    assert link.is_symlink()
    assert gg.load(real)["x"].tolist() == [1]
