"""What few programs call, as expressions, against PyTorch: values, and what the containers of modules hold."""

from __future__ import annotations

import numpy as np
import pytest

import gpugrad as gg
from gpugrad import nn

FUNCTIONS = [
    "T.is_same_size(x, x), T.is_same_size(x, v)", "T.is_inference(x)", "T.detach(x)",
    "T.typename(x).split('.')[-1], T.typename(3)", "T.get_num_interop_threads() >= 1",
    "T.nn.functional.relu_(x - 1.5)", "T.cross(T.ones(3, 2), T.arange(6.0).reshape(3, 2), dim=0)",
    "T.linalg.cross(x, x + 1)", "T.cartesian_prod(v, v)", "T.chain_matmul(x, x.T, x)", "T.broadcast_tensors(x, v)",
    "T.take(x, T.tensor([[5, 0], [1, -1]]))", "T.take_along_dim(x, T.tensor([5, 0, 2]))",
    "T.repeat_interleave(T.zeros(0, dtype=T.int64))", "x.fill_(T.tensor(2.5))", "x.mT",
    "T.ones(2, 3).scatter_reduce(1, T.tensor([[0, 0, 1]]), T.tensor([[4.0, 5.0, -6.0]]), 'amin')",
    "T.trapezoid(v, dx=2.0), T.trapezoid(v, v * v)", "T.std(x, unbiased=False), T.var(x, 1, correction=0)",
    "T.mean(i, dtype=T.float64), T.mean(x, 0, dtype=T.float64)", "T.max(x, T.tensor(1.0))",
    "T.clamp(x, max=T.tensor([1.0, 0.5, 2.0]))", "T.clip(T.arange(-2.0, 3.0), max=1.0)", "x.clone().clamp_(max=1.5)",
    "x.clone().clamp_(min=2.5)", "x.clone().clamp_(min=1.0, max=2.0)", "T.round(x * 1.2345, decimals=2)",
    "(x * 1.2345).round_(decimals=1)", "T.where(x > 2)", "x.split([1, 2], 1)", "T.unsafe_split(x, 2, 1)",
    "T.unsafe_chunk(x, 2, 1)", "T.split(x, 2, 1)", "T.split_with_sizes(x, [1, 2], 1)",
    "T.unsafe_split_with_sizes(x, [1, 2], 1)", "T.histogramdd(T.zeros(0, 2), [2, 3])",
    "T.multinomial(T.ones(0, 4), 2).shape", "T.lu(A, get_infos=True)", "T.lu(A)[0]", "T.triangular_solve(x.T, A)",
    "T.triangular_solve(x.T, A, transpose=True)", "T.nuclear_norm(A), T.nuclear_norm(A, keepdim=True)",
    "T.frobenius_norm(A, (0, 1))", "T.linalg.multi_dot([x, A, x.T])", "T.pca_lowrank(A, 3, center=False)[1]",
    "T.svd_lowrank(A, 3, M=T.ones(3, 3))[1]", "T.linalg.vander(v)", "T.linalg.matrix_rank(A, tol=T.tensor(1))",
    "T.clamp_max(x, 2.0), T.clamp_min(x, 2.0)", "x.T.contiguous().is_contiguous()", "x.sgn()", "T.polygamma(0, v)",
    "T.searchsorted(v, T.tensor([1.5]), sorter=T.tensor([0, 1, 2]))", "T.range(0, 4)",
    "T.feature_dropout(x[None], 0.0, True)", "T.alpha_dropout_(x.clone(), 0.0, True)",
    "T.feature_dropout_(x[None].clone(), 0.0, True)", "T.feature_alpha_dropout(x[None], 0.0, True)",
    "T.feature_alpha_dropout_(x[None].clone(), 0.0, True)", "T.dropout_(x.clone(), 0.0, True)",
    "T.max_pool3d(im[:, None], 2)", "T.rnn_relu_cell(x, T.ones(2, 4), T.ones(4, 3), T.ones(4, 4))",
    "x.view(T.int32).view(T.float32)", "T.asarray(x), T.asarray([1.5, 2.0])", "T.as_tensor(x, dtype=T.float64)",
    "T.Tensor.H.__get__(A)", "x.itemsize, x.nbytes, x.ndim", "x.retain_grad() if x.requires_grad else 0",
    "T.nn.functional.log_softmax(x, 1, dtype=T.float64)", "x.output_nr", "x.is_sparse, x.is_quantized, x.is_meta",
    "x.resolve_conj(), x.resolve_neg()", "x.is_conj(), x.is_neg()", "T.empty(0).grad_fn", "x.is_set_to(x)",
    "T.gradient(T.arange(6.0) ** 2, spacing=2.0)", "T.unravel_index(T.tensor([4, 5]), (2, 3))",
    "T.finfo(T.float16).max, T.iinfo(T.int8).min", "x.sum_to_size(2, 1)", "T.logcumsumexp(v, 0)",
    "T.mvlgamma(v + 2, 2)", "T.special.xlog1py(x, 0)", "T.corrcoef(x * T.tensor([1.0, 5.0, 2.0]))",
    "T.ones_like(x, dtype=T.int32)", "T.adjoint(x)",
]  # fmt: skip

FUNCTIONALS = [
    "F.adaptive_max_pool1d(im[0], 3)", "F.adaptive_max_pool2d(im, (2, 3), return_indices=True)",
    "F.adaptive_max_pool3d(im, 2)", "F.max_pool1d_with_indices(im[0], 2)", "F.max_pool2d_with_indices(im, 2)",
    "F.max_pool3d_with_indices(im, 2)", "F.avg_pool1d(im[0], 3, 2, 1, count_include_pad=False)",
    "F.local_response_norm(im, 3)", "F.instance_norm(im, T.zeros(3), T.ones(3), use_input_stats=False)",
    "F.dropout2d(im, 0.5, training=False)", "F.alpha_dropout(x, 1.0)", "F.gaussian_nll_loss(x, x + 1, 2.0)",
    "F.grid_sample(im, T.zeros(1, 2, 2, 2), padding_mode='reflection', align_corners=True)",
    "F.grid_sample(im[..., :1, :1], T.ones(1, 2, 2, 2), padding_mode='reflection', align_corners=True)",
    "F.interpolate(im, scale_factor=0.5, mode='area')", "F.prelu(T.tensor(-1.0), T.tensor([0.5]))",
    "F.embedding_bag(T.tensor([0, 2], dtype=T.int32), A, T.tensor([0, 1]))", "F.mse_loss(x, x + 1, reduction='none')",
    "F.scaled_dot_product_attention(im, im, im)", "F.conv1d(im[0], T.ones(2, 6, 3), padding='same')",
    "F.fold(T.arange(16.0).reshape(1, 4, 4), (3, 3), 2)", "F.group_norm(T.zeros(0, 4, 2), 2)",
]  # fmt: skip

MODULES = [
    "nn.Softshrink(0.3)(x - 2), nn.Hardshrink(1.0)(x - 2)", "nn.Softmax2d()(im)", "nn.CosineSimilarity(1)(x, x + 1)",
    "nn.AvgPool1d(2)(im[0])", "nn.FractionalMaxPool2d(2, 3, _random_samples=T.full((1, 3, 2), 0.3))(im)",
    "nn.CrossMapLRN2d(3, 0.1)(im)", "nn.LocalResponseNorm(3, 0.1)(im)", "nn.Embedding.from_pretrained(A)(i)",
    "nn.Embedding(3, 3, _weight=A)(i)", "nn.EmbeddingBag.from_pretrained(A, max_norm=1.5)(i[None])",
    "sorted(k for k, _ in nn.Transformer(8, 2, 1, 1, 16).named_parameters())",
    "[tuple(p.shape) for p in nn.RNN(3, 2, bidirectional=True).parameters()]", "nn.utils.parameters_to_vector([x, v])",
    "nn.utils.clip_grad_norm_([], 1.0)", "nn.modules.utils._list_with_default([None, 4], [7, 8, 9])",
    "nn.modules.utils._list_with_default(3, [7])",
    "nn.init.calculate_gain('selu'), nn.init.calculate_gain('leaky_relu'), nn.init.calculate_gain('leaky_relu', 0.2)",
    "reset(nn.LayerNorm(3)), reset(nn.GroupNorm(1, 3)), reset(nn.RMSNorm(3))",
    "nn.utils.rnn.pack_sequence([v, v[:2]]).double().data.dtype == T.float64",
    "[getattr(nn.utils.rnn.pack_sequence([v]), k)().data for k in ('float', 'int', 'short', 'char', 'long', 'half')]",
    "nn.utils.rnn.pack_sequence([v[:1], v], enforce_sorted=False)[1:]",
    "nn.utils.rnn.unpad_sequence(nn.utils.rnn.pad_sequence([v, v[:2]]), T.tensor([3, 2]))",
]  # fmt: skip

REPRS = [
    "nn.Embedding(4, 2, max_norm=1.0, norm_type=1.0, scale_grad_by_freq=True)", "nn.Softshrink(0.25)",
    "nn.Hardshrink()", "nn.EmbeddingBag(4, 2, max_norm=1.0, norm_type=1.0, scale_grad_by_freq=True, mode='sum')",
    "nn.CrossMapLRN2d(3)", "nn.LocalResponseNorm(3)", "nn.ParameterDict({'b': 3})", "nn.FractionalMaxPool2d(2, 3)",
    "nn.Softmax2d()", "nn.ModuleDict({'a': nn.ReLU()})",
]  # fmt: skip


def names(library):
    T = library

    def reset(module):
        for p in module.parameters():
            p.data.fill_(3.0)
        module.reset_parameters()
        return [p.detach() for p in module.parameters()]

    rng = np.random.default_rng(3)
    make = (lambda a: T.tensor(a)) if library is gg else (lambda a: T.from_numpy(a.copy()))
    return {
        "T": T, "nn": T.nn, "F": T.nn.functional, "reset": reset, "v": T.tensor([1.0, 2.0, 3.0]), "i": T.tensor([0, 1]),
        "x": T.arange(1.0, 7.0).reshape(2, 3), "A": make(np.triu(rng.random((3, 3)) + 0.5).astype(np.float32)),
        "im": make(rng.standard_normal((1, 3, 6, 6, 6)[:4]).astype(np.float32)),
    }  # fmt: skip


def plain(value):
    """Tensors as arrays, and containers as lists."""
    if type(value).__module__.split(".")[0] in ("torch", "gpugrad") and hasattr(value, "detach"):
        value = value.detach()
        return (value.float() if "16" in str(value.dtype).split("float")[-1] else value).numpy()
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    return value


def agree(got, want):
    if isinstance(want, np.ndarray):
        assert isinstance(got, np.ndarray) and got.dtype == want.dtype and got.shape == want.shape
        np.testing.assert_allclose(got, want, rtol=2e-5, atol=1e-6)
    elif isinstance(want, list):
        assert isinstance(got, list) and len(got) == len(want)
        for a, b in zip(got, want, strict=True):
            agree(a, b)
    elif isinstance(want, float):
        assert got == pytest.approx(want)
    else:
        assert got == want


@pytest.mark.parametrize("expression", FUNCTIONS + FUNCTIONALS + MODULES)
@pytest.mark.filterwarnings("ignore")
def test_as_pytorch(expression, torch):
    agree(plain(eval(expression, names(gg))), plain(eval(expression, names(torch))))


@pytest.mark.parametrize("expression", REPRS)
def test_repr_as_pytorch(expression, torch):
    ours = repr(eval(expression, names(gg))).replace("gpugrad", "torch")
    assert ours == repr(eval(expression, names(torch)))


# -- containers -------------------------------------------------------------------------------------


def _story(library):
    """A life of each container, told by what it answers."""
    n = library.nn
    a, b, c = n.ReLU(), n.Tanh(), n.Sigmoid()
    modules = n.ModuleDict([("a", a), ("b", b)])
    story = [list(modules.keys()), list(modules.values()) == [a, b], [k for k, _ in modules.items()], "b" in modules]
    modules.update({"c": c, "a": b})
    story += [list(modules), modules.pop("c") is c, len(modules)]
    modules.update(n.ModuleDict({"z": a}))
    story += [list(modules)]
    modules.clear()
    story += [len(modules)]
    listed = n.ModuleList([a]) + n.ModuleList([b])
    story += [type(listed).__name__, list(listed) == [a, b], b in listed, c in listed]
    chain = n.Sequential(a) + n.Sequential(b, c)
    story += [len(chain), len(chain * 2), chain[1] is b, list(chain[1:]) == [b, c]]
    chain.insert(1, n.Identity())
    story += [[type(m).__name__ for m in chain]]
    chain.set_submodule("1", n.GELU())
    story += [type(chain[1]).__name__, [k for k, _ in chain.named_children()]]
    chain.register_module("last", c)
    story += [chain.last is c]
    p = n.ParameterDict({"w": library.ones(2), "k": 3})
    story += [len(p), list(p), list(p.keys()), "w" in p, [type(v).__name__ for v in p.values()], list(reversed(p))]
    story += [p.setdefault("k", 9), p.setdefault("q", 4), p.get("none", 7), [k for k, _ in p.items()]]
    other = p.copy()
    story += [p.popitem(), p.pop("k"), list(p), list(other)]
    joined = other | n.ParameterDict({"r": 1})
    story += [list(joined)]
    other.update([("s", 5)])
    story += [list(other), list(n.ParameterDict().fromkeys(["u", "v"], 2).items())]
    other.clear()
    story += [len(other)]
    numbers = n.ParameterList([library.ones(1), 5])
    numbers.append(library.zeros(2))
    numbers.extend([library.ones(3)])
    story += [len(numbers), [type(v).__name__ for v in numbers]]
    return story


def test_containers_as_pytorch(torch):
    assert _story(gg) == _story(torch)


def test_undefined_and_doubtful():
    """Names that hold nothing, and a module that is cast in one go."""
    model = nn.Linear(2, 2)
    model.extra = None
    assert model.extra is None
    model.register_parameter("later", None)
    model.later = None
    assert "later" not in dict(model.named_parameters())
    assert model.type(gg.float64).weight.dtype is gg.float64
    assert model.to_empty(device="cpu").weight.shape == (2, 2)
    assert all(p.dtype is gg.float64 for p in model.parameters())
    with pytest.raises(RuntimeError, match="get_extra_state is not defined"):
        model.get_extra_state()
    with pytest.raises(RuntimeError, match="set_extra_state is not defined"):
        model.set_extra_state({})
    child = nn.Sequential(nn.Linear(1, 1))
    setattr(child, "0", None)
    assert list(child._modules.values()) == [None]
