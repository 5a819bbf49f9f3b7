"""What the walk promises beyond right gradients: which nodes run, whose memory gradients are in, how often it copies,
which mistakes it names; and what a graph tells of itself."""

from __future__ import annotations

import os
import threading

import numpy as np
import pytest

import gpugrad as gg
from gpugrad.autograd import Function, engine
from gpugrad.ops import recording
from gpugrad.tensor import Tensor


class Forbidden(Function):
    """Nobody may ask for its gradient."""

    @staticmethod
    def forward(ctx, x):
        return x * 2

    @staticmethod
    def backward(ctx, g):
        raise AssertionError("the walk came by here")


def leaf(*values):
    return gg.tensor(values, requires_grad=True)


# -- which nodes run -----------------------------------------------------------------------------------


def test_only_nodes_on_the_way_to_what_is_wanted_run():
    x, y = leaf(1.0, 2.0), leaf(3.0, 4.0)
    total = (x.exp() * y + Forbidden.apply(y)).sum()
    (g,) = gg.autograd.grad(total, x)
    np.testing.assert_allclose(g.numpy(), (x.exp() * y).detach().numpy())
    total = (x.exp() * y + Forbidden.apply(y)).sum()
    total.backward(inputs=[x])
    np.testing.assert_allclose(x.grad.numpy(), g.numpy())
    assert y.grad is None
    with pytest.raises(AssertionError, match="came by"):
        (x.exp() * y + Forbidden.apply(y)).sum().backward()


def test_an_intermediate_that_is_wanted_ends_the_way():
    x = leaf(1.0, 2.0)
    middle = Forbidden.apply(x)
    (g,) = gg.autograd.grad((middle * 3).sum(), middle)
    assert g.tolist() == [3.0, 3.0]


def test_a_chain_needs_no_heap(monkeypatch):
    pushed = []
    monkeypatch.setattr(engine, "heappush", lambda heap, item: (pushed.append(item), heap.append(item)))
    x = leaf(1.0, 2.0)
    y = x
    for _ in range(10):
        y = y.tanh()
    y.sum().backward()
    assert not pushed
    a = x.exp()
    (a.sin() * a.cos()).sum().backward()
    assert pushed


def test_no_gradient_is_no_gradient():
    """None from a backward stops the walk there."""

    class Stops(Function):
        @staticmethod
        def forward(ctx, x, y):
            return x + y

        @staticmethod
        def backward(ctx, g):
            return None, g

    x, y, z = leaf(1.0), leaf(2.0), leaf(3.0)
    Stops.apply(x, y).backward()
    assert x.grad is None and y.grad.tolist() == [1.0]
    Stops.apply(Forbidden.apply(z), y).sum().backward()
    assert z.grad is None and y.grad.tolist() == [2.0]


def test_leaves_frozen_since_get_nothing():
    x, y = leaf(1.0), leaf(2.0)
    out = (x * y).sum()
    x.requires_grad_(False)
    out.backward()
    assert x.grad is None and y.grad.tolist() == [1.0]


def test_a_leaf_is_its_own_root():
    x = leaf(3.0)
    x.sum().backward()
    x.backward(gg.tensor([2.0]))
    assert x.grad.tolist() == [3.0]
    scalar = gg.tensor(5.0, requires_grad=True)
    scalar.backward()
    assert scalar.grad.item() == 1.0
    assert gg.autograd.grad(scalar, scalar)[0].item() == 1.0


def test_hooks_of_nodes_see_gradients_that_lead_nowhere_wanted():
    x, y = leaf(1.0), leaf(2.0)
    a = x * 2
    seen = []
    a.register_hook(lambda g: seen.append(g.tolist()))
    gg.autograd.grad((a * y).sum(), [a, y])
    assert seen == [[2.0]]


# -- whose memory --------------------------------------------------------------------------------------


def test_gradients_are_kept_without_a_copy_where_nobody_else_can_hold_them(monkeypatch):
    copies = []
    backend = gg.ones(1)._backend
    plain = type(backend).copy
    monkeypatch.setattr(type(backend), "copy", lambda self, *a, **k: (copies.append(1), plain(self, *a, **k))[1])
    x, w = leaf(1.0, 2.0), leaf(3.0, 4.0)
    (x * w).backward(gg.tensor([1.0, 2.0]))
    assert not copies and x.grad.tolist() == [3.0, 8.0]
    x.grad = w.grad = None
    (x + w).backward(gg.tensor([1.0, 2.0]))
    assert len(copies) == 2


def test_the_gradient_that_was_passed_stays_as_it_is():
    g = gg.tensor([1.0, 2.0, 3.0, 4.0])
    x = leaf(1.0, 2.0, 3.0, 4.0)
    (x + x).backward(g)
    assert g.tolist() == [1.0, 2.0, 3.0, 4.0] and x.grad.tolist() == [2.0, 4.0, 6.0, 8.0]
    x.grad = None
    x.view(2, 2).backward(g.view(2, 2))
    x.grad.mul_(7.0)
    assert g.tolist() == [1.0, 2.0, 3.0, 4.0]
    x.grad = None
    x.backward(g)
    x.grad.mul_(7.0)
    assert g.tolist() == [1.0, 2.0, 3.0, 4.0]


def test_what_a_hook_returns_stays_its_own():
    kept = gg.tensor([5.0, 6.0])
    x = leaf(1.0, 2.0)
    x.register_hook(lambda g: kept)
    (x * 2).sum().backward()
    assert x.grad.tolist() == [5.0, 6.0]
    x.grad.zero_()
    assert kept.tolist() == [5.0, 6.0]


def test_many_gradients_of_a_leaf_are_added_in_place(monkeypatch):
    added = []
    plain = Tensor.accumulate_
    monkeypatch.setattr(Tensor, "accumulate_", lambda self, g: (added.append(1), plain(self, g))[1])
    x = leaf(1.0, 2.0)
    (x * 2 + x * 3 + x * 4 + x * 5).sum().backward()
    assert x.grad.tolist() == [14.0, 14.0] and len(added) == 2  # the first sum is new, the others go into it


def test_a_gradient_is_no_view_and_has_no_graph():
    class Hands(Function):
        @staticmethod
        def forward(ctx, x):
            return x * 1.0

        @staticmethod
        def backward(ctx, g):
            return graph

    x, y = leaf(1.0, 2.0), leaf(3.0, 4.0)
    graph = y * 2
    Hands.apply(x).sum().backward()
    assert x.grad.tolist() == [6.0, 8.0]
    assert x.grad.grad_fn is None and not x.grad.requires_grad and x.grad._base is None
    x.grad = None
    (x * y).sum().backward()
    assert x.grad.grad_fn is None and x.grad._base is None


def test_gradients_with_a_graph_add_up():
    x = leaf(2.0)
    (x**3).sum().backward(create_graph=True)
    first = x.grad
    assert first.grad_fn is not None or first.requires_grad
    (x**3).sum().backward(create_graph=True)
    assert x.grad is not first and first.tolist() == [12.0] and x.grad.tolist() == [24.0]
    (second,) = gg.autograd.grad(x.grad.sum(), x)
    assert second.tolist() == [24.0]


def test_a_leaf_with_a_transposed_gradient_gets_a_contiguous_one():
    x = gg.ones(2, 3, requires_grad=True)
    x.t().backward(gg.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]))
    assert x.grad.is_contiguous() and x.grad.tolist() == [[1.0, 3.0, 5.0], [2.0, 4.0, 6.0]]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_process_can_walk_while_a_thread_of_its_parent_did():
    held, go_on = threading.Event(), threading.Event()

    def walks():
        with engine._turn:
            held.set()
            go_on.wait(30)

    thread = threading.Thread(target=walks)
    thread.start()
    held.wait(30)
    child = os.fork()
    if not child:
        status = 1
        try:
            import signal

            signal.alarm(20)
            x = leaf(2.0)
            (x * x).sum().backward()
            status = int(x.grad.tolist() != [4.0])
        finally:
            os._exit(status)
    go_on.set()
    thread.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


# -- several gradients at a time, and what is refused ------------------------------------------------------


def test_batched_gradients_free_the_graph_with_the_last_one():
    x = leaf(1.0, 2.0)
    y = x.exp() * x
    batch = gg.eye(2)
    (j,) = gg.autograd.grad(y, x, batch, is_grads_batched=True, retain_graph=True)
    np.testing.assert_allclose(j.numpy(), np.diag((x.exp() * (x + 1)).detach().numpy()), rtol=1e-6)
    gg.autograd.grad(y, x, batch, is_grads_batched=True)
    with pytest.raises(RuntimeError, match="already walked"):
        gg.autograd.grad(y, x, gg.ones(2))


def test_batched_gradients_are_all_there():
    x = leaf(1.0, 2.0)
    a, b = x * 2, x * 3
    for wrong in ([gg.ones(2, 2), None], [gg.ones(2, 2), gg.tensor(1.0)], [gg.ones(2, 2), gg.ones(3, 2)]):
        with pytest.raises(RuntimeError, match="is_grads_batched"):
            gg.autograd.grad([a, b], x, wrong, is_grads_batched=True)
    z = leaf(1.0, 2.0)
    g, none = gg.autograd.grad([a, b], [x, z], [gg.ones(3, 2)] * 2, is_grads_batched=True, allow_unused=True)
    assert none is None and g.tolist() == [[5.0, 5.0]] * 3


def test_inputs_of_backward():
    x, y = leaf(1.0), leaf(2.0)
    with pytest.raises(RuntimeError, match="at least one"):
        (x * y).sum().backward(inputs=[])
    with pytest.raises(RuntimeError, match="require grad"):
        (x * y).sum().backward(inputs=[x, gg.ones(1)])
    (x * y).sum().backward(inputs=x)
    assert x.grad.tolist() == [2.0] and y.grad is None


def test_gradients_of_roots():
    x = leaf(1.0, 2.0)
    y = x * 2
    for wrong, words in [
        (gg.ones(3), "the gradient has shape (3,), the tensor (2,)"),
        (None, "one element"),
    ]:
        with pytest.raises(RuntimeError) as error:
            y.backward(wrong)
        assert words in str(error.value)
    y.backward(gg.ones(2, dtype=gg.float64))
    assert x.grad.dtype is gg.float32 and x.grad.tolist() == [2.0, 2.0]
    with pytest.raises(RuntimeError, match="not require grad"):
        gg.ones(1).backward()
    with pytest.raises(RuntimeError, match="2 outputs but 1 grad_outputs"):
        gg.autograd.grad([x * 2, x * 3], x, [gg.ones(2)])
    with pytest.raises(RuntimeError, match="inputs must not be empty"):
        gg.autograd.grad((x * 2).sum(), [])
    z = leaf(4.0)
    with pytest.raises(RuntimeError, match="input 1 of shape"):
        gg.autograd.grad((x * 2).sum(), [x, z])
    with pytest.raises(ValueError, match="materialize_grads"):
        gg.autograd.grad((x * 2).sum(), [x, z], allow_unused=False, materialize_grads=True)
    _, zeros = gg.autograd.grad((x * 2).sum(), [x, z], materialize_grads=True)
    assert zeros.tolist() == [0.0] and not zeros.requires_grad


def test_modes_come_back_after_a_walk_that_failed():
    x = leaf(1.0)
    with gg.no_grad():
        with pytest.raises(AssertionError):
            with gg.enable_grad():
                Forbidden.apply(x).sum().backward(create_graph=True)
        assert not gg.is_grad_enabled()
    assert gg.is_grad_enabled()


class Returns(Function):
    """Its backward returns what ``what`` says."""

    what: object = None

    @staticmethod
    def forward(ctx, x):
        return x * 1.0

    @staticmethod
    def backward(ctx, g):
        return Returns.what


@pytest.mark.parametrize("between", [False, True], ids=["leaf", "intermediate"])
def test_gradients_of_functions_fit_their_inputs(between, device):
    """As in PyTorch: another dtype is converted, what was broadcast is added up, another shape is an error."""
    for what, wanted in [
        (gg.ones(2, device=device).half() * 3, [3.0, 3.0]),
        (gg.tensor([4, 5], device=device), [4.0, 5.0]),
        (gg.ones(3, 2, device=device), [3.0, 3.0]),
    ]:
        x = gg.tensor([1.0, 2.0], device=device, requires_grad=True)
        Returns.what = what
        Returns.apply(x * 1.0 if between else x).sum().backward()
        assert x.grad.dtype is gg.float32 and x.grad.tolist() == wanted
    for what, words in [
        (gg.ones(3, device=device), "has shape (3,), the argument (2,)"),
        (gg.ones(1, device=device), "has shape (1,), the argument (2,)"),
        (3.0, "must be a Tensor or None, not float"),
    ]:
        x = gg.tensor([1.0, 2.0], device=device, requires_grad=True)
        Returns.what = what
        with pytest.raises(RuntimeError) as error:
            Returns.apply(x * 1.0 if between else x).sum().backward()
        assert f"Returns.backward: the gradient of argument 0 {words}" in str(error.value)
        assert x.grad is None
    if device != "cpu":
        x = gg.tensor([1.0, 2.0], device=device, requires_grad=True)
        Returns.what = gg.ones(2)
        with pytest.raises(RuntimeError, match="is on cpu, the argument on"):
            Returns.apply(x).sum().backward()


# -- what a graph tells ----------------------------------------------------------------------------------

NAMED = [
    "a * b", "a.sum()", "m.sum(1)", "m.sum(0)", "a.prod()", "m.prod(1)", "m @ m", "a[0]", "a[1:]", "a.exp()", "a ** 3",
    "a ** 2", "T.linalg.det(m)", "T.cat([a, b])", "T.nn.functional.pad(a, (1, 1))", "a.log1p()", "a.reshape(2, 1)",
    "T.nn.functional.softmax(a, 0)",
]  # fmt: skip


@pytest.mark.parametrize("expression", NAMED)
def test_names_as_pytorch(expression, torch):
    names = []
    for library in (torch, gg):
        a = library.tensor([1.0, 2.0], requires_grad=True)
        m = library.tensor([[1.0, 2.0], [3.0, 5.0]], requires_grad=True)
        node = eval(expression, {"T": library, "a": a, "b": a * 1, "m": m}).grad_fn
        names.append(node.name())
    assert names[1] == names[0]


def test_a_leaf_at_the_end_of_a_graph():
    x = leaf(1.0)
    ((node, number),) = (x * 2).grad_fn.next_functions[:1]
    assert node.name() == "AccumulateGrad" and number == 0 and node.variable is x and node.next_functions == ()
    assert "AccumulateGrad" in repr(node)


def test_memory_that_a_storage_reports():
    x = gg.zeros(4, 3)
    assert x[1:].untyped_storage().nbytes() == 48 == x.untyped_storage().nbytes()
    assert x[2].storage_offset() == 6
    assert x.untyped_storage().data_ptr() == x.data_ptr() == x[1:].untyped_storage().data_ptr()


def test_only_what_is_wanted_is_saved():
    """Of a product, the other factor of each input that wants a gradient."""
    x, y = leaf(1.0, 2.0), gg.tensor([3.0, 4.0])
    node = (x * y).grad_fn
    assert [name for name, *_ in node.kept()] == ["b"]
    node = (y * x).grad_fn
    assert [name for name, *_ in node.kept()] == ["a"]
    node = (x * x.clone()).grad_fn
    assert sorted(name for name, *_ in node.kept()) == ["a", "b"]
    assert recording.OpNode is type(node)


# -- what a recorded call keeps ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "call",
    ["a @ b", "T.where(c, a, b)", "T.cat([a, b])", "a * b", "a.sum(0)", "a.t()", "T.nn.functional.linear(a, b)",
     "T.sort(a)[0]", "T.topk(a, 1)[0]", "T.linalg.qr(a)[0]", "a.cumsum(0)", "T.index_select(a, 0, i)"],
)  # fmt: skip
def test_without_a_leaf_that_wants_gradients_nothing_is_recorded(call):
    names = {"T": gg, "a": gg.tensor([[1.0, 2.0], [3.0, 5.0]]), "b": gg.tensor([[2.0, 1.0], [0.0, 1.0]])}
    names |= {"c": names["a"] > 1, "i": gg.tensor([1, 0])}
    out = eval(call, names)
    assert out.grad_fn is None and not out.requires_grad
    names["a"].requires_grad_()
    assert eval(call, names).requires_grad
    with gg.no_grad():
        assert not eval(call, names).requires_grad


def test_results_that_have_no_derivative():
    x = gg.tensor([[3.0, 1.0], [2.0, 4.0]], requires_grad=True)
    for out in (gg.argmax(x, 1), gg.sort(x)[1], gg.topk(x, 1)[1], gg.searchsorted(gg.tensor([1.0, 2.0]), x), x > 1):
        assert out.grad_fn is None and not out.requires_grad
    values, _ = gg.sort(x, 1)
    values[:, 0].sum().backward()
    assert x.grad.tolist() == [[0.0, 1.0], [1.0, 0.0]]


@pytest.mark.parametrize(("call", "wanted", "kept"), [
    ("T.nn.functional.conv2d(x, w)", "w", {"x"}), ("T.nn.functional.conv2d(x, w)", "x", {"w"}),
    ("T.matmul(x[0, 0], w[0, 0])", "x", {"w"}), ("T.where(x > 0, x, x * 0)", "x", {"c"}),
])  # fmt: skip
def test_a_call_keeps_what_the_wanted_derivatives_read(call, wanted, kept):
    x, w = gg.ones(1, 1, 3, 3), gg.ones(1, 1, 3, 3) * 2
    names = {"T": gg, "x": x, "w": w}
    names[wanted].requires_grad_()
    node = eval(call, names).grad_fn
    held = {position for _, position, array, *_ in node.kept()}
    assert held == ({0} if kept == {"x"} or kept == {"c"} else {1})


def test_what_a_node_knows_of_its_inputs():
    x, y = leaf(1.0, 2.0), gg.ones(3, 2, dtype=gg.float64, requires_grad=True)
    f32, f64 = np.dtype("float32"), np.dtype("float64")
    assert (x * x.exp()).grad_fn.meta == (((2,), f32), ((2,), f32))
    assert (x * y).grad_fn.meta == (((2,), f32), ((3, 2), f64))
    assert (x * 3).grad_fn.meta[0] == ((2,), f32) and (x * 3).grad_fn.meta[1] is None
    assert (y @ y.t()).grad_fn.meta == (((3, 2), f64), ((2, 3), f64))
    base = x * 1.0
    base[:1].mul_(2.0)
    assert base.grad_fn.backend is x._backend and base.grad_fn.meta[0][0] == (2,)
    assert all(len(item) == 5 for item in (x * x.exp()).grad_fn.kept())


def test_changes_of_saved_values_are_noticed_in_the_second_backward():
    a, c, source = leaf(1.0, 2.0), leaf(5.0, 6.0), leaf(3.0, 4.0)
    b = source * 1.0
    (first,) = gg.autograd.grad((a * b * c).sum(), a, create_graph=True)  # c * b, of which b is saved again
    with gg.no_grad():
        b.mul_(2.0)
    with pytest.raises(RuntimeError, match="changed in place by mul"):
        first.sum().backward()


def test_derivatives_of_constants_want_no_gradient():
    a, c = leaf(1.0, 2.0), gg.tensor([3.0, 4.0])
    (g,) = gg.autograd.grad((a * c).sum(), a, create_graph=True)
    assert g.tolist() == [3.0, 4.0] and g.grad_fn is None and not g.requires_grad
    (g,) = gg.autograd.grad((a @ c).sum(), a, create_graph=True)
    assert g.grad_fn is None


@pytest.mark.parametrize(
    "use", ["v @ w", "v * w", "T.nn.functional.linear(v[None], w[None])", "T.cat([v, w])", "v.sum(0)"]
)
def test_views_made_before_their_base_was_changed(use):
    """Their gradient goes through the base's new history, whatever kind of row uses them."""
    x = leaf(1.0, 2.0, 3.0, 4.0)
    base = x * 1.0
    view = base[:2]
    base.mul_(3.0)
    w = gg.tensor([1.0, 1.0])
    eval(use, {"T": gg, "v": view, "w": w}).sum().backward()
    assert x.grad.tolist() == [3.0, 3.0, 0.0, 0.0]


@pytest.mark.parametrize("use", ["v @ w", "T.index_select(v, 0, i)", "T.nn.functional.linear(v, w)", "v.exp()"])
def test_matrices_that_are_views_of_what_was_changed(use):
    x = gg.zeros(2, 2, requires_grad=True)
    base = x * 1.0
    view = base[:1]
    base.mul_(3.0)
    names = {"T": gg, "v": view, "w": gg.eye(2), "i": gg.tensor([0])}
    eval(use, names).sum().backward()
    assert x.grad[1].tolist() == [0.0, 0.0] and x.grad[0].tolist() == [3.0, 3.0]


def test_views_of_a_changed_base_are_made_as_they_are_called():
    base = leaf(1.0, 2.0, 3.0, 4.0) * 1.0
    base.mul_(2.0)
    assert base.view(2, 2).grad_fn.title == "reshape"
    assert base[1:].grad_fn.title == "slice"


# -- derivatives that were written out ---------------------------------------------------------------------------


def test_derivatives_written_out_are_what_runs(monkeypatch):
    x, y = leaf(1.0, 2.0), leaf(3.0, 4.0)
    (x * y).sum().backward()
    node = (x * y).grad_fn
    assert node.plan.program(np.dtype("float32")) is not None

    def never(*args):
        raise AssertionError("a rule was called although it is written out")

    monkeypatch.setattr(node.plan, "rules", [(i, recording.Vjp(lambda g: never(g)), (0,)) for i in (0, 1)])
    x.grad = None
    (x * y).backward(gg.ones(2))
    assert x.grad.tolist() == [3.0, 4.0]
    with pytest.raises(AssertionError, match="written out"):
        (x * y).backward(gg.ones(2), create_graph=True)


def test_several_layouts_are_written_out_side_by_side():
    plans = gg.ops.OPS["matmul"].plans
    for plan in plans.values():
        plan._shaped.clear()
    for _ in range(3):
        for n in (2, 3, 5):
            x = gg.ones(n, n, requires_grad=True)
            (x @ x).sum().backward()
            assert x.grad.shape == (n, n)
    written = [p for plan in plans.values() for p in plan._shaped.values() if type(p) is tuple]
    assert len(written) >= 3


def test_rows_say_what_they_are():
    """Names, texts and the row of the functions that the table makes."""
    for op in gg.ops.OPS.values():
        assert getattr(op.function, "op", op) is op, op
        assert repr(op) == f"<op {op.name}>"
        if op.kind == "composite":
            assert op.function.op is op
        made_here = op.function.__code__.co_name == "call"
        if made_here and op.kind in ("primitive", "view"):
            assert op.function.__name__ == op.name and op.function.op is op
        if made_here and op.kind == "primitive":
            assert op.function.__doc__ == op.forward.__doc__
    with pytest.raises(ValueError, match="has a row already"):
        gg.ops.table.Op("mul", "elementwise")
    unset = gg.ops.table.Op("a row for this test", "composite")
    try:
        with pytest.raises(RuntimeError, match="no function yet"):
            unset.function()
    finally:
        del gg.ops.OPS[unset.name]


@pytest.mark.parametrize("given", [gg.bfloat16, gg.float16])
def test_a_gradient_of_another_dtype_is_converted(device, given):
    x = gg.tensor([1.0, 2.0], device=device, requires_grad=True)
    g = gg.tensor([0.5, 4.0], dtype=given, device=device)
    for y in (x * 3, x.view(2, 1)):
        (dx,) = gg.autograd.grad(y, x, g.view(*y.shape))
        assert dx.dtype is gg.float32
    (x * 3).backward(g)
    assert x.grad.dtype is gg.float32 and x.grad.tolist() == [1.5, 12.0]


def test_gradients_of_chosen_inputs_share_no_memory(device):
    a, b = (gg.tensor([1.0, 2.0], device=device, requires_grad=True) for _ in range(2))
    g = gg.tensor([3.0, 4.0], device=device)
    gg.autograd.backward(a + b, g, inputs=[a, b])
    a.grad.zero_()
    assert b.grad.tolist() == g.tolist() == [3.0, 4.0]


def test_a_leaf_takes_a_gradient_of_another_dtype_in_its_own(device):
    x = gg.tensor([1.0, 2.0], device=device, requires_grad=True)
    x.backward(gg.tensor([0.5, 4.0], dtype=gg.float16, device=device))
    assert x.grad.dtype is gg.float32 and x.grad.tolist() == [0.5, 4.0]


def test_a_node_that_many_ways_lead_to_is_visited_once():
    """2^60 ways lead back through these additions."""
    x = gg.ones(2, requires_grad=True)
    y = middle = x * 1
    for _ in range(60):
        y = y + y
    (found,) = gg.autograd.grad(y.sum(), middle, retain_graph=True)
    assert found.tolist() == [2.0**60] * 2
    y.sum().backward(inputs=[x])
    assert x.grad.tolist() == [2.0**60] * 2


@pytest.mark.parametrize("inputs", [False, True])
def test_a_graph_of_the_gradient_is_made_on_demand_alone(inputs):
    x = gg.tensor([1.0, 2.0], requires_grad=True)
    for create_graph in (None, False, True):
        x.grad = None
        options = {} if create_graph is None else {"create_graph": create_graph}
        if inputs:
            options["inputs"] = [x]
        gg.autograd.backward((x**3).sum(), **options)
        assert x.grad.requires_grad is (create_graph is True) and (x.grad.grad_fn is not None) is (create_graph is True)


def test_a_gradient_that_is_passed_on_keeps_its_own_graph():
    """Of ``x + 1`` the gradient is the one that was given; a copy of it in ``x.grad`` leads back to it."""
    x, given = (gg.tensor([1.0, 2.0], requires_grad=True) for _ in range(2))
    gg.autograd.backward(x + 1, given, create_graph=True)
    (x.grad * gg.tensor([3.0, 5.0])).sum().backward()
    assert given.grad.tolist() == [3.0, 5.0]
    assert x.grad.data_ptr() != given.data_ptr()


@pytest.mark.parametrize("dtype", [gg.float16, gg.bfloat16])
def test_half_gradients_of_broadcast_operands_are_rounded_once_every_time(dtype):
    """From the third call on derivatives run as they were written out; products that are summed up stay in float32."""
    gg.manual_seed(0)
    a, b, g = (gg.randn(*s).to(dtype).requires_grad_() for s in ((300, 7), (7,), (300, 7)))
    wanted = (a.detach().float() * g.detach().float()).sum(0).to(dtype)
    for _ in range(6):
        (found,) = gg.autograd.grad(a * b, b, g.detach())
        assert found.dtype is dtype and found.tolist() == wanted.tolist()
