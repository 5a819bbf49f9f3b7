"""Distributions: densities, moments, divergences and gradients against PyTorch's; samples against moments."""

from __future__ import annotations

import math

import numpy as np
import pytest

import gpugrad as gg
from gpugrad import distributions as D

RNG = np.random.default_rng(3)


def positive(*shape):
    return RNG.uniform(0.5, 3.0, shape)


def real(*shape):
    return RNG.standard_normal(shape)


def unit(*shape):
    return RNG.uniform(0.1, 0.9, shape)


def covariance(*shape):
    a = RNG.standard_normal(shape)
    return a @ np.swapaxes(a, -1, -2) + np.eye(shape[-1])


# name, parameters (arrays), values at which the density is asked for
CASES = [
    ("Normal", {"loc": real(4), "scale": positive(4)}, real(3, 4)),
    ("Laplace", {"loc": real(4), "scale": positive(4)}, real(3, 4)),
    ("Cauchy", {"loc": real(4), "scale": positive(4)}, real(3, 4)),
    ("Gumbel", {"loc": real(4), "scale": positive(4)}, real(3, 4)),
    ("Uniform", {"low": -positive(4), "high": positive(4)}, RNG.uniform(-0.4, 0.4, (3, 4))),
    ("Exponential", {"rate": positive(4)}, positive(3, 4)),
    ("HalfNormal", {"scale": positive(4)}, positive(3, 4)),
    ("HalfCauchy", {"scale": positive(4)}, positive(3, 4)),
    ("LogNormal", {"loc": real(4), "scale": positive(4)}, positive(3, 4)),
    ("Gamma", {"concentration": positive(4), "rate": positive(4)}, positive(3, 4)),
    ("Chi2", {"df": positive(4)}, positive(3, 4)),
    ("InverseGamma", {"concentration": positive(4) + 2, "rate": positive(4)}, positive(3, 4)),
    ("Beta", {"concentration1": positive(4), "concentration0": positive(4)}, unit(3, 4)),
    ("Dirichlet", {"concentration": positive(2, 4)}, RNG.dirichlet(np.ones(4), (3, 2))),
    ("StudentT", {"df": positive(4) + 2, "loc": real(4), "scale": positive(4)}, real(3, 4)),
    ("FisherSnedecor", {"df1": positive(4) + 2, "df2": positive(4) + 4}, positive(3, 4)),
    ("Bernoulli", {"probs": unit(4)}, RNG.integers(0, 2, (3, 4)).astype(float)),
    ("Bernoulli", {"logits": real(4)}, RNG.integers(0, 2, (3, 4)).astype(float)),
    ("Geometric", {"probs": unit(4)}, RNG.integers(0, 6, (3, 4)).astype(float)),
    ("Binomial", {"total_count": np.full(4, 7.0), "probs": unit(4)}, RNG.integers(0, 8, (3, 4)).astype(float)),
    (
        "NegativeBinomial",
        {"total_count": positive(4), "logits": -positive(4)},
        RNG.integers(0, 5, (3, 4)).astype(float),
    ),
    ("Poisson", {"rate": positive(4)}, RNG.integers(0, 5, (3, 4)).astype(float)),
    ("Categorical", {"probs": unit(4, 5)}, RNG.integers(0, 5, (3, 4))),
    ("Categorical", {"logits": real(4, 5)}, RNG.integers(0, 5, (3, 4))),
    ("OneHotCategorical", {"logits": real(4, 5)}, np.eye(5)[RNG.integers(0, 5, (3, 4))]),
    ("MultivariateNormal", {"loc": real(2, 3), "covariance_matrix": covariance(2, 3, 3)}, real(4, 2, 3)),
    ("MultivariateNormal", {"loc": real(3), "precision_matrix": covariance(2, 3, 3)}, real(4, 2, 3)),
    ("MultivariateNormal", {"loc": real(3), "scale_tril": np.linalg.cholesky(covariance(3, 3))}, real(4, 3)),
    ("Weibull", {"scale": positive(4), "concentration": positive(4)}, positive(3, 4)),
    ("Pareto", {"scale": positive(4) / 8, "alpha": positive(4) + 2}, positive(3, 4)),
    ("Kumaraswamy", {"concentration1": positive(4), "concentration0": positive(4)}, unit(3, 4)),
    ("ContinuousBernoulli", {"probs": np.array([0.2, 0.4995, 0.5, 0.8])}, unit(3, 4)),
    ("ContinuousBernoulli", {"logits": real(4)}, unit(3, 4)),
    ("VonMises", {"loc": real(4) / 2, "concentration": positive(4)}, RNG.uniform(-3, 3, (3, 4))),
    (
        "LowRankMultivariateNormal",
        {"loc": real(2, 5), "cov_factor": real(2, 5, 2), "cov_diag": positive(2, 5)},
        real(3, 2, 5),
    ),
    ("Wishart", {"df": positive(2) + 6, "covariance_matrix": covariance(2, 3, 3)}, covariance(4, 2, 3, 3)),
    ("Wishart", {"df": positive(2) + 6, "precision_matrix": covariance(2, 3, 3)}, covariance(4, 2, 3, 3)),
]
IDS = [f"{name}-{'-'.join(p)}" for name, p, _ in CASES]
PROPERTIES = ("mean", "variance", "stddev", "mode")


def make(library, name, parameters, tensor, **options):
    return getattr(library, name)(**{k: tensor(v) for k, v in parameters.items()}, **options)


@pytest.mark.parametrize(("name", "parameters", "value"), CASES, ids=IDS)
def test_against_pytorch(name, parameters, value):
    torch = pytest.importorskip("torch")
    mine_p = {k: gg.tensor(v, requires_grad=True) for k, v in parameters.items()}
    theirs_p = {k: torch.tensor(v, requires_grad=True) for k, v in parameters.items()}
    mine, theirs = getattr(D, name)(**mine_p), getattr(torch.distributions, name)(**theirs_p)
    assert tuple(mine.batch_shape) == tuple(theirs.batch_shape)
    assert tuple(mine.event_shape) == tuple(theirs.event_shape)
    assert mine.has_enumerate_support or not theirs.has_enumerate_support or name == "Binomial"
    got, want = mine.log_prob(gg.tensor(value)), theirs.log_prob(torch.tensor(value))
    exact = 1e-6 if name == "VonMises" else 1e-9  # PyTorch's Bessel functions are fits with that error
    np.testing.assert_allclose(got.detach().numpy(), want.detach().numpy(), rtol=exact, atol=1e-12)
    got.sum().backward()
    want.sum().backward()
    for k in parameters:
        if theirs_p[k].grad is not None and k != "total_count":
            np.testing.assert_allclose(
                mine_p[k].grad.numpy(), theirs_p[k].grad.numpy(), rtol=10 * exact, atol=1e-10, err_msg=k
            )
    for what in (*PROPERTIES, "entropy"):
        try:
            want = getattr(theirs, what)
            want = want() if callable(want) else want
        except NotImplementedError:
            continue
        got = getattr(mine, what)
        got = got() if callable(got) else got
        if (name, what) == ("Kumaraswamy", "mode"):
            continue  # NaN in PyTorch, see test_kumaraswamy_mode
        np.testing.assert_allclose(
            got.detach().numpy(), want.detach().numpy(), rtol=10 * exact, atol=1e-10, err_msg=what
        )
    for what in ("cdf", "icdf"):
        at = value if what == "cdf" else unit(*theirs.mean.shape)
        try:
            want = getattr(theirs, what)(torch.tensor(at))
        except NotImplementedError:
            continue
        got = getattr(mine, what)(gg.tensor(at))
        np.testing.assert_allclose(got.detach().numpy(), want.detach().numpy(), rtol=1e-7, atol=1e-9, err_msg=what)
    wider = mine.expand((3, *mine.batch_shape))
    assert wider.log_prob(gg.tensor(value[:1])).shape[0] == 3 and tuple(wider.batch_shape)[0] == 3


@pytest.mark.parametrize(("name", "parameters", "value"), CASES, ids=IDS)
def test_samples(name, parameters, value, device):
    """Shapes; values in the support; the mean of many within five standard errors of the mean."""
    gg.manual_seed(11)
    d = make(D, name, parameters, lambda v: gg.tensor(v, dtype=gg.float32, device=device), validate_args=False)
    with gg.device(device):
        s = d.sample((2000,))
        assert tuple(s.shape) == (2000, *d.batch_shape, *d.event_shape) and s.device.type == device
        assert not s.requires_grad
        if name not in ("MultivariateNormal", "Wishart"):
            assert d.support.check(s).all().item()
        if name in ("Cauchy", "HalfCauchy", "Categorical", "FisherSnedecor", "LogNormal", "VonMises"):
            return
        mean, sigma = s.float().mean(0).cpu().numpy(), d.stddev.cpu().numpy()
    np.testing.assert_array_less(np.abs(mean - d.mean.cpu().numpy()), 5 * sigma / math.sqrt(2000) + 1e-6)


def test_same_samples_on_every_device(device):
    if device == "cpu":
        pytest.skip("the CPU is the reference")
    for name, parameters in (("Normal", {"loc": real(4), "scale": positive(4)}), ("Bernoulli", {"probs": unit(4)})):
        drawn = []
        for place in ("cpu", device):
            gg.manual_seed(5)
            d = make(D, name, parameters, lambda v, p=place: gg.tensor(v, dtype=gg.float32, device=p))
            drawn.append(d.sample((50,)))
        np.testing.assert_allclose(drawn[1].cpu().numpy(), drawn[0].numpy(), rtol=1e-6)


@pytest.mark.parametrize("name", ["Normal", "Laplace", "Gumbel", "Uniform", "Exponential", "HalfNormal"])
def test_reparametrised_gradient(name, device):
    """d(mean of samples)/d(parameter) is near d(mean)/d(parameter)."""
    gg.manual_seed(2)
    arrays = next(p for n, p, _ in CASES if n == name)
    values = {k: np.full(1, v[0] / (4 if k == "scale" else 1)) for k, v in arrays.items()}
    parameters = {k: gg.tensor(v, dtype=gg.float32, device=device, requires_grad=True) for k, v in values.items()}
    d = getattr(D, name)(**parameters)
    grads = gg.autograd.grad(d.rsample((8000,)).mean(), list(parameters.values()), allow_unused=True)
    exact = gg.autograd.grad(d.mean.sum(), list(parameters.values()), allow_unused=True)
    for got, want in zip(grads, exact, strict=True):
        assert abs(got.item() - (0.0 if want is None else want.item())) < 0.1


PAIRS = [
    ("Normal", ("loc", "scale")), ("Laplace", ("loc", "scale")), ("LogNormal", ("loc", "scale")),
    ("Gamma", ("concentration", "rate")), ("Beta", ("concentration1", "concentration0")), ("Exponential", ("rate",)),
    ("HalfNormal", ("scale",)), ("Poisson", ("rate",)), ("Bernoulli", ("probs",)), ("Geometric", ("probs",)),
    ("Dirichlet", ("concentration",)), ("Categorical", ("logits",)), ("OneHotCategorical", ("logits",)),
    ("MultivariateNormal", ("loc", "scale_tril")),
]  # fmt: skip


@pytest.mark.parametrize(("name", "names"), PAIRS, ids=[p[0] for p in PAIRS])
def test_divergence(name, names):
    torch = pytest.importorskip("torch")

    def value(k):
        if k == "scale_tril":
            return np.linalg.cholesky(covariance(2, 3, 3))
        wide = name in ("Dirichlet", "Categorical", "OneHotCategorical", "MultivariateNormal")
        shape = (2, 3) if wide else (5,)
        return unit(*shape) if k == "probs" else real(*shape) if k in ("loc", "logits") else positive(*shape)

    p, q = ({k: value(k) for k in names} for _ in range(2))
    got = D.kl_divergence(make(D, name, p, gg.tensor), make(D, name, q, gg.tensor))
    kl = torch.distributions.kl_divergence
    want = kl(make(torch.distributions, name, p, torch.tensor), make(torch.distributions, name, q, torch.tensor))
    np.testing.assert_allclose(got.numpy(), want.numpy(), rtol=1e-9, atol=1e-12)


def test_divergence_without_a_rule():
    with pytest.raises(NotImplementedError, match="Normal and Poisson"):
        D.kl_divergence(D.Normal(0.0, 1.0), D.Poisson(1.0))

    class Special(D.Normal):
        pass

    @D.register_kl(Special, D.Normal)
    def _(p, q):
        return gg.tensor(42.0)

    assert D.kl_divergence(Special(0.0, 1.0), D.Normal(0.0, 1.0)).item() == 42
    assert D.kl_divergence(D.Normal(0.0, 1.0), Special(0.0, 1.0)).item() == 0


TRANSFORMS = [
    ("ExpTransform", (), real(3, 4)),
    ("SigmoidTransform", (), real(3, 4)),
    ("TanhTransform", (), real(3, 4)),
    ("SoftplusTransform", (), real(3, 4)),
    ("AffineTransform", (0.5, -2.0), real(3, 4)),
    ("PowerTransform", (2.5,), positive(3, 4)),
    ("StickBreakingTransform", (), real(3, 4)),
    ("ReshapeTransform", ((4,), (2, 2)), real(3, 4)),
]


@pytest.mark.parametrize(("name", "arguments", "x"), TRANSFORMS, ids=[t[0] for t in TRANSFORMS])
def test_transforms(name, arguments, x):
    torch = pytest.importorskip("torch")
    mine = getattr(D, name)(*arguments)
    theirs = getattr(torch.distributions, name)(*[torch.tensor(a) if isinstance(a, float) else a for a in arguments])
    a, b = gg.tensor(x), torch.tensor(x)
    y, z = mine(a), theirs(b)
    np.testing.assert_allclose(y.numpy(), z.numpy(), rtol=1e-9)
    np.testing.assert_allclose(mine.inv(y).numpy(), x, rtol=1e-7, atol=1e-9)
    want = theirs.log_abs_det_jacobian(b, z).numpy()
    np.testing.assert_allclose(mine.log_abs_det_jacobian(a, y).numpy(), want, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(mine.inv.log_abs_det_jacobian(y, a).numpy(), -want, rtol=1e-6, atol=1e-8)


def build(library, distributions, tensor):
    """Distributions made of others, as a list."""
    d, t = distributions, tensor
    base = d.Normal(t([[0.0, 1.0, -1.0], [0.5, 0.2, 0.1]]), t([[1.0, 2.0, 0.5], [1.0, 1.0, 1.0]]))
    mixture = d.MixtureSameFamily(d.Categorical(t([[0.2, 0.3, 0.5], [0.1, 0.1, 0.8]])), base)
    squashed = d.TransformedDistribution(base, [d.TanhTransform(), d.AffineTransform(1.0, 3.0)])
    vectors = d.MixtureSameFamily(d.Categorical(t([0.4, 0.6])), d.Independent(base, 1))
    return [d.Independent(base, 1), mixture, squashed, d.Independent(squashed, 1), vectors]


def test_composed():
    torch = pytest.importorskip("torch")
    mine = build(gg, D, lambda v: gg.tensor(v, dtype=gg.float64))
    theirs = build(torch, torch.distributions, lambda v: torch.tensor(v, dtype=torch.float64))
    for a, b in zip(mine, theirs, strict=True):
        assert tuple(a.batch_shape) == tuple(b.batch_shape) and tuple(a.event_shape) == tuple(b.event_shape)
        shape = (4, *b.batch_shape, *b.event_shape)
        x = RNG.uniform(0.0, 1.0, shape)
        got, want = a.log_prob(gg.tensor(x)), b.log_prob(torch.tensor(x))
        np.testing.assert_allclose(got.numpy(), want.numpy(), rtol=1e-9)
        assert tuple(a.sample((7, 2)).shape) == tuple(b.sample((7, 2)).shape)
        for what in ("mean", "variance"):
            try:
                want = getattr(b, what)
            except NotImplementedError:
                continue
            np.testing.assert_allclose(getattr(a, what).numpy(), want.numpy(), rtol=1e-9)
    np.testing.assert_allclose(
        mine[1].cdf(gg.tensor([0.3, 0.4])).numpy(), theirs[1].cdf(torch.tensor([0.3, 0.4])).numpy(), rtol=1e-6
    )


@pytest.mark.parametrize("name", ["RelaxedBernoulli", "RelaxedOneHotCategorical"])
def test_relaxed(name):
    torch = pytest.importorskip("torch")
    logits = real(4, 3)
    value = unit(2, 4, 3) if name == "RelaxedBernoulli" else RNG.dirichlet(np.ones(3), (2, 4))
    mine = getattr(D, name)(gg.tensor(0.7, dtype=gg.float64), logits=gg.tensor(logits, requires_grad=True))
    theirs = getattr(torch.distributions, name)(torch.tensor(0.7, dtype=torch.float64), logits=torch.tensor(logits))
    got, want = mine.log_prob(gg.tensor(value)), theirs.log_prob(torch.tensor(value))
    np.testing.assert_allclose(got.detach().numpy(), want.numpy(), rtol=1e-8)
    assert mine.rsample((5,)).requires_grad


def test_multinomial_counts():
    torch = pytest.importorskip("torch")
    probs = np.array([[0.2, 0.3, 0.5], [0.1, 0.8, 0.1]])
    mine, theirs = D.Multinomial(6, gg.tensor(probs)), torch.distributions.Multinomial(6, torch.tensor(probs))
    counts = np.array([[1.0, 2.0, 3.0], [0.0, 6.0, 0.0]])
    np.testing.assert_allclose(
        mine.log_prob(gg.tensor(counts)).numpy(), theirs.log_prob(torch.tensor(counts)).numpy(), rtol=1e-9
    )
    drawn = mine.sample((100,))
    assert tuple(drawn.shape) == (100, 2, 3) and (drawn.sum(-1) == 6).all()


def test_straight_through():
    logits = gg.zeros(3, requires_grad=True)
    sample = D.OneHotCategoricalStraightThrough(logits=logits).rsample()
    assert sorted(sample.detach().round().tolist()) == [0, 0, 1]
    (sample * gg.tensor([1.0, 2.0, 3.0])).sum().backward()
    assert logits.grad.abs().sum().item() > 0


def test_enumerated_support():
    assert D.Categorical(gg.ones(2, 3)).enumerate_support().tolist() == [[0, 0], [1, 1], [2, 2]]
    assert D.Bernoulli(gg.tensor([0.5])).enumerate_support(expand=False).tolist() == [[0], [1]]
    assert tuple(D.OneHotCategorical(gg.ones(3)).enumerate_support().shape) == (3, 3)
    with pytest.raises(NotImplementedError, match="no finite support"):
        D.Normal(0.0, 1.0).enumerate_support()


def test_mistakes():
    with pytest.raises(ValueError, match="scale.*GreaterThan"):
        D.Normal(0.0, -1.0)
    with pytest.raises(ValueError, match="outside the support"):
        D.Exponential(1.0).log_prob(gg.tensor(-1.0))
    with pytest.raises(ValueError, match="probs or logits"):
        D.Bernoulli(probs=gg.tensor(0.5), logits=gg.tensor(0.0))
    with pytest.raises(ValueError, match="not negative|negative"):
        D.Categorical(gg.tensor([-1.0, 2.0]))
    with pytest.raises(ValueError, match="low must be below"):
        D.Uniform(1.0, 0.0)
    with pytest.raises(NotImplementedError, match="reparametrised"):
        D.Poisson(1.0).rsample()
    assert D.Normal(0.0, -1.0, validate_args=False).scale.item() == -1
    assert repr(D.Normal(0.0, 1.0)) == "Normal(loc: 0.0, scale: 1.0)"
