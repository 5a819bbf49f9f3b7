"""Wrong calls, as expressions: the type of the error, words of its text, and that PyTorch refuses them too."""

from __future__ import annotations

import warnings

import pytest

import gpugrad as gg

R, V, T_, X = RuntimeError, ValueError, TypeError, AssertionError
I_, A, K = IndexError, AttributeError, KeyError

FUNCTIONS = [
    ("T.vander(v, N=-1)", R, "N must not be negative"),
    ("T.combinations(v, r=-1)", R, "r must not be negative"),
    ("T.cartesian_prod()", R, "at least one tensor"),
    ("T.chain_matmul(x, v)", R, "expected matrices"),
    ("T.cross(T.ones(2, 2), T.ones(2, 2))", R, "cross"),
    ("T.unravel_index(i, T.tensor([2, 3]).float())", T_, "got a Tensor"),
    ("T.unravel_index(i, (2, -3))", V, "sizes must not be negative"),
    ("warned(lambda: T.range(3, 1))", R, "does not lead from 3 to 1"),
    ("T.arange(0, 5, 0.25, dtype=T.int64)", R, "step must not be zero"),
    ("T.max(x, x, keepdim=True)", T_, "not both"),
    ("T.multinomial(T.ones(2, 0), 1)", R, "0 weights"),
    ("T.trapezoid(v, v, dx=2.0)", T_, "not both"),
    ("T.gradient(x, dim=(0, 0))", R, "twice"),
    ("T.gather(v, 0, T.zeros(2, 2, dtype=T.int64))", R, "gather"),
    ("x.scatter_add(1, T.zeros(3, 1, dtype=T.int64), T.ones(3, 1))", R, "no larger except"),
    ("x.scatter(0, i[None, :])", T_, "src or value"),
    ("x.index_add(0, T.zeros(2, 2, dtype=T.int64), x)", I_, "0-d or 1-d"),
    ("T.ones(0).put(T.tensor([0]), T.tensor([1.0]))", I_, "without elements"),
    ("x.masked_scatter(x > 0, x.double())", R, "dtype of the tensor"),
    ("x.masked_scatter(T.ones(4, dtype=T.bool), x)", R, "masked_scatter"),
    ("F.one_hot(T.zeros(0, dtype=T.int64))", R, "num_classes must be given"),
    ("F.one_hot(v)", R, "integers"),
    ("T.histogram(v, v.double())", R, "edges must be 1-d"),
    ("T.histogramdd(v, [2])", R, "histogramdd"),
    ("T.histogramdd(x, [2, 3])", R, "2 bins for points of 3"),
    ("T.histogramdd(x, [2, 2, 2], range=[0.0, 1.0])", R, "lower and an upper bound"),
    ("T.segment_reduce(x, 'sum', lengths=T.ones(1, 2))", R, "segment_reduce"),
    ("T.searchsorted(v, v, sorter=T.tensor([0, 1, 7]))", R, "positions of the sequence"),
    ("T.polygamma(1.5, v)", T_, "order n must be an int"),
    ("T.tensor_split(v)", T_, "indices or sections"),
    ("T.tensor_split(v, T.ones(2, 2, dtype=T.int64))", R, "tensor_split"),
    ("T.std(x, True, unbiased=False)", T_, "unbiased"),
    ("T.std(x, 0, unbiased=True, correction=0)", T_, "not both"),
    ("T.cov(x, fweights=T.ones(2, 2, dtype=T.int64))", R, "one weight per column"),
    ("T.corrcoef(im)", R, "at most two dimensions"),
    ("T.as_strided(v, (2, 2), (1,))", R, "do not fit together"),
    ("x.index_put((), v)", R, "index"),
    ("T.take(T.ones(0), i)", I_, "without elements"),
    ("T.take_along_dim(x, T.zeros(3, 3, dtype=T.int64), 1)", R, "take_along_dim"),
    ("T.repeat_interleave(x.long())", R, "must be 1-d"),
    ("T.repeat_interleave(v, v)", R, "int32 or int64"),
    ("T.repeat_interleave(v, T.tensor([1, -1, 1]))", R, "must not be negative"),
    ("T.repeat_interleave(v, 2, output_size=7)", R, "output_size 7"),
    ("T.masked_select(x, T.ones(4, dtype=T.bool))", R, "masked_select"),
    ("F.pad(x, (1, 1), mode='reflect', value=2.0)", R, "mode constant"),
    ("T.meshgrid()", R, "at least one tensor"),
    ("T.addbmm(x, x, x)", R, "addbmm"),
    ("T.adjoint(v)", R, "no second dimension"),
    ("T.broadcast_shapes((2, -3), (1,))", R, "must not be negative"),
    ("T.unflatten(v, 0, ())", R, "must not be empty"),
    ("T.div(v, v, rounding_mode='up')", R, "rounding_mode"),
    ("T.einsum()", V, "equation and operands"),
    ("T.einsum('ii->i', x)", R, "sizes 2 and 3"),
    ("T.ones()", T_, "size is missing"),
    ("T.cdist(T.ones(2, 3, 4), T.ones(3, 3, 4))", R, "do not broadcast"),
    ("T.slice_scatter(x, x, 0, step=-1)", R, "step must be positive"),
    ("T.promote_types(T.bfloat16, T.qint8)", (T_, A), "qint8"),
    ("T.finfo(T.int32)", T_, "finfo"),
    ("T.randint(2)", T_, "randint"),
    ("T.set_float32_matmul_precision('most')", R, "highest, high or medium"),
    ("T.set_num_interop_threads(0)", R, "set_num_interop_threads"),
    ("T.tensor(2.0) @ x", R, "matmul"),
    ("T.tensor([2**70])", (R, V), "does not fit"),
    ("T.signal.windows.general_cosine(3, a=0.5)", T_, "list of numbers"),
    ("T.signal.windows.general_cosine(3, a=[])", V, "at least one number"),
    ("T.signal.windows.exponential(3, tau=-1.0)", V, "tau must be positive"),
    ("T.signal.windows.kaiser(3, beta=-1.0)", V, "beta must not be negative"),
    ("T.linalg.svd(x, driver='best')", R, "driver"),
    ("T.linalg.svdvals(x, driver='best')", R, "driver"),
    ("T.linalg.ldl_solve(T.eye(3), T.tensor([1, 2, 3], dtype=T.int32), T.ones(2, 2))", R, "as many rows"),
    ("T.linalg.norm(x, ord=(1,))", T_, "ord must be"),
    ("T.linalg.vecdot(x, T.ones(2, 2))", R, "do not broadcast"),
    ("T.linalg.lu_solve(T.eye(3), T.tensor([[1, 2, 3]], dtype=T.int32), T.ones(3, 1))", R, "pivots"),
    ("x.fill_(v)", R, "fill_"),
    ("im.H", R, "0-d and 2-d"),
    ("x.register_hook(print)", R, "does not require grad"),
    ("T.ones(3, requires_grad=True).set_(v)", R, "requires grad"),
    ("v.requires_grad_().__cuda_array_interface__", (R, A), "cuda_array_interface"),
    ("v.__cuda_array_interface__", A, "cuda_array_interface"),
    ("x.clamp_()", R, "neither min nor max"),
    ("T.Tensor(2, 'a')", (T_, V), "sizes must be integers"),
    ("v.clip_(min=None)", R, "neither min nor max"),
    ("setattr(v, 'data', 3)", T_, "expected a Tensor"),
]

FUNCTIONALS = [
    ("F.conv2d(im, T.ones(4, 2, 3, 3))", R, "conv2d"),
    ("F.conv2d(im, T.ones(4, 3, 3, 3), stride=0)", R, "must be positive"),
    ("F.conv2d(im, T.ones(4, 1, 3, 3), groups=3)", R, "not divisible by groups=3"),
    ("F.conv2d(im, T.ones(4, 3, 3, 3), padding='some')", R, "padding"),
    ("F.conv2d(im, T.ones(4, 3, 3, 3), padding=-1)", R, "negative padding"),
    ("F.conv2d(im, T.ones(4, 3, 3, 3, dtype=T.float64))", R, "one dtype|float64"),
    ("F.conv2d(im, T.ones(4, 3, 30, 30))", R, "conv2d"),
    ("F.conv2d(im, T.ones(4, 3, 3, 3), bias=T.ones(2))", R, "bias"),
    ("F.conv_transpose2d(im, T.ones(3, 4, 3, 3), stride=0)", R, "must be positive"),
    ("F.conv_transpose2d(im, T.ones(3, 4, 3, 3), padding=-1)", R, "not supported"),
    ("F.conv_transpose2d(im, T.ones(2, 4, 3, 3))", R, "conv_transpose2d"),
    ("F.conv_transpose2d(im, T.ones(3, 4, 3, 3), groups=2)", R, "groups=2"),
    ("F.conv_transpose2d(im, T.ones(3, 4, 3, 3), output_padding=5)", R, "output_padding|output padding"),
    ("F.conv2d(v, v)", R, "conv2d"),
    ("T.conv_tbc(x, x, v)", R, "conv_tbc"),
    ("F.max_pool2d(im, 0)", R, "must be positive"),
    ("F.max_pool2d(v, 2)", R, "max_pool2d"),
    ("F.adaptive_avg_pool2d(im, (0, -1))", R, "must be positive"),
    ("F.max_unpool2d(im, T.zeros(1, 3, 8, 8, dtype=T.int64), 2, output_size=(1,))", V, "output_size"),
    ("F.fractional_max_pool2d(im, 2, output_ratio=(0.5, 1.5))", V, "output_ratio"),
    ("F.fractional_max_pool2d(im, 2, 3, _random_samples=T.ones(1, 2, 2))", R, "_random_samples"),
    ("F.hardtanh(v, 2.0, 1.0)", V, "larger than max_val"),
    ("F.prelu(T.tensor(1.0), v)", R, "single weight"),
    ("F.softshrink(v, -1.0)", R, "must not be negative"),
    ("F.glu(T.tensor(1.0))", R, "0-d"),
    ("F.dropout(v, 1.5)", V, "not a probability"),
    ("F.ctc_loss(T.ones(4, 1, 3).long(), i[None], (4,), (2,))", R, "must be floating"),
    ("F.ctc_loss(T.ones(4, 1, 3), T.ones(1, 2), (4,), (2,))", R, "must be integers"),
    ("F.ctc_loss(T.ones(4), i[None], (4,), (2,))", R, "expected"),
    ("F.ctc_loss(T.ones(4, 1, 3), i[None], T.tensor([4.0]), T.tensor([2.0]))", R, "integers"),
    ("F.ctc_loss(T.ones(4, 1, 3), i[None], (-4,), (2,))", R, "must not be negative"),
    ("F.ctc_loss(T.ones(4, 1, 3), i[None], (5,), (2,))", R, "ctc_loss"),
    ("F.fold(v, (2, 2), 1)", R, "fold"),
    ("F.fold(T.ones(1, 5, 4), (2, 2), 2)", R, "fold"),
    ("F.grid_sample(im, T.ones(1, 2, 2, 2, dtype=T.float64), align_corners=False)", R, "one dtype"),
    ("F.grid_sample(im[:, :, :0], T.ones(1, 2, 2, 2), align_corners=False)", R, "must not be empty"),
    ("F.affine_grid(T.ones(1, 2, 3).long(), (1, 1, 2, 2), align_corners=False)", V, "must be floating"),
    ("F.affine_grid(T.ones(1, 2, 3), (1, 1, 0, 2), align_corners=False)", V, "must be positive"),
    ("F.affine_grid(T.ones(1, 3, 3), (1, 1, 2, 2), align_corners=False)", (R, V), "affine_grid"),
    ("F.embedding(i, x, padding_idx=7)", X, "padding_idx 7"),
    ("F.linear(x, T.ones(4, 2))", R, "linear"),
    ("F.nll_loss(T.tensor(1.0), T.tensor(0))", (R, V), "class dimension"),
    ("F.cross_entropy(x, T.ones(3, 3))", V, "cross_entropy"),
    ("F.multilabel_margin_loss(x, x)", R, "int64"),
    ("F.multi_margin_loss(x, i, weight=T.ones(7))", R, "multi_margin_loss"),
    ("T.native_group_norm(x, None, None, 3, 5, 7, 1, 1e-5)", R, "is not 3 x 5 x 7"),
    ("F.batch_norm(v, None, None, training=True)", (R, V), "batch_norm"),
    ("F.batch_norm(x, None, None, training=False)", R, "must be given"),
    ("F.instance_norm(T.ones(3), use_input_stats=True)", R, "at least 3 dimensions"),
    ("F.layer_norm(x, ())", R, "at least one dimension"),
    ("F.layer_norm(x, (3,), weight=T.ones(2))", R, "weight of shape"),
    ("F.group_norm(v, 1)", R, "at least 2 dimensions"),
    ("F.interpolate(im, size=(2.5, 2))", T_, "must hold ints"),
    ("F.scaled_dot_product_attention(v, v, v)", R, "scaled_dot_product_attention"),
    ("T.rnn_tanh(im[0], T.ones(1, 8, 8), [x, x, v], True, 1, 0.0, False, False, False)", (R, V, I_), "rnn"),
    ("T.autograd.backward([a.sum(), a.sum()], [None])", R, "2 tensors but 1 gradients"),
    ("a.sum().backward(inputs=[x])", R, "require grad"),
    ("T.autograd.grad(a.sum(), x)", R, "does not require grad"),
    ("T.autograd.grad(a, a, T.ones(0, 3), is_grads_batched=True)", R, "at least one gradient"),
    ("T.func.vmap(T.sin, randomness='much')(x)", R, "randomness"),
    ("T.func.vmap(T.sin)(T.ones(0, 2).sum(1)[:0])", R, "size 0"),
    ("T.func.vmap(T.sin, in_dims=(0, 0))(x)", V, "in_dims"),
    ("T.func.vmap(lambda u: 'text')(x)", V, "return tensors"),
    ("T.func.stack_module_state([])", R, "at least one model"),
    ("T.func.stack_module_state([nn.Linear(2, 2), nn.Linear(2, 2).eval()])", R, "training"),
    ("T.func.stack_module_state([nn.Linear(2, 2), nn.Linear(2, 2).requires_grad_(False)])", R, "some of the models"),
]

MODULES = [
    ("nn.ModuleList([3])", T_, "must be a Module"),
    ("nn.ModuleList().extend(nn.Linear(1, 1))", T_, "extend"),
    ("nn.Sequential().extend(3)", (T_, V), "extend"),
    ("nn.Sequential().insert(4, nn.Identity())", I_, "out of range"),
    ("nn.Sequential().insert(0, 'a')", (X, T_, V), "Module"),
    ("nn.Sequential() + nn.Identity()", V, "joins a Sequential"),
    ("nn.Sequential(nn.Identity()) * 1.5", T_, "int number of times"),
    ("nn.Sequential(nn.Identity()) * 0", V, "at least once"),
    ("nn.ModuleDict(3)", T_, "pairs"),
    ("nn.ModuleDict().update([3])", T_, "ModuleDict"),
    ("nn.ParameterDict({'a': v})['b']", K, "b"),
    ("nn.ParameterDict().update([3])", T_, "ParameterDict"),
    ("nn.ParameterDict(3)", T_, "ParameterDict"),
    ("nn.Bilinear(0, 1, 1)", V, "must be positive"),
    ("nn.Embedding(4, 2, padding_idx=4)", X, "padding_idx|Padding_idx"),
    ("nn.Embedding(4, 2, _weight=x)", X, "does not match"),
    ("nn.Embedding.from_pretrained(v)", X, "embeddings must have shape"),
    ("nn.Unflatten(1, 3)", T_, "unflattened_size"),
    ("nn.Module().register_buffer('b', 3)", T_, "must be a Tensor"),
    ("nn.Module().register_buffer(3, v)", T_, "must be a str"),
    ("nn.Module().register_buffer('', v)", K, "must not be empty"),
    ("nn.Module().register_parameter('a', v.requires_grad_() * 2)", (T_, V), "register_parameter"),
    ("nn.Sequential(nn.Identity()).set_submodule('', nn.Identity())", V, "target is empty"),
    ("nn.Sequential().set_submodule('a.b', nn.Identity())", A, "no submodule"),
    ("nn.Sequential().set_submodule('a', nn.Identity(), strict=True)", A, "no submodule"),
    ("nn.Linear(2, 2).get_parameter('scale')", A, "not a parameter"),
    ("nn.Linear(2, 2).get_buffer('weight')", A, "not a buffer"),
    ("nn.CrossMapLRN2d(3)(x)", V, "must be [n, c, h, w]"),
    ("nn.Hardtanh(2.0, 1.0)", X, "must be larger"),
    ("nn.Softmax2d()(x)", V, "neither"),
    ("nn.AdaptiveLogSoftmaxWithLoss(3, 5, [])", V, "cutoffs"),
    ("nn.AdaptiveLogSoftmaxWithLoss(8, 5, [2])(T.ones(2, 8), T.ones(3, dtype=T.int64))", R, "AdaptiveLogSoftmax"),
    ("nn.ModuleDict().update(3)", T_, "pairs"),
    ("nn.Conv2d(2, 2, 1, groups=0)", V, "at least 1"),
    ("nn.Conv2d(2, 3, 1, groups=2)", V, "evenly into groups=2"),
    ("nn.Conv2d(2, 2, 2, padding='same', stride=2)", V, "padding"),
    ("nn.ConvTranspose2d(2, 2, 1, padding_mode='reflect')", V, "must be 'zeros'"),
    ("nn.ConvTranspose2d(3, 2, 2, stride=2)(im, output_size=(90, 90))", V, "output_size"),
    ("nn.LazyConv2d(4, 1, groups=3)", V, "evenly into groups=3"),
    ("nn.LazyConv2d(4, 1)(v)", (R, V), "LazyConv2d"),
    ("nn.LazyBatchNorm2d()(v)", (R, V), "BatchNorm2d"),
    ("nn.MultiMarginLoss(p=3)", V, "p must be 1 or 2"),
    ("nn.TripletMarginLoss(margin=-1.0)", V, "margin must be positive"),
    ("nn.TripletMarginWithDistanceLoss(margin=-1.0)", V, "margin must be positive"),
    ("nn.ConstantPad1d((1, 2, 3), 0.0)", V, "padding must be"),
    ("nn.LSTM(3, 2)(im)", (R, V), "LSTM"),
    ("nn.MultiheadAttention(4, 2)(im, im, im)", X, "query must be"),
    ("nn.init.calculate_gain('leaky_relu', 'steep')", V, "must be a number"),
    ("nn.init.dirac_(v)", V, "dirac_"),
    ("nn.init.dirac_(T.ones(3, 3, 3), groups=2)", V, "groups=2"),
    ("nn.init.orthogonal_(v)", V, "orthogonal_"),
    ("nn.init.sparse_(v, 0.5)", V, "exactly 2 dimensions"),
    ("utils.parameters_to_vector([])", (V, R), "no parameters"),
    ("utils.vector_to_parameters(3, [v])", T_, "expected a Tensor"),
    ("utils.skip_init(3)", R, "class of modules"),
    (
        "utils.fusion.fuse_conv_bn_eval("
        "nn.Conv2d(3, 3, 1).eval(), nn.BatchNorm2d(3, track_running_stats=False).eval())",
        (X, A, T_),
        "no running statistics",
    ),
    ("utils.fusion.fuse_linear_bn_eval(nn.Linear(3, 4).eval(), nn.BatchNorm1d(3).eval())", X, "fuse_linear_bn"),
    ("utils.parametrizations.spectral_norm(nn.Linear(2, 2), dim=4)", I_, "dim=4"),
    ("utils.parametrizations.spectral_norm(nn.Linear(2, 2), n_power_iterations=0)", V, "must be positive"),
    ("utils.parametrizations.spectral_norm(nn.Linear(2, 2), 'scale')", V, "'scale'"),
    ("utils.parametrizations.orthogonal(nn.Linear(2, 2), 'scale')", V, "'scale'"),
    ("utils.spectral_norm(nn.Linear(2, 2), n_power_iterations=0)", V, "must be positive"),
    ("utils.parametrize.ParametrizationList([], v)", V, "at least one parametrization"),
    ("utils.parametrize.register_parametrization(nn.Linear(2, 2), 'scale', nn.Identity())", V, "scale"),
    ("utils.prune.l1_unstructured(nn.Linear(2, 2), 'weight', amount=9)", V, "amount=9"),
    ("utils.prune.ln_structured(nn.Linear(2, 2), 'weight', 1, n=2, dim=5)", I_, "dim=5"),
    ("utils.prune.PruningContainer().add_pruning_method(3)", T_, "not a BasePruningMethod"),
    (
        "utils.prune.global_unstructured([(nn.Linear(2, 2), 'weight')], utils.prune.L1Unstructured, 3, amount=1)",
        T_,
        "must be a dict",
    ),
    ("utils.rnn.pack_padded_sequence(T.ones(3, 2, 1), [1, 3])", (R, V), "sorted"),
    ("T.func.functional_call(nn.Linear(2, 2), 3, (x,))", (V, T_), "functional_call"),
    ("T.func.functional_call(nn.Linear(2, 2), [3], (x,))", (V, T_), "functional_call"),
    ("T.func.functional_call(nn.Linear(3, 2), {'scale': v}, (x,))", (A, R, K), "scale"),
    ("T.func.functional_call(nn.Linear(3, 2), {'weight': 3}, (x,))", T_, "must be a Tensor"),
]

OPTIMIZERS = [
    ("schedule.StepLR(3, 1)", T_, "Optimizer"),
    ("schedule.ChainedScheduler([])", V, "list of schedulers is empty"),
    ("schedule.SequentialLR(sgd, [schedule.ReduceLROnPlateau(sgd), schedule.StepLR(sgd, 1)], [1])", (V, A), "Plateau"),
    ("schedule.ChainedScheduler([schedule.ReduceLROnPlateau(sgd)])", (V, A), "Plateau"),
    ("schedule.CosineAnnealingWarmRestarts(sgd, 2, T_mult=0)", V, "T_mult"),
    ("warned(lambda: schedule.CosineAnnealingWarmRestarts(sgd, 2).step(-1))", V, "must not be negative"),
    ("schedule.OneCycleLR(sgd, 0.1, total_steps=0)", V, "at least 1"),
    ("schedule.OneCycleLR(sgd, 0.1, total_steps=9, pct_start=2.0)", V, "pct_start"),
    ("schedule.LinearLR(sgd, end_factor=2.0)", V, "end_factor"),
    ("schedule.ReduceLROnPlateau(3)", T_, "expected an Optimizer"),
    ("schedule.ReduceLROnPlateau(sgd, threshold_mode='far')", V, "threshold_mode"),
    ("schedule.ReduceLROnPlateau(sgd, min_lr=[0.1, 0.2])", V, "min_lr"),
    ("T.optim.swa_utils.SWALR(sgd, [0.1, 0.2])", V, "swa_lr"),
    ("T.optim.Adam([p], fused=True, differentiable=True)", R, "differentiable=True"),
    ("T.optim.Adam([p], betas=(T.ones(2), T.ones(1)))", V, "one element"),
    ("T.utils.checkpoint.checkpoint_sequential([T.sin], 1, x, use_reentrant=False, often=3)", (V, T_), "often"),
]  # fmt: skip


def warned(function):
    """What it returns, whatever it warns of."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return function()


def names(library):
    T = library
    p = T.nn.Parameter(T.ones(2))
    utils = T.nn.utils
    if library is not gg:
        import torch.nn.utils.fusion
        import torch.nn.utils.parametrize
        import torch.nn.utils.prune
        import torch.signal.windows  # noqa: F401
    return {
        "T": T, "nn": T.nn, "F": T.nn.functional, "utils": utils, "schedule": T.optim.lr_scheduler, "p": p,
        "sgd": T.optim.SGD([p], lr=0.1), "x": T.ones(2, 3), "v": T.tensor([1.0, 2.0, 3.0]), "i": T.tensor([0, 1]),
        "im": T.ones(1, 3, 8, 8), "a": T.ones(3, requires_grad=True), "warned": warned,
    }  # fmt: skip


#: PyTorch lets these pass, or meets them later, in C++ or with a warning
OURS_ALONE = {
    "T.set_float32_matmul_precision('most')", "F.ctc_loss(T.ones(4, 1, 3), T.ones(1, 2), (4,), (2,))",
    "T.func.vmap(T.sin)(T.ones(0, 2).sum(1)[:0])", "nn.LazyConv2d(4, 1, groups=3)",
    "nn.ConstantPad1d((1, 2, 3), 0.0)", "T.func.functional_call(nn.Linear(3, 2), {'scale': v}, (x,))",
}  # fmt: skip


@pytest.mark.parametrize(("expression", "kind", "text"), FUNCTIONS + FUNCTIONALS + MODULES + OPTIMIZERS)
def test_refused(expression, kind, text):
    with pytest.raises(kind) as caught:
        eval(expression, names(gg))
    message = str(caught.value)
    assert any(word in message for word in text.split("|")), message
    assert "\n" not in message


@pytest.mark.parametrize("expression", [c[0] for c in FUNCTIONS + FUNCTIONALS + MODULES + OPTIMIZERS])
def test_refused_by_pytorch_too(expression, torch):
    if expression in OURS_ALONE:
        pytest.skip("PyTorch lets it pass")
    there = names(torch)
    with warnings.catch_warnings(), pytest.raises(Exception):  # noqa: B017  # its types and texts are its own
        warnings.simplefilter("ignore")
        eval(expression, there)
