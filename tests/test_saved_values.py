"""What is saved for backward is guarded: a change in place between the two is an error that names both operations.

For every row of the ops table: each value that its calls save is changed, one at a time; and the inputs and the result
are changed as a program would, which is either that error or makes no difference to the gradients."""

from __future__ import annotations

import numpy as np
import pytest

import gpugrad as gg
import gpugrad.linalg
from gpugrad.autograd.graph import Node, edge_of
from gpugrad.ops import OPS
from gpugrad.ops.recording import OpNode, wrap
from tests import parity
from tests.test_ops import call, make_inputs, rng_for
from tests.test_parity import ELSEWHERE, torch_call

ROWS = [op for op in OPS.values() if op.samples and op.differentiable and "f" in op.dtypes and op.name != "cast"]
CASES = [pytest.param(op, s, id=f"{op.name}-{i}") for op in ROWS for i, s in enumerate(op.samples)]


def recorded(op, sample, device):
    """(inputs, result) of a call on tensors that are no leaves, as those may be changed in place; and the leaves."""
    arrays = make_inputs(op, sample, np.float32, rng_for(op.name, "saved"))
    leaves = [gg.tensor(a, device=device, requires_grad=a.dtype.kind == "f") for a in arrays]
    inputs = [t.clone() if t.requires_grad else t for t in leaves]
    return inputs, call(op, sample, inputs), [t for t in leaves if t.requires_grad]


def nodes(result, inputs):
    """The nodes of a call: those between its result and its inputs, in an order that is always the same."""
    ends = {id(edge_of(t)) for t in inputs}
    found, stack = [], [edge_of(result)]
    while stack:
        node = stack.pop()
        if isinstance(node, Node) and id(node) not in ends and all(node is not n for n in found):
            found.append(node)
            stack += node.edges
    return found


def saved(result, inputs):
    """(title of the node, array, storage record, backend) of each tensor that was saved."""
    return [
        (n.title, array, storage, n.backend)
        for n in nodes(result, inputs)
        if isinstance(n, OpNode)
        for _, _, array, storage, _ in n.kept()
        if storage is not None
    ]


def weighted(result):
    weights = np.random.default_rng(3).standard_normal(tuple(result.shape)).astype(np.float32)
    return (result * gg.tensor(weights, device=result.device)).sum()


def guarded(device, op):
    """The CPU and the pretend device run all rows; where kernels are compiled, those that have a routine of the device."""  # noqa: E501
    return device in ("cpu", "pretend") or op.name.endswith("_fused")


@pytest.mark.parametrize(("op", "sample"), CASES)
def test_each_saved_value_is_guarded(op, sample, device):
    if not guarded(device, op):
        pytest.skip("what is saved does not depend on the device")
    inputs, result, leaves = recorded(op, sample, device)
    if not result.requires_grad:
        pytest.skip("no derivative for these inputs")
    for k in range(len(saved(result, inputs))):
        inputs, result, leaves = recorded(op, sample, device)
        total = weighted(result)
        saved_before = saved(result, inputs)
        title, array, storage, backend = saved_before[k]
        alias = wrap(array, backend)
        alias._storage = storage
        if 0 in alias.stride():  # expanded memory is not written to, but what it shows may be
            storage.version += 1
            storage.changed_by = "zero_"
        elif alias.dtype.is_floating_point or alias.dtype is not gg.bool:
            alias.zero_()
        else:
            alias.logical_not_()
        with pytest.raises(RuntimeError, match="was saved for backward and then changed in place by") as error:
            total.backward()
        savers = [t for t, _, other, _ in saved_before if other is storage]
        assert title in savers and str(error.value).partition(":")[0] in savers
        assert "by fill_" in str(error.value) or "by zero_" in str(error.value) or "by logical_not_" in str(error.value)
        assert all(t.grad is None or t.grad.isfinite().all() for t in leaves)


def changes(op, sample, device):
    """For the result (-1) and each input (its number) that may be changed: what comes of changing it by ``mul_``, the
    text of an error or None, and the gradients."""
    inputs, result, leaves = recorded(op, sample, device)
    for which in (-1, *range(len(inputs))):
        inputs, result, leaves = recorded(op, sample, device)
        target = result if which < 0 else inputs[which]
        if not target.dtype.is_floating_point or 0 in target.stride() or not target.numel():
            continue
        if target is result and any(result is t for t in inputs):
            continue
        total = weighted(result)
        with gg.no_grad():
            target.mul_(-3)
        try:
            total.backward()
        except RuntimeError as error:
            yield which, str(error), None
        else:
            yield which, None, [t.grad for t in leaves]


@pytest.mark.parametrize(("op", "sample"), CASES)
def test_a_change_is_an_error_or_makes_no_difference(op, sample, device):
    if not guarded(device, op):
        pytest.skip("what is saved does not depend on the device")
    _, result, leaves = recorded(op, sample, device)
    if not result.requires_grad:
        pytest.skip("no derivative for these inputs")
    # The weighted sum saves the result's weights, not the result; a view as a result is its input's memory.
    weighted(result).backward()
    want = [None if t.grad is None else t.grad.cpu().numpy() for t in leaves]
    for which, error, gradients in changes(op, sample, device):
        if error is not None:
            assert "was saved for backward and then changed in place by mul_" in error
            continue
        for g, w in zip(gradients, want, strict=True):
            assert (g is None) == (w is None)
            if g is not None:
                np.testing.assert_array_equal(g.cpu().numpy(), w, err_msg=f"after a change of {which}")


#: rows and what of theirs (-1: the result) may be changed in PyTorch and not here
STRICTER: dict[str, set[int]] = {
    "matmul": {0, 1},  # PyTorch happens to copy operands that it broadcasts
    "kron": {0, 1},
    "scaled_dot_product_attention": {-1, 0, 1, 2},  # one routine; PyTorch's plain way saves scaled copies and weights
    "erfinv": {-1},  # PyTorch computes it again
}


@pytest.mark.parametrize(("op", "sample"), CASES)
def test_no_stricter_than_pytorch(op, sample, torch):
    """What a program may change in PyTorch it may change here."""
    if op.name in ELSEWHERE or op.reference is None:
        pytest.skip("called in another way there")
    _, result, _ = recorded(op, sample, "cpu")
    if not result.requires_grad:
        pytest.skip("no derivative for these inputs")
    arrays = make_inputs(op, sample, np.float32, rng_for(op.name, "saved"))
    for which, error, _ in changes(op, sample, "cpu"):
        if error is None:
            continue
        inputs = [parity.to_torch(a, torch, requires_grad=a.dtype.kind == "f") for a in arrays]
        inputs = [t.clone() if t.requires_grad else t for t in inputs]
        try:
            theirs = torch_call(op, sample, inputs, torch)
        except (RuntimeError, TypeError, NotImplementedError) as refused:
            pytest.skip(f"PyTorch refuses: {refused}")
        theirs = theirs[0] if isinstance(theirs, tuple) else theirs
        total = (theirs * 0.5).sum()
        with torch.no_grad():
            (theirs if which < 0 else inputs[which]).mul_(-3)
        try:
            total.backward()
        except RuntimeError:
            continue
        assert which in STRICTER.get(op.name, ()), error
