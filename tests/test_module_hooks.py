"""Hooks of modules, of one and of all, checkpoints of other layouts, and names programs import, against PyTorch."""

from __future__ import annotations

import importlib
import inspect
import warnings

import numpy as np
import pytest

import gpugrad as gg
from gpugrad import nn

RNG = np.random.RandomState(2)
X = RNG.standard_normal((3, 4)).astype(np.float32)


def _events(library, global_hooks):
    """The order in which hooks of every kind run in one forward and backward, and what they see."""
    seen = []
    n = library.nn
    net = n.Sequential(n.Linear(4, 3), n.Tanh())
    with library.no_grad():
        for p in net.parameters():
            p.copy_(library.tensor(np.cos(np.arange(p.numel())).astype(np.float32)).reshape(p.shape))
    handles = []

    def note(kind):
        def hook(module, *values):
            shapes = []
            for v in values:
                for t in v if isinstance(v, (tuple, list)) else (v,):
                    if t is not None:
                        shapes.append(tuple(t.shape))
            seen.append((kind, type(module).__name__, tuple(shapes)))

        return hook

    layer = net[0]
    handles.append(layer.register_forward_hook(note("forward")))
    handles.append(layer.register_forward_hook(note("first forward"), prepend=True))
    handles.append(layer.register_forward_pre_hook(note("pre")))
    handles.append(layer.register_forward_pre_hook(lambda m, a, k: (a, {}), with_kwargs=True))
    handles.append(layer.register_full_backward_hook(note("backward")))
    handles.append(layer.register_full_backward_pre_hook(note("backward pre")))
    if global_hooks:
        module = n.modules.module
        handles.append(module.register_module_forward_hook(note("all forward")))
        handles.append(module.register_module_forward_pre_hook(note("all pre")))
        handles.append(module.register_module_full_backward_hook(note("all backward")))
        handles.append(module.register_module_full_backward_pre_hook(note("all backward pre")))
    try:
        x = library.tensor(X, requires_grad=True)
        net(x).sum().backward()
    finally:
        for handle in handles:
            handle.remove()
    count = len(seen)
    net(library.tensor(X)).sum().backward()
    assert len(seen) == count  # all are gone
    return seen


@pytest.mark.parametrize("global_hooks", [False, True])
def test_hooks_run_as_in_pytorch(global_hooks, torch):
    assert _events(gg, global_hooks) == _events(torch, global_hooks)


def test_global_hooks_change_results():
    module = nn.modules.module
    with module.register_module_forward_hook(lambda m, a, y: y * 2):
        assert nn.Identity()(gg.ones(2)).tolist() == [2, 2]
    with module.register_module_forward_pre_hook(lambda m, a: (a[0] + 1,)):
        assert nn.Identity()(gg.ones(2)).tolist() == [2, 2]
    with module.register_module_full_backward_hook(lambda m, gi, go: (gi[0] * 3,)):
        x = gg.ones(2, requires_grad=True)
        nn.ReLU()(x).sum().backward()
    assert x.grad.tolist() == [3, 3]
    assert nn.Identity()(gg.ones(2)).tolist() == [1, 1]


def test_hooks_that_run_where_forward_raised():
    class Fails(nn.Module):
        def forward(self, x):
            raise ValueError("no")

    ran = []
    net = Fails()
    net.register_forward_hook(lambda m, a, y: ran.append("never"))
    net.register_forward_hook(lambda m, a, y: ran.append("own"), always_call=True)
    with nn.modules.module.register_module_forward_hook(lambda m, a, y: ran.append("all"), always_call=True):
        with pytest.raises(ValueError, match="no"):
            net(1)
    assert ran == ["all", "own"]


def test_registration_hooks():
    module = nn.modules.module
    seen = []

    def note(kind):
        return lambda owner, name, value: seen.append((kind, type(owner).__name__, name))

    with (
        module.register_module_parameter_registration_hook(note("parameter")),
        module.register_module_buffer_registration_hook(note("buffer")),
        module.register_module_module_registration_hook(note("module")),
    ):
        nn.Sequential(nn.BatchNorm1d(2))
    assert ("parameter", "BatchNorm1d", "weight") in seen and ("buffer", "BatchNorm1d", "running_var") in seen
    assert ("module", "Sequential", "0") in seen
    replacement = nn.Parameter(gg.zeros(2))
    with module.register_module_parameter_registration_hook(lambda m, name, p: replacement if name == "w" else None):
        owner = nn.Module()
        owner.w = nn.Parameter(gg.ones(2))
    assert owner.w is replacement


def test_state_dict_hooks_and_metadata(torch):
    results = []
    for library in (gg, torch):
        n = library.nn
        net = n.Sequential(n.Linear(2, 2), n.BatchNorm1d(2))
        calls = []
        net.register_state_dict_pre_hook(lambda m, prefix, keep, calls=calls: calls.append(("pre", prefix, keep)))
        net[1].register_state_dict_post_hook(
            lambda m, d, prefix, meta, calls=calls: calls.append(("post", list(d), prefix, dict(meta)))
        )
        net[0]._register_state_dict_hook(lambda m, d, prefix, meta: None)
        net[0].register_load_state_dict_pre_hook(
            lambda m, d, prefix, meta, *rest, calls=calls: calls.append(("load", prefix, meta.get("version")))
        )
        net[1]._register_load_state_dict_pre_hook(
            lambda d, prefix, meta, *rest, calls=calls: calls.append(("old load", prefix, meta.get("version")))
        )
        net.register_load_state_dict_post_hook(lambda m, keys, calls=calls: calls.append(("loaded", tuple(keys))))
        state = net.state_dict()
        calls.append(dict(state._metadata))
        net.load_state_dict(state)
        results.append(calls)
    assert results[0] == results[1]


def test_checkpoints_of_batch_norm_without_a_count():
    layer = nn.BatchNorm1d(3)
    old = {k: v for k, v in layer.state_dict().items() if k != "num_batches_tracked"}
    layer.load_state_dict(old)  # no metadata: as old as can be
    state = layer.state_dict()
    del state["num_batches_tracked"]
    with pytest.raises(RuntimeError, match="num_batches_tracked"):
        layer.load_state_dict(state)


def test_post_hooks_must_return_none():
    layer = nn.Linear(2, 2)
    layer.register_state_dict_post_hook(lambda m, d, p, meta: d)
    with pytest.raises(RuntimeError, match="return None"):
        layer.state_dict()


def test_positional_state_dict_arguments_warn():
    with pytest.warns(FutureWarning, match="prefix="):
        assert list(nn.Linear(1, 1).state_dict({}, "x.")) == ["x.weight", "x.bias"]


# -- one device --------------------------------------------------------------------------------
def test_sync_batch_norm(device):
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Sequential(nn.BatchNorm2d(4)), nn.BatchNorm1d(4).eval()).to(device)
    weight = net[1][0].weight
    net = nn.SyncBatchNorm.convert_sync_batchnorm(net)
    assert isinstance(net[1][0], nn.SyncBatchNorm) and net[1][0].weight is weight and not net[2].training
    plain = nn.BatchNorm2d(4).to(device)
    x = gg.randn(2, 4, 3, 3, device=device)
    np.testing.assert_array_equal(net[1][0](x).detach().cpu().numpy(), plain(x).detach().cpu().numpy())
    with pytest.raises(ValueError, match="at least 2"):
        net[1][0](gg.ones(3, device=device))


def test_data_parallel(device):
    layer = nn.Linear(4, 2).to(device)
    net = nn.DataParallel(layer, device_ids=[0, 1])
    x = gg.tensor(X, device=device)
    assert list(net.state_dict()) == ["module.weight", "module.bias"]
    assert (net(x) == layer(x)).all().item()
    assert (nn.parallel.data_parallel(layer, x) == layer(x)).all().item()
    state = net.state_dict()
    nn.modules.utils.consume_prefix_in_state_dict_if_present(state, "module.")
    nn.Linear(4, 2).load_state_dict(state)
    with pytest.raises(NotImplementedError, match="one process"):
        nn.parallel.DistributedDataParallel(layer)


def test_cross_map_lrn(torch, device):
    x = RNG.standard_normal((2, 7, 3, 2)).astype(np.float32)
    for size in (1, 2, 3, 4, 5):
        want = torch.nn.CrossMapLRN2d(size, alpha=0.5)(torch.tensor(x)).numpy()
        got = nn.CrossMapLRN2d(size, alpha=0.5)(gg.tensor(x, device=device))
        np.testing.assert_allclose(got.cpu().numpy(), want, rtol=1e-4, atol=1e-5)


def test_gradients_of_convolutions(torch, device):
    for n, size in ((1, (7,)), (2, (6, 5)), (3, (4, 5, 4))):
        x = RNG.standard_normal((2, 4, *size)).astype(np.float32)
        w = RNG.standard_normal((6, 2, *(2,) * n)).astype(np.float32)
        options = {"stride": 2, "padding": 1, "dilation": 1, "groups": 2}
        y = getattr(torch.nn.functional, f"conv{n}d")(torch.tensor(x), torch.tensor(w), **options)
        g = RNG.standard_normal(tuple(y.shape)).astype(np.float32)
        for kind, args in (("input", (x.shape, w, g)), ("weight", (x, w.shape, g))):
            ours = [gg.tensor(a, device=device) if isinstance(a, np.ndarray) else a for a in args]
            theirs = [torch.tensor(a) if isinstance(a, np.ndarray) else a for a in args]
            got = getattr(nn.grad, f"conv{n}d_{kind}")(*ours, **options)
            want = getattr(torch.nn.grad, f"conv{n}d_{kind}")(*theirs, **options)
            np.testing.assert_allclose(got.cpu().numpy(), want.numpy(), rtol=1e-4, atol=1e-4)


def test_container_and_super_init():
    with pytest.warns(FutureWarning, match="ModuleDict"):
        assert list(nn.Container(a=nn.ReLU())._modules) == ["a"]
    with pytest.raises(TypeError, match="takes no arguments"):
        nn.Module(1)

    class Other:
        def __init__(self, value):
            self.value = value

    class Both(nn.Module, Other):
        call_super_init = True

    assert Both(3).value == 3
    assert nn.Linear(1, 1).compile() is None
    with pytest.raises(NotImplementedError, match="processes"):
        nn.Linear(1, 1).share_memory()


# -- names ---------------------------------------------------------------------------------------
def test_modules_are_where_pytorch_has_them(torch):
    pages = [m for m in vars(torch.nn.modules) if inspect.ismodule(getattr(torch.nn.modules, m))]
    checked = 0
    for page in set(pages) & set(nn.modules._FILES):
        theirs, ours = getattr(torch.nn.modules, page), importlib.import_module(f"gpugrad.nn.modules.{page}")
        for name, value in vars(theirs).items():
            if inspect.isclass(value) and value.__module__ == theirs.__name__ and name in torch.nn.modules.__all__:
                if hasattr(nn, name):
                    assert getattr(ours, name) is getattr(nn, name), f"{page}.{name}"
                    checked += 1
    assert checked > 120
    assert nn.modules.Linear is nn.Linear
    from gpugrad.nn.modules.batchnorm import _BatchNorm, _NormBase
    from gpugrad.nn.modules.conv import _ConvNd
    from gpugrad.nn.modules.dropout import _DropoutNd
    from gpugrad.nn.modules.loss import _Loss
    from gpugrad.nn.modules.pooling import _AdaptiveAvgPoolNd, _AvgPoolNd, _MaxPoolNd
    from gpugrad.nn.modules.utils import _ntuple, _pair, _reverse_repeat_tuple, _single, _triple

    for base, module in (
        (_BatchNorm, nn.BatchNorm2d(2)),
        (_NormBase, nn.InstanceNorm1d(2)),
        (_ConvNd, nn.ConvTranspose1d(1, 1, 1)),
        (_DropoutNd, nn.Dropout2d()),
        (_Loss, nn.CrossEntropyLoss()),
        (_AvgPoolNd, nn.AvgPool1d(2)),
        (_MaxPoolNd, nn.MaxPool2d(2)),
        (_AdaptiveAvgPoolNd, nn.AdaptiveAvgPool2d(1)),
    ):
        assert isinstance(module, base)
    assert (_single(3), _pair(3), _triple((1, 2, 3)), _ntuple(2)([4, 5])) == ((3,), (3, 3), (1, 2, 3), (4, 5))
    assert _reverse_repeat_tuple((1, 2), 2) == (2, 2, 1, 1)


REPRS = (
    "Linear(3, 4)|Bilinear(2, 3, 4)|Embedding(5, 3, 0, 1.0)|Flatten()|Unflatten(1, (2, 3))|CosineSimilarity(0)|"
    "PairwiseDistance(1.0)|Conv2d(1, 2, 3, 2, 1, 2, 1, False)|ConvTranspose2d(2, 4, 3, 2, 1, 1, 2)|MaxPool1d(2)|"
    "AvgPool1d(2)|AvgPool2d(3, 1, 1)|LPPool3d(2, 3)|AdaptiveAvgPool2d((None, 2))|BatchNorm2d(3, momentum=None)|"
    "SyncBatchNorm(3)|LayerNorm(3, bias=False)|RMSNorm(3)|GroupNorm(2, 4, affine=False)|CrossMapLRN2d(3)|"
    "Dropout(0.2, True)|FeatureAlphaDropout()|ELU(0.5, True)|Hardtanh(-2.0, 2.0, True)|PReLU(3)|RReLU(0.1, 0.3, True)|"
    "Softplus(2, 10)|Threshold(0.1, 20, True)|GLU(1)|FractionalMaxPool2d(2, output_size=2)|MaxUnpool2d(2, 3, 1)|"
    "ModuleList([n.Linear(1, 2), n.Linear(1, 2), n.ReLU()])|ModuleDict({'a': n.Linear(1, 2)})|"
    "DataParallel(n.Linear(1, 2))|Upsample(scale_factor=(2, 3))|Upsample((3, 4), mode='bilinear')|"
    "AdaptiveLogSoftmaxWithLoss(4, 10, [3])"
).split("|")


@pytest.mark.parametrize("text", REPRS)
def test_reprs_are_pytorchs(text, torch):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert repr(eval(f"n.{text}", {"n": nn})) == repr(eval(f"n.{text}", {"n": torch.nn}))


# -- functions of the package itself --------------------------------------------------------------
PLAIN = [
    "binary_cross_entropy_with_logits(x, p, None, None, 2)",
    "cosine_embedding_loss(x, y, signs, 0.1, 0)",
    "ctc_loss(long, spelt, (5, 4), (2, 1), 0, 2, True)",
    "hinge_embedding_loss(x, x.sign(), 0.5)",
    "kl_div(x, p)",
    "kl_div(x, p, 0, log_target=True)",
    "margin_ranking_loss(x, y, y.sign(), 0.1, 1)",
    "poisson_nll_loss(x, p, True, False, 1e-8, 1)",
    "triplet_margin_loss(x, y, p, 0.5, reduction=0)",
    "dropout(x, 0.5, False)",
    "feature_dropout(x, 0.0, True)",
    "alpha_dropout(x, 0.5, False)",
    "batch_norm(x, None, None, None, None, True, 0.1, 1e-5, False)",
    "instance_norm(image, None, None, None, None, True, 0.1, 1e-5, False)",
    "layer_norm(x, (4,))",
    "group_norm(image, 2, eps=1e-3)",
    "rms_norm(x, (4,), eps=1e-4)",
    "embedding(x, index)",
    "conv1d(line, w)",
    "conv2d(image, T.ones(3, 4, 2, 2), None, 1, 'same')",
    "conv_transpose1d(line, w.transpose(0, 1).contiguous())",
    "conv_tbc(long, T.ones(2, 3, 4), T.ones(4), 1)",
    "convolution(line, w, None, [2], [1], [1], False, [0], 1)",
    "convolution(image, T.ones(4, 2, 2, 2), None, [2, 1], [1, 0], [1, 1], True, [1, 0], 2)",
    "max_pool1d(line, 2)",
    "max_pool1d_with_indices(line, 2, 1)",
    "max_pool2d(image, 2, (), 1)",
    "adaptive_max_pool1d(line, 2)",
    "adaptive_avg_pool1d(line, 2)",
    "avg_pool1d(line, 2)",
    "cosine_similarity(x, y, 0)",
    "pairwise_distance(x, y, 1.0)",
    "bilinear(x, y, T.ones(2, 4, 4))",
    "pixel_shuffle(image, 2)",
    "pixel_unshuffle(image, 2)",
    "channel_shuffle(image, 2)",
    "pdist(x)",
]


@pytest.mark.parametrize("call", PLAIN)
def test_functions_of_the_package(call, torch, device):
    from tests import parity

    arrays = {
        "x": X,
        "y": np.roll(X, 1, 0),
        "p": np.abs(X) / 5,
        "signs": np.array([1, -1, 1]),
        "long": RNG.standard_normal((5, 2, 3)).astype(np.float32),
        "spelt": np.array([[1, 2], [2, 2]]),
        "image": RNG.standard_normal((2, 4, 4, 4)).astype(np.float32),
        "line": RNG.standard_normal((2, 3, 6)).astype(np.float32),
        "w": RNG.standard_normal((2, 3, 2)).astype(np.float32),
        "index": np.array([[0, 2], [1, 1]]),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        parity.check(f"T.{call}", arrays, torch, device, rtol=1e-4, atol=1e-5)
