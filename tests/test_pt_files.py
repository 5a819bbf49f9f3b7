"""PyTorch's checkpoints: read without PyTorch, and never trusted."""

from __future__ import annotations

import io
import struct
import zipfile
from collections import Counter, OrderedDict, defaultdict

import numpy as np
import pytest

import gpugrad as gg
from gpugrad import nn

# -- files built by hand -------------------------------------------------------------


class Name:
    """A name in a pickle, as "module name"."""

    def __init__(self, text):
        self.text = text


class Call:
    """``function(*arguments)``, and then perhaps a state."""

    def __init__(self, function, *arguments, state=None):
        self.function, self.arguments, self.state = Name(function), arguments, state


class Persistent:
    """Something outside of the pickle."""

    def __init__(self, *identity):
        self.identity = identity


def emit(x):
    """The instructions of a pickle of protocol 2 that push ``x``."""
    if x is None:
        return b"N"
    if isinstance(x, bool):
        return b"\x88" if x else b"\x89"
    if isinstance(x, int):
        data = x.to_bytes((x.bit_length() + 8) // 8, "little", signed=True)
        return b"\x8a" + bytes([len(data)]) + data
    if isinstance(x, float):
        return b"G" + struct.pack(">d", x)
    if isinstance(x, str):
        data = x.encode()
        return b"X" + struct.pack("<I", len(data)) + data
    if isinstance(x, tuple):
        return b"(" + b"".join(map(emit, x)) + b"t"
    if isinstance(x, list):
        return b"](" + b"".join(map(emit, x)) + b"e"
    if isinstance(x, dict):
        return b"}(" + b"".join(emit(k) + emit(v) for k, v in x.items()) + b"u"
    if isinstance(x, Name):
        return b"c" + x.text.replace(" ", "\n").encode() + b"\n"
    if isinstance(x, Call):
        state = b"" if x.state is None else emit(x.state) + b"b"
        return emit(x.function) + emit(x.arguments) + b"R" + state
    if isinstance(x, Persistent):
        return emit(x.identity) + b"Q"
    raise TypeError(type(x))


def pickled(x):
    return b"\x80\x02" + emit(x) + b"."


def storage(kind, key, numel, location="cpu"):
    return Persistent("storage", Name(f"torch {kind}Storage"), key, location, numel)


def tensor(store, size, stride, offset=0, requires_grad=False):
    return Call(
        "torch._utils _rebuild_tensor_v2", store, offset, size, stride, requires_grad, Call("collections OrderedDict")
    )


def archive(tree, data=None, extra=None, root="archive"):
    """The bytes of a checkpoint of ``tree`` with the storages ``data``."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as z:
        z.writestr(f"{root}/data.pkl", tree if isinstance(tree, bytes) else pickled(tree))
        for name, content in {"byteorder": b"little", "version": b"3\n", **(extra or {})}.items():
            if content is not None:
                z.writestr(f"{root}/{name}", content)
        for key, content in (data or {}).items():
            z.writestr(f"{root}/data/{key}", content)
    return file.getvalue()


def load(content, **options):
    return gg.load(io.BytesIO(content), **options)


FLOATS = np.arange(6, dtype="<f4").tobytes()
ONE = tensor(storage("Float", "0", 6), (2, 3), (3, 1))


def test_a_state_dict(device):
    tree = {"model": Call("collections OrderedDict", [("w", ONE), ("b", tensor(storage("Long", "1", 1), (), ()))],
                          state={"_metadata": {"": {"version": 1}}}),
            "epoch": 3, "best": 0.5, "name": "é", "done": False, "none": None, "sizes": (1, [2, -(2**70)])}  # fmt: skip
    loaded = load(archive(tree, {"0": FLOATS, "1": struct.pack("<q", -7)}), map_location=device)
    assert type(loaded["model"]) is OrderedDict and loaded["model"]._metadata == {"": {"version": 1}}
    assert loaded["model"]["w"].tolist() == [[0, 1, 2], [3, 4, 5]] and loaded["model"]["b"].item() == -7
    assert loaded["model"]["w"].device == gg.device(device) and loaded["model"]["b"].shape == ()
    assert {k: v for k, v in loaded.items() if k != "model"} == {k: v for k, v in tree.items() if k != "model"}


def test_views_share_one_storage(device):
    shared = storage("Float", "0", 6)
    tree = [ONE, tensor(shared, (3, 2), (1, 3)), tensor(shared, (2,), (2,), offset=1), tensor(shared, (2, 0), (1, 1)),
            tensor(shared, (4, 2), (0, 1), offset=4)]  # fmt: skip
    whole, transposed, part, empty, wide = load(archive(tree, {"0": FLOATS}), device=device)
    assert transposed.tolist() == whole.t().tolist() and part.tolist() == [1, 3]
    assert empty.shape == (2, 0) and wide.tolist() == [[4, 5]] * 4
    whole.zero_()
    assert part.tolist() == [0, 0] and transposed.stride() == (1, 3) and part.storage_offset() == 1
    assert not transposed.requires_grad and transposed.requires_grad_().is_leaf


@pytest.mark.parametrize(
    ("kind", "dtype", "code"),
    [("Double", gg.float64, "f8"), ("Half", gg.float16, "f2"), ("Int", gg.int32, "i4"), ("Short", gg.int16, "i2"),
     ("Char", gg.int8, "i1"), ("Byte", gg.uint8, "u1"), ("Bool", gg.bool, "u1"), ("Float", gg.float32, "f4")],
)  # fmt: skip
@pytest.mark.parametrize("order", ["little", "big"])
def test_types_and_byte_orders(kind, dtype, code, order):
    values = np.array([0, 1, 1, 0, 1]).astype((">" if order == "big" else "<") + code)
    tree = tensor(storage(kind, "0", 5), (5,), (1,))
    loaded = load(archive(tree, {"0": values.tobytes()}, {"byteorder": order.encode()}))
    assert loaded.dtype is dtype and loaded.tolist() == [0, 1, 1, 0, 1]


def test_bfloat16_and_unsigned_types():
    half = load(archive(tensor(storage("BFloat16", "0", 2), (2,), (1,)), {"0": b"\xc0\x3f\x00\xc0"}))
    assert half.dtype is gg.bfloat16 and half.tolist() == [1.5, -2.0]
    raw = Persistent("storage", Name("torch.storage UntypedStorage"), "0", "cpu", 4)
    tree = Call("torch._utils _rebuild_tensor_v3", raw, 0, (2,), (1,), False, Call("collections OrderedDict"),
                Name("torch uint16"))  # fmt: skip
    assert load(archive(tree, {"0": b"\1\0\xff\xff"})).tolist() == [1, 65535]
    assert load(archive(tree, {"0": b"\0\1\xff\xff"}, {"byteorder": b"big"})).dtype is gg.uint16


def test_plain_names():
    tree = [
        Call("collections defaultdict", Name("builtins list"), {"a": [1]}),
        Call("collections Counter", {3: 2}),
        Call("builtins set", [1, 2]),
        Call("__builtin__ frozenset", ["x"]),
        Call("torch Size", (2, 3)),
        Call("torch device", "cpu"),
        Name("torch bfloat16"),
        Call("_codecs encode", "ÿ\0", "latin1"),
        Call(
            "numpy.core.multiarray scalar",
            Call("numpy dtype", "f8", False, True, state=(3, "<", None, None, None, -1, -1, 0)),
            Call("_codecs encode", "\0" * 6 + "ð?", "latin1"),
        ),
    ]
    # fmt: skip
    counts, counter, numbers, frozen, size, device, dtype, raw, scalar = load(archive(tree))
    assert type(counts) is defaultdict and counts == {"a": [1]} and counts["new"] == []
    assert counter == Counter({3: 2}) and numbers == {1, 2} and frozen == frozenset({"x"})
    assert type(size) is gg.Size and size == (2, 3) and device == gg.device("cpu") and dtype is gg.bfloat16
    assert raw == b"\xff\0" and scalar == 1.0 and isinstance(scalar, np.float64)


def test_parameters():
    hooks = Call("collections OrderedDict")
    tree = [Call("torch._utils _rebuild_parameter", ONE, True, hooks),
            Call("torch._utils _rebuild_parameter", ONE, False, hooks),
            Call("torch._tensor _rebuild_from_type_v2", Name("torch._utils _rebuild_parameter"),
                 Name("torch.nn.parameter Parameter"), (ONE, True, hooks), {"tag": 1}),
            tensor(storage("Float", "0", 6), (6,), (1,), requires_grad=True)]  # fmt: skip
    first, frozen, tagged, plain = load(archive(tree, {"0": FLOATS}))
    assert isinstance(first, nn.Parameter) and first.requires_grad and isinstance(tagged, nn.Parameter)
    assert isinstance(frozen, nn.Parameter) and not frozen.requires_grad
    assert type(plain) is gg.Tensor and plain.requires_grad and plain.is_leaf


def test_map_location(device):
    at = storage("Float", "0", 6, location="cuda:3")
    content = archive([ONE, tensor(at, (1,), (1,))][1:], {"0": FLOATS})
    with gg.device(device):
        assert load(content)[0].device == gg.device(device)
        assert load(content, map_location={"cuda:0": "cpu"})[0].device == gg.device(device)
        assert load(content, map_location=lambda storage, location: None)[0].device == gg.device(device)
    seen = []

    def keep(storage, location):
        seen.append(location)
        return storage

    for where in ("cpu", gg.device("cpu"), {"cuda:3": "cpu"}, keep, lambda s, location: s.cpu(), lambda s, _: "cpu"):
        assert load(content, map_location=where, weights_only=False)[0].device == gg.device("cpu")
    assert seen == ["cuda:3"]
    assert load(content, map_location=lambda s, location: s.to(device=device))[0].device == gg.device(device)


# -- files that are refused ------------------------------------------------------------


@pytest.mark.parametrize(
    ("tree", "text"),
    [
        (Call("os system", "true"), "refers to os.system, which is neither a tensor nor a plain container"),
        (Call("builtins eval", "1"), "refers to builtins.eval"),
        (Name("__main__ Net"), "refers to __main__.Net"),
        (Call("torch.nn.modules.linear Linear"), r"refers to torch.nn.modules.linear.Linear, .* state_dict\(\)"),
        (storage("ComplexFloat", "0", 1), r"holds complex tensors \(torch.ComplexFloatStorage\)"),
        (Call("torch._utils _rebuild_sparse_tensor"), "holds sparse tensors"),
        (Call("torch._utils _rebuild_qtensor"), "holds quantised tensors"),
        (Name("torch float8_e5m2"), "holds 8-bit floating-point tensors"),
        (Call("torch device", "mps"), "names a device that gpugrad does not have"),
        (Persistent("module", 1, 2, 3), "holds a whole module"),
        (Persistent("other"), "a persistent id of unknown kind"),
        (Persistent("storage", Name("torch FloatStorage"), "0", "cpu", -1), "parts of wrong types"),
        (Persistent("storage", Name("torch FloatStorage"), "0", "cpu", 2**80), "parts of wrong types"),
        (tensor(storage("Float", "0", 6), (2, 4), (4, 1)), r"shape \(2, 4\) reaches element 7 of a storage of 6"),
        (tensor(storage("Float", "0", 6), (1,), (1,), offset=6), "reaches element 6"),
        (tensor(storage("Float", "0", 6), (2,), (2**61,)), "reaches element 2305843009213693952"),
        (tensor(storage("Float", "0", 6), (2**61, 2), (0, 0)), "truncated or damaged"),
        (tensor(storage("Float", "0", 6), (0, 2**61, 2**61), (1, 1, 1)), "truncated or damaged"),
        (tensor(storage("Float", "0", 6), (-2,), (1,)), r"a tensor of shape \(-2,\)"),
        (tensor(storage("Float", "0", 6), (2,), (-1,)), "a tensor of shape"),
        (tensor(storage("Float", "0", 6), (2,), (1, 1)), "shape and strides do not fit"),
        (tensor(storage("Float", "0", 6), (2.0,), (1,)), "a tensor of shape"),
        (tensor(storage("Float", "0", 10**15), (10**15,), (1,)), "should have 4000000000000000 bytes and has 24"),
        (tensor(storage("Float", "9", 6), (6,), (1,)), "lacks the record 'data/9'"),
        (tensor(storage("Float", "../x", 6), (6,), (1,)), "lacks the record"),
        ([ONE, tensor(storage("Double", "0", 3), (3,), (1,))], "storage 0 is described in two ways"),
        (tensor(5, (1,), (1,)), "a tensor without a storage"),
        (Call("builtins bytearray", 10**15), "a call of bytearray"),
        (Call("builtins list", Call("builtins range", 0, 10**15)), "a call of list"),
        (Call("builtins str", b"" or 5), "a call of str"),
        (Call("torch Tensor", 10**15), "a call of Tensor"),
        ({(1, (2, 3)): 1}, "a key that is neither a number nor a text"),
    ],
)  # fmt: skip
def test_refused(tree, text):
    with pytest.raises(gg.FileFormatError, match=text):
        load(archive(tree, {"0": FLOATS}))


def nested(depth):
    return b"\x80\x02" + b"K\x01" + b"\x85" * depth


@pytest.mark.parametrize(
    ("program", "text"),
    [
        (b"\x80\x02", "pickle exhausted|truncated or damaged|no end"),
        (b"\x80\x02.", "truncated or damaged"),
        (b"\x80\x02Ne.", "truncated or damaged"),
        (b"\x80\x02K\x01K\x02s.", "truncated or damaged"),
        (b"\x80\x02h\x07.", "truncated or damaged"),
        (b"\x80\x02X\xff\xff\xff\xff.", "truncated or damaged"),
        (b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.", "truncated or damaged"),
        (b"\x80\x02}" + nested(200_000)[2:] + b"K\x01s.", "a key that is neither"),
        (b"(S'true'\nios\nsystem\n.", "uses the instruction INST"),
        (b"\x80\x02cos\nsystem\n(X\x04\0\0\0trueo.", "refers to os.system"),
        (b"\x80\x04\x8c\x02os\x8c\x06system\x93.", "refers to os.system"),
        (b"\x80\x04\x8c\x10os\x8c.", "truncated or damaged"),
        (b"\x80\x02ccollections\nOrderedDict\n)R}X\x07\0\0\0__cls__K\x01sb.", "attributes for a OrderedDict"),
        (b"Pabc\n.", "uses the instruction PERSID"),
        (b"\x80\x02\x82\x01.", "uses the instruction EXT1"),
    ],
)
def test_bad_programs(program, text):
    with pytest.raises(gg.FileFormatError, match=text):
        load(archive(program))


def test_deep_and_shared_structures_do_no_harm():
    value = load(archive(nested(200_000) + b"."))
    for _ in range(200_000):
        (value,) = value
    assert value == 1
    doubling = b"\x80\x02]" + b"".join(b"q%c](h%ch%ce" % (i, i, i) for i in range(100)) + b"."
    value = load(archive(doubling))
    for _ in range(100):
        value = value[0]
    assert value == []


def test_damaged_archives(tmp_path):
    content = archive({"w": ONE}, {"0": FLOATS})
    path = tmp_path / "weights.pt"
    path.write_bytes(content)
    assert gg.load(path)["w"].shape == (2, 3)
    for length in range(4, len(content), 7):
        path.write_bytes(content[:length])
        with pytest.raises(gg.FileFormatError, match=r"weights\.pt"):
            gg.load(path)
    good = load(content)["w"].tolist()
    for i in range(len(content)):
        try:
            loaded = load(content[:i] + bytes([content[i] ^ 0x41]) + content[i + 1 :])
        except gg.FileFormatError:
            continue
        assert loaded["w"].tolist() == good  # a date or another field that means nothing here


@pytest.mark.parametrize("mask", [0x01, 0x08, 0x20, 0xFF])
def test_altered_pickles(mask):
    """With a checksum that fits: whatever the program has become, the answer is a value or a FileFormatError."""
    program = pickled({"w": ONE, "o": Call("collections OrderedDict", [("a", 1)], state={"_metadata": {}}), "f": 0.5})
    refused = 0
    for i in range(len(program)):
        try:
            load(archive(program[:i] + bytes([program[i] ^ mask]) + program[i + 1 :], {"0": FLOATS}))
        except gg.FileFormatError:
            refused += 1
    assert refused > len(program) / 2


def test_archives_that_are_no_checkpoints():
    with pytest.raises(gg.FileFormatError, match="without a data.pkl"):
        file = io.BytesIO()
        np.savez(file, x=np.ones(2))
        load(file.getvalue())
    with pytest.raises(gg.FileFormatError, match="is a TorchScript program"):
        load(archive([1], extra={"constants.pkl": b"x"}))
    with pytest.raises(gg.FileFormatError, match="has the byte order 'odd'"):
        load(archive([1], extra={"byteorder": b"odd"}))
    with pytest.raises(gg.FileFormatError, match="has a record of the name"):
        load(archive([1], extra={"../../etc": b"x"}))
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as z:
        z.writestr("archive/data.pkl", pickled({"w": ONE}))
        z.writestr("archive/data/0", bytes(10**7))
    with pytest.raises(gg.FileFormatError, match="compressed or encrypted record"):
        load(bomb.getvalue())


def legacy(tree, storages, system=None):
    """A file as PyTorch wrote it before 1.6: ``storages`` are (key, numel, bytes)."""
    magic = b"\x80\x02\x8a\x0a" + 0x1950A86A20F9469CFC6C.to_bytes(10, "little") + b"."
    parts = [magic, pickled(1001), pickled(system or {"protocol_version": 1001, "little_endian": True}), pickled(tree),
             pickled([key for key, _, _ in storages])]  # fmt: skip
    return b"".join(parts) + b"".join(struct.pack("<q", n) + data for _, n, data in storages)


def old_storage(kind, key, numel):
    return Persistent("storage", Name(f"torch {kind}Storage"), key, "cpu", numel, None)


def test_legacy_files():
    shared = old_storage("Float", "k1", 6)
    tree = {"a": tensor(shared, (2, 3), (3, 1)), "b": tensor(old_storage("Long", "k0", 1), (1,), (1,)), "n": 3,
            "p": Call("torch._utils _rebuild_parameter", tensor(shared, (6,), (1,)), True,
                      Call("collections OrderedDict"))}  # fmt: skip
    storages = [("k0", 1, struct.pack("<q", 5)), ("k1", 6, FLOATS)]
    content = legacy(tree, storages)
    loaded = load(content)
    assert loaded["a"].tolist() == [[0, 1, 2], [3, 4, 5]] and loaded["b"].tolist() == [5] and loaded["n"] == 3
    assert isinstance(loaded["p"], nn.Parameter)
    for length in range(20, len(content), 5):
        with pytest.raises(gg.FileFormatError):
            load(content[:length])
    for wrong in (
        legacy(tree, [("k0", 1, struct.pack("<q", 5)), ("k1", 7, FLOATS)]),
        legacy(tree, storages[:1]),
        legacy(tree, [*storages, ("other", 0, b"")]),
        legacy({"a": tensor(old_storage("Float", "k1", 10**15), (1,), (1,))}, [("k1", 10**15, FLOATS)]),
        legacy(Call("os system", "true"), []),
        content.replace(pickled(1001), pickled(1002), 1),
    ):
        with pytest.raises(gg.FileFormatError):
            load(wrong)


# -- files that PyTorch wrote ------------------------------------------------------------


def check_same(ours, theirs):
    """Equal to the last bit, type for type."""
    torch = pytest.importorskip("torch")
    if isinstance(theirs, torch.Tensor):
        assert isinstance(ours, nn.Parameter) == isinstance(theirs, torch.nn.Parameter)
        assert str(ours.dtype).split(".")[1] == str(theirs.dtype).split(".")[1]
        assert ours.shape == theirs.shape and ours.requires_grad == theirs.requires_grad
        if theirs.numel():
            assert ours.stride() == theirs.stride()
        np.testing.assert_array_equal(ours.detach().double().numpy(), theirs.detach().double().numpy())
    elif isinstance(theirs, dict):
        assert type(ours).__name__ == type(theirs).__name__ and list(ours) == list(theirs)
        for key, value in theirs.items():
            check_same(ours[key], value)
    elif isinstance(theirs, (list, tuple)):
        assert type(ours).__name__ == type(theirs).__name__ and len(ours) == len(theirs)
        for a, b in zip(ours, theirs, strict=True):
            check_same(a, b)
    else:
        assert type(ours) is type(theirs) and ours == theirs


@pytest.mark.parametrize("new", [True, False])
@pytest.mark.parametrize("protocol", [2, 4])
def test_pytorchs_files(torch, tmp_path, new, protocol):
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2), torch.nn.Flatten(),
                                torch.nn.Linear(8, 2))  # fmt: skip
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, amsgrad=True)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [2, 2, 4])
    model(torch.randn(3, 1, 4, 4)).sum().backward()
    optimizer.step()
    base = torch.arange(24.0).reshape(4, 6)
    tagged = torch.nn.Parameter(torch.ones(2))
    tagged.tag = "x"
    state = {
        "model": model.state_dict(), "optimizer": optimizer.state_dict(), "schedule": schedule.state_dict(),
        "epoch": 3, "name": "run", "views": [base, base.t(), base[1:, 2:], base[0, 0], base[:, :0]],
        "types": [torch.arange(3).to(getattr(torch, d)) for d in (
            "float64", "float16", "bfloat16", "int8", "int16", "int32", "uint8", "bool", "uint16", "uint32")],
        "parameter": model[3].weight, "tagged": tagged, "grad": torch.ones(2, requires_grad=True),
        "size": base.shape, "random": torch.get_rng_state(), "raw": b"\0\xff", "set": {1, 2}, "none": None,
        "ordered": OrderedDict(a=1), "tuple": (1, (2.5, "x")), "big": 2**70, 5: -1,
    }  # fmt: skip
    path = tmp_path / "checkpoint.pt"
    torch.save(state, path, _use_new_zipfile_serialization=new, pickle_protocol=protocol)
    loaded = gg.load(path, map_location="cpu")
    size = loaded.pop("size")
    assert isinstance(size, gg.Size) and size == (4, 6)
    state.pop("size")
    check_same(loaded, state)
    assert loaded["model"]._metadata == state["model"]._metadata
    loaded["views"][0].zero_()
    assert loaded["views"][2].abs().sum().item() == 0
    ours = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 2))
    ours.load_state_dict(loaded["model"])
    again = gg.optim.AdamW(ours.parameters())
    again.load_state_dict(loaded["optimizer"])
    assert again.param_groups[0]["lr"] == 0.1 and again.state[ours[0].weight]["step"] == 1
    gg.optim.lr_scheduler.MultiStepLR(again, [9]).load_state_dict(loaded["schedule"])


@pytest.mark.filterwarnings("ignore:torch.quantize")
def test_what_pytorch_saves_and_gpugrad_lacks(torch):
    for value, text in (
        (torch.ones(1, dtype=torch.complex64), "complex tensors"),
        (torch.eye(2).to_sparse(), "sparse tensors"),
        (torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8), "quantised tensors"),
        (torch.ones(2).to(torch.float8_e5m2), "8-bit floating-point tensors"),
        (torch.nn.Linear(1, 1), r"torch.nn.modules.linear.Linear"),
    ):
        file = io.BytesIO()
        torch.save({"x": value}, file)
        with pytest.raises(gg.FileFormatError, match=text):
            load(file.getvalue())
