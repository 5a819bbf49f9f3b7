"""float16 and bfloat16 through every row of the ops table, on every device: loaded, computed with in float32, rounded
once. What rounds more often is listed here with the reason; all else has to be the float32 result, rounded."""

from __future__ import annotations

import math

import numpy as np
import pytest

import gpugrad as gg
import gpugrad.linalg
from gpugrad.ops import OPS
from tests import half_units
from tests.half_units import deviation, units
from tests.test_ops import make_inputs, rng_for

RESULT = "the derivative is a formula of the result, which is kept as it was rounded (as PyTorch keeps it)"
SUMMED = "the gradient of what was broadcast is a sum of gradients that were rounded one by one"
STORED = "each product is stored before the next one takes it, as half types are what the units for products take"

#: row -> units its results may be off, the error of its gradients in units at the largest of them, and why
KNOWN = {
    "softmax": (0, 1.0, RESULT),
    "log_softmax": (0, 1.0, RESULT),
    "norm": (0, 1.5, RESULT),
    "linalg_vector_norm": (0, 1.5, RESULT),
    "matrix_norm": (0, 1.5, RESULT),
    "cdist": (0, 1.0, RESULT),
    "vander": (0, 1.0, RESULT),
    "scaled_dot_product_attention": (0, 1.5, RESULT + "; where no routine is offered the weights are stored between"),
    "diff": (1, 1.0, "the differences of each order are stored, and those of the next taken of them, as in PyTorch"),
    "matmul": (0, 1.5, SUMMED),
    "cross": (0, 1.5, SUMMED),
    "einsum": (1, 1.5, STORED),
    "multi_dot": (4, 2.5, STORED),
    "matrix_power": (16, 16.0, STORED),
    "scatter_reduce": (1, 1.0, "a mean is a sum, stored, over a count"),
}
#: of rows whose derivative asks for the result: the same of all
BY_RESULT = 1.5

#: rows of factorizations: what users call refuses half types, as PyTorch does
FACTORIZATIONS = {
    "cholesky": lambda t, x: t.linalg.cholesky(x),
    "cholesky_solve": lambda t, x: t.cholesky_solve(x, x),
    "det": lambda t, x: t.linalg.det(x),
    "eig": lambda t, x: t.linalg.eig(x),
    "eigh": lambda t, x: t.linalg.eigh(x),
    "eigvalsh": lambda t, x: t.linalg.eigvalsh(x),
    "geqrf": lambda t, x: t.geqrf(x),
    "householder_product": lambda t, x: t.linalg.householder_product(x, x[0]),
    "inv": lambda t, x: t.linalg.inv(x),
    "logdet": lambda t, x: t.logdet(x),
    "lu_factor": lambda t, x: t.linalg.lu_factor(x),
    "pinv": lambda t, x: t.linalg.pinv(x),
    "qr": lambda t, x: t.linalg.qr(x),
    "qr_r": lambda t, x: t.linalg.qr(x, "r"),
    "slogdet": lambda t, x: t.linalg.slogdet(x),
    "solve": lambda t, x: t.linalg.solve(x, x),
    "solve_triangular": lambda t, x: t.linalg.solve_triangular(x, x, upper=True),
    "svd": lambda t, x: t.linalg.svd(x),
    "svdvals": lambda t, x: t.linalg.svdvals(x),
}
#: functions that come down to one of these
OF_FACTORIZATIONS = {
    "cholesky_ex": lambda t, x: t.linalg.cholesky_ex(x),
    "cholesky_inverse": lambda t, x: t.cholesky_inverse(x),
    "cond": lambda t, x: t.linalg.cond(x),
    "eigvals": lambda t, x: t.linalg.eigvals(x),
    "inv_ex": lambda t, x: t.linalg.inv_ex(x),
    "inverse": lambda t, x: x.inverse(),
    "ldl_factor": lambda t, x: t.linalg.ldl_factor(x),
    "lstsq": lambda t, x: t.linalg.lstsq(x, x),
    "lu": lambda t, x: t.linalg.lu(x),
    "lu_solve": lambda t, x: t.linalg.lu_solve(x, t.tensor([1, 2], dtype=t.int32, device=x.device), x),
    "matrix_norm": lambda t, x: t.linalg.matrix_norm(x, "nuc"),
    "matrix_power": lambda t, x: t.linalg.matrix_power(x, -1),
    "matrix_rank": lambda t, x: t.linalg.matrix_rank(x),
    "nuclear_norm": lambda t, x: t.nuclear_norm(x),
    "pinverse": lambda t, x: x.pinverse(),
    "tensorinv": lambda t, x: t.linalg.tensorinv(x, ind=1),
    "tensorsolve": lambda t, x: t.linalg.tensorsolve(x, x[0]),
    "triangular_solve": lambda t, x: t.triangular_solve(x, x),
}
#: rows that refuse half types for another reason: their results are places among the values
REFUSED = {"quantile": "float32 or float64", "nanquantile": "float32 or float64"}

ROWS = [op for op in OPS.values() if op.samples and "f" in op.dtypes and op.name not in FACTORIZATIONS]


def caller(op, sample):
    """The row's function of tensors, with the other arguments of the sample; all its results."""

    def call(*tensors):
        if sample.args_as_list:
            return op.function(list(tensors), **sample.kwargs)
        if op.name == "einsum":
            return op.function(sample.kwargs["equation"], *tensors)
        return op.function(*tensors, **sample.kwargs)

    return call


def asks_for_the_result(op):
    return any(rule is not None and {"y", "second"} & set(rule.names) for rule in op.vjps)


@pytest.mark.parametrize("op", [pytest.param(op, id=op.name) for op in ROWS])
@pytest.mark.parametrize("dtype", half_units.HALVES)
def test_rows(op, dtype, device):
    forward, share, _ = KNOWN.get(op.name, (0, BY_RESULT if asks_for_the_result(op) else None, ""))
    for sample in op.samples:
        arrays = make_inputs(op, sample, np.float32, rng_for(op.name))
        call = caller(op, sample)
        if op.name in REFUSED or (op.name == "matrix_power" and sample.kwargs["n"] < 0):
            with pytest.raises(RuntimeError, match=REFUSED.get(op.name, "half precision")):
                deviation(call, arrays, dtype, device)
            continue
        found = deviation(call, arrays, dtype, device, op.differentiable)
        assert found.forward <= forward, sample
        assert found.backward == 0 if share is None else found.share <= share, sample


def test_what_is_listed_exists():
    missing = [name for name in (*KNOWN, *FACTORIZATIONS, *REFUSED) if name not in OPS]
    assert not missing
    assert all(reason for _, _, reason in KNOWN.values())


@pytest.mark.parametrize("name", [*FACTORIZATIONS, *(n for n in OF_FACTORIZATIONS if n not in FACTORIZATIONS)])
@pytest.mark.parametrize("dtype", half_units.HALVES)
def test_factorizations_refuse_half_types(name, dtype, device):
    call = (FACTORIZATIONS | OF_FACTORIZATIONS)[name]
    x = gg.tensor([[4.0, 1.0], [1.0, 3.0]], dtype=getattr(gg, dtype), device=device)
    with pytest.raises(gg.errors.DTypeError) as caught:
        call(gg, x)
    text = str(caught.value)
    assert "half precision" in text and dtype in text and device in text and ".float()" in text
    assert text.count("\n") == 0
    call(gg, x.float())


@pytest.mark.parametrize("name", [n for n in FACTORIZATIONS if n not in ("eig", "geqrf", "qr_r")])
def test_pytorch_refuses_them_too(name, torch):
    with pytest.raises(RuntimeError):
        FACTORIZATIONS[name](torch, torch.tensor([[4.0, 1.0], [1.0, 3.0]], dtype=torch.float16))


# -- products with something added ----------------------------------------------------------------------


def numbers(rng, *shape):
    return rng.standard_normal(shape).astype(np.float32)


F = gg.nn.functional
#: call, shapes of its inputs
AFFINE = {
    "linear": (F.linear, ((40, 100), (30, 100), (30,))),
    "linear of more dimensions": (F.linear, ((2, 5, 64), (30, 64), (30,))),
    "linear of a vector": (F.linear, ((64,), (30, 64), (30,))),
    "linear, one bias": (F.linear, ((5, 64), (30, 64), (1,))),
    "linear, weight of one": (F.linear, ((5, 64), (64,), ())),
    "addmm": (gg.addmm, ((30,), (20, 100), (100, 30))),
    "addmm, scaled": (lambda *t: gg.addmm(*t, beta=0.3, alpha=1.7), ((20, 30), (20, 100), (100, 30))),
    "addmm, no input": (lambda *t: gg.addmm(*t, beta=0, alpha=1.7), ((20, 30), (20, 100), (100, 30))),
    "baddbmm": (lambda *t: gg.baddbmm(*t, beta=0.3, alpha=1.7), ((4, 1, 7), (4, 6, 50), (4, 50, 7))),
    "addbmm": (gg.addbmm, ((6, 7), (4, 6, 50), (4, 50, 7))),
    "addmv": (lambda *t: gg.addmv(*t, beta=2.5, alpha=0.7), ((6,), (6, 90), (90,))),
    "addr": (lambda *t: gg.addr(*t, beta=2.5, alpha=0.7), ((6, 9), (6,), (9,))),
    "bilinear": (F.bilinear, ((5, 7), (5, 6), (4, 7, 6), (4,))),
    "conv1d": (F.conv1d, ((2, 6, 40), (5, 6, 7), (5,))),
    "conv2d": (lambda *t: F.conv2d(*t, padding=1), ((3, 6, 12, 12), (5, 6, 3, 3), (5,))),
    "conv2d, strided": (lambda *t: F.conv2d(*t, stride=2), ((3, 6, 12, 12), (5, 6, 3, 3), (5,))),
    "conv2d, 1x1": (F.conv2d, ((3, 20, 9, 9), (5, 20, 1, 1), (5,))),
    "conv2d, depthwise": (lambda *t: F.conv2d(*t, groups=6), ((3, 6, 12, 12), (6, 1, 3, 3), (6,))),
    "conv2d, groups": (lambda *t: F.conv2d(*t, groups=2), ((3, 12, 9, 9), (4, 6, 3, 3), (4,))),
    "conv2d, one image": (F.conv2d, ((6, 12, 12), (5, 6, 3, 3), (5,))),
    "conv3d": (F.conv3d, ((2, 3, 5, 6, 5), (4, 3, 2, 3, 2), (4,))),
    "conv_transpose1d": (F.conv_transpose1d, ((2, 6, 20), (6, 5, 4), (5,))),
    "conv_transpose2d": (
        lambda *t: F.conv_transpose2d(*t, stride=2, padding=1, output_padding=1),
        ((2, 6, 7, 7), (6, 5, 3, 3), (5,)),
    ),
    "conv_transpose2d, groups": (lambda *t: F.conv_transpose2d(*t, groups=2), ((2, 6, 7, 7), (6, 2, 3, 3), (4,))),
    "conv_transpose3d": (F.conv_transpose3d, ((1, 3, 4, 4, 4), (3, 2, 2, 2, 2), (2,))),
    "conv_tbc": (gg.conv_tbc, ((20, 2, 6), (3, 6, 5), (5,))),
}


@pytest.mark.parametrize("dtype", half_units.HALVES)
@pytest.mark.parametrize("name", AFFINE)
def test_what_is_added_to_a_product_is_rounded_with_it(name, dtype, device):
    call, shapes = AFFINE[name]
    rng = np.random.default_rng(3)
    found = deviation(call, [numbers(rng, *s) for s in shapes], dtype, device)
    assert found.forward == 0
    # The second factor of "beta * input": the sum over what it was broadcast to is of numbers of the half type.
    assert found.backward == 0 or ("baddbmm" in name and found.share <= 1.0)


@pytest.mark.parametrize("dtype", half_units.HALVES)
@pytest.mark.parametrize("name", ["linear", "addmm, scaled", "conv2d", "conv2d, depthwise", "conv_transpose2d"])
def test_compiled_products_are_rounded_once(name, dtype, device):
    call, shapes = AFFINE[name]
    rng = np.random.default_rng(4)
    arrays = [half_units.rounded(numbers(rng, *s), dtype) for s in shapes]

    def step(*tensors):
        y = call(*tensors)
        return y, gg.autograd.grad(y.float().square().sum(), tensors)

    def made(kind):
        return [gg.tensor(a, device=device).to(kind).requires_grad_() for a in arrays]

    half = getattr(gg, dtype)
    run = gg.compile(step)
    for _ in range(2):
        y, gradients = run(*made(half))
    assert units(y, call(*made(gg.float32)), dtype) == 0
    wide = made(gg.float32)
    incoming = y.detach().float() * 2  # what reaches the product, rounded
    want = gg.autograd.grad(call(*wide), wide, half_units.stored(incoming, half))
    for a, b in zip(gradients, want, strict=True):
        assert units(a, b, dtype) == 0


@pytest.mark.parametrize("name", ["addmm, scaled", "conv2d", "conv_transpose2d", "linear"])
def test_second_derivatives_of_what_is_added_to_a_product(name):
    call, shapes = AFFINE[name]
    rng = np.random.default_rng(5)
    small = [tuple(min(n, 3) if call is F.linear or "addmm" in name else n for n in s) for s in shapes]
    if "conv" in name:
        small = [(1, 2, 4, 4), (3, 2, 2, 2), (3,)] if name == "conv2d" else [(1, 2, 3, 3), (2, 3, 2, 2), (3,)]
    inputs = [gg.tensor(rng.standard_normal(s), dtype=gg.float64, requires_grad=True) for s in small]
    assert gg.autograd.gradcheck(call, inputs)
    assert gg.autograd.gradgradcheck(call, inputs)


@pytest.mark.parametrize("dtype", ["int64", "int32", "uint8"])
def test_products_of_integers_are_as_before(dtype, device):
    rng = np.random.default_rng(6)
    a, b, c = (rng.integers(0, 5, s).astype(dtype) for s in ((3, 4), (4, 5), (5,)))
    x, y, z = (gg.tensor(t, device=device) for t in (a, b, c))
    assert (gg.addmm(z, x, y, beta=2, alpha=3).cpu().to_numpy() == 2 * c + 3 * (a @ b)).all()
    assert (F.linear(x, y.T, z).cpu().to_numpy() == a @ b + c).all()
    assert (gg.addr(x @ y, x[:, 0], z).cpu().to_numpy() == a @ b + np.outer(a[:, 0], c)).all()


# -- special values ----------------------------------------------------------------------------------


def test_overflow_and_what_lies_between(device):
    def half(*values):
        return gg.tensor(values, dtype=gg.float16, device=device)

    big = half(60000.0, -60000.0)
    assert (big + big).tolist() == [math.inf, -math.inf]
    assert (big * 2).tolist() == [math.inf, -math.inf] and big.sum().item() == 0
    assert half(65504.0).add(15.0).tolist() == [65504.0] and half(65504.0).add(16.0).tolist() == [math.inf]
    # Between the steps of one operation nothing overflows.
    x = half(300.0, -300.0)
    assert gg.addcmul(half(-60000.0, 0.0), x, x)[0].item() == 30000.0
    assert x.norm().item() == np.float16(300 * math.sqrt(2)) and big.abs().mean().item() == 60000.0
    assert F.linear(x.reshape(1, 2), x.reshape(1, 2), half(-65504.0)).item() == math.inf
    assert F.linear(x.reshape(1, 2), half(300.0, 100.0).reshape(1, 2), half(-60000.0)).item() == 0
    assert F.mse_loss(x, half(0.0, 0.0), reduction="none").tolist() == [math.inf] * 2
    assert gg.addmm(half(-60000.0), x.reshape(1, 2), x.reshape(2, 1)).item() == math.inf
    assert gg.nn.functional.normalize(half(0.0, 0.0), dim=0).tolist() == [0.0, 0.0]
    assert half(math.inf, math.nan).sub(half(math.inf, 1.0)).isnan().all()


def test_denormals(device):
    tiny = 2.0**-24  # the smallest float16
    x = gg.tensor([tiny, 3 * tiny, 2.0**-14], dtype=gg.float16, device=device)
    assert x.tolist() == [tiny, 3 * tiny, 2.0**-14]
    assert (x * 0.5).tolist() == [0.0, 2 * tiny, 2.0**-15]  # to even
    assert (x + x).tolist() == [2 * tiny, 6 * tiny, 2.0**-13]
    assert (x.float().to(gg.float16) == x).all()
    a = gg.tensor([[2.0**-14, 2.0**-14]], dtype=gg.float16, device=device)
    b = gg.tensor([[2.0**-10, 2.0**-9]], dtype=gg.float16, device=device)
    assert F.linear(a, b, gg.tensor([tiny], dtype=gg.float16, device=device)).item() == 4 * tiny
    small = gg.tensor([2.0**-126, 2.0**-133], dtype=gg.bfloat16, device=device)  # bfloat16's are float32's
    assert small.tolist() == [2.0**-126, 2.0**-133]


@pytest.mark.parametrize("dtype", half_units.HALVES)
def test_special_values_of_products_as_pytorch(dtype, torch):
    special = [0.0, -0.0, 1.0, math.inf, -math.inf, math.nan, 6e4, 6e-8]
    rows = [[a, b] for a in special for b in special]
    found = []
    for library in (torch, gg):
        d = getattr(library, dtype)
        x, w, b = (library.tensor(v, dtype=d) for v in (rows, [[1.0, -1.0], [2.0, 0.5]], [1.0, -1.0]))
        found.append(library.nn.functional.linear(x, w, b).double().numpy())
    np.testing.assert_array_equal(found[1], found[0])
