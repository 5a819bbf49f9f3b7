"""Weight and spectral norm, parametrizations, fusion, stateless calls and lazy modules, against PyTorch."""

from __future__ import annotations

import copy
import pickle
import warnings

import numpy as np
import pytest

import gpugrad as gg
from gpugrad import nn
from gpugrad.nn.utils import parametrizations, parametrize
from tests import parity

RNG = np.random.RandomState(8)
X = RNG.standard_normal((4, 5)).astype(np.float32)
IMAGE = RNG.standard_normal((2, 3, 6, 6)).astype(np.float32)


def twins(make, torch, device):
    """The same module in PyTorch and here, with the same values."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs, ours = make(torch.nn), make(nn)
    state = {k: gg.tensor(v.detach().numpy()) for k, v in theirs.state_dict().items()}
    assert list(ours.state_dict()) == list(state)
    ours.load_state_dict(state)
    return ours.to(device), theirs


def compare(ours, theirs, x, torch, device, rtol=1e-4):
    """One forward and backward of each: outputs, input gradients, parameter gradients, buffers."""
    a = gg.tensor(x, device=device, requires_grad=True)
    b = torch.tensor(x, requires_grad=True)
    y, z = ours(a), theirs(b)
    (y * y).sum().backward()
    (z * z).sum().backward()
    parity.same(y, z, rtol=rtol, atol=1e-5)
    parity.same(a.grad, b.grad, rtol=rtol, atol=1e-4)
    for (name, p), (other, q) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
        assert name == other
        parity.same(p.grad, q.grad, rtol=rtol, atol=1e-4)
    for p, q in zip(ours.buffers(), theirs.buffers(), strict=True):
        parity.same(p, q, rtol=rtol, atol=1e-5)


MAKES = {
    "weight_norm": (lambda n: n.utils.weight_norm(n.Linear(5, 3)), X),
    "weight_norm_dim_1": (lambda n: n.utils.weight_norm(n.Linear(5, 3), dim=1), X),
    "weight_norm_whole": (lambda n: n.utils.weight_norm(n.Linear(5, 3), dim=None), X),
    "weight_norm_conv": (lambda n: n.utils.weight_norm(n.ConvTranspose2d(3, 4, 2), dim=1), IMAGE),
    "spectral_norm": (lambda n: n.utils.spectral_norm(n.Linear(5, 3)), X),
    "spectral_norm_conv": (lambda n: n.utils.spectral_norm(n.Conv2d(3, 4, 2), n_power_iterations=3), IMAGE),
    "spectral_norm_transposed": (lambda n: n.utils.spectral_norm(n.ConvTranspose2d(3, 4, 2)), IMAGE),
    "spectral_norm_eval": (lambda n: n.utils.spectral_norm(n.Linear(5, 3)).eval(), X),
    "new_weight_norm": (lambda n: n.utils.parametrizations.weight_norm(n.Linear(5, 3)), X),
    "new_weight_norm_conv": (lambda n: n.utils.parametrizations.weight_norm(n.Conv2d(3, 4, 2), dim=1), IMAGE),
    "new_spectral_norm": (lambda n: n.utils.parametrizations.spectral_norm(n.Linear(5, 3)), X),
    "new_spectral_norm_bias": (lambda n: n.utils.parametrizations.spectral_norm(n.Linear(5, 3), "bias"), X),
    "new_spectral_norm_conv": (lambda n: n.utils.parametrizations.spectral_norm(n.ConvTranspose2d(3, 4, 2)), IMAGE),
}
for _map in ("matrix_exp", "cayley", "householder"):
    for _size in ((5, 5), (5, 3), (5, 8)):
        for _trivial in (True, False):
            MAKES[f"orthogonal_{_map}_{_size[1]}_{_trivial}"] = (
                lambda n, m=_map, s=_size, t=_trivial: _orthogonal(n, m, s, t),
                X,
            )


def _orthogonal(n, orthogonal_map, size, trivial):
    layer = n.Linear(*size, bias=False)
    if not trivial and orthogonal_map != "householder":
        # Nothing can be assigned to these: the weight is the free matrix itself.
        return n.utils.parametrizations.orthogonal(layer, "weight", orthogonal_map, use_trivialization=False)
    return n.utils.parametrizations.orthogonal(layer, "weight", orthogonal_map, use_trivialization=trivial)


@pytest.mark.parametrize("name", list(MAKES))
def test_like_pytorch(name, torch, device):
    make, x = MAKES[name]
    ours, theirs = twins(make, torch, device)
    for _ in range(2):
        compare(ours, theirs, x, torch, device, rtol=1e-3)
    parity.same(ours.weight, theirs.weight, rtol=1e-3, atol=1e-5)
    assert repr(ours) == repr(theirs)


@pytest.mark.parametrize("name", [n for n in MAKES if n.startswith("orthogonal")])
def test_the_weight_is_orthogonal_and_assignable(name, device):
    layer = MAKES[name][0](nn).to(device)

    def gap(w):
        w = w.detach().cpu().numpy()
        w = w.T if w.shape[0] < w.shape[1] else w
        return np.abs(w.T @ w - np.eye(w.shape[1])).max()

    assert gap(layer.weight) < 1e-5
    target = np.linalg.qr(RNG.standard_normal((8, 8)))[0].astype(np.float32)
    rows, columns = layer.weight.shape
    target = target[:rows, :] if columns == 8 else target
    target = np.linalg.qr(RNG.standard_normal((max(rows, columns), max(rows, columns))))[0].astype(np.float32)
    target = target[:rows, :columns]
    value = gg.tensor(target, device=device)
    if name.endswith("False") and "householder" not in name:
        with pytest.raises(NotImplementedError, match="use_trivialization"):
            layer.weight = value
    else:
        layer.weight = value
        np.testing.assert_allclose(layer.weight.detach().cpu().numpy(), target, atol=1e-5)


def test_taking_norms_off_keeps_the_weight(device):
    x = gg.tensor(X, device=device)
    for on, off in (
        (nn.utils.weight_norm, nn.utils.remove_weight_norm),
        (nn.utils.spectral_norm, nn.utils.remove_spectral_norm),
    ):
        layer = on(nn.Linear(5, 3)).to(device).eval()
        before = layer(x).detach().cpu().numpy()
        with pytest.raises(RuntimeError, match="already"):
            on(layer)
        assert off(layer) is layer and set(layer.state_dict()) == {"weight", "bias"}
        np.testing.assert_allclose(layer(x).detach().cpu().numpy(), before, rtol=1e-5, atol=1e-6)
        assert isinstance(layer.weight, nn.Parameter) and not layer._forward_pre_hooks
        with pytest.raises(ValueError, match="has no"):
            off(layer)


def test_spectral_norm_makes_the_norm_one(device):
    layer = parametrizations.spectral_norm(nn.Linear(5, 4), n_power_iterations=20).to(device)
    values = np.linalg.svd(layer.weight.detach().cpu().numpy())[1]
    assert abs(values[0] - 1) < 1e-3


def test_older_state_dicts_of_weight_norm_are_read():
    old = nn.utils.weight_norm(nn.Linear(5, 3))
    new = parametrizations.weight_norm(nn.Linear(5, 3))
    new.load_state_dict(old.state_dict())
    assert (new.weight == old.weight).all().item()


class Symmetric(nn.Module):
    def forward(self, x):
        return x.triu() + x.triu(1).mT

    def right_inverse(self, x):
        return x.triu()


class Doubled(nn.Module):
    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        return x * 2


def test_parametrization_by_hand(device):
    layer = nn.Linear(4, 4).to(device)
    original = layer.weight
    assert parametrize.register_parametrization(layer, "weight", Symmetric()) is layer
    assert parametrize.is_parametrized(layer) and parametrize.is_parametrized(layer, "weight")
    assert not parametrize.is_parametrized(layer, "bias")
    assert type(layer).__name__ == "ParametrizedLinear"
    assert parametrize.type_before_parametrizations(layer) is nn.Linear
    assert layer.parametrizations.weight.original is original  # optimizers that hold it keep working
    assert (layer.weight == layer.weight.mT).all().item()
    layer(gg.ones(1, 4, device=device)).sum().backward()
    assert original.grad is not None
    parametrize.register_parametrization(layer, "weight", Doubled())
    assert len(layer.parametrizations.weight) == 2
    with pytest.raises(RuntimeError, match="right_inverse"):
        layer.weight = gg.ones(4, 4, device=device)
    value = layer.weight.detach().cpu().numpy()
    parametrize.remove_parametrizations(layer, "weight")
    assert type(layer) is nn.Linear and layer.weight is original
    np.testing.assert_array_equal(layer.weight.detach().cpu().numpy(), value)
    assert list(layer.state_dict()) == ["bias", "weight"]


def test_assigning_goes_through_the_inverse():
    layer = parametrize.register_parametrization(nn.Linear(3, 3), "weight", Symmetric())
    value = gg.tensor([[1.0, 2, 3], [2, 4, 5], [3, 5, 6]])
    layer.weight = value
    assert (layer.weight == value).all().item()
    assert (layer.parametrizations.weight.original == value.triu()).all().item()


def test_a_buffer_can_be_parametrized():
    layer = nn.BatchNorm1d(3)
    parametrize.register_parametrization(layer, "running_mean", Doubled())
    assert "parametrizations.running_mean.original" in dict(layer.named_buffers())
    parametrize.remove_parametrizations(layer, "running_mean", leave_parametrized=False)
    assert "running_mean" in dict(layer.named_buffers())


def test_cached_computes_once():
    layer = parametrize.register_parametrization(nn.Linear(3, 3), "weight", Doubled())
    counter = layer.parametrizations.weight[0]
    counter.calls = 0
    with parametrize.cached():
        assert layer.weight is layer.weight
    assert counter.calls == 1
    assert layer.weight is not layer.weight


def test_copies_of_parametrized_modules_are_their_own():
    layer = parametrize.register_parametrization(nn.Linear(3, 3), "weight", Symmetric())
    twin = copy.deepcopy(layer)
    assert (twin.weight == layer.weight).all().item()
    assert twin.parametrizations.weight.original is not layer.parametrizations.weight.original
    parametrize.remove_parametrizations(twin, "weight")
    assert type(twin) is nn.Linear and (layer.weight == layer.weight.mT).all().item()
    with pytest.raises(RuntimeError, match="state_dict"):
        pickle.dumps(layer)


def test_parametrizations_move_to_another_module():
    source = parametrize.register_parametrization(nn.Linear(3, 3), "weight", Symmetric())
    target = nn.Linear(3, 3)
    parametrize.transfer_parametrizations_and_params(source, target)
    assert (target.weight == source.weight).all().item()
    assert parametrize.is_parametrized(target, "weight")


def test_parametrization_errors():
    class Cut(nn.Module):
        def forward(self, x):
            return x[:1]

    layer = nn.Linear(3, 3)
    with pytest.raises(ValueError, match="unsafe=True"):
        parametrize.register_parametrization(layer, "weight", Cut())
    assert parametrize.register_parametrization(nn.Linear(3, 3), "weight", Cut(), unsafe=True).weight.shape == (1, 3)
    with pytest.raises(ValueError, match="no parameter or buffer 'gain'"):
        parametrize.register_parametrization(layer, "gain", Cut())
    with pytest.raises(ValueError, match="no parametrization"):
        parametrize.remove_parametrizations(layer, "weight")
    with pytest.raises(ValueError, match="orthogonal_map"):
        parametrizations.orthogonal(layer, orthogonal_map="qr")
    with pytest.raises(ValueError, match="must be a matrix"):
        parametrizations.orthogonal(layer, "bias")


# -- fusion, skip_init, clipping -------------------------------------------------------------
@pytest.mark.parametrize("transposed", [False, True])
def test_fusing_a_convolution_with_its_normalisation(transposed, device):
    conv = (nn.ConvTranspose2d if transposed else nn.Conv2d)(3, 4, 3, bias=not transposed).to(device)
    bn = nn.BatchNorm2d(4).to(device)
    x = gg.tensor(IMAGE, device=device)
    bn(conv(x))
    conv.eval(), bn.eval()
    fused = nn.utils.fuse_conv_bn_eval(conv, bn, transpose=transposed)
    np.testing.assert_allclose(
        fused(x).detach().cpu().numpy(), bn(conv(x)).detach().cpu().numpy(), rtol=1e-4, atol=1e-5
    )
    with pytest.raises(AssertionError, match="evaluation"):
        nn.utils.fuse_conv_bn_eval(conv.train(), bn)


def test_fusing_a_linear_layer(device):
    layer, bn = nn.Linear(5, 3).to(device), nn.BatchNorm1d(3).to(device)
    x = gg.tensor(X, device=device)
    bn(layer(x))
    fused = nn.utils.fuse_linear_bn_eval(layer.eval(), bn.eval())
    np.testing.assert_allclose(
        fused(x).detach().cpu().numpy(), bn(layer(x)).detach().cpu().numpy(), rtol=1e-4, atol=1e-5
    )


def test_skip_init_uses_no_random_numbers():
    gg.manual_seed(3)
    expected = gg.randn(3)
    gg.manual_seed(3)
    layer = nn.utils.skip_init(nn.Linear, 4, 2)
    assert layer.weight.shape == (2, 4)
    assert (gg.randn(3) == expected).all().item()
    with pytest.raises(RuntimeError, match="device"):
        nn.utils.skip_init(nn.ReLU)


def test_older_names_warn():
    p = nn.Parameter(gg.ones(3))
    p.grad = gg.full((3,), 2.0)
    with pytest.warns(FutureWarning, match="clip_grad_norm_"):
        nn.utils.clip_grad_norm(p, 1.0)
    with pytest.warns(FutureWarning, match="kaiming_normal_"):
        nn.init.kaiming_normal(gg.empty(3, 3))
    with pytest.warns(FutureWarning, match="min_val"):
        assert nn.Hardtanh(min_value=-2.0).min_val == -2.0


# -- stateless calls ----------------------------------------------------------------------------
def test_functional_call(torch, device):
    ours, theirs = twins(lambda n: n.Sequential(n.Linear(5, 3), n.Tanh(), n.BatchNorm1d(3)), torch, device)
    from torch.func import functional_call

    weight = RNG.standard_normal((3, 5)).astype(np.float32)
    w, v = gg.tensor(weight, device=device, requires_grad=True), torch.tensor(weight, requires_grad=True)
    x, y = gg.tensor(X, device=device), torch.tensor(X)
    before = ours[0].weight
    got, want = gg.func.functional_call(ours, {"0.weight": w}, x), functional_call(theirs, {"0.weight": v}, y)
    (got * got * got).sum().backward()
    (want * want * want).sum().backward()
    parity.same(got, want, rtol=1e-4)
    parity.same(w.grad, v.grad, rtol=1e-3, atol=1e-4)
    assert ours[0].weight is before and before.grad is None
    again = gg.func.functional_call(ours.eval(), ({"0.weight": w}, {"2.weight": gg.zeros(3, device=device)}), (x,))
    assert not again.detach().cpu().numpy().any()


def test_functional_call_refuses_and_ties():
    layer = nn.Linear(2, 2)
    with pytest.raises(RuntimeError, match="missing keys: bias"):
        gg.func.functional_call(layer, {"weight": layer.weight}, gg.ones(1, 2), strict=True)
    with pytest.raises(RuntimeError, match="unexpected keys: gain"):
        gg.func.functional_call(
            layer, {**dict(layer.named_parameters()), "gain": gg.ones(1)}, gg.ones(1, 2), strict=True
        )
    with pytest.raises(ValueError, match="more than one dict"):
        gg.func.functional_call(layer, ({"weight": layer.weight}, {"weight": layer.weight}), gg.ones(1, 2))
    pair = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    pair[1].weight = pair[0].weight
    x = gg.ones(1, 2)
    assert gg.func.functional_call(pair, {"0.weight": gg.eye(2)}, x).tolist() == [[1, 1]]
    once = gg.func.functional_call(pair, {"0.weight": gg.eye(2)}, x, tie_weights=False)
    assert (once == x @ pair[1].weight.mT).all().item()


def test_stacking_states(device):
    models = [nn.BatchNorm1d(3).to(device) for _ in range(3)]
    parameters, buffers = gg.func.stack_module_state(models)
    assert parameters["weight"].shape == (3, 3) and parameters["weight"].requires_grad
    assert buffers["num_batches_tracked"].shape == (3,)
    with pytest.raises(RuntimeError, match="one class"):
        gg.func.stack_module_state([nn.Linear(2, 2), nn.ReLU()])


# -- lazy modules ----------------------------------------------------------------------------------
LAZY = {
    "LazyLinear(4)": (4, 6),
    "LazyLinear(4, bias=False)": (4, 6),
    "LazyConv1d(4, 3)": (2, 6, 5),
    "LazyConv2d(4, 3, 2, 1, groups=2)": (2, 6, 5, 4),
    "LazyConv3d(4, 2, bias=False)": (2, 3, 3, 4, 3),
    "LazyConvTranspose1d(4, 3)": (2, 6, 5),
    "LazyConvTranspose2d(4, 3, stride=2, output_padding=1, groups=2)": (2, 6, 3, 4),
    "LazyConvTranspose3d(4, 2)": (2, 3, 3, 4, 3),
    "LazyBatchNorm1d()": (4, 6),
    "LazyBatchNorm2d(affine=False)": (2, 6, 3, 3),
    "LazyBatchNorm3d(track_running_stats=False)": (2, 6, 3, 3, 2),
    "LazyInstanceNorm1d()": (4, 6, 3),
    "LazyInstanceNorm2d()": (2, 6, 3, 3),
    "LazyInstanceNorm3d()": (2, 6, 3, 3, 2),
}


@pytest.mark.parametrize("text", list(LAZY))
def test_lazy_modules(text, torch, device):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = eval(f"n.{text}", {"n": torch.nn})
    ours = eval(f"n.{text}", {"n": nn})
    assert repr(ours) == repr(theirs)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    x = RNG.standard_normal(LAZY[text]).astype(np.float32)
    theirs(torch.tensor(x))
    ours.to(device)
    ours(gg.tensor(x, device=device))
    assert type(ours).__name__ == type(theirs).__name__ and repr(ours) == repr(theirs)
    assert {k: tuple(v.shape) for k, v in ours.state_dict().items()} == {
        k: tuple(v.shape) for k, v in theirs.state_dict().items()
    }
    assert not ours._forward_pre_hooks and all(p.device.type == device for p in ours.parameters())
    bound = 1 / np.sqrt(6)
    if "Linear" in text:
        assert np.abs(ours.weight.detach().cpu().numpy()).max() <= bound


def test_lazy_parameters(device):
    layer = nn.LazyLinear(3).to(device)
    twin = copy.deepcopy(layer)
    assert layer.has_uninitialized_params() and isinstance(layer.weight, nn.UninitializedParameter)
    with pytest.raises(RuntimeError, match="no shape yet"):
        layer.weight.shape  # noqa: B018
    ready = nn.Linear(5, 3)
    layer.load_state_dict(ready.state_dict())
    assert layer.weight.shape == (3, 5) and (layer.weight.cpu() == ready.weight).all().item()
    twin(gg.ones(2, 4, device=device))
    assert type(twin) is nn.Linear and twin.in_features == 4 and twin.weight.requires_grad
    assert layer(gg.ones(2, 5, device=device)).shape == (2, 3) and type(layer) is nn.Linear


# -- pruning -----------------------------------------------------------------------------------
PRUNINGS = [
    lambda p, m: p.l1_unstructured(m, "weight", 0.4),
    lambda p, m: p.l1_unstructured(p.l1_unstructured(m, "weight", 3), "weight", 0.5),
    lambda p, m: p.ln_structured(m, "weight", 2, 2, 1),
    lambda p, m: p.ln_structured(m, "weight", 0.34, 1, dim=0),
    lambda p, m: p.l1_unstructured(p.ln_structured(m, "weight", 1, 2, 0), "weight", 0.25),
    lambda p, m: p.ln_structured(p.ln_structured(m, "weight", 1, 2, 0), "weight", 1, 2, 0),
    lambda p, m: p.identity(m, "bias"),
]


@pytest.mark.parametrize("index", range(len(PRUNINGS)))
def test_pruning(index, torch, device):
    from torch.nn.utils import prune as theirs_prune

    from gpugrad.nn.utils import prune

    ours, theirs = twins(lambda n: n.Linear(5, 3), torch, device)
    PRUNINGS[index](prune, ours)
    PRUNINGS[index](theirs_prune, theirs)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    for a, b in zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True):
        parity.same(a, b)
    compare(ours, theirs, X, torch, device)
    name = "bias" if "bias_orig" in ours.state_dict() else "weight"
    assert prune.is_pruned(nn.Sequential(ours))
    prune.remove(ours, name)
    theirs_prune.remove(theirs, name)
    assert list(ours.state_dict()) == list(theirs.state_dict()) and not prune.is_pruned(ours)
    parity.same(ours.weight, theirs.weight)


def test_pruning_over_modules_and_at_random(torch, device):
    from torch.nn.utils import prune as theirs_prune

    from gpugrad.nn.utils import prune

    ours, theirs = twins(lambda n: n.Sequential(n.Linear(5, 3), n.Linear(3, 2)), torch, device)
    for net, p in ((ours, prune), (theirs, theirs_prune)):
        p.global_unstructured([(net[0], "weight"), (net[1], "weight")], p.L1Unstructured, amount=0.5)
        p.custom_from_mask(net[0], "bias", (gg if p is prune else torch).tensor([1.0, 0.0, 1.0]))
    for a, b in zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True):
        parity.same(a, b)
    layer = prune.random_unstructured(nn.Linear(10, 10).to(device), "weight", 30)
    assert int((layer.weight == 0).sum().item()) == 30
    layer = prune.random_structured(nn.Linear(10, 10).to(device), "weight", 0.2, dim=1)
    assert int((layer.weight.detach().abs().sum(0) == 0).sum().item()) == 2
    with pytest.raises(ValueError, match="not pruned"):
        prune.remove(layer, "bias")
    with pytest.raises(ValueError, match="amount"):
        prune.l1_unstructured(nn.Linear(2, 2), "weight", 1.5)
    with pytest.raises(TypeError, match="amount"):
        prune.l1_unstructured(nn.Linear(2, 2), "weight", "all")
    with pytest.raises(ValueError, match="2 dimensions"):
        prune.ln_structured(nn.Linear(2, 2), "bias", 1, 2, 0)
