"""The distributions beyond the common ones, implicit gradients of gamma numbers, and transforms by constraint."""

from __future__ import annotations

import math

import numpy as np
import pytest

import gpugrad as gg
from gpugrad import distributions as D
from gpugrad.ops.special_functions import standard_gamma_grad
from tests.test_distributions import CASES

RNG = np.random.default_rng(8)


def real(*shape):
    return RNG.standard_normal(shape)


def positive(*shape):
    return RNG.uniform(0.5, 3.0, shape)


# -- implicit gradients of gamma numbers ---------------------------------------------------------------

# By mpmath with 40 digits. A row for each of SHAPES; (x, dx/da) where 2, 50 and 98 percent of the numbers are below x.
SHAPES = [0.3, 1.0, 4.0, 30.0, 400.0, 5000.0]
GAMMA = np.array([
    [(1.514147144569685e-06, 6.678137722233797e-05),
     (0.07313113586695198, 0.6420641624455681),
     (2.076564006242206, 3.61042690388203)],
    [(0.02020270731751945, 0.08836284305967905),
     (0.6931471805599455, 0.9680448304420446),
     (3.912023005428146, 2.151530894282381)],
    [(1.0162384590409617, 0.4849836826530046),
     (3.672060748850897, 0.9985375498676518),
     (9.084115382413179, 1.5271365147277192)],
    [(19.849712038879257, 0.8121434099561751),
     (29.66733313822123, 0.9999775157347846),
     (42.28997464021902, 1.1880443793061328)],
    [(360.00537378660783, 0.9486468945856512),
     (399.6667160944644, 0.9999998763177762),
     (442.13946930391876, 1.0513541395629635)],
    [(4855.852877979766, 0.9854775810666078),
     (4999.666670617572, 0.9999999992097611),
     (5146.292345374413, 1.014522425541404)],
])  # fmt: skip


def test_gamma_gradient(device):
    narrow = device == "pretend"
    kind = {"dtype": gg.float32 if narrow else gg.float64, "device": device}
    got = standard_gamma_grad(gg.tensor(SHAPES, **kind).unsqueeze(1), gg.tensor(GAMMA[:, :, 0], **kind))
    np.testing.assert_allclose(got.cpu().numpy(), GAMMA[:, :, 1], rtol=1e-5 if narrow else 1e-10)
    got = standard_gamma_grad(gg.tensor(SHAPES, dtype=gg.float32, device=device)[2], gg.tensor([3.0], device=device))
    assert got.dtype is gg.float32


def test_gamma_gradient_at_the_edges():
    a = gg.tensor([1.0, 1.0, -1.0, math.nan, 1.0, 2e-3], dtype=gg.float64)
    x = gg.tensor([0.0, math.inf, 1.0, 1.0, -1.0, 1e-300], dtype=gg.float64)
    got = standard_gamma_grad(a, x).tolist()
    assert got[0] == 0 and all(math.isnan(v) for v in got[1:5]) and 0 < got[5] < 1e-290


def test_gamma_gradient_of_pytorch():
    torch = pytest.importorskip("torch")
    a, z = np.exp(RNG.uniform(-3, 8, 500)), RNG.standard_normal(500)
    x = np.maximum(a * (1 - 1 / (9 * a) + z / (3 * np.sqrt(a))) ** 3, 1e-3)
    got = standard_gamma_grad(gg.tensor(a), gg.tensor(x))
    want = torch._standard_gamma_grad(torch.tensor(a), torch.tensor(x)).numpy()
    np.testing.assert_allclose(got.numpy(), want, rtol=2e-3)  # PyTorch's is a fit with errors of that size


@pytest.mark.parametrize("name", ["Gamma", "Chi2", "InverseGamma", "Beta", "Dirichlet", "Wishart", "Pareto", "Weibull"])
def test_implicit_gradient(name):
    """d(mean of samples)/d(parameter) is near d(mean)/d(parameter)."""
    gg.manual_seed(4)
    arrays = next(p for n, p, _ in CASES if n == name)
    raised = 3.0 if name == "InverseGamma" else 0.5
    values = {k: gg.tensor(v + raised if v.ndim == 1 else v) for k, v in arrays.items()}
    first = next(k for k in values if k != "scale")
    values[first].requires_grad_()
    d = getattr(D, name)(**values)
    assert d.has_rsample
    weight = gg.tensor(RNG.uniform(0.5, 1.5, tuple(d.mean.shape)))
    (got,) = gg.autograd.grad((d.rsample((8000,)).mean(0) * weight).sum(), values[first], retain_graph=True)
    (want,) = gg.autograd.grad((d.mean * weight).sum(), values[first])
    np.testing.assert_allclose(got.numpy(), want.numpy(), atol=0.1 * float(want.abs().max()))


def test_implicit_gradient_of_student():
    """Its mean does not depend on df, the mean of its absolute value does."""
    gg.manual_seed(4)
    df = gg.tensor([3.0, 6.0], dtype=gg.float64, requires_grad=True)
    (got,) = gg.autograd.grad(D.StudentT(df).rsample((20000,)).abs().mean(0).sum(), df)

    def mean_size(df):  # 2 sqrt(df) gamma((df + 1) / 2) / (sqrt(pi) (df - 1) gamma(df / 2))
        log = gg.lgamma((df + 1) / 2) - gg.lgamma(df / 2)
        return 2 * df.sqrt() * log.exp() / (math.sqrt(math.pi) * (df - 1))

    (want,) = gg.autograd.grad(mean_size(df).sum(), df)
    np.testing.assert_allclose(got.numpy(), want.numpy(), rtol=0.15)


# -- the others -----------------------------------------------------------------------------------


def test_kumaraswamy_mode():
    """Where the density is highest."""
    d = D.Kumaraswamy(gg.tensor([2.0, 3.0], dtype=gg.float64), gg.tensor([3.0, 1.5], dtype=gg.float64))
    grid = gg.linspace(0.001, 0.999, 9981, dtype=gg.float64)
    best = grid[d.log_prob(grid.unsqueeze(1)).argmax(0)]
    np.testing.assert_allclose(d.mode.numpy(), best.numpy(), atol=2e-4)
    assert math.isnan(D.Kumaraswamy(0.5, 0.5).mode.item())


def test_generalized_pareto():
    """Against closed forms: exponential, uniform, and the density as the derivative of the distribution function."""
    d = D.GeneralizedPareto(gg.tensor(1.0), gg.tensor(2.0), gg.tensor([-1.0, 0.0, 0.4]))
    at = gg.tensor([2.0, 2.0, 2.0], requires_grad=True)
    np.testing.assert_allclose(d.log_prob(at).exp().tolist()[:2], [0.5, 0.5 * math.exp(-0.5)], rtol=1e-6)
    (slope,) = gg.autograd.grad(d.cdf(at).sum(), at)
    np.testing.assert_allclose(slope.tolist(), d.log_prob(at).exp().tolist(), rtol=1e-5)
    np.testing.assert_allclose(d.icdf(d.cdf(at.detach())).tolist(), [2.0] * 3, rtol=1e-5)
    assert d.mean.tolist()[:2] == [2.0, 3.0] and math.isinf(D.GeneralizedPareto(0.0, 1.0, 1.0).mean.item())
    assert math.isinf(D.GeneralizedPareto(0.0, 1.0, 0.5).variance.item())
    np.testing.assert_allclose(d.entropy().tolist(), [math.log(2) + k + 1 for k in (-1, 0, 0.4)], rtol=1e-6)
    gg.manual_seed(0)
    sample = d.rsample((4000,))
    assert d.support.check(sample).all() and abs(sample[:, 1].mean().item() - 3.0) < 0.15
    with pytest.raises(ValueError, match="outside the support"):
        d.log_prob(gg.tensor(4.0))


def test_lkj_cholesky():
    gg.manual_seed(0)
    n, eta = 4, 1.5
    d = D.LKJCholesky(n, eta)
    sample = d.sample((6000,))
    assert tuple(sample.shape) == (6000, n, n) and d.support.check(sample).all()
    correlation = (sample @ sample.mT).numpy()
    b = eta - 1 + n / 2  # each correlation is Beta(b, b) on (-1, 1)
    for i in range(n):
        for j in range(i):
            np.testing.assert_allclose(correlation[:, i, j].var(), 1 / (2 * b + 1), rtol=0.1)
            assert abs(correlation[:, i, j].mean()) < 0.05
    torch = pytest.importorskip("torch")
    for concentration in (0.7, np.array([0.5, 1.0, 3.0])):
        mine = D.LKJCholesky(n, gg.tensor(concentration), validate_args=False)
        theirs = torch.distributions.LKJCholesky(n, torch.tensor(concentration), validate_args=False)
        shape = np.shape(concentration)
        values = sample[: math.prod(shape)].reshape(*shape, n, n).double()
        want = theirs.log_prob(torch.tensor(values.numpy()))
        np.testing.assert_allclose(mine.log_prob(values).numpy(), want.numpy(), rtol=1e-5)


def test_logistic_normal():
    torch = pytest.importorskip("torch")
    loc, scale, value = real(2, 3), positive(2, 3), RNG.dirichlet(np.ones(4), (5, 2))
    mine = D.LogisticNormal(gg.tensor(loc), gg.tensor(scale))
    theirs = torch.distributions.LogisticNormal(torch.tensor(loc), torch.tensor(scale))
    assert tuple(mine.batch_shape) == (2,) and tuple(mine.event_shape) == (4,)
    np.testing.assert_allclose(mine.log_prob(gg.tensor(value)).numpy(), theirs.log_prob(torch.tensor(value)).numpy())
    assert tuple(mine.expand((3, 2)).sample().shape) == (3, 2, 4)


@pytest.mark.parametrize("concentration", [1e-4, 0.5, 4.0, 2000.0])
def test_von_mises_samples(concentration):
    """The mean of the cosine is the ratio of Bessel functions, and the angles are symmetric about loc."""
    gg.manual_seed(1)
    d = D.VonMises(gg.tensor(3.0), gg.tensor(concentration))
    sample = d.sample((8000,)).numpy()
    assert (sample >= -math.pi - 1e-6).all() and (sample < math.pi + 1e-6).all()
    narrow = 1 / max(1.0, concentration)
    np.testing.assert_allclose(1 - np.cos(sample - 3.0).mean(), d.variance.item(), atol=0.05 * narrow)
    assert abs(np.sin(sample - 3.0).mean()) < 0.05 * math.sqrt(narrow)


def test_exponential_family_entropy():
    """Of a subclass that gives its natural parameters alone."""

    class Mine(D.ExponentialFamily):
        def __init__(self, rate):
            self.rate = rate
            super().__init__(rate.shape, validate_args=False)

        @property
        def _natural_params(self):
            return (-self.rate,)

        def _log_normalizer(self, x):
            return -gg.log(-x)

        _mean_carrier_measure = 0.0

    rate = gg.tensor([0.5, 2.0])
    np.testing.assert_allclose(Mine(rate).entropy().tolist(), D.Exponential(rate).entropy().tolist(), rtol=1e-6)


def test_mistakes_of_these():
    with pytest.raises(ValueError, match="df must be above 2"):
        D.Wishart(1.5, gg.eye(3))
    with pytest.raises(ValueError, match="at least 2"):
        D.LKJCholesky(1)
    with pytest.raises(ValueError, match="vectors of 3"):
        D.LowRankMultivariateNormal(gg.zeros(2), gg.ones(3, 1), gg.ones(3))
    with pytest.raises(ValueError, match=r"scale.*GreaterThan"):
        D.Weibull(-1.0, 2.0)


# -- transforms -----------------------------------------------------------------------------------

CONSTRAINTS = [
    ("real", lambda c: c.real, (5,)), ("positive", lambda c: c.positive, (5,)),
    ("nonnegative", lambda c: c.nonnegative, (5,)), ("above", lambda c: c.greater_than(1.5), (5,)),
    ("below", lambda c: c.less_than(-1.0), (5,)), ("interval", lambda c: c.interval(-2.0, 3.0), (5,)),
    ("unit", lambda c: c.unit_interval, (5,)), ("simplex", lambda c: c.simplex, (2, 4)),
    ("lower", lambda c: c.lower_cholesky, (2, 3, 3)), ("definite", lambda c: c.positive_definite, (2, 3, 3)),
    ("correlation", lambda c: c.corr_cholesky, (2, 6)), ("vector", lambda c: c.real_vector, (2, 3)),
    ("independent", lambda c: c.independent(c.positive, 1), (2, 3)),
    ("cat", lambda c: c.cat([c.positive, c.real], -1, [1, 2]), (2, 3)),
    ("stack", lambda c: c.stack([c.positive, c.unit_interval], 0), (2, 3)),
]  # fmt: skip


@pytest.mark.parametrize(("name", "make", "shape"), CONSTRAINTS, ids=[c[0] for c in CONSTRAINTS])
def test_registry(name, make, shape):
    torch = pytest.importorskip("torch")
    x = real(*shape)
    for kind in ("biject_to", "transform_to"):
        mine = getattr(D, kind)(make(D.constraints))
        try:
            theirs = getattr(torch.distributions, kind)(make(torch.distributions.constraints))
        except NotImplementedError:
            continue  # a one to one transform to matrices
        y, want = mine(gg.tensor(x)), theirs(torch.tensor(x))
        np.testing.assert_allclose(y.numpy(), want.numpy(), rtol=1e-7, atol=1e-9)
        assert make(D.constraints).check(y).all()
        np.testing.assert_allclose(mine(mine.inv(y)).numpy(), y.numpy(), rtol=1e-6, atol=1e-7)
        try:
            want = theirs.log_abs_det_jacobian(torch.tensor(x), want)
        except NotImplementedError:
            continue
        got = mine.log_abs_det_jacobian(gg.tensor(x), y)
        np.testing.assert_allclose(got.numpy(), want.numpy(), rtol=1e-6, atol=1e-12)


def test_registry_takes_others():
    class Even(D.constraints.Constraint):
        def check(self, value):
            return value % 2 == 0

    with pytest.raises(NotImplementedError, match="Even"):
        D.transform_to(Even())

    @D.transform_to.register(Even)
    def _(constraint):
        return D.AffineTransform(0.0, 2.0)

    assert D.transform_to(Even())(gg.tensor([1.0, 2.0])).tolist() == [2.0, 4.0]
    with pytest.raises(TypeError, match="constraint"):
        D.biject_to("positive")


def test_correlation_transform():
    """log_abs_det_jacobian is that of the entries below the diagonal, found here by differentiation."""
    t, x = D.CorrCholeskyTransform(), gg.tensor(real(6) * 0.7)
    place = gg.tril_indices(4, 4, -1)
    jacobian = gg.autograd.functional.jacobian(lambda v: t(v)[place[0], place[1]], x)
    want = gg.linalg.slogdet(jacobian).logabsdet
    np.testing.assert_allclose(t.log_abs_det_jacobian(x, t(x)).item(), want.item(), rtol=1e-9)
    with pytest.raises(ValueError, match="5 is not"):
        t(gg.zeros(5))


def test_cumulative_distribution_transform():
    t, x = D.CumulativeDistributionTransform(D.Normal(0.0, 2.0)), gg.tensor([-1.0, 0.0, 3.0])
    np.testing.assert_allclose(t.inv(t(x)).tolist(), x.tolist(), atol=1e-5)
    assert t(x)[1].item() == 0.5 and t.log_abs_det_jacobian(x, t(x)).tolist() == t.distribution.log_prob(x).tolist()


def test_constraints_of_matrices():
    c, lower = D.constraints, gg.tensor([[1.0, 0.0], [0.6, 0.8]])
    assert c.corr_cholesky.check(lower).item() and not c.corr_cholesky.check(lower * 2).item()
    assert c.lower_triangular.check(lower).item() and not c.lower_triangular.check(lower.mT).item()
    assert c.positive_semidefinite.check(lower @ lower.mT).item() and c.symmetric.check(gg.ones(2, 2)).item()
    assert not c.positive_semidefinite.check(-gg.eye(2)).item() and not c.square.check(gg.ones(2, 3)).item()
    assert c.is_dependent(c.dependent) and not c.is_dependent(c.real)
    with pytest.raises(ValueError, match="parameters"):
        c.dependent.check(lower)
