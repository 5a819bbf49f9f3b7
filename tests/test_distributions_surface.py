"""What distributions tell of themselves besides densities, as expressions, against PyTorch's: parametrisations,
moments, expanded and composed ones, transforms and what they do to shapes, divergences of composed ones, refusals.
"""

from __future__ import annotations

import numpy as np
import pytest

import gpugrad as gg
from tests.test_less_used import agree

VALUES = [
    "D.MultivariateNormal(v, scale_tril=L).covariance_matrix",
    "D.MultivariateNormal(v, scale_tril=L).precision_matrix",
    "D.MultivariateNormal(v, covariance_matrix=S).scale_tril",
    "D.MultivariateNormal(v, precision_matrix=S).scale_tril",
    "D.MultivariateNormal(v, precision_matrix=S).covariance_matrix", "D.MultivariateNormal(m, S).precision_matrix",
    "D.MultivariateNormal(m, S).expand((4, 2)).covariance_matrix", "D.MultivariateNormal(v, S).mode",
    "D.LowRankMultivariateNormal(v, C, d).covariance_matrix", "D.LowRankMultivariateNormal(v, C, d).precision_matrix",
    "D.LowRankMultivariateNormal(v, C, d).scale_tril", "D.LowRankMultivariateNormal(v, C, d).variance",
    "D.LowRankMultivariateNormal(v, C, d).expand((2,)).log_prob(m)", "D.LowRankMultivariateNormal(v, C, d).entropy()",
    "D.Wishart(wide, covariance_matrix=S).precision_matrix", "D.Wishart(wide, precision_matrix=S).covariance_matrix",
    "D.Wishart(wide, scale_tril=L).covariance_matrix", "D.Wishart(wide, precision_matrix=S).scale_tril",
    "D.Wishart(wide, covariance_matrix=S).mean", "D.Wishart(wide, covariance_matrix=S).log_prob(S + T.eye(3))",
    "D.Independent(D.Normal(m, 1 + m * m), 1).log_prob(m)", "D.Independent(D.Normal(m, 1 + m * m), 1).entropy()",
    "D.Independent(D.Normal(m, 1 + m * m), 1).mode", "D.Independent(D.Normal(m, 1.0), 1).expand((4, 2)).batch_shape",
    "D.Independent(D.Normal(m, 1.0), 1).has_rsample, D.Independent(D.Bernoulli(p), 1).has_rsample",
    "D.Independent(D.Normal(m, 1.0), 1).rsample((5,)).shape", "D.Independent(D.Normal(m, 2.0), 2).variance",
    "D.MixtureSameFamily(D.Categorical(p), D.Normal(v, 1.0)).mean",
    "D.MixtureSameFamily(D.Categorical(p), D.Normal(v, 1.0)).variance",
    "D.MixtureSameFamily(D.Categorical(p), D.Normal(v, 1.0)).cdf(v)",
    "D.MixtureSameFamily(D.Categorical(p), D.Normal(v, 1.0)).log_prob(v)",
    "D.MixtureSameFamily(D.Categorical(p), D.Independent(D.Normal(S, 1.0), 1)).expand((2,)).log_prob(m)",
    "D.OneHotCategorical(p).logits", "D.OneHotCategorical(p).probs", "D.OneHotCategorical(p).param_shape",
    "D.OneHotCategorical((S * S) / (S * S).sum(1, keepdim=True)).mean",
    "D.RelaxedOneHotCategorical(T.tensor(0.5), p).logits", "D.RelaxedOneHotCategorical(T.tensor(0.5), p).probs",
    "D.RelaxedOneHotCategorical(T.tensor(0.5), p).expand((2,)).batch_shape",
    "D.Bernoulli(p).param_shape, D.Categorical(p).param_shape",
    "D.Multinomial(4, p).expand((2,)).log_prob(T.tensor([1.0, 1.0, 2.0]))",
    "D.Multinomial(4, p).mean, D.Multinomial(4, p).variance", "D.Multinomial(4, p).param_shape",
    "D.Multinomial(4, logits=m).logits", "D.Categorical(p).expand((2,)).log_prob(T.tensor([0, 2]))",
    "D.Categorical(T.ones(0, 3), validate_args=False).sample((2,)).shape",
    "D.LogNormal(v, 1.0).loc, D.LogNormal(v, 1.0).scale", "D.Normal(v, d).perplexity()",
    "D.Categorical(p).perplexity()", "D.Normal(v, d).stddev", "D.Normal(v, d).mode",
    "D.HalfNormal(d).scale, D.HalfCauchy(d).scale", "D.Laplace(v, d).mode, D.Gumbel(v, d).mode, D.Cauchy(v, d).mode",
    "D.ContinuousBernoulli(p).param_shape", "D.Poisson(d).mode, D.Geometric(p).mode", "D.VonMises(v, d).mode",
    "D.kl_divergence(D.Uniform(v, v + 1), D.Uniform(v - 1, v + 2))",
    "D.kl_divergence(D.Uniform(v, v + 1), D.Uniform(v + 0.5, v + 2))",
    "D.kl_divergence(D.Binomial(3, p), D.Binomial(3, p / 2))",
    "D.kl_divergence(D.Binomial(4, p), D.Binomial(3, p / 2))",
    "D.kl_divergence(D.LogNormal(v, d), D.LogNormal(v + 1, d))",
    "D.kl_divergence(D.Independent(D.Normal(m, 1.0), 1), D.Independent(D.Normal(m + 1, 2.0), 1))",
    "D.kl_divergence(D.TransformedDistribution(D.Normal(m, d), [t.ExpTransform()]), "
    "D.TransformedDistribution(D.Normal(m + 1, d), [t.ExpTransform()]))",
    "D.TransformedDistribution(D.Normal(m, d), [t.AffineTransform(1.0, 2.0)]).expand((4, 2, 3)).log_prob(m)",
    "D.TransformedDistribution(D.Normal(v, d), []).support == D.Normal(v, d).support",
    "D.TransformedDistribution(D.Normal(v, d), t.SigmoidTransform()).cdf(p), "
    "D.TransformedDistribution(D.Normal(v, d), [t.SigmoidTransform()]).icdf(p)",
    "D.TransformedDistribution(D.Normal(v, d), [t.AffineTransform(0.0, -2.0)]).cdf(v)",
    "D.transforms.identity_transform.inv(v)", "D.biject_to(D.constraints.simplex)(v[:2])",
    "t.AbsTransform()(v - 2), t.AbsTransform().inv(v)", "t.ExpTransform().inv.inv(v), t.ExpTransform().inv.sign",
    "t.ExpTransform() == t.ExpTransform(), t.ExpTransform() == t.SigmoidTransform(), t.ExpTransform() == 3",
    "t.AffineTransform(v, 2.0) == t.AffineTransform(v, 2.0), t.AffineTransform(v, "
    "2.0) == t.AffineTransform(v + 1, 2.0)",
    "t.PowerTransform(T.tensor(2.0)) == t.PowerTransform(T.tensor(2.0)), "
    "t.PowerTransform(2.0) != t.PowerTransform(3.0)",
    "t.StickBreakingTransform().forward_shape((2, 3)), t.StickBreakingTransform().inverse_shape((2, 3))",
    "t.CorrCholeskyTransform().forward_shape((2, 3)), t.CorrCholeskyTransform().inverse_shape((2, 3, 3))",
    "t.ReshapeTransform((6,), (2, 3)).forward_shape((4, 6)), t.ReshapeTransform((6,), (2, "
    "3)).inverse_shape((4, 2, 3))",
    "t.ReshapeTransform((3,), (3, 1))(m), t.ReshapeTransform((3,), (3, 1)).log_abs_det_jacobian(m, m[..., None])",
    "t.IndependentTransform(t.AffineTransform(0.0, -2.0), 1).sign, "
    "t.IndependentTransform(t.ExpTransform(), 1).log_abs_det_jacobian(m, m.exp())",
    "t.ComposeTransform([t.ExpTransform(), t.AffineTransform(1.0, 3.0)]).inv(m.exp() + 5)",
    "t.CatTransform([t.ExpTransform(), t.AffineTransform(0.0, 2.0)], dim=1, lengths=[1, 2])(m)",
    "t.CatTransform([t.ExpTransform(), t.AffineTransform(0.0, 2.0)], dim=1, lengths=[1, "
    "2]).log_abs_det_jacobian(m, m)",
    "t.StackTransform([t.ExpTransform(), t.AffineTransform(0.0, 2.0)], dim=0)(m)",
    "t.StackTransform([t.ExpTransform(), t.AffineTransform(0.0, 2.0)], dim=0).log_abs_det_jacobian(m, m)",
    "t.SoftmaxTransform()(m), t.SoftmaxTransform().inv(m.exp())", "t.TanhTransform()(m), t.SoftplusTransform()(m)",
    "t.LowerCholeskyTransform()(S), t.PositiveDefiniteTransform()(S)",
    "D.utils.lazy_property.__get__(D.utils.lazy_property(len), None) is not None", "D.Beta(d, d).expand((2, 3)).mean",
    "D.constraints.dependent_property(len, is_discrete=True, event_dim=1).event_dim",
    "D.Kumaraswamy(d, d).mean, D.Pareto(d, d).mode, D.Weibull(d, d).mode",
]  # fmt: skip

REPRS = [
    "D.Normal(0.0, 1.0)", "D.Independent(D.Normal(0.0, 1.0), 0)", "D.Uniform(0.0, 2.0)", "t.AffineTransform(1.0, 2.0)",
    "t.ComposeTransform([t.ExpTransform()])", "D.constraints.interval(0.0, 1.0)",
]  # fmt: skip

REFUSED = [
    ("D.Independent(D.Normal(v, 1.0), 2)", ValueError, "2"),
    ("D.MixtureSameFamily(D.Normal(v, 1.0), D.Normal(v, 1.0))", ValueError, "Categorical"),
    ("D.MixtureSameFamily(D.Categorical(p), D.Normal(m[:, :2], 1.0))", ValueError, "MixtureSameFamily"),
    ("D.MixtureSameFamily(D.Categorical(p), 3)", ValueError, "MixtureSameFamily"),
    ("D.Geometric(T.zeros(2))", ValueError, "Geometric"),
    ("D.Categorical(T.tensor(1.0))", ValueError, "at least one dimension"),
    ("D.Dirichlet(T.tensor(1.0))", ValueError, "at least one dimension"),
    ("D.Distribution.set_default_validate_args('yes')", ValueError, "True or False"),
    ("D.Normal(v, 1.0).log_prob(3.0)", ValueError, "must be a Tensor"),
    ("D.Normal(v, 1.0).width", AttributeError, "width"),
    ("D.MultivariateNormal(T.tensor(1.0), S)", ValueError, "at least one dimension"),
    ("D.MultivariateNormal(v, v)", ValueError, "at least two dimensions"),
    ("D.MultivariateNormal(v, S).width", AttributeError, "width"),
    ("D.Wishart(wide, v)", ValueError, "at least two dimensions"),
    ("D.Wishart(wide, S).width", AttributeError, "width"),
    ("D.LowRankMultivariateNormal(v, C[:2], d)", ValueError, "LowRankMultivariateNormal"),
    ("D.kl_divergence(D.Independent(D.Normal(m, 1.0), 1), D.Independent(D.Normal(S[:2], 1.0), 2))", Exception, ""),
    ("D.kl_divergence(D.TransformedDistribution(D.Normal(v, d), [t.ExpTransform()]), "
     "D.TransformedDistribution(D.Normal(v, d), [t.SigmoidTransform()]))", NotImplementedError, "different transforms"),
    ("t.CatTransform([t.ExpTransform()], lengths=[1, 2])", (ValueError, AssertionError), "2 lengths for 1"),
    ("t.CatTransform([t.ExpTransform()], lengths=[2])(v)", (ValueError, AssertionError), "CatTransform"),
    ("t.StackTransform([t.ExpTransform()])(v)", (ValueError, AssertionError), "StackTransform"),
    ("t.CorrCholeskyTransform().inverse_shape((2, 3))", ValueError, "square"),
    ("t.ReshapeTransform((2,), (3,))", ValueError, "different numbers of elements"),
    ("t.Nothing", AttributeError, "Nothing"),
    ("D.utils.broadcast_all('a')", ValueError, "tensors and numbers"),
    ("D.Categorical(p).expand((2,)).log_prob(T.tensor([0, 7]))", ValueError, "Categorical"),
]  # fmt: skip


def names(library):
    T, D = library, library.distributions
    rng = np.random.default_rng(5)
    a = rng.standard_normal((3, 3))
    S = a @ a.T + np.eye(3)

    def tensor(array):
        return T.tensor(array.tolist())

    return {
        "T": T, "D": D, "t": D.transforms, "v": T.tensor([0.5, 1.5, 2.5]), "p": T.tensor([0.2, 0.5, 0.3]),
        "d": T.tensor([1.5, 0.7, 2.0]), "m": tensor(rng.standard_normal((2, 3))), "S": tensor(S),
        "L": tensor(np.linalg.cholesky(S)), "C": tensor(rng.standard_normal((3, 2))), "wide": T.tensor(5.0),
    }  # fmt: skip


def plain(value):
    if type(value).__name__ in ("Tensor", "Parameter"):
        return value.detach().numpy()
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    return value


@pytest.mark.parametrize("expression", VALUES)
@pytest.mark.filterwarnings("ignore")
def test_as_pytorch(expression, torch):
    want = plain(eval(expression, names(torch)))
    agree(plain(eval(expression, names(gg))), want)


@pytest.mark.parametrize("expression", REPRS)
def test_repr_as_pytorch(expression, torch):
    want = repr(eval(expression, names(torch)))
    assert repr(eval(expression, names(gg))) == want


@pytest.mark.parametrize(("expression", "kind", "text"), REFUSED)
def test_refused(expression, kind, text, torch):
    with pytest.raises(kind) as caught:
        eval(expression, names(gg))
    assert text in str(caught.value)
    with pytest.raises(Exception):  # noqa: B017  # PyTorch's types and texts are its own
        eval(expression, names(torch))


def test_validation_is_switched_for_all():
    """And for one: its own argument wins."""
    D = gg.distributions
    before = D.Distribution._validate_args
    try:
        D.Distribution.set_default_validate_args(False)
        assert D.Normal(0.0, -1.0).scale.item() == -1.0
        with pytest.raises(ValueError, match="scale"):
            D.Normal(0.0, -1.0, validate_args=True)
        D.Distribution.set_default_validate_args(True)
        with pytest.raises(ValueError, match="scale"):
            D.Normal(0.0, -1.0)
    finally:
        D.Distribution.set_default_validate_args(before)


def test_lazy_properties_are_computed_once():
    calls = []

    class Holder:
        @gg.distributions.utils.lazy_property
        def value(self):
            """Its text."""
            calls.append(1)
            return 7

    holder = Holder()
    assert (holder.value, holder.value, len(calls)) == (7, 7, 1)
    assert Holder.value.__doc__ == "Its text."


def test_composed_ones_name_their_parts():
    """Where PyTorch's repr says nothing, or spreads over lines."""
    D = gg.distributions
    mixture = repr(D.MixtureSameFamily(D.Categorical(gg.ones(3) / 3), D.Normal(gg.zeros(3), 1.0)))
    assert mixture.startswith("MixtureSameFamily(Categorical(") and "Normal(" in mixture
    assert repr(D.LogNormal(0.0, 1.0)) == "LogNormal(Normal(loc: 0.0, scale: 1.0), [ExpTransform()])"
    assert repr(D.HalfNormal(1.0)) == "HalfNormal(scale: 1.0)"
    assert repr(D.transforms.ExpTransform().inv) == "ExpTransform().inv"


def test_a_reshaped_distribution(torch):
    """Its batch and event shapes follow from those of the transform."""
    results = []
    for library in (torch, gg):
        D = library.distributions
        base = D.Independent(D.Normal(library.zeros(4, 6), 1.0), 1)
        reshaped = D.TransformedDistribution(base, [D.transforms.ReshapeTransform((6,), (2, 3))])
        with pytest.raises(ValueError):
            reshaped.transforms[0].forward_shape((4, 5))
        results.append([tuple(reshaped.batch_shape), tuple(reshaped.event_shape), tuple(reshaped.sample((5,)).shape)])
        results[-1].append(reshaped.log_prob(library.ones(4, 2, 3)).tolist())
        parts = [D.transforms.ReshapeTransform((6,), (2, 3)), D.transforms.ExpTransform()]
        whole = D.transforms.ComposeTransform(parts)
        x = library.arange(24.0).reshape(4, 6) / 10
        results[-1][-1] += whole.log_abs_det_jacobian(x, whole(x)).tolist()
        chol = D.TransformedDistribution(base, [D.transforms.CorrCholeskyTransform()])
        results[-1][2] += tuple(chol.batch_shape) + tuple(chol.event_shape) + tuple(whole.inverse_shape((7, 2, 3)))
        stick = D.transforms.StickBreakingTransform().inv
        results[-1][2] += tuple(stick.forward_shape((5, 4))) + tuple(stick.inverse_shape((5, 4)))
        results[-1][-1] += chol.log_prob(D.transforms.CorrCholeskyTransform()(x)).tolist()
    assert results[1][:3] == results[0][:3]
    np.testing.assert_allclose(results[1][3], results[0][3], rtol=1e-5)


def test_old_names():
    assert gg.distributions.Normal(gg.zeros(2), 1.0).sample_n(3).shape == (3, 2)


def test_transforms_with_one_hash_are_told_apart():
    t = gg.distributions.transforms
    assert len({t.ExpTransform(), t.ExpTransform(), t.SigmoidTransform()}) == 2
