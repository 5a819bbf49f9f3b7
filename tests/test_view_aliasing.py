"""Views and in-place changes as PyTorch's documentation describes them (tensor views, in-place correctness checks,
locally disabling gradients): which operations share memory, who sees a write, and what is an error. With PyTorch
installed, each program is also run there."""

from __future__ import annotations

import pytest

import gpugrad as gg
from tests.fuzz.judge import verdict
from tests.fuzz.programs import Runner

#: what PyTorch lists as views of a tensor ``x`` of shape (2, 3, 4), and what may copy but does not here
VIEWS = (
    "x[0]", "x[..., 1:]", "x[None]", "x[:, 1]", "x.detach()", "x.data", "x.diagonal()", "x.expand(5, 2, 3, 4)",
    "x.expand_as(T.zeros(2, 2, 3, 4))", "x.movedim(0, 2)", "x.moveaxis(0, 2)", "x.narrow(1, 0, 2)", "x.permute(2, 0, 1)",  # noqa: E501
    "x.select(0, 1)", "x[:1].squeeze(0)", "x.transpose(0, 2)", "x.swapaxes(0, 1)", "x.swapdims(0, 1)", "x[0].t()",
    "x[0].T", "x.mT", "x[0].H", "x.mH", "x.real", "x.unflatten(2, (2, 2))", "x.unfold(2, 2, 1)", "x.unsqueeze(1)",
    "x.view(6, 4)", "x.view_as(x)", "x.unbind(1)[0]", "x.split(1)[1]", "x.hsplit(3)[1]", "x.vsplit(2)[0]",
    "x.dsplit(2)[1]", "x.tensor_split(2, 2)[1]", "x.split_with_sizes([1, 2], 1)[1]", "x.chunk(2, 2)[0]",
    "x.as_strided((2, 2), (1, 2))", "x.reshape(24)", "x.reshape_as(T.zeros(4, 6))", "x.flatten()", "x.contiguous()",
    "x.ravel()", "x.broadcast_to((3, 2, 3, 4))", "x.adjoint()", "T.atleast_1d(x)", "x.to(T.float32)", "x.float()",
)  # fmt: skip
COPIES = (
    "x.clone()", "x[[0, 1]]", "x[x > 0]", "x.transpose(0, 2).reshape(24)", "x.transpose(0, 2).contiguous()",
    "x.transpose(0, 2).flatten()", "x.to(T.float64)", "x.flip(0)", "x.roll(1)", "x.repeat(1, 1, 1)", "T.cat([x])",
    "x.gather(0, T.zeros(1, 3, 4, dtype=T.int64))", "x.index_select(0, T.tensor([0, 1]))", "x.to(T.float32, copy=True)",
    "x + 0", "x.masked_select(x > 0)", "x.diag_embed()", "T.tensor(x.tolist())",
)  # fmt: skip


def libraries():
    try:
        import torch
    except ImportError:
        return [gg]
    return [gg, torch]


@pytest.mark.parametrize("shares", [True, False], ids=["views", "copies"])
def test_who_sees_a_write(shares, device):
    for library in libraries():
        if library is not gg and device != "cpu":
            continue
        for text in VIEWS if shares else COPIES:
            if device == "pretend" and "float64" in text:
                continue
            with gg.device(device):
                x = library.arange(24.0).reshape(2, 3, 4)
                y = eval(text, {"T": library, "x": x})
                assert bool((y != -1).all()), text
                x.fill_(-1)
                assert bool((y == -1).all()) == shares, f"{text} in {library.__name__}"
                assert (y._version == x._version or text == "x.data") if shares else y._version == 0, text


#: programs, one statement a line; the lines that raise do so in both libraries, and so does everything else agree
PROGRAMS = {
    "a view of a view reaches the base": "v0 = make(1, (3, 4), grad=True); v1 = v0 * 1; v2 = v1[1:]; v3 = v2.t(); v3[0] = 0; "  # noqa: E501
    "v4 = v1.exp(); weigh(v1, v2, v3, v4).backward()",
    "a leaf may not be changed": "v0 = make(1, (3,), grad=True); v0.add_(1); v0[0] = 1; v1 = v0.view(3, 1); v1.mul_(2)",
    "a leaf may be changed in no_grad": "v0 = make(1, (3,), grad=True)\nwith T.no_grad(): v0.mul_(2)\n"
    "weigh(v0 * v0).backward()",
    "a saved value": "v0 = make(1, (3,), grad=True); v1 = v0.exp(); v1.add_(1); weigh(v1).backward()",
    "a value that is not saved": "v0 = make(1, (3,), grad=True); v1 = v0 + 1; v1.mul_(2); weigh(v1).backward()",
    "a saved value through a view": "v0 = make(1, (4,), grad=True); v1 = v0.tanh(); v2 = v1[:1]; v2.zero_(); "
    "weigh(v1).backward()",
    "a saved value through detach": "v0 = make(1, (4,), grad=True); v1 = v0.sigmoid(); v2 = v1.detach(); v2.zero_(); "
    "weigh(v1).backward()",
    "what data hides": "v0 = make(1, (4,), grad=True); v1 = v0.sigmoid(); v2 = v1.data; v2.zero_(); weigh(v1).backward()",  # noqa: E501
    "a view made before its base is changed": "v0 = make(1, (2, 2), grad=True); v1 = v0 * 2; v2 = v1[0]; v1.mul_(v1.detach()); "  # noqa: E501
    "v3 = v2 * 3; weigh(v3).backward()",
    "an expanded tensor": "v0 = make(1, (3, 1)); v1 = v0.expand(3, 4); v1.add_(1)",
    "in place on a tensor without grad": "v0 = make(1, (3,)); v1 = make(2, (3,), grad=True); v0.mul_(v1); "
    "weigh(v0).backward()",
    "assignment with a gradient": "v0 = make(1, (3, 3)); v1 = make(2, (3,), grad=True); v0[1] = v1 * 2; v2 = v0.sum(); "
    "weigh(v2, v0).backward()",
    "detach shares, and has no history": "v0 = make(1, (3,), grad=True); v1 = v0 * 2; v2 = v1.detach(); v2[0] = 5; "
    "weigh(v1).backward()",
    "detach_ of a view": "v0 = make(1, (3,), grad=True); v1 = (v0 * 2).clone(); v2 = v1[1:]; v2.detach_()",
    "copy_ into a part": "v0 = make(1, (2, 3), grad=True); v1 = v0.clone(); v2 = make(2, (3,), grad=True); v1[0].copy_(v2); "  # noqa: E501
    "weigh(v1).backward()",
    "twice through one graph": "v0 = make(1, (3,), grad=True); v1 = v0.exp(); weigh(v1).backward(); weigh(v1).backward()",  # noqa: E501
    "a frozen input": "v0 = make(1, (3,), grad=True); v1 = v0.detach(); v2 = v1 * v0; v1.add_(1); weigh(v2).backward()",
    "second derivatives after a write": "v0 = make(1, (3,), grad=True); v1 = v0 * 1; v1.square_(); v2 = v1 * v0; "
    "(v3,) = gradients(v2, [v0], create_graph=True); weigh(v3).backward()",
    "masks and numbers": "v0 = make(1, (3, 3), grad=True); v1 = v0 * 1; v2 = v0 > 0; v1[v2] = 0.5; weigh(v1).backward()",  # noqa: E501
    "accumulating index_put_": "v0 = make(1, (4,), grad=True); v1 = v0 * 1; v2 = make(3, (2,), grad=True); "
    "v1.index_put_((index([1, 1]),), v2, accumulate=True); weigh(v1).backward()",
}


@pytest.mark.parametrize("text", PROGRAMS.values(), ids=list(PROGRAMS))
def test_programs(text, device):
    lines = [line.strip() for part in text.split("\n") for line in part.split(";" if "with" not in part else "\n")]
    torch = None
    if device == "cpu" and len(libraries()) == 2:
        torch = libraries()[1]
    assert verdict(lines, [device], torch) is None


@pytest.mark.parametrize(
    ("name", "raises"),
    [("a leaf may not be changed", 3), ("a saved value", 1), ("a saved value through a view", 1),
     ("a saved value through detach", 1), ("what data hides", 0), ("an expanded tensor", 1), ("detach_ of a view", 1),
     ("twice through one graph", 1), ("a frozen input", 1), ("in place on a tensor without grad", 0)],
)  # fmt: skip
def test_how_many_lines_raise(name, raises, device):
    lines = [line.strip() for line in PROGRAMS[name].split(";")]
    errors = Runner(gg, device).outcome(lines).errors
    assert sum(e is not None for e in errors) == raises, errors


def test_modes(device):
    x = gg.ones(3, device=device, requires_grad=True)
    with gg.no_grad():
        assert not (x * 2).requires_grad and gg.zeros(1, requires_grad=True).requires_grad
        with gg.enable_grad():
            assert (x * 2).requires_grad
    with gg.inference_mode():
        assert not (x * 2).requires_grad
    with gg.set_grad_enabled(False):
        y = x * 2
    y += 1
    assert not y.requires_grad
