"""In-place operations: versions, views, history; against the same computation out of place."""

from __future__ import annotations

import numpy as np
import pytest

import gpugrad as gg


def grads(function, *values, device="cpu"):
    leaves = [gg.tensor(v, device=device, requires_grad=True) for v in values]
    out = function(*leaves)
    out.backward()
    return [leaf.grad.cpu().numpy() for leaf in leaves]


A = np.arange(1.0, 7.0).reshape(2, 3).astype(np.float32)
B = np.linspace(-1.0, 1.0, 6).reshape(2, 3).astype(np.float32)
ROW = np.array([0.5, -1.5, 2.0], np.float32)


def test_inplace_on_intermediate(device):
    def inplace(a, b):
        h = a * 2
        h.add_(b)
        h.mul_(b)
        return (h * h).sum()

    def out_of_place(a, b):
        h = (a * 2 + b) * b
        return (h * h).sum()

    # mul_ keeps a copy of the value it overwrites, for the gradient of b
    for got, want in zip(grads(inplace, A, B, device=device), grads(out_of_place, A, B, device=device), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
    got = grads(lambda a: _masked(a, B, device, True), A, device=device)
    want = grads(lambda a: _masked(a, B, device, False), A, device=device)
    np.testing.assert_allclose(got[0], want[0], rtol=1e-6)


def _masked(a, b, device, inplace):
    c = gg.tensor(b, device=device)
    if inplace:
        h = a * 2
        h.add_(c)
        h.mul_(c)
    else:
        h = (a * 2 + c) * c
    return (h * h).sum()


def test_saved_result_of_inplace_op_is_the_new_value(device):
    def inplace(a):
        h = a * 1.0
        h.tanh_()
        return (h * h).sum()

    np.testing.assert_allclose(
        grads(inplace, B, device=device)[0],
        grads(lambda a: (a.tanh() * a.tanh()).sum(), B, device=device)[0],
        rtol=1e-5,
    )


def test_write_through_a_view_reaches_the_base(device):
    def inplace(a, row):
        h = a * 2
        h[1] = row * row
        h[:, 0].mul_(3.0)
        return (h * h).sum()

    def outofplace(a, row):
        h = gg.stack([a[0] * 2, row * row])
        scale = gg.tensor([3.0, 1.0, 1.0], device=h.device)
        h = h * scale
        return (h * h).sum()

    for got, want in zip(grads(inplace, A, ROW, device=device), grads(outofplace, A, ROW, device=device), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-6)


def test_views_made_before_see_the_new_history(device):
    def inplace(a, row):
        h = a * 2
        first = h[0]
        whole = h.reshape(-1)
        h[0].copy_(row)
        return (first * first).sum() + (whole * 3).sum()

    def outofplace(a, row):
        h = gg.stack([row, a[1] * 2])
        return (row * row).sum() + (h * 3).sum()

    for got, want in zip(grads(inplace, A, ROW, device=device), grads(outofplace, A, ROW, device=device), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-6)


def test_base_written_after_view_was_made(device):
    def inplace(a):
        h = a * 2
        v = h.t()
        h.mul_(3.0)
        return (v * v).sum()

    np.testing.assert_allclose(grads(inplace, A, device=device)[0], 72 * A, rtol=1e-6)


def test_strided_and_permuted_views_of_non_contiguous_bases(device):
    def inplace(a, row):
        h = (a.t() * 2).t()  # a dense base in another order
        h.t()[1:, 0] = row[:2]
        return (h * h * gg.tensor(B, device=h.device)).sum()

    def outofplace(a, row):
        top = gg.cat([a[0, :1] * 2, row[:2]])
        h = gg.stack([top, a[1] * 2])
        return (h * h * gg.tensor(B, device=h.device)).sum()

    for got, want in zip(grads(inplace, A, ROW, device=device), grads(outofplace, A, ROW, device=device), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


def test_advanced_index_assignment(device):
    def inplace(a, row):
        h = a * 2
        h[[1, 0], [2, 1]] = row[:2]
        h[h > 100] = 0.0
        return (h * h).sum()

    def outofplace(a, row):
        mask = gg.tensor([[0, 1, 0], [0, 0, 1]], device=a.device).bool()
        h = gg.where(mask, 0.0, a * 2)
        return (h * h).sum() + (row[:2] ** 2).sum()

    for got, want in zip(grads(inplace, A, ROW, device=device), grads(outofplace, A, ROW, device=device), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-6)


def test_fill_zero_copy_cut_the_old_history(device):
    def inplace(a, row):
        h = a * 2
        h.zero_()
        h[0] = row
        return (h * h).sum()

    ga, grow = grads(inplace, A, ROW, device=device)
    np.testing.assert_array_equal(ga, 0)
    np.testing.assert_allclose(grow, 2 * ROW)


def test_double_backward_through_inplace():
    x = gg.tensor([1.0, 2.0, 3.0], dtype=gg.float64, requires_grad=True)
    h = x * x
    h[1:].mul_(2.0)
    (g,) = gg.autograd.grad((h * h).sum(), x, create_graph=True)
    (g2,) = gg.autograd.grad(g.sum(), x)
    np.testing.assert_allclose(g2.numpy(), 12 * np.array([1, 4, 9]) * np.array([1, 4, 4]))


# -- what must be refused ---------------------------------------------------------


def test_leaf_cannot_be_changed_while_recording(device):
    x = gg.ones(3, device=device, requires_grad=True)
    with pytest.raises(RuntimeError, match="add_: a leaf that requires grad cannot be changed in place.*no_grad"):
        x.add_(1.0)
    with pytest.raises(RuntimeError, match="a view of a leaf that requires grad"):
        x[0].mul_(2.0)
    with pytest.raises(RuntimeError, match="index assignment: a view of a leaf"):
        x[0] = 5.0
    with gg.no_grad():
        x.add_(1.0)
        x[0] = 7.0
    assert x.tolist() == [7.0, 2.0, 2.0]


@pytest.mark.parametrize(
    "change", ["h.add_(1.0)", "h[0] = 3.0", "h.t().mul_(2)", "h.zero_()", "h.detach().fill_(2)", "h += 1"]
)
def test_change_of_a_saved_value_is_reported(device, change):
    x = gg.tensor(A, device=device, requires_grad=True)
    h = x * 1.0
    y = h.exp().log() + h * h  # of these mul alone saves h itself
    exec(change, {"h": h})
    with pytest.raises(
        RuntimeError,
        match="mul: its input [01], of shape \\(2, 3\\), was saved for backward and then changed in place by",
    ):
        y.sum().backward()


def test_change_of_a_saved_result_is_reported(device):
    x = gg.tensor(A, device=device, requires_grad=True)
    y = x.exp()
    y.mul_(2.0)
    with pytest.raises(RuntimeError, match="exp: its result.*changed in place by mul_"):
        y.sum().backward()


def test_change_that_does_not_matter_is_allowed(device):
    x = gg.tensor(A, device=device, requires_grad=True)
    h = x * 2  # saves the number 2, not h
    y = h + 1
    h.mul_(0.0)
    y.sum().backward()
    np.testing.assert_array_equal(x.grad.to_numpy(), 2.0)


def test_expanded_memory_cannot_be_written(device):
    x = gg.ones(3, 1, device=device).expand(3, 4)
    with pytest.raises(RuntimeError, match="several of its elements share one memory location"):
        x.add_(1.0)


def test_result_dtype_must_fit(device):
    x = gg.tensor([1, 2], device=device)
    with pytest.raises(TypeError, match="result type float32 cannot be stored in a int64 tensor"):
        x.add_(0.5)


def test_overlapping_operands(device):
    """Out and in share memory at shifted places: as if the input had been copied first."""
    x = gg.arange(8, device=device).float()
    x[1:].add_(x[:-1])
    assert x.tolist() == [0, 1, 3, 5, 7, 9, 11, 13]
    y = gg.arange(6, device=device).float().reshape(2, 3)
    z = y[:, :2]
    z.copy_(y[:, 1:])
    assert y.tolist() == [[1, 2, 2], [4, 5, 5]]


def test_data_and_versions(device):
    x = gg.ones(2, device=device)
    assert x._version == 0
    x.add_(1)
    v = x[:1]
    v.mul_(2)
    assert x._version == v._version == 2
    p = gg.ones(2, device=device, requires_grad=True)
    p.data -= 0.5
    assert p.tolist() == [0.5, 0.5]
    assert p.is_leaf
    p.data = gg.zeros(3, device=device)
    assert p.shape == (3,)
