"""autograd.functional, gradcheck, and the rest of autograd.grad's arguments."""

import numpy as np
import pytest

import gpugrad as gg
from gpugrad.autograd import functional as F
from gpugrad.autograd import gradcheck, gradgradcheck

# -- what is differentiated: functions of a framework's tensors --------------------------

X = np.array([[0.3, -0.7, 1.2], [0.5, 0.1, -0.4]])
Y = np.array([0.9, -0.2, 0.6])

FUNCTIONS = {
    "one to one": ((X,), lambda x: (x * 2).exp()),
    "scalar": ((X,), lambda x: (x**3).sum()),
    "two inputs": ((X, Y), lambda x, y: (x * y).sum(dim=1)),
    "two outputs": ((X,), lambda x: (x.sum(), (x * x)[0])),
    "two and two": ((X, Y), lambda x, y: ((x @ y).tanh(), y**2)),
    "0-d": ((np.array(0.7),), lambda x: x.sin()),
    "independent of the second": ((X, Y), lambda x, y: x.sum() * 2),
    "a tuple of one": ((Y,), lambda y: (y.exp(),)),
    "zero-size": ((np.zeros((0, 2)),), lambda x: x * 2),
}
SCALAR = {
    "cubes": ((X,), lambda x: (x**3).sum()),
    "mixed": ((X, Y), lambda x, y: ((x @ y).tanh() ** 2).sum() + y[0] ** 4),
    "linear": ((Y,), lambda y: (3 * y).sum()),
    "one element": ((np.array([0.4]),), lambda x: x.exp()),
    "0-d": ((np.array(0.7),), lambda x: x.sin()),
    "separate": ((X, Y), lambda x, y: (x**2).sum() + (y**3).sum()),
}


def tensors(framework, arrays):
    made = tuple(framework.tensor(a.tolist(), dtype=framework.float64).reshape(a.shape) for a in arrays)
    return made if len(made) > 1 else made[0]


def as_numpy(result):
    if isinstance(result, tuple):
        return tuple(as_numpy(r) for r in result)
    return result.detach().numpy()


def assert_same(ours, theirs):
    ours, theirs = as_numpy(ours), as_numpy(theirs)

    def compare(a, b):
        assert type(a) is type(b)
        if isinstance(a, tuple):
            assert len(a) == len(b)
            for x, y in zip(a, b, strict=True):
                compare(x, y)
        else:
            assert a.shape == b.shape
            np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14)

    compare(ours, theirs)


@pytest.mark.parametrize("create_graph", [False, True])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_jacobian_as_pytorch(name, create_graph, torch):
    arrays, function = FUNCTIONS[name]
    options = {"create_graph": create_graph}
    if name == "zero-size":  # refused by PyTorch
        assert F.jacobian(function, tensors(gg, arrays), **options).shape == (0, 2, 0, 2)
        return
    ours = F.jacobian(function, tensors(gg, arrays), **options)
    assert_same(ours, torch.autograd.functional.jacobian(function, tensors(torch, arrays), **options))


@pytest.mark.parametrize("name", SCALAR)
def test_hessian_as_pytorch(name, torch):
    arrays, function = SCALAR[name]
    for options in ({}, {"create_graph": True}, {"vectorize": True}):
        ours = F.hessian(function, tensors(gg, arrays), **options)
        assert_same(ours, torch.autograd.functional.hessian(function, tensors(torch, arrays), **options))


@pytest.mark.parametrize("create_graph", [False, True])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_products_with_the_jacobian_as_pytorch(name, create_graph, torch):
    arrays, function = FUNCTIONS[name]
    outputs = function(*(torch.tensor(a) for a in arrays))
    rng = np.random.default_rng(0)
    v = [rng.normal(size=y.shape) for y in (outputs if isinstance(outputs, tuple) else (outputs,))]
    u = [rng.normal(size=a.shape) for a in arrays]
    options = {"create_graph": create_graph}
    for method, weights, several in (("vjp", v, isinstance(outputs, tuple)), ("jvp", u, len(arrays) > 1)):
        results = []
        for framework, functional in ((gg, F), (torch, torch.autograd.functional)):
            w = tuple(framework.tensor(a.tolist(), dtype=framework.float64).reshape(a.shape) for a in weights)
            call = getattr(functional, method)
            results.append(call(function, tensors(framework, arrays), w if several else w[0], **options))
        assert_same(*results)


@pytest.mark.parametrize("method", ["vhp", "hvp"])
@pytest.mark.parametrize("name", SCALAR)
def test_products_with_the_hessian_as_pytorch(name, method, torch):
    arrays, function = SCALAR[name]
    v = [np.random.default_rng(1).normal(size=a.shape) for a in arrays]
    for options in ({}, {"create_graph": True}):
        ours = getattr(F, method)(function, tensors(gg, arrays), tensors(gg, v), **options)
        theirs = getattr(torch.autograd.functional, method)
        assert_same(ours, theirs(function, tensors(torch, arrays), tensors(torch, v), **options))


def test_known_numbers():
    x = gg.tensor([1.0, 2.0, 3.0])
    assert F.jacobian(lambda t: t**2, x).tolist() == [[2, 0, 0], [0, 4, 0], [0, 0, 6]]
    assert F.hessian(lambda t: (t**3).sum(), x).tolist() == [[6, 0, 0], [0, 12, 0], [0, 0, 18]]
    value, product = F.vjp(lambda t: (t**2).sum(), x)
    assert value.item() == 14.0 and product.tolist() == [2.0, 4.0, 6.0]
    value, product = F.jvp(lambda t: t**2, x, gg.ones(3))
    assert value.tolist() == [1, 4, 9] and product.tolist() == [2.0, 4.0, 6.0]
    for method in (F.hvp, F.vhp):
        value, product = method(lambda t: t.prod(), x, gg.tensor([1.0, 0.0, 0.0]))
        assert value.item() == 6.0 and product.tolist() == [0.0, 3.0, 2.0]


def test_on_every_device(device):
    x = gg.tensor([0.5, -1.0], device=device)
    np.testing.assert_allclose(F.jacobian(lambda t: t.exp(), x).to_numpy(), np.diag(np.exp([0.5, -1.0])), rtol=1e-6)
    result = F.hessian(lambda t: (t**2).sum() * t[0], x)
    np.testing.assert_allclose(result.to_numpy(), [[3.0, -2.0], [-2.0, 1.0]], rtol=1e-6, atol=1e-6)
    assert result.device == gg.device(device)


def test_inputs_are_left_alone_and_results_without_graph():
    x = gg.tensor([1.0, 2.0], requires_grad=True)
    with gg.no_grad():
        j = F.jacobian(lambda t: t**2, x)
    assert not j.requires_grad and x.grad is None and x.requires_grad
    value, product = F.vjp(lambda t: t**2, x, gg.ones(2))
    assert not value.requires_grad and not product.requires_grad


def test_create_graph_leads_back_to_the_inputs():
    x = gg.tensor([1.0, 2.0], dtype=gg.float64, requires_grad=True)
    F.jacobian(lambda t: t**3, x, create_graph=True).sum().backward()
    assert x.grad.tolist() == [6.0, 12.0]
    for function in (
        lambda t: F.jacobian(lambda s: s * s.sum(), t, create_graph=True),
        lambda t: F.hessian(lambda s: (s**4).sum(), t, create_graph=True),
        lambda t: F.vjp(lambda s: s**3, t, t, create_graph=True)[1],
        lambda t: F.jvp(lambda s: s**3, t, t, create_graph=True)[1],
        lambda t: F.hvp(lambda s: (s**4).sum(), t, t, create_graph=True)[1],
        lambda t: F.vhp(lambda s: (s**4).sum(), t, t, create_graph=True)[1],
    ):
        assert gradcheck(function, x)


def test_strict_names_what_is_independent():
    x, y = gg.ones(2), gg.ones(3)
    with pytest.raises(RuntimeError, match="jacobian: output 1 of func is independent"):
        F.jacobian(lambda t: (t * 2, gg.ones(2)), x, strict=True)
    with pytest.raises(RuntimeError, match="does not depend on input 1"):
        F.jacobian(lambda t, u: t * 2, (x, y), strict=True)
    with pytest.raises(RuntimeError, match="hessian: the derivative by input 0 is independent"):
        F.hessian(lambda t: (3 * t).sum(), x, strict=True)
    assert F.hessian(lambda t: (t**2).sum(), x, strict=True).tolist() == [[2, 0], [0, 2]]
    with pytest.raises(RuntimeError, match="vjp"):
        F.vjp(lambda t: gg.ones(()), x, strict=True)


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: F.jacobian(lambda t: 3.0, gg.ones(2)), TypeError, "what func returns must be a Tensor"),
        (lambda: F.jacobian(lambda t: t, [gg.ones(2)]), TypeError, "inputs must be a Tensor or a tuple"),
        (lambda: F.jacobian(lambda t: t, (gg.ones(2), 3)), TypeError, "a tuple that holds a int"),
        (lambda: F.hessian(lambda t: t * 2, gg.ones(2)), RuntimeError, "one element, not shape"),
        (lambda: F.hessian(lambda t: (t.sum(),), gg.ones(2)), RuntimeError, "not tuple"),
        (lambda: F.vjp(lambda t: t * 2, gg.ones(2)), RuntimeError, "only for one output of one element"),
        (lambda: F.jvp(lambda t: t * 2, gg.ones(2)), RuntimeError, "only for one input of one element"),
        (lambda: F.vjp(lambda t: t * 2, gg.ones(2), gg.ones(3)), RuntimeError, r"v\[0\] has shape \(3,\)"),
        (lambda: F.jvp(lambda t: t, gg.ones(2), (gg.ones(2),) * 2), RuntimeError, "v has 2 tensors for 1 inputs"),
        (lambda: F.jacobian(lambda t: t, gg.ones(2), strategy="forward-mode"), NotImplementedError, "reverse-mode"),
        (lambda: F.jacobian(lambda t: t, gg.ones(2), strategy="sideways"), ValueError, "must be 'reverse-mode'"),
        (lambda: F.jacobian(lambda t: t, gg.tensor([1, 2])), RuntimeError, "floating-point"),
    ],
)
def test_mistakes(call, error, text):
    with pytest.raises(error, match=text):
        call()


# -- gradcheck ---------------------------------------------------------------------------


class Wrong(gg.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**2

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g * x * 2.01


class OnceRight(gg.autograd.Function):
    """Its derivative is right, the derivative of that is not."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**2

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g * x.detach() * 2


class Unsteady(gg.autograd.Function):
    calls = 0

    @staticmethod
    def forward(ctx, x):
        return x * 2

    @staticmethod
    def backward(ctx, g):
        Unsteady.calls += 1
        return g * (2 + 1e-9 * Unsteady.calls)


def leaf(*shape):
    return gg.randn(*shape, dtype=gg.float64, device="cpu").requires_grad_()


def test_right_derivatives_pass():
    x, y = leaf(2, 3), leaf(3)
    assert gradcheck(lambda a, b: (a * b).tanh(), (x, y))
    assert gradcheck(lambda a, b: ((a @ b).sum(), a.exp()), [x, y])
    assert gradcheck(gg.sin, leaf()) and gradcheck(gg.exp, leaf(0, 2))
    assert gradcheck(lambda a, n: a * n, (x, 3)) and gradcheck(lambda a, b: a * b, (x, y.detach()))
    assert gradcheck(lambda a: (a * 2, a.argmax()), x)
    assert gradcheck(gg.exp, leaf(4, 3).detach().t().requires_grad_())
    assert gradcheck(gg.exp, x, fast_mode=True)
    assert gradgradcheck(lambda a, b: (a * b).tanh(), (x, y))
    assert gradgradcheck(lambda a: (a**3, a.sin()), x, gen_non_contig_grad_outputs=True)
    assert gradgradcheck(lambda a: a**3, x, leaf(2, 3))


def test_the_parameters_of_a_module_can_be_checked():
    model = gg.nn.Linear(3, 2).to(gg.float64)
    x = gg.randn(4, 3, dtype=gg.float64)
    before = [p.tolist() for p in model.parameters()]
    assert gradcheck(lambda *_: model(x), tuple(model.parameters()))
    assert [p.tolist() for p in model.parameters()] == before


def test_wrong_derivatives_do_not():
    x = leaf(2)
    with pytest.raises(gg.autograd.GradcheckError, match="output 0 by input 0 is wrong: element 0 by element 0"):
        gradcheck(Wrong.apply, x)
    assert gradcheck(Wrong.apply, x, raise_exception=False) is False
    assert gradcheck(Wrong.apply, x, rtol=0.02)
    assert issubclass(gg.autograd.GradcheckError, RuntimeError)
    assert gradcheck(OnceRight.apply, x)
    assert gradgradcheck(OnceRight.apply, x, raise_exception=False) is False
    with pytest.raises(RuntimeError, match="is wrong"):
        gradcheck(lambda a: a.detach() * 2 + a * 0, x)


def test_an_unsteady_derivative():
    with pytest.raises(RuntimeError, match="differs from one backward to the next"):
        gradcheck(Unsteady.apply, leaf(2))
    assert gradcheck(Unsteady.apply, leaf(2), nondet_tol=1e-6)


def test_what_gradcheck_refuses():
    with pytest.raises(ValueError, match="at least one input must be a tensor that requires grad"):
        gradcheck(gg.exp, gg.ones(2, dtype=gg.float64))
    with pytest.warns(UserWarning, match="input 0 is float32"):
        gradcheck(lambda a: a * 2, gg.ones(2, requires_grad=True), eps=1e-2, atol=1e-2)
    with pytest.raises(RuntimeError, match="share memory"):
        gradcheck(gg.exp, gg.ones(1, dtype=gg.float64).expand(3).requires_grad_())
    for option in ("check_forward_ad", "check_batched_grad", "check_batched_forward_grad", "masked"):
        with pytest.raises(NotImplementedError, match=option):
            gradcheck(gg.exp, leaf(2), **{option: True})
    with pytest.raises(NotImplementedError, match="check_fwd_over_rev"):
        gradgradcheck(gg.exp, leaf(2), check_fwd_over_rev=True)


@pytest.mark.parametrize("framework", ["gpugrad", "torch"])
def test_once_differentiable(framework):
    """The same with PyTorch, where it is installed."""
    fw = pytest.importorskip(framework)
    once = pytest.importorskip(f"{framework}.autograd.function").once_differentiable

    class Square(fw.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x**2

        @staticmethod
        @once
        def backward(ctx, g):
            assert not fw.is_grad_enabled()
            (x,) = ctx.saved_tensors
            return 2 * x * g

    x = fw.tensor(3.0, requires_grad=True)
    (Square.apply(x) * 2).backward()
    assert x.grad.item() == 12.0
    (g,) = fw.autograd.grad(Square.apply(x * x), x, create_graph=True)  # 4 x^3
    assert g.item() == 108.0 and g.requires_grad
    y = Square.apply(Square.apply(x))
    (g,) = fw.autograd.grad(y * x, x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        g.backward()


# -- grad, Variable -------------------------------------------------------------------------


def test_grad_with_batched_gradients(device):
    x = gg.tensor([1.0, 2.0], device=device, requires_grad=True)
    y = x**3
    seeds = gg.eye(2, device=device)
    (rows,) = gg.autograd.grad(y, x, seeds, is_grads_batched=True, retain_graph=True)
    assert rows.tolist() == [[3.0, 0.0], [0.0, 12.0]]
    (rows,) = gg.autograd.grad(y, x, seeds, is_grads_batched=True, create_graph=True)
    rows.sum().backward()
    assert x.grad.tolist() == [6.0, 12.0]
    with pytest.raises(RuntimeError, match="the same first size"):
        gg.autograd.grad(y, x, None, is_grads_batched=True)


def test_grad_refuses_what_pytorch_refuses():
    x = gg.ones(2, requires_grad=True)
    with pytest.raises(RuntimeError, match="inputs must not be empty"):
        gg.autograd.grad(x.sum(), [])
    with pytest.raises(ValueError, match="materialize_grads"):
        gg.autograd.grad(x.sum(), x, allow_unused=False, materialize_grads=True)
    with pytest.raises(RuntimeError, match="2 outputs but 1 grad_outputs"):
        gg.autograd.grad([x.sum(), x.sum()], x, [None])
    (unused,) = gg.autograd.grad((x * 2).sum(), gg.ones(3, requires_grad=True), materialize_grads=True)
    assert unused.tolist() == [0.0, 0.0, 0.0]
    first, second = gg.autograd.grad([x * 2, x.sum()], [x, x], [gg.ones(2), None])
    assert first.tolist() == second.tolist() == [3.0, 3.0]


def test_what_is_absent_says_what_there_is():
    assert not hasattr(gg.autograd, "forward_ad") and gg.autograd.grad_mode.no_grad is gg.no_grad
    for name, instead in (("forward_ad", "functional.jvp"),):
        with pytest.raises(AttributeError, match=instead):
            getattr(gg.autograd, name)


def test_variable_is_an_old_name_for_tensors():
    Variable = gg.autograd.Variable
    t = gg.ones(2)
    v = Variable(t, requires_grad=True)
    assert type(v) is gg.Tensor and v.requires_grad and not t.requires_grad and isinstance(t, Variable)
    t.add_(1)
    assert v.tolist() == [2.0, 2.0]
    assert Variable(v * 2).is_leaf and not Variable(v).requires_grad
    with pytest.raises(TypeError, match="Variable: expected a Tensor, got list"):
        Variable([1.0])
