"""The walk: accumulation, graphs of any depth, hooks, Function, grad modes, second derivatives."""

from __future__ import annotations

import gc
import resource
import sys
import weakref

import numpy as np
import pytest

import gpugrad as gg


def test_accumulates_and_shares_nothing(device):
    x = gg.tensor([1.0, 2.0], device=device, requires_grad=True)
    y = gg.tensor([3.0, 4.0], device=device, requires_grad=True)
    (x + y).sum().backward()
    x.grad.mul_(5.0)
    assert y.grad.tolist() == [1.0, 1.0]  # x and y got the same gradient, but not the same memory
    (x + y).sum().backward()
    assert x.grad.tolist() == [6.0, 6.0]


def test_a_value_used_twice(device):
    x = gg.tensor(3.0, device=device, requires_grad=True)
    y = x * x + x
    y.backward()
    assert x.grad.item() == 7.0


def test_diamond_runs_each_node_once():
    calls = []

    class Count(gg.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, g):
            calls.append(g.item())
            return g

    x = gg.tensor(1.0, requires_grad=True)
    y = Count.apply(x)
    (y * 2 + y * 3 + (y * 4).exp().log()).backward()
    assert len(calls) == 1
    assert calls[0] == pytest.approx(9.0)


def test_million_node_chain_is_walked_without_recursion_and_freed_without_the_collector():
    limit = sys.getrecursionlimit()
    gc.collect()  # what other tests left behind
    gc.disable()
    try:
        x = gg.tensor(1.0, requires_grad=True)
        y = x
        for _ in range(1_000_000):
            y = y + 1.0
        probe = weakref.ref(y.grad_fn)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        y.backward()
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        assert x.grad.item() == 1.0
        assert sys.getrecursionlimit() == limit
        assert (after - before) * 1024 < 400e6  # kilobytes on Linux
        del y
        assert probe() is None
        assert gc.collect() < 1000
    finally:
        gc.enable()


def test_no_reference_cycle_in_common_graphs():
    """With the collector off, dropping the result frees every node."""
    gc.collect()
    gc.disable()
    try:
        w = gg.randn(4, 4, requires_grad=True)
        x = gg.randn(3, 4)
        h = (x @ w).tanh()
        y = (h.softmax(-1) * h[:, :4].exp()).sum() + h.reshape(-1).max(0).values
        nodes = []
        stack = [y.grad_fn]
        while stack:
            node = stack.pop()
            nodes.append(weakref.ref(node))
            stack.extend(e for e in node.edges if isinstance(e, gg.autograd.Node))
        del node, stack
        y.backward()
        z = gg.zeros(4, requires_grad=True) * 1.0
        z.add_(w.sum(0))
        z.mul_(2.0)
        nodes.append(weakref.ref(z.grad_fn))
        del y, h, z
        assert [n for n in nodes if n() is not None] == []
    finally:
        gc.enable()


def test_backward_frees_saved_values():
    x = gg.randn(1000, requires_grad=True)
    h = x.exp()
    probe = weakref.ref(h)
    y = (h * h).sum()
    del h
    assert probe() is None  # the graph holds the memory, not the tensor
    node = y.grad_fn.edges[0]
    y.backward()
    assert node.saved is None


def test_retain_graph_and_second_backward(device):
    x = gg.tensor([1.0, 2.0], device=device, requires_grad=True)
    y = (x * x).sum()
    y.backward(retain_graph=True)
    y.backward()
    assert x.grad.tolist() == [4.0, 8.0]
    with pytest.raises(RuntimeError, match="mul: this graph was already walked.*retain_graph=True"):
        y.backward()


def test_gradient_argument_and_vector_jacobian(device):
    x = gg.tensor([1.0, 2.0, 3.0], device=device, requires_grad=True)
    (x**2).backward(gg.tensor([1.0, 0.1, 0.01], device=device))
    np.testing.assert_allclose(x.grad.to_numpy(), [2.0, 0.4, 0.06], rtol=1e-6)


def test_grad_of_intermediate_and_unused():
    x = gg.tensor([1.0, 2.0], requires_grad=True)
    unused = gg.tensor([1.0], requires_grad=True)
    h = x * 3
    y = (h * h).sum()
    gh, gx = gg.autograd.grad(y, [h, x], retain_graph=True)
    assert gh.tolist() == [6.0, 12.0]
    assert gx.tolist() == [18.0, 36.0]
    assert x.grad is None
    with pytest.raises(RuntimeError, match="input 0 of shape \\(1,\\) was not used.*allow_unused"):
        gg.autograd.grad(y, unused, retain_graph=True)
    assert gg.autograd.grad(y, unused, allow_unused=True, retain_graph=True) == (None,)
    assert gg.autograd.grad(y, unused, materialize_grads=True)[0].tolist() == [0.0]


def test_backward_inputs_restricts():
    a, b = (gg.ones(2, requires_grad=True) for _ in range(2))
    (a * b).sum().backward(inputs=[a])
    assert a.grad is not None
    assert b.grad is None


def test_third_derivative(device):
    x = gg.tensor(2.0, device=device, requires_grad=True)
    y = x**4
    for expected in (32.0, 48.0, 48.0):
        (y,) = gg.autograd.grad(y, x, create_graph=True)
        assert y.item() == pytest.approx(expected)


def test_double_backward_through_saved_result():
    x = gg.tensor([0.3, -0.7], dtype=gg.float64, requires_grad=True)
    (g,) = gg.autograd.grad(x.tanh().sum(), x, create_graph=True)
    g.sum().backward()
    t = np.tanh([0.3, -0.7])
    np.testing.assert_allclose(x.grad.numpy(), -2 * t * (1 - t * t))


def test_create_graph_accumulates_differentiable_grad():
    x = gg.tensor(3.0, requires_grad=True)
    (x**3).backward(create_graph=True)
    assert x.grad.requires_grad
    (g2,) = gg.autograd.grad(x.grad, x)
    assert g2.item() == 18.0


# -- grad modes --------------------------------------------------------------


def test_grad_modes():
    x = gg.ones(2, requires_grad=True)
    with gg.no_grad():
        assert not (x * 2).requires_grad
        with gg.enable_grad():
            assert (x * 2).requires_grad
        assert not gg.is_grad_enabled()
    with gg.set_grad_enabled(False):
        assert not (x * 2).requires_grad
    assert (x * 2).requires_grad

    @gg.no_grad()
    def inside():
        return (x * 2).requires_grad

    @gg.no_grad
    def bare():
        return (x * 2).requires_grad

    assert not inside()
    assert not bare()
    with pytest.raises(ZeroDivisionError), gg.no_grad():
        _ = 1 // 0
    assert gg.is_grad_enabled()
    gg.set_grad_enabled(False)
    assert not gg.is_grad_enabled()
    gg.set_grad_enabled(True)
    with gg.inference_mode():
        assert not gg.is_grad_enabled()


def test_no_grad_generator_does_not_leak():
    @gg.no_grad()
    def steps():
        yield gg.is_grad_enabled()
        yield gg.is_grad_enabled()

    seen = [(inside, gg.is_grad_enabled()) for inside in steps()]
    assert seen == [(False, True), (False, True)]


def test_grad_mode_is_per_thread():
    import threading

    seen = []
    with gg.no_grad():
        thread = threading.Thread(target=lambda: seen.append(gg.is_grad_enabled()))
        thread.start()
        thread.join()
    assert seen == [True]


# -- hooks ---------------------------------------------------------------------


def test_hooks_on_leaf_and_intermediate(device):
    x = gg.tensor([1.0, 2.0], device=device, requires_grad=True)
    h = x * 2
    seen = []
    h.register_hook(lambda g: seen.append(g.tolist()))
    handle = x.register_hook(lambda g: g * 10)
    (h * h).sum().backward()
    assert seen == [[4.0, 8.0]]
    assert x.grad.tolist() == [80.0, 160.0]
    handle.remove()
    x.grad = None
    (x * 2).sum().backward()
    assert x.grad.tolist() == [2.0, 2.0]


def test_hook_sees_the_whole_gradient_of_a_leaf_once():
    x = gg.tensor(1.0, requires_grad=True)
    seen = []
    x.register_hook(lambda g: seen.append(g.item()))
    (x * 2 + x * 3).backward()
    assert seen == [5.0]


def test_retain_grad():
    x = gg.tensor([1.0, 2.0], requires_grad=True)
    h = x * 2
    h.retain_grad()
    (h * 3).sum().backward()
    assert h.grad.tolist() == [3.0, 3.0]


def test_post_accumulate_hook():
    x = gg.tensor([1.0], requires_grad=True)
    seen = []
    x.register_post_accumulate_grad_hook(lambda p: seen.append(p.grad.item()))
    (x * 2).sum().backward()
    (x * 2).sum().backward()
    assert seen == [2.0, 4.0]


# -- Function -------------------------------------------------------------------


class Cube(gg.autograd.Function):
    @staticmethod
    def forward(ctx, x, scale):
        ctx.save_for_backward(x)
        ctx.scale = scale
        return x * x * x * scale

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g * 3 * x * x * ctx.scale, None


def test_function_first_and_second_derivative(device):
    x = gg.tensor([1.0, 2.0], device=device, requires_grad=True)
    y = Cube.apply(x, 2.0)
    (g,) = gg.autograd.grad(y.sum(), x, create_graph=True)
    assert g.tolist() == [6.0, 24.0]
    g.sum().backward()
    assert x.grad.tolist() == [12.0, 24.0]


def test_function_saving_its_result_differentiates_twice():
    class Exp(gg.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            y = x.exp()
            ctx.save_for_backward(y)
            return y

        @staticmethod
        def backward(ctx, g):
            (y,) = ctx.saved_tensors
            return g * y

    x = gg.tensor([0.5], dtype=gg.float64, requires_grad=True)
    (g,) = gg.autograd.grad(Exp.apply(x).sum(), x, create_graph=True)
    (g2,) = gg.autograd.grad(g.sum(), x)
    np.testing.assert_allclose(g2.numpy(), np.exp([0.5]))


def test_function_several_outputs_and_none():
    class Split(gg.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 2, x * 3

        @staticmethod
        def backward(ctx, a, b):
            return a * 2 + b * 3

    x = gg.ones(2, requires_grad=True)
    a, b = Split.apply(x)
    (a + 10 * b).sum().backward()
    assert x.grad.tolist() == [32.0, 32.0]
    x.grad = None
    a, b = Split.apply(x)
    b.sum().backward()  # the gradient of a is zeros, not None
    assert x.grad.tolist() == [3.0, 3.0]


def test_function_saved_value_changed_in_place_is_reported():
    x = gg.ones(2, requires_grad=True)
    h = x * 2
    y = Cube.apply(h, 1.0)
    h.add_(1.0)
    with pytest.raises(RuntimeError, match="Cube: a tensor of shape \\(2,\\) that it saved.*changed in place by add_"):
        y.sum().backward()


def test_function_with_setup_context():
    class Square(gg.autograd.Function):
        @staticmethod
        def forward(x):
            return x * x

        @staticmethod
        def setup_context(ctx, inputs, output):
            ctx.save_for_backward(inputs[0])

        @staticmethod
        def backward(ctx, g):
            return 2 * g * ctx.saved_tensors[0]

    x = gg.tensor([3.0], requires_grad=True)
    Square.apply(x).sum().backward()
    assert x.grad.tolist() == [6.0]


class DoubleInPlace(gg.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        x.mul_(2.0)
        ctx.mark_dirty(x)
        return x

    @staticmethod
    def backward(ctx, g):
        return g * 2


def test_function_that_changes_its_input():
    x = gg.tensor([1.0, 2.0], requires_grad=True)
    h = x * 3
    y = DoubleInPlace.apply(h)
    assert y is h
    (h * h).sum().backward()
    assert x.grad.tolist() == [72.0, 144.0]
    with pytest.raises(RuntimeError, match="DoubleInPlace: a leaf that requires grad"):
        DoubleInPlace.apply(x)
    with pytest.raises(RuntimeError, match="DoubleInPlace: an input that is a view"):
        DoubleInPlace.apply((x * 1.0)[0])


def test_function_wrong_number_of_gradients():
    class Bad(gg.autograd.Function):
        @staticmethod
        def forward(ctx, a, b):
            return a + b

        @staticmethod
        def backward(ctx, g):
            return g

    a, b = (gg.ones(1, requires_grad=True) for _ in range(2))
    with pytest.raises(RuntimeError, match="Bad.backward returned 1 gradients for 2 inputs"):
        Bad.apply(a, b).sum().backward()


# -- across devices and dtypes -----------------------------------------------------


def test_gradient_travels_between_devices(device):
    x = gg.tensor([1.0, 2.0], requires_grad=True)
    y = (x.to(device) * 3).cpu()
    (y * y).sum().backward()
    assert x.grad.device.type == "cpu"
    assert x.grad.tolist() == [18.0, 36.0]


def test_gradient_keeps_the_dtype_of_its_input():
    a = gg.ones(2, dtype=gg.float16, requires_grad=True)
    b = gg.ones(2, dtype=gg.float32, requires_grad=True)
    (a * b).sum().backward()
    assert a.grad.dtype is gg.float16
    assert b.grad.dtype is gg.float32


def test_two_threads_walk_at_once():
    import threading

    results = {}

    def work(k):
        x = gg.full((100,), float(k), requires_grad=True)
        for _ in range(50):
            x.grad = None
            (x * x * x).sum().backward()
        results[k] = x.grad[0].item()

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert results == {k: 3.0 * k * k for k in range(4)}


def test_graph_can_be_walked_to_its_leaves():
    x = gg.ones(2, requires_grad=True)
    node, steps = (x * 2).sum().grad_fn, 0
    while node.next_functions:
        node, steps = node.next_functions[0][0], steps + 1
    assert node.variable is x and steps == 2
