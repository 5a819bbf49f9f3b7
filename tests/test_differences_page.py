"""docs/differences_from_pytorch.md says what is so: rows of the page, each with a program that shows it."""

from __future__ import annotations

import copy
import io
import math
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest

import gpugrad as gg
from gpugrad import nn

PAGE = (Path(__file__).resolve().parent.parent / "docs" / "differences_from_pytorch.md").read_text(encoding="utf-8")
INF = gg.tensor(math.inf)
ROWS: dict[str, Callable[[], object]] = {}


def row(start):
    """Decorates the program for the row of the page that begins with ``start``."""

    def keep(function):
        assert start not in ROWS
        ROWS[start] = function
        return function

    return keep


def fails(error, function, *arguments, **named):
    with pytest.raises(error):
        function(*arguments, **named)
    return True


def leaf(*values, dtype=gg.float32):
    return gg.tensor(values, dtype=dtype, requires_grad=True)


def through_file(tree):
    file = io.BytesIO()
    gg.save(tree, file)
    file.seek(0)
    return gg.load(file)


# -- one line each ---------------------------------------------------------------------------

row('`device("cpu").index`')(lambda: gg.device("cpu").index == 0)
row("`get_rng_state`")(lambda: isinstance(gg.get_rng_state(), tuple))
row("`normal(mean, std)`")(lambda: not gg.normal(leaf(1.0), 1.0).requires_grad)
row("`set_flush_denormal`")(lambda: gg.set_flush_denormal(True) is False)
row("`memory_format`")(lambda: gg.ones(1, 3, 2, 2).to(memory_format=gg.channels_last).stride() == (12, 4, 2, 1))
row("`x // 0`")(lambda: all(fails(ZeroDivisionError, lambda x=x: gg.tensor([x]) // 0) for x in (1, 1.0)))
row("`x // y` of tensors")(lambda: not (leaf(3.0) // 2).requires_grad)
row("`clone()`")(lambda: gg.zeros(2, 3).t().clone().stride() == (2, 1))
row("`abs` of bool")(lambda: gg.tensor([True, False]).abs().tolist() == [True, False])
row("numbers that do not fit")(lambda: gg.where(gg.tensor([True]), gg.zeros(1, dtype=gg.uint8), 300).item() == 0)
row("`Tensor(5)`")(lambda: gg.Tensor(5).shape == () and gg.Tensor(2, 3).shape == (2, 3))
row("`share_memory_`")(lambda: fails(NotImplementedError, gg.ones(1).share_memory_))
row("`sort`, `argsort`")(lambda: gg.topk(gg.ones(4), 2).indices.tolist() == gg.ones(2).argsort().tolist() == [0, 1])
row("`unique`")(lambda: gg.unique(gg.tensor([3, 1, 2]), sorted=False).tolist() == [1, 2, 3])
row("`var`, `std` of too few")(lambda: gg.var(gg.ones(1)).isnan().item())
row("`gradient` with two")(
    lambda: gg.gradient(gg.arange(3.0), spacing=(gg.tensor([0.0, 0, 1]),))[0][1].item() == math.inf
)
row("`segment_reduce`")(
    lambda: fails(NotImplementedError, gg.segment_reduce, gg.ones(1, 2), "sum", lengths=gg.tensor([[2]]), axis=1)
)
row("`cdist`, `pdist`")(lambda: gg.cdist(gg.ones(2, 2).half(), gg.ones(2, 2).half()).dtype is gg.float16)
row("`prod` over several dims")(lambda: gg.prod(gg.ones(2, 2), (0, 1)).item() == 1 and gg.max(gg.ones(2), None).item())
row("an in-place result")(lambda: fails(gg.errors.DTypeError, gg.tensor([1]).add_, 1.5))
row("`lstsq(driver=)`")(lambda: gg.linalg.lstsq(gg.ones(2, 3, 2), gg.ones(3, 1)).solution.shape == (2, 2, 1))
row("`svd(driver=)`")(
    lambda: len(gg.linalg.svd(gg.eye(2), driver="gesvd")) == len(gg.linalg.lu(gg.eye(2), pivot=False))
)
row("`inv_ex`, `solve_ex`")(lambda: gg.linalg.inv_ex(gg.zeros(2, 2)).inverse.isnan().all().item())
row("at infinity")(
    lambda: gg.i0(gg.tensor(math.inf)).item() == math.inf and gg.special.bessel_j0(gg.tensor(math.inf)) == 0
)
row("`polygamma(1, x)`")(lambda: gg.polygamma(1, gg.tensor(-1.0)).item() == math.inf)
row("`nextafter`")(lambda: fails(NotImplementedError, gg.nextafter, gg.ones(1).half(), gg.ones(1).half()))
row("`Embedding(sparse=True)`")(lambda: fails(NotImplementedError, nn.Embedding(3, 2, sparse=True), gg.tensor([1])))
row("`Module.share_memory`")(lambda: fails(NotImplementedError, nn.Linear(1, 1).share_memory))
row("`SparseAdam`")(lambda: fails(NotImplementedError, gg.optim.SparseAdam, [nn.Parameter(gg.ones(1))]))
row("`DistributedSampler` without")(lambda: fails(RuntimeError, gg.utils.data.DistributedSampler, [1, 2]))
row("what a file may hold")(lambda: fails(NotImplementedError, gg.save, nn.Linear(1, 1), io.BytesIO()))
row("`autograd.Variable()`")(lambda: fails(TypeError, gg.autograd.Variable))
row("a view made before its base")(lambda: not view_made_before().requires_grad)
row("`autograd.graph.saved_tensors_hooks`")(lambda: not hasattr(gg.autograd.graph, "saved_tensors_hooks"))
row("`func.vmap`")(lambda: calls(gg.func.vmap) == 3)


def view_made_before():
    base = gg.ones(3)
    view = base[:2]
    base.requires_grad_()
    return view


@row("a view made in `no_grad`")
def _():
    base = leaf(1.0, 2.0, 3.0) * 1
    with gg.no_grad():
        view = base[:2]
    constant = not view.requires_grad and not (view * 2).requires_grad
    factor = leaf(2.0, 5.0)
    view.mul_(factor)
    base.sum().backward()
    return constant and base.tolist() == [2, 10, 3] and factor.grad.tolist() == [1, 2]


def calls(vmap):
    seen = []
    vmap(lambda x: seen.append(x) or x)(gg.ones(3))
    return len(seen)


# -- longer ones ---------------------------------------------------------------------------


@row("assignment between overlapping views")
def _():
    x = gg.arange(6)
    x[1:] = x[:-1]
    return x.tolist() == [0, 0, 1, 2, 3, 4]


@row("operations on a subclass")
def _():
    class Mine(gg.Tensor):
        pass

    return type(Mine([1.0]) + 1) is gg.Tensor


@row("attributes set on a tensor")
def _():
    x = gg.ones(2)
    x.note = 3
    copies = copy.copy(x), copy.deepcopy(x), pickle.loads(pickle.dumps(x))
    return all(c.note == 3 for c in copies) and not hasattr(through_file(x), "note")


@row("tensors made in `inference_mode`")
def _():
    with gg.inference_mode():
        x = gg.ones(2)
    return (x.requires_grad_() * 2).requires_grad


@row("derivative of `logcumsumexp`")
def _():
    x = leaf(-math.inf, 1.0)
    gg.logcumsumexp(x, 0).sum().backward()
    return x.grad.tolist() == [0, 1]


@row("`linalg.eig`, `eigvals`")
def _():
    rotation = gg.tensor([[0.0, -1.0], [1.0, 0.0]])
    real = gg.linalg.eigvals(gg.tensor([[2.0, 0.0], [0.0, 3.0]]))
    return fails(NotImplementedError, gg.linalg.eigvals, rotation) and sorted(real.tolist()) == [2, 3]


@row("derivative of `det`")
def _():
    x = gg.tensor([[1.0, 2.0], [2.0, 4.0]], requires_grad=True)
    gg.linalg.det(x).backward()
    return gg.allclose(x.grad, gg.tensor([[4.0, -2.0], [-2.0, 1.0]]))


@row("Bessel J, Y, K")
def _():
    x = leaf(1.0)
    gg.special.bessel_j0(x).backward(gg.ones(1))
    return abs(x.grad.item() + 0.44005) < 1e-4


@row("`airy_ai`, first arguments")
def _():
    y = gg.special.airy_ai(leaf(1.0)).sum() + gg.igamma(leaf(1.0), gg.ones(1)).sum()
    return fails(NotImplementedError, y.backward)


@row("`step`, ASGD's `eta`")
def _():
    parameter = nn.Parameter(gg.ones(2))
    optimizer = gg.optim.ASGD([parameter])
    parameter.grad = gg.ones(2)
    optimizer.step()
    state = optimizer.state_dict()["state"][0]
    return isinstance(state["step"], int) and isinstance(state["eta"], float) and isinstance(state["mu"], float)


@row("tensors that share memory")
def _():
    x = gg.arange(4.0)
    loaded = through_file({"a": x, "b": x[1:]})
    loaded["a"][1] = 9
    return loaded["b"][0].item() == 1


@row("`load` places tensors")
def _():
    return through_file(gg.ones(2)).device == gg.get_default_device()


@row("forward mode")
def _():
    refused = fails(
        NotImplementedError, gg.autograd.functional.jacobian, lambda x: x, gg.ones(2), strategy="forward-mode"
    )
    return refused and gg.func.jacfwd(lambda x: x * 2)(gg.ones(2)).tolist() == [[2, 0], [0, 2]]


@row("`gradcheck` with")
def _():
    x = leaf(1.0, dtype=gg.float64)
    return all(
        fails(NotImplementedError, gg.autograd.gradcheck, lambda v: v * 2, (x,), **{option: True})
        for option in ("check_forward_ad", "check_batched_grad", "masked")
    )


@row("`DataParallel`, `DistributedDataParallel`")
def _():
    model = nn.Linear(2, 1)
    return gg.equal(nn.DataParallel(model)(gg.ones(4, 2)), model(gg.ones(4, 2)))


@pytest.mark.parametrize("start", ROWS)
def test_the_row_is_true(start):
    assert sum(line.startswith(f"| {start}") for line in PAGE.splitlines()) == 1, "the page has no such row"
    assert ROWS[start]()


def test_names_on_the_page_are_absent_or_here():
    """Nothing under "What does not exist" can be had."""
    gone = PAGE.partition("## What does not exist")[2].partition("Asking for")[0]
    for line in gone.splitlines():
        for name in line.split("|")[1].split("`")[1::2] if line.startswith("| ") else ():
            assert not hasattr(gg, name), name
